import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KIB, MIB, TIB } from '../../src/bytes.ts';
import { nonZeroSpans, readDisk, zeroBlocks } from '../../src/tools/read-disk.ts';
import { fakeDisk, type PieceSpec, patterned } from './fake-disk.ts';

describe('readDisk', () => {
  test('any mixture of extents arrives whole, in order and without gaps', async () => {
    const piece = fc.record({
      kind: fc.constantFrom('absent', 'zero', 'data', 'memory'),
      sectors: fc.integer({ min: 1, max: 5000 }),
      seed: fc.nat(1000),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async (pieces) => {
        const specs = pieces.map(
          ({ kind, sectors, seed }): PieceSpec =>
            kind === 'data' || kind === 'memory'
              ? { kind, bytes: patterned(sectors * 512, seed) }
              : { kind: kind as 'absent' | 'zero', lengthBytes: sectors * 512 },
        );
        const disk = await fakeDisk(specs);
        const got = createHash('sha256');
        let offset = 0;
        for await (const run of readDisk(disk)) {
          expect(run.offset).toBe(offset);
          offset += run.lengthBytes;
          if (run.kind === 'zero') for (const zeros of zeroBlocks(run.lengthBytes)) got.update(zeros);
          else {
            expect(Math.floor(run.offset / MIB)).toBe(Math.floor((offset - 1) / MIB));
            got.update(run.bytes);
            run.release();
          }
        }
        expect(offset).toBe(disk.info.virtualSizeBytes);
        expect(got.digest('hex')).toBe(createHash('sha256').update(disk.content()).digest('hex'));
      }),
      { numRuns: 40 },
    );
  });

  test('what a disk does not hold is never read', async () => {
    const disk = await fakeDisk([
      { kind: 'absent', lengthBytes: 32 * TIB },
      { kind: 'data', bytes: patterned(4096, 1) },
      { kind: 'zero', lengthBytes: 32 * TIB - 4096 },
    ]);
    const kinds: string[] = [];
    for await (const run of readDisk(disk)) {
      kinds.push(run.kind);
      if (run.kind === 'data') run.release();
    }
    expect(kinds).toEqual(['zero', 'data', 'zero']);
    expect(disk.reads()).toEqual([{ offset: 0, lengthBytes: 4096 }]);
  });

  test('reads run ahead of the consumer, into eight buffers and no more', async () => {
    const disk = await fakeDisk([{ kind: 'data', bytes: patterned(40 * MIB, 7) }]);
    const held: { release(): void }[] = [];
    const runs = readDisk(disk);
    for (let i = 0; i < 8; i += 1) {
      const { value } = await runs.next();
      if (value?.kind !== 'data') throw new Error('data expected');
      held.push(value);
    }
    expect(disk.reads()).toHaveLength(8);
    const ninth = runs.next();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(disk.reads()).toHaveLength(8);
    held[0]?.release();
    expect((await ninth).value?.offset).toBe(8 * MIB);
    await runs.return();
  });

  test('a hole is handed on in parts where the consumer asks for that', async () => {
    const disk = await fakeDisk([{ kind: 'absent', lengthBytes: 10 * MIB }]);
    const lengths: number[] = [];
    for await (const run of readDisk(disk, { holeBytesMax: 4 * MIB })) lengths.push(run.lengthBytes);
    expect(lengths).toEqual([4 * MIB, 4 * MIB, 2 * MIB]);
  });

  test('a read error names file, offset and reason, and no read is under way behind it', async () => {
    const disk = await fakeDisk([{ kind: 'data', bytes: patterned(20 * MIB, 3) }]);
    disk.failReads(Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' }));
    const drain = async (): Promise<void> => {
      for await (const run of readDisk(disk)) if (run.kind === 'data') run.release();
    };
    await expect(drain()).rejects.toMatchObject({
      code: 'DISK_UNREADABLE',
      message: '/disk: 1048576 bytes at offset 0 cannot be read: EIO: i/o error, read',
      facts: { source: '/disk', offset: 0 },
    });
    expect(disk.readsUnderWay()).toBe(0);
  });

  test('a consumer that stops early leaves no read under way', async () => {
    const disk = await fakeDisk([{ kind: 'data', bytes: patterned(20 * MIB, 3) }]);
    for await (const run of readDisk(disk)) {
      expect(run.offset).toBe(0);
      break;
    }
    expect(disk.readsUnderWay()).toBe(0);
  });

  test('an abort ends it, also inside a hole that no I/O interrupts', async () => {
    const disk = await fakeDisk([{ kind: 'absent', lengthBytes: 64 * TIB }]);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 5);
    const drain = async (): Promise<void> => {
      for await (const run of readDisk(disk, { signal: controller.signal, holeBytesMax: MIB })) void run;
    };
    await expect(drain()).rejects.toMatchObject({ code: 'ABORTED' });
  });

  test('progress reaches the end and counts only what was read', async () => {
    const disk = await fakeDisk([
      { kind: 'absent', lengthBytes: 3 * MIB },
      { kind: 'data', bytes: patterned(2 * MIB, 3) },
    ]);
    const seen: unknown[] = [];
    for await (const run of readDisk(disk, { onProgress: (progress) => seen.push(progress) })) {
      if (run.kind === 'data') run.release();
    }
    expect(seen.at(-1)).toEqual({ doneBytes: 5 * MIB, totalBytes: 5 * MIB, readBytes: 2 * MIB });
  });
});

describe('nonZeroSpans', () => {
  const unit = 64 * KIB;

  test('cuts zeros out in units of the disk, not of the buffer', () => {
    const bytes = new Uint8Array(5 * unit);
    bytes[2 * unit - 1] = 1; // unit 1 of the buffer; guest unit 1 begins half a unit earlier
    expect(nonZeroSpans(bytes, 0)).toEqual([{ fromBytes: unit, lengthBytes: unit }]);
    expect(nonZeroSpans(bytes, unit / 2)).toEqual([{ fromBytes: 1.5 * unit, lengthBytes: unit }]);
  });

  test('joins neighbours and finds data in a short last unit', () => {
    const bytes = new Uint8Array(3 * unit + 512).fill(1, unit - 1, 2 * unit);
    bytes[3 * unit + 511] = 9;
    expect(nonZeroSpans(bytes, 0)).toEqual([
      { fromBytes: 0, lengthBytes: 2 * unit },
      { fromBytes: 3 * unit, lengthBytes: 512 },
    ]);
  });

  test('finds nothing in zeros', () => {
    expect(nonZeroSpans(new Uint8Array(2 * unit), 0)).toEqual([]);
  });
});
