/** Patches of a raw base against a model of it: what is written over what stood there gives the new bytes, no block more. */
import { beforeAll, describe, expect, it } from 'vitest';
import { ChunkKernel, createFingerprinter, ENTRY_BYTES } from '../../src/chunker/index.ts';
import { BaseLayout } from '../../src/replica/base.ts';
import type { DiskDescription } from '../../src/replica/description.ts';
import type { LiveBase } from '../../src/replica/live-base.ts';
import { type ChangedChunk, findPatches, PATCH_BYTES, type RawPatches } from '../../src/replica/raw-patches.ts';
import { noise } from '../chunker/support.ts';
import { Dice } from '../support/dice.ts';

const CHUNK = 65_536;
const CHUNKS = 6;
/** The last chunk has two blocks and one sector. */
const SIZE = (CHUNKS - 1) * CHUNK + 2 * PATCH_BYTES + 512;
const NO_ENTRY = new Uint8Array(ENTRY_BYTES);

const layout = new BaseLayout({ layout: 'raw', chunkBytes: CHUNK, virtualSizeBytes: SIZE } as DiskDescription);
let kernel: ChunkKernel;
beforeAll(async () => {
  kernel = new ChunkKernel({ fingerprinter: await createFingerprinter('xxh128', noise(32, 9)) });
});

const lengthOf = (chunk: number): number => Math.min(CHUNK, SIZE - chunk * CHUNK);

/** The entry of a chunk with these bytes. */
function entryOf(bytes: Buffer, chunk: number): Uint8Array {
  const entry = new Uint8Array(ENTRY_BYTES);
  kernel.scan(bytes, chunk, 1, NO_ENTRY, true, entry, Buffer.alloc(0), 0);
  return entry;
}

/** A raw base in memory, with the ranges that were read of it. */
class ModelBase {
  readonly bytes: Buffer;
  readonly reads: (readonly [number, number])[] = [];

  constructor(bytes: Buffer) {
    this.bytes = Buffer.from(bytes);
  }

  async read(from: number, to: number): Promise<Uint8Array> {
    this.reads.push([from, to]);
    return Buffer.from(this.bytes.subarray(from * CHUNK, Math.min(to * CHUNK, SIZE)));
  }

  apply({ clear, pieces }: RawPatches, buffer: ArrayBuffer): number {
    for (const { from, to } of clear) {
      for (const { offset, lengthBytes } of layout.spans(from, to)) this.bytes.fill(0, offset, offset + lengthBytes);
    }
    const runs = layout.runs(pieces, buffer);
    for (const { offset, bytes } of runs) this.bytes.set(bytes, offset);
    return runs.reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  }
}

/** What has to be sent so that the base, which held `before`, holds `after`; `entries` as they were before. */
async function patch(
  base: ModelBase,
  after: Buffer,
  chunks: readonly number[],
  entries: ReadonlyMap<number, Uint8Array>,
  forced: ReadonlySet<number> = new Set(),
): Promise<RawPatches & { readonly sentBytes: number }> {
  const buffer = new ArrayBuffer(SIZE);
  let offset = 0;
  const changes = chunks.map((chunk): ChangedChunk => {
    const lengthBytes = lengthOf(chunk);
    new Uint8Array(buffer).set(after.subarray(chunk * CHUNK, chunk * CHUNK + lengthBytes), offset);
    const change = { chunk, offset, lengthBytes, oldEntry: entries.get(chunk) ?? NO_ENTRY };
    offset += lengthBytes;
    return { ...change, isForced: forced.has(chunk) };
  });
  const patches = await findPatches(changes, buffer, base as unknown as LiveBase, kernel);
  return { ...patches, sentBytes: base.apply(patches, buffer) };
}

function entriesOf(content: Buffer, chunks: readonly number[]): Map<number, Uint8Array> {
  return new Map(chunks.map((chunk) => [chunk, entryOf(content.subarray(chunk * CHUNK).subarray(0, CHUNK), chunk)]));
}

const ALL = Array.from({ length: CHUNKS }, (_, chunk) => chunk);

/** Numbers of the blocks in which two contents differ. */
function differing(a: Buffer, b: Buffer): number[] {
  const blocks = Array.from({ length: Math.ceil(SIZE / PATCH_BYTES) }, (_, i) => i);
  const block = (bytes: Buffer, i: number): Buffer => bytes.subarray(i * PATCH_BYTES, (i + 1) * PATCH_BYTES);
  return blocks.filter((i) => !block(a, i).equals(block(b, i)));
}

