/** The file of a dirty map, byte by byte, and what is made of one that is damaged. */
import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { DirtyMap } from '../../src/tracker/dirty-map.ts';
import { Dice } from '../support/dice.ts';
import { type MemoryFileSystem, memoryFileSystem } from '../support/memory-files.ts';
import {
  CHUNK,
  CHUNKS,
  chunksOf,
  DISK_BYTES,
  GUID,
  optionsFor,
  PAGE_CHUNKS,
  PATH,
  RECORD_CHUNKS,
  sweep,
  write,
} from './dirty-map-lab.ts';

const FILE_BYTES = 4096 * 4;

/** Chunk 3 active and current, chunk 1347 current, chunk 10754 closed. */
async function build(): Promise<{ readonly files: MemoryFileSystem; readonly bytes: Buffer }> {
  const files = memoryFileSystem();
  files.put('/state/item.json', new Uint8Array(0));
  const map = await DirtyMap.create(PATH, optionsFor(files));
  await write(map, PAGE_CHUNKS + 2);
  map.rotate();
  await write(map, RECORD_CHUNKS + 3);
  await sweep(map, 2);
  await write(map, 3);
  await map.abandon();
  return { files, bytes: Buffer.from(files.get(PATH)!) };
}

async function opened(bytes: Uint8Array): Promise<DirtyMap> {
  const files = memoryFileSystem();
  files.put(PATH, bytes);
  return await DirtyMap.open(PATH, optionsFor(files));
}

describe('the file', () => {
  it('is what its byte map says', async () => {
    const { bytes } = await build();
    const expected = Buffer.alloc(FILE_BYTES);
    expected.write('bfrydmap', 0, 'latin1');
    expected.writeUInt32LE(1, 8);
    expected.writeUInt32LE(CHUNK, 12);
    expected.writeBigUInt64LE(BigInt(DISK_BYTES), 16);
    expected.set(GUID, 24);
    expected.writeUInt32LE(crc32(expected.subarray(0, 508)), 508);
    const seed = crc32(expected.subarray(8, 40));
    const record = (number: number, sets: readonly (readonly [set: number, bit: number])[]): void => {
      const at = 4096 + number * 512;
      for (const [set, bit] of sets) expected[at + set * 168 + (bit >> 3)]! |= 1 << (bit & 7);
      expected.writeUInt32LE(crc32(expected.subarray(at, at + 508), seed + number), at + 508);
    };
    record(0, [
      [0, 3],
      [1, 3],
    ]);
    record(1, [[1, 3]]);
    record(8, [[2, 2]]);
    expect(bytes.equals(expected)).toBe(true);
  });

  it('says in its flags that every chunk is changed', async () => {
    const { files } = await build();
    const map = await DirtyMap.open(PATH, optionsFor(files));
    await map.markAll();
    await map.abandon();
    expect(Buffer.from(files.get(PATH)!).readUInt32LE(40)).toBe(1);
  });

  it('of an empty disk is a header', async () => {
    const files = memoryFileSystem();
    files.put('/state/item.json', new Uint8Array(0));
    const map = await DirtyMap.create(PATH, optionsFor(files, { sizeBytes: 0 }));
    expect([...map.runs('changed')]).toEqual([]);
    await map.markAll();
    expect(map.count('changed')).toBe(0);
    await map.close();
    expect(files.get(PATH)!.byteLength).toBeLessThanOrEqual(4096);
    await (await DirtyMap.open(PATH, optionsFor(files, { sizeBytes: 0 }))).close();
  });
});

