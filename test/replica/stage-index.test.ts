/** The index of a stage: newest wins, memory does not grow with the disk, and a power cut leaves old or new records only. */
import { describe, expect, it } from 'vitest';
import { TIB } from '../../src/bytes.ts';
import { StageIndex } from '../../src/replica/stage/stage-index.ts';
import { RECORD_BYTES, RecordCodec, type StagedChunk } from '../../src/replica/stage/stage-record.ts';
import { noise } from '../chunker/support.ts';
import { crashFileSystem } from '../support/crash-files.ts';
import { Dice } from '../support/dice.ts';
import { memoryFileSystem } from '../support/memory-files.ts';

const IDENTITY = { replicaId: noise(16, 1), diskId: noise(16, 2) };
const codec = new RecordCodec(IDENTITY);
const ZEROS: StagedChunk = { kind: 'zeros' };
const at = (offset: number): StagedChunk => ({
  kind: 'bytes',
  offset,
  fingerprint: Uint8Array.from(noise(16, offset + 1)),
});

describe('a record', () => {
  it('has these bytes', () => {
    const record = Buffer.alloc(RECORD_BYTES);
    new RecordCodec({ replicaId: Buffer.alloc(16, 1), diskId: Buffer.alloc(16, 2) }).write(record, 5, {
      kind: 'bytes',
      offset: 0x1_2345_6789,
      fingerprint: Buffer.from('00112233445566778899aabbccddeeff', 'hex'),
    });
    expect(record.toString('hex', 0, 28)).toBe('896745230100000000112233445566778899aabbccddeeff01000000');
    expect(record.readUInt32LE(28)).not.toBe(0);
  });

  it('says nothing where any bit was changed, in another place, or of another disk', () => {
    const record = new Uint8Array(RECORD_BYTES);
    for (const staged of [at(4096), ZEROS]) {
      codec.write(record, 7, staged);
      expect(codec.read(record, 7)).toEqual(staged);
      expect(codec.read(record, 8)).toBeUndefined();
      const other = new RecordCodec({ ...IDENTITY, diskId: noise(16, 3) });
      expect(other.read(record, 7)).toBeUndefined();
      for (let bit = 0; bit < RECORD_BYTES * 8; bit += 1) {
        const damaged = Buffer.from(record);
        damaged[bit >> 3]! ^= 1 << (bit & 7);
        expect(codec.read(damaged, 7)).toBeUndefined();
      }
    }
  });
});

describe('the index of a disk of 64 TiB', () => {
  it('holds the pages that were changed, and few others', async () => {
    const chunks = (64 * TIB) / 65_536;
    const files = memoryFileSystem();
    files.put('/i', new Uint8Array(0));
    const file = await files.open('/i', 'modify');
    await file.truncate(chunks * RECORD_BYTES);
    const index = new StageIndex(file, codec, chunks);
    const places = Array.from({ length: 300 }, (_, i) => Math.floor((i * chunks) / 300) + i);
    for (const [i, chunk] of places.entries()) {
      await index.set(chunk, at(i));
      if (index.changedPages === 20) await index.freeze()();
    }
    expect(index.changedPages).toBeLessThan(20);
    await index.freeze()();
    expect(index.changedPages).toBe(0);
    const opened = new StageIndex(await files.open('/i', 'modify'), codec, chunks);
    for (const [i, chunk] of places.entries()) expect(await opened.get(chunk)).toEqual(at(i));
    expect(await opened.get(places[1]! + 1)).toBeUndefined();
  });
});

describe('an index that is saved', () => {
  it('has what was set when it was frozen, not what came after', async () => {
    const files = memoryFileSystem();
    files.put('/i', new Uint8Array(10 * RECORD_BYTES));
    const index = new StageIndex(await files.open('/i', 'modify'), codec, 10);
    await index.set(3, at(1));
    const save = index.freeze();
    await index.set(4, at(2));
    await index.set(3, at(3));
    await save();
    const saved = new StageIndex(await files.open('/i', 'modify'), codec, 10);
    expect([await saved.get(3), await saved.get(4)]).toEqual([at(1), undefined]);
    expect(index.changedPages).toBe(1);
    await index.freeze()();
    const opened = new StageIndex(await files.open('/i', 'modify'), codec, 10);
    const all: unknown[] = [];
    for await (const each of opened.staged()) all.push(each);
    expect(all).toEqual([
      [3, at(3)],
      [4, at(2)],
    ]);
  });

  it('leaves each record old or new in a power cut (60 cuts)', async () => {
    for (let seed = 1; seed <= 60; seed += 1) {
      const dice = new Dice(seed);
      const random = { bytes: (n: number) => dice.bytes(n), fraction: () => dice.below(1 << 30) / (1 << 30) };
      const chunks = 3000;
      const files = crashFileSystem(new Map([['/i', new Uint8Array(chunks * RECORD_BYTES)]]));
      const index = new StageIndex(await files.open('/i', 'modify'), codec, chunks);
      const [before, after] = [new Map<number, StagedChunk>(), new Map<number, StagedChunk>()];
      const setSome = async (into: Map<number, StagedChunk>): Promise<void> => {
        for (let i = 0; i < 40; i += 1) {
          const chunk = dice.below(chunks);
          into.set(chunk, dice.oneIn(4) ? ZEROS : at(dice.below(1 << 30)));
          await index.set(chunk, into.get(chunk)!);
        }
      };
      await setSome(before);
      await index.freeze()();
      await setSome(after);
      const save = index.freeze();
      files.stopAt = files.operations + dice.below(3);
      await save().catch(() => {});
      const cut = files.powerCut(random);
      const opened = new StageIndex(await cut.open('/i', 'modify'), codec, chunks);
      for (let chunk = 0; chunk < chunks; chunk += 1) {
        const found = await opened.get(chunk);
        const possible = [before.get(chunk), ...(after.has(chunk) ? [after.get(chunk)] : [])];
        expect(possible, `seed ${seed} chunk ${chunk}`).toContainEqual(found);
      }
    }
  });
});
