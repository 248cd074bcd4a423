/** Writes that need nothing but bytes in a file's cache: on real files, each format beside a model. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { checkDisk, createDisk, openDisk, openDiskForWriting, type WritableDisk } from '../../src/vhd/index.ts';
import { seededRandom } from '../support/virtual-clock.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE_BYTES = 24 * MIB;
const SECTOR = 512;

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'bf-write-now-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

const FORMATS = [
  ['raw', 'fixed', undefined],
  ['vhd', 'fixed', undefined],
  ['vhd', 'dynamic', 2 * MIB],
  ['vhdx', 'dynamic', MIB],
  ['vhdx', 'fixed', 8 * MIB],
] as const;

async function made(name: string, [format, subformat, blockSizeBytes]: (typeof FORMATS)[number]): Promise<string> {
  const path = join(scratch, name);
  const options = { format, subformat, virtualSizeBytes: SIZE_BYTES, ports: nodePorts() } as const;
  await (await createDisk(path, { ...options, ...(blockSizeBytes ? { blockSizeBytes } : {}) })).finish();
  return path;
}

async function contentOf(path: string): Promise<Buffer> {
  const disk = await openDisk(path, { ports: nodePorts() });
  const content = Buffer.alloc(SIZE_BYTES);
  await disk.read(content, 0);
  await disk.close();
  return content;
}

/** As a tracker writes. Returns whether it was done at once. */
async function write(disk: WritableDisk, bytes: Buffer, offset: number): Promise<boolean> {
  if (disk.writeNow(bytes, offset)) return true;
  await disk.write(bytes, offset);
  return false;
}

describe('a write that is done at once', () => {
  test.for(FORMATS)('among others ends up as the model has it: %s %s', async (format) => {
    const path = await made(`random.${format.join('-')}`, format);
    const random = seededRandom(format.join().length);
    const pick = (count: number): number => Math.floor(random.fraction() * count);
    const model = Buffer.alloc(SIZE_BYTES);
    let atOnce = 0;
    for (let session = 0; session < 3; session += 1) {
      const disk = await openDiskForWriting(path, { ports: nodePorts() });
      for (let step = 0; step < 400; step += 1) {
        const offset = pick(SIZE_BYTES / SECTOR) * SECTOR;
        const lengthBytes = Math.min((1 + pick(step % 7 === 0 ? 4096 : 64)) * SECTOR, SIZE_BYTES - offset);
        if (pick(12) === 0) {
          await disk.zero(offset, lengthBytes, { unmap: pick(2) === 0 });
          model.fill(0, offset, offset + lengthBytes);
        } else {
          const bytes = Buffer.alloc(lengthBytes, random.bytes(61));
          if (await write(disk, bytes, offset)) atOnce += 1;
          model.set(bytes, offset);
        }
        if (pick(40) === 0) await disk.flush();
      }
      await disk.close();
      expect((await contentOf(path)).equals(model)).toBe(true);
    }
    expect(atOnce).toBeGreaterThan(300);
    expect((await checkDisk(path, { ports: nodePorts() })).faults).toEqual([]);
  });

  test.for(['vhd', 'vhdx'] as const)('never goes where a block was that gave up its space: %s', async (format) => {
    const blockBytes = 2 * MIB;
    const path = await made(`reused.${format}`, [format, 'dynamic', blockBytes] as never);
    const disk = await openDiskForWriting(path, { ports: nodePorts() });
    const ones = Buffer.alloc(blockBytes, 1);
    await disk.write(ones, 0);
    await disk.write(ones, 0);
    expect(disk.writeNow(ones.subarray(0, 4096), 0)).toBe(true);
    await disk.zero(0, blockBytes, { unmap: true });
    await disk.flush();
    // The place of the first block is now that of the third.
    await disk.write(Buffer.alloc(blockBytes, 3), 2 * blockBytes);
    expect(await write(disk, Buffer.alloc(4096, 9), 8192)).toBe(false);
    await disk.close();
    const expected = Buffer.alloc(SIZE_BYTES);
    expected.fill(9, 8192, 12_288).fill(3, 2 * blockBytes, 3 * blockBytes);
    expect((await contentOf(path)).equals(expected)).toBe(true);
  });

  test.for(['raw', 'vhd'] as const)('needs no other before it where a disk has no tables: %s fixed', async (format) => {
    const path = await made(`flat.${format}`, [format, 'fixed', undefined] as never);
    const disk = await openDiskForWriting(path, { ports: nodePorts() });
    const bytes = Buffer.alloc(MIB, 7);
    expect(disk.writeNow(bytes, 4096)).toBe(true);
    const clearing = disk.zero(0, 4096);
    expect(disk.writeNow(bytes, 4096)).toBe(false);
    await clearing;
    expect(disk.writeNow(bytes.subarray(512), SIZE_BYTES - MIB + 512)).toBe(true);
    await disk.close();
    const expected = Buffer.alloc(SIZE_BYTES);
    expected.fill(7, 4096, 4096 + MIB).fill(7, SIZE_BYTES - MIB + 512);
    expect((await contentOf(path)).equals(expected)).toBe(true);
  });

  test('waits for one that changes tables, and is refused behind a failure', async () => {
    const path = await made('order.vhdx', ['vhdx', 'dynamic', MIB]);
    const disk = await openDiskForWriting(path, { ports: nodePorts() });
    const bytes = Buffer.alloc(MIB, 1);
    expect(disk.writeNow(bytes, 0)).toBe(false);
    await disk.write(bytes, 0);
    await disk.write(bytes, 0);
    expect(disk.writeNow(bytes, 0)).toBe(true);
    const changing = disk.zero(8 * MIB, MIB);
    expect(disk.writeNow(bytes, 0)).toBe(false);
    await changing;
    expect(disk.writeNow(bytes, 0)).toBe(true);
    expect(() => disk.writeNow(bytes, SIZE_BYTES)).toThrow(RangeError);
    expect(() => disk.writeNow(bytes.subarray(1), 0)).toThrow(RangeError);
    await disk.close();
    expect(() => disk.writeNow(bytes, 0)).toThrow(/closed/);
  });
});