describe('a map that is refused', () => {
  it('is missing, cut or too long', async () => {
    const { bytes } = await build();
    const lengths = [0, 1, 511, 512, 4095, 4096, 8192, FILE_BYTES - 1];
    const cases = [...lengths.map((length) => bytes.subarray(0, length)), Buffer.concat([bytes, Buffer.alloc(1)])];
    for (const damaged of cases) {
      await expect(opened(damaged)).rejects.toMatchObject({ code: 'LOCAL_STATE', facts: { source: PATH } });
    }
    const open = DirtyMap.open(PATH, optionsFor(memoryFileSystem()));
    await expect(open).rejects.toMatchObject({ code: 'LOCAL_STATE', cause: { code: 'ENOENT' } });
  });

  it('has any bit of its header flipped', async () => {
    const { bytes } = await build();
    for (let bit = 0; bit < 512 * 8; bit += 1) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      await expect(opened(bytes)).rejects.toMatchObject({ code: 'LOCAL_STATE' });
      bytes[bit >> 3]! ^= 1 << (bit & 7);
    }
  });

  it.each([
    ['another version', 8, 2],
    ['flags that it does not know', 40, 2],
    ['something in its reserved bytes', 300, 1],
  ])('has %s', async (_, offset, value) => {
    const { bytes } = await build();
    bytes.writeUInt32LE(value, offset);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 508)), 508);
    await expect(opened(bytes)).rejects.toMatchObject({ code: 'LOCAL_STATE', facts: { source: PATH } });
  });

  it.each([
    ['of another disk', { diskGuid: new Uint8Array(16) }],
    ['of a disk of another size', { sizeBytes: DISK_BYTES + 512 }],
    ['of other chunks', { chunkBytes: CHUNK * 2, sizeBytes: DISK_BYTES }],
  ])('is %s', async (_, change) => {
    const { files, bytes } = await build();
    const refused = DirtyMap.open(PATH, optionsFor(files, change));
    await expect(refused).rejects.toMatchObject({ code: 'LOCAL_STATE', facts: { offset: 8 } });
    expect(Buffer.from(files.get(PATH)!).equals(bytes)).toBe(true);
  });
});

describe('a record that is damaged', () => {
  it('counts as written, with all its chunks and no others', async () => {
    const { bytes } = await build();
    for (let at = 0; at < 512; at += 1) {
      const damaged = Buffer.from(bytes);
      damaged[4096 + 512 + at]! ^= 0x10;
      const map = await opened(damaged);
      const expected = [3, ...Array.from({ length: RECORD_CHUNKS }, (_, i) => RECORD_CHUNKS + i)];
      expect(chunksOf(map, 'active')).toEqual(expected);
      expect(chunksOf(map, 'closed')).toEqual([...expected, PAGE_CHUNKS + 2]);
    }
  });

  it('is found where it stands in another place, or is another map’s', async () => {
    const { bytes } = await build();
    const moved = Buffer.from(bytes);
    bytes.copy(moved, 4096 + 512 * 5, 4096, 4096 + 512);
    const chunks = chunksOf(await opened(moved), 'active');
    expect(chunks).toEqual([3, ...Array.from({ length: RECORD_CHUNKS }, (_, i) => RECORD_CHUNKS * 5 + i)]);
    const files = memoryFileSystem();
    files.put(PATH, new Uint8Array(0));
    const other = optionsFor(files, { diskGuid: new Uint8Array(16) });
    await (await DirtyMap.create(PATH, other)).abandon();
    const foreign = Buffer.from(bytes);
    Buffer.from(files.get(PATH)!).copy(foreign, 0, 0, 4096);
    files.put(PATH, foreign);
    expect((await DirtyMap.open(PATH, other)).count('active')).toBe(RECORD_CHUNKS * 3);
  });

  it('at the end of the disk has no chunks behind it', async () => {
    const { bytes } = await build();
    bytes.fill(0xff, 4096 * 3);
    const map = await opened(bytes);
    expect([...map.runs('changed', PAGE_CHUNKS * 2)]).toEqual([{ from: PAGE_CHUNKS * 2, to: CHUNKS }]);
  });
});

it('a map of random bytes is refused, or opens with what it may mean', async () => {
  const dice = new Dice(11);
  const { bytes } = await build();
  for (let i = 0; i < 300; i += 1) {
    const damaged = Buffer.from(bytes);
    const from = dice.below(FILE_BYTES);
    dice.bytes(dice.between(1, 600)).copy(damaged, from);
    try {
      const map = await opened(damaged);
      expect(from).toBeGreaterThanOrEqual(512);
      for (const { from: first, to } of map.runs('changed')) expect(first < to && to <= CHUNKS).toBe(true);
    } catch (error) {
      if (!isBlockferryError(error, 'LOCAL_STATE')) throw error;
      expect(from).toBeLessThan(512);
    }
  }
});