describe('patches of a raw base', () => {
  it('are one block for one changed byte', async () => {
    const before = noise(SIZE, 1);
    const base = new ModelBase(before);
    const after = Buffer.from(before);
    after[2 * CHUNK + 5 * PATCH_BYTES + 7]! ^= 1;
    const { pieces, clear, sentBytes, fetchedBytes, damaged } = await patch(base, after, [2], entriesOf(before, ALL));
    expect(pieces).toHaveLength(1);
    expect({ clear, sentBytes, fetchedBytes, damaged }).toEqual({
      clear: [],
      sentBytes: PATCH_BYTES,
      fetchedBytes: CHUNK,
      damaged: 0,
    });
    expect(base.bytes.equals(after)).toBe(true);
  });

  it('join over the border of two chunks, which are fetched together', async () => {
    const before = noise(SIZE, 1);
    const base = new ModelBase(before);
    const after = Buffer.from(before);
    after.fill(0x55, 2 * CHUNK - PATCH_BYTES, 2 * CHUNK + 2 * PATCH_BYTES);
    const { pieces } = await patch(base, after, [1, 2], entriesOf(before, ALL));
    expect(layout.runs(pieces, new ArrayBuffer(SIZE))).toMatchObject([{ offset: 2 * CHUNK - PATCH_BYTES }]);
    expect(base.reads).toEqual([[1, 3]]);
    expect(base.bytes.equals(after)).toBe(true);
  });

  it('make the base right, with no block more than differs, whatever changed (200 random cases)', async () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      const dice = new Dice(seed);
      const before = noise(SIZE, seed);
      for (const chunk of ALL) if (dice.below(4) === 0) before.fill(0, chunk * CHUNK, chunk * CHUNK + lengthOf(chunk));
      const after = Buffer.from(before);
      for (let n = dice.between(1, 12); n > 0; n -= 1) {
        const at = dice.below(SIZE / 512) * 512;
        const bytes = noise(512 * dice.between(1, 40), seed * 100 + n);
        after.set((dice.below(5) === 0 ? Buffer.alloc(512) : bytes).subarray(0, SIZE - at), at);
      }
      const isZero = (content: Buffer, chunk: number): boolean =>
        content.subarray(chunk * CHUNK, (chunk + 1) * CHUNK).every((byte) => byte === 0);
      const same = (chunk: number): boolean =>
        before.subarray(chunk * CHUNK, (chunk + 1) * CHUNK).equals(after.subarray(chunk * CHUNK, (chunk + 1) * CHUNK));
      // What becomes zeros is cleared elsewhere.
      const changed = ALL.filter((chunk) => !same(chunk) && !isZero(after, chunk));
      const entries = entriesOf(
        before,
        ALL.filter((chunk) => !isZero(before, chunk)),
      );
      const base = new ModelBase(before);
      const { sentBytes, damaged } = await patch(base, after, changed, entries);
      for (const chunk of changed) {
        const end = chunk * CHUNK + lengthOf(chunk);
        expect(base.bytes.subarray(chunk * CHUNK, end).equals(after.subarray(chunk * CHUNK, end)), `seed ${seed}`).toBe(
          true,
        );
      }
      const blocks = differing(before, after).filter((i) => changed.includes(Math.floor((i * PATCH_BYTES) / CHUNK)));
      const bytes = blocks.reduce((sum, i) => sum + Math.min(PATCH_BYTES, SIZE - i * PATCH_BYTES), 0);
      expect({ sentBytes, damaged }, `seed ${seed}`).toEqual({ sentBytes: bytes, damaged: 0 });
    }
  });

  it('are the whole chunk where the base does not hold what its entry says', async () => {
    const before = noise(SIZE, 1);
    const base = new ModelBase(before);
    base.bytes[3 * CHUNK + 9000]! ^= 0x10;
    const after = Buffer.from(before);
    after[3 * CHUNK]! ^= 1;
    after[4 * CHUNK]! ^= 1;
    const { sentBytes, damaged } = await patch(base, after, [3, 4], entriesOf(before, ALL));
    expect({ sentBytes, damaged }).toEqual({ sentBytes: CHUNK + PATCH_BYTES, damaged: 1 });
    expect(base.bytes.equals(after)).toBe(true);
  });

  it('are the whole chunk, and nothing is fetched, where it is in doubt', async () => {
    const before = noise(SIZE, 1);
    const base = new ModelBase(before);
    const after = Buffer.from(before);
    after[CHUNK]! ^= 1;
    const { sentBytes, fetchedBytes, damaged } = await patch(base, after, [1], entriesOf(before, ALL), new Set([1]));
    expect({ sentBytes, fetchedBytes, damaged }).toEqual({ sentBytes: CHUNK, fetchedBytes: 0, damaged: 0 });
    expect(base.reads).toEqual([]);
  });

  it('of a chunk that had no entry are what is not zeros, over a cleared place, and nothing is fetched', async () => {
    const after = Buffer.alloc(SIZE);
    after.fill(1, 2 * CHUNK + PATCH_BYTES, 2 * CHUNK + 2 * PATCH_BYTES);
    after.fill(2, 3 * CHUNK, 4 * CHUNK);
    // Stale bytes where there should be zeros.
    const base = new ModelBase(Buffer.alloc(SIZE).fill(0xee, 2 * CHUNK, 3 * CHUNK));
    const { clear, sentBytes, fetchedBytes } = await patch(base, after, [2, 3], new Map());
    expect(clear).toEqual([{ from: 2, to: 3 }]);
    expect({ sentBytes, fetchedBytes }).toEqual({ sentBytes: PATCH_BYTES + CHUNK, fetchedBytes: 0 });
    expect(base.bytes.equals(after)).toBe(true);
  });
});
