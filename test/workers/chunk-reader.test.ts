/** The chunks of a scan: put together as their ranges say, and read together where they follow one another in a file. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { ChunkReader } from '../../src/workers/chunk-reader.ts';
import { noise } from '../chunker/support.ts';

vi.mock('node:fs', async (original) => {
  const real = await original<typeof import('node:fs')>();
  return { ...real, readSync: vi.fn(real.readSync) };
});

const CHUNK = 4096;
const ROOM_CHUNKS = 4;
const FILE_CHUNKS = 40;
const content = noise(FILE_CHUNKS * CHUNK, 1);
const inline = [noise(CHUNK, 2), noise(CHUNK, 3)];
const directory = mkdtempSync(join(tmpdir(), 'blockferry-reader-'));
let file: number;

beforeAll(() => {
  writeFileSync(join(directory, 'disk.img'), content);
  file = openSync(join(directory, 'disk.img'), 'r');
});
beforeEach(() => void vi.mocked(readSync).mockClear());
afterAll(() => {
  closeSync(file);
  rmSync(directory, { recursive: true });
});

type Range = readonly [index: number, offset: number, descriptor: number, fileOffset: number, lengthBytes: number];

function reader(ranges: readonly Range[]): ChunkReader {
  return new ChunkReader(
    { ranges: Float64Array.from(ranges.flat()), inline },
    CHUNK,
    Buffer.alloc(ROOM_CHUNKS * CHUNK, 7),
  );
}

const whole = (index: number, fileChunk: number): Range => [index, 0, file, fileChunk * CHUNK, CHUNK];

/** Lengths of the reads so far, without those that found the end of the file. */
function reads(): number[] {
  return vi.mocked(readSync).mock.results.flatMap(({ value }) => (value > 0 ? [value as number] : []));
}

it('reads whole chunks that follow one another together, as many as there is room for', () => {
  const chunks = reader(Array.from({ length: 10 }, (_, i) => whole(i, 3 + i)));
  for (let i = 0; i < 10; i += 1) {
    expect(chunks.read(i, CHUNK).equals(content.subarray((3 + i) * CHUNK, (4 + i) * CHUNK)), `chunk ${i}`).toBe(true);
    expect(chunks.readBytes).toBe((i + 1) * CHUNK);
  }
  expect(reads()).toEqual([4 * CHUNK, 4 * CHUNK, 2 * CHUNK]);
});

it('reads on where a run is broken: by another place, by a chunk in pieces, by one without any, and by bytes in memory', () => {
  const pieces: readonly Range[] = [
    [3, 0, file, 512, 1024],
    [3, 2048, file, 0, 512],
  ];
  const chunks = reader([
    whole(0, 0),
    whole(1, 1),
    whole(2, 9),
    ...pieces,
    whole(5, 20),
    [6, 0, -2, 0, CHUNK],
    whole(7, 21),
  ]);
  const expected = Buffer.alloc(CHUNK);
  content.copy(expected, 0, 512, 1536);
  content.copy(expected, 2048, 0, 512);
  const at = (chunk: number): Buffer => content.subarray(chunk * CHUNK, (chunk + 1) * CHUNK);
  for (const [i, bytes] of [at(0), at(1), at(9), expected, Buffer.alloc(CHUNK), at(20), inline[1]!, at(21)].entries()) {
    expect(chunks.read(i, CHUNK).equals(bytes), `chunk ${i}`).toBe(true);
  }
  expect(reads()).toEqual([2 * CHUNK, CHUNK, 1024, 512, CHUNK, CHUNK]);
  expect(chunks.readBytes).toBe(5 * CHUNK + 1536);
});

it('takes what lies beyond the end of a file for zeros, and the last chunk of a disk as short as it is', () => {
  const chunks = reader([whole(0, FILE_CHUNKS - 1), whole(1, FILE_CHUNKS), [2, 0, file, 512, 1536]]);
  expect(chunks.read(0, CHUNK).equals(content.subarray(-CHUNK))).toBe(true);
  expect(chunks.read(1, CHUNK).equals(Buffer.alloc(CHUNK))).toBe(true);
  expect(chunks.read(2, 1536).equals(content.subarray(512, 2048))).toBe(true);
});

it('gives what the ranges say, whatever they are', () => {
  const piece = fc.record({
    from: fc.nat(7),
    blocks: fc.integer({ min: 1, max: 8 }),
    place: fc.nat(FILE_CHUNKS * 8),
    kind: fc.nat(9),
  });
  fc.assert(
    fc.property(fc.array(fc.array(piece, { maxLength: 2 }), { minLength: 1, maxLength: 24 }), (batch) => {
      const ranges: Range[] = [];
      const expected = batch.map((pieces, i) => {
        const bytes = Buffer.alloc(CHUNK);
        let at = 0;
        for (const { from, blocks, place, kind } of pieces) {
          // Most are whole, and stand where the one before ends.
          const [offset, length, start] = kind > 2 ? [0, CHUNK, i * CHUNK] : [from * 512, blocks * 512, place * 512];
          if (offset < at || offset + length > CHUNK) continue;
          const descriptor = kind === 1 ? -1 : file;
          ranges.push([i, offset, descriptor, start, length]);
          (kind === 1 ? inline[0]!.subarray(0, length) : content.subarray(start, start + length)).copy(bytes, offset);
          at = offset + length;
        }
        return bytes;
      });
      // Bytes in memory are as long as their range.
      const task = { ranges: Float64Array.from(ranges.flat()), inline: [] as Uint8Array[] };
      for (let at = 0; at < ranges.length; at += 1) {
        if (ranges[at]![2] !== -1) continue;
        task.inline.push(inline[0]!.subarray(0, ranges[at]![4]));
        task.ranges[at * 5 + 2] = -task.inline.length;
      }
      const chunks = new ChunkReader(task, CHUNK, Buffer.alloc(ROOM_CHUNKS * CHUNK, 7));
      for (const [i, bytes] of expected.entries()) expect(chunks.read(i, CHUNK).equals(bytes)).toBe(true);
      const fromFile = ranges.filter(([, , descriptor]) => descriptor === file);
      expect(chunks.readBytes).toBe(fromFile.reduce((sum, [, , , , length]) => sum + length, 0));
    }),
  );
});
