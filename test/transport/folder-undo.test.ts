/** The undo file: its bytes spelled out, its torn tails, its damage; and the index over it. */

import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newRecord, newUndoHeader, type OldContent, oldBytesOf, UndoFile } from '../../src/transport/folder-undo.ts';
import { GranuleIndex } from '../../src/transport/granule-index.ts';
import { type MemoryFileSystem, memoryFileSystem } from '../support/memory-files.ts';

const KIB = 1024;
const GRANULE = 64 * KIB;
const BLOB = 100 * GRANULE;
const PATH = '/undo';

function old(firstGranule: number, ...values: readonly number[]): OldContent {
  const record = newRecord(values.length);
  for (const [i, value] of values.entries()) oldBytesOf(record).fill(value, i * GRANULE, (i + 1) * GRANULE);
  return { firstGranule, granules: values.length, record };
}

async function opened(files: MemoryFileSystem): Promise<UndoFile> {
  return await UndoFile.open(await files.open(PATH, 'modify'), 7, BLOB);
}

async function firstByte(undo: UndoFile, granule: number): Promise<number | undefined> {
  const into = Buffer.alloc(1);
  return (await undo.read(granule, 0, into)) ? into[0] : undefined;
}

async function twoBatches(): Promise<{ files: MemoryFileSystem; bytes: Buffer }> {
  const files = memoryFileSystem();
  files.put(PATH, newUndoHeader(7, BLOB));
  const undo = await opened(files);
  await undo.append(old(3, 0x11, 0x22));
  await Promise.all([undo.append({ firstGranule: 50, granules: 4, record: undefined }), undo.append(old(9, 0x33))]);
  return { files, bytes: Buffer.from(files.get(PATH) as Uint8Array) };
}

describe('an undo file', () => {
  it('has the bytes that its format says', async () => {
    const { bytes } = await twoBatches();
    expect(bytes.toString('latin1', 0, 8)).toBe('BFUNDO1\0');
    expect([bytes.readUInt32LE(8), bytes.readUInt32LE(12), bytes.readBigUInt64LE(16)]).toEqual([
      GRANULE,
      7,
      BigInt(BLOB),
    ]);
    expect(bytes.readUInt32LE(4092)).toBe(crc32(bytes.subarray(0, 4092)));
    const record = bytes.subarray(4096, 8192);
    expect(record.toString('latin1', 0, 4)).toBe('BFUR');
    // snapshot, batch, first granule, granules, has bytes
    expect([4, 8, 12, 16, 20].map((at) => record.readUInt32LE(at))).toEqual([7, 1, 3, 2, 1]);
    expect(record.readUInt32LE(24)).toBe(crc32(Buffer.alloc(GRANULE, 0x11)));
    expect(record.readUInt32LE(28)).toBe(crc32(Buffer.alloc(GRANULE, 0x22)));
    expect(record.readUInt32LE(4092)).toBe(crc32(record.subarray(0, 4092)));
    expect(bytes.subarray(8192, 8192 + GRANULE).every((byte) => byte === 0x11)).toBe(true);
    const zeros = bytes.subarray(8192 + 2 * GRANULE, 8192 + 2 * GRANULE + 4096);
    expect([4, 8, 12, 16, 20].map((at) => zeros.readUInt32LE(at))).toEqual([7, 2, 50, 4, 0]);
    expect(bytes.byteLength).toBe(4096 + (4096 + 2 * GRANULE) + 4096 + (4096 + GRANULE));
  });

  it('is read again as it was written; the first record of a granule counts', async () => {
    const { files } = await twoBatches();
    await (await opened(files)).append(old(3, 0x99));
    const undo = await opened(files);
    expect(await Promise.all([3, 4, 9, 50, 53, 54, 0].map((granule) => firstByte(undo, granule)))).toEqual([
      0x11,
      0x22,
      0x33,
      0,
      0,
      undefined,
      undefined,
    ]);
  });

  it('ignores a torn last batch, wherever it ends, and writes over it', async () => {
    const { bytes } = await twoBatches();
    const lastStart = 8192 + 2 * GRANULE + 4096;
    for (const end of [lastStart + 1, lastStart + 4095, lastStart + 4096, lastStart + 4097, bytes.byteLength - 1]) {
      const files = memoryFileSystem();
      files.put(PATH, bytes.subarray(0, end));
      const undo = await opened(files);
      expect(undo.holds(50)).toBe(true);
      expect(undo.holds(9)).toBe(false);
      await undo.settle();
      expect(files.get(PATH)?.byteLength).toBe(lastStart);
      await undo.append(old(9, 0x44));
      expect(await firstByte(await opened(files), 9)).toBe(0x44);
    }
  });

  it('with a wrong bit in its last batch ends before it', async () => {
    const { bytes } = await twoBatches();
    const lastStart = 8192 + 2 * GRANULE + 4096;
    for (const at of [0, 4, 8, 12, 16, 20, 24, 4095, 4096, 4096 + GRANULE - 1]) {
      const files = memoryFileSystem();
      const damaged = Buffer.from(bytes);
      damaged[lastStart + at] = (damaged[lastStart + at] as number) ^ 1;
      files.put(PATH, damaged);
      expect([...(await opened(files)).granules].sort((a, b) => a - b)).toEqual([3, 4, 50, 51, 52, 53]);
    }
  });

  it('with a wrong bit before its last batch is refused, not cut off', async () => {
    const { bytes } = await twoBatches();
    for (const at of [0, 4, 8, 12, 16, 20, 24, 4095]) {
      const files = memoryFileSystem();
      const damaged = Buffer.from(bytes);
      damaged[4096 + at] = (damaged[4096 + at] as number) ^ 1;
      files.put(PATH, damaged);
      await expect(opened(files)).rejects.toMatchObject({ code: 'STORE_REFUSED', facts: { offset: 4096 } });
    }
  });

  it('is read while another handle appends to it, however fast', async () => {
    for (const batches of [1, 2, 5]) {
      const { files, bytes } = await twoBatches();
      const writer = await opened(files);
      const file = await files.open(PATH, 'read');
      let appended = false;
      // The first look at the end finds a hole, before a record that was written sooner; by the second the writer has gone on.
      const slow = Object.assign(Object.create(file) as typeof file, {
        read: async (into: Uint8Array, position: number): Promise<number> => {
          if (position !== bytes.byteLength || appended) return await file.read(into, position);
          appended = true;
          for (let i = 0; i < batches; i += 1) await writer.append(old(60 + i, 0x50 + i));
          into.fill(0);
          return into.byteLength;
        },
      });
      const reader = await UndoFile.open(slow, 7, BLOB);
      expect(appended).toBe(true);
      await reader.refresh();
      expect(await firstByte(reader, 59 + batches)).toBe(0x4f + batches);
    }
  });

  it('with a record that reaches outside the blob is refused', async () => {
    const { bytes } = await twoBatches();
    const record = bytes.subarray(4096, 8192);
    record.writeUInt32LE(99, 12);
    record.writeUInt32LE(crc32(record.subarray(0, 4092)), 4092);
    const files = memoryFileSystem();
    files.put(PATH, bytes);
    await expect(opened(files)).rejects.toMatchObject({ code: 'STORE_REFUSED' });
  });

  it('of another snapshot or another blob is refused', async () => {
    for (const header of [newUndoHeader(8, BLOB), newUndoHeader(7, BLOB + 512), Buffer.alloc(4096), Buffer.alloc(10)]) {
      const files = memoryFileSystem();
      files.put(PATH, header);
      await expect(opened(files)).rejects.toMatchObject({ code: 'STORE_REFUSED' });
    }
  });
});

describe('a granule index', () => {
  it('does what a Map does that keeps the first value', () => {
    const entry = fc.tuple(fc.oneof(fc.nat(300), fc.nat(2 ** 27)), fc.nat(2 ** 32 - 1));
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 2000 }), (entries) => {
        const index = new GranuleIndex();
        const model = new Map<number, number>();
        for (const [granule, value] of entries) {
          index.add(granule, value);
          if (!model.has(granule)) model.set(granule, value);
        }
        expect(index.size).toBe(model.size);
        for (const [granule, value] of model) expect(index.get(granule)).toBe(value);
        expect(index.get(2 ** 27 + 1)).toBeUndefined();
        expect([...index.granules()].sort((a, b) => a - b)).toEqual([...model.keys()].sort((a, b) => a - b));
      }),
      { numRuns: 50 },
    );
  });

  it('holds a million entries in 16 MiB and stays quick', () => {
    const index = new GranuleIndex();
    for (let i = 0; i < 1_000_000; i += 1) index.add(i * 97, i);
    let found = 0;
    for (let i = 0; i < 1_000_000; i += 1) if (index.get(i * 97) === i) found += 1;
    expect(found).toBe(1_000_000);
  });
});
