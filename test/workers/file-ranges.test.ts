/** Writing into a fresh file: all but long runs of zeros, in as few calls as that takes. */
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { writeRange } from '../../src/workers/file-ranges.ts';
import { noise } from '../chunker/support.ts';

vi.mock('node:fs', { spy: true });

const RUN = 64 * 1024;
let directory: string;
let descriptor: number;

beforeEach(() => {
  directory = fs.mkdtempSync(join(tmpdir(), 'bf-file-ranges-'));
  descriptor = fs.openSync(join(directory, 'disk.raw'), 'wx+');
});
afterEach(() => {
  fs.closeSync(descriptor);
  fs.rmSync(directory, { recursive: true });
});

/** Pieces of 64 KiB: `d` data, `z` zeros, `e` data in the last byte alone; and a tail of some bytes. */
it.each([
  ['dddd', '', [[0, 4 * RUN]]],
  ['zddz', '', [[RUN, 2 * RUN]]],
  [
    'dzde',
    '',
    [
      [0, RUN],
      [2 * RUN, 2 * RUN],
    ],
  ],
  ['zz', '', []],
  [
    'dz',
    'd',
    [
      [0, RUN],
      [2 * RUN, 100],
    ],
  ],
  ['d', 'z', [[0, RUN]]],
  ['', 'd', [[0, 100]]],
  ['', '', []],
] as const)('writes %s and %s behind them where they belong', (pieces, tail, calls) => {
  const piece = (kind: string, lengthBytes: number, i: number): Buffer => {
    const bytes = kind === 'd' ? Buffer.from(noise(lengthBytes, i)) : Buffer.alloc(lengthBytes);
    if (kind === 'e') bytes[lengthBytes - 1] = 1;
    return bytes;
  };
  const bytes = Buffer.concat([
    ...[...pieces].map((kind, i) => piece(kind, RUN, i)),
    ...[...tail].map((kind) => piece(kind, 100, 9)),
  ]);
  vi.mocked(fs.writeSync).mockClear();
  const written = writeRange(descriptor, bytes, 512);
  const made = vi.mocked(fs.writeSync).mock.calls as unknown as readonly (readonly [
    number,
    Buffer,
    number,
    number,
    number,
  ])[];
  expect(made.map(([, , , lengthBytes, position]) => [position - 512, lengthBytes])).toEqual(calls);
  expect(written).toBe(calls.reduce((sum, [, lengthBytes]) => sum + lengthBytes, 0));
  fs.ftruncateSync(descriptor, 512 + bytes.byteLength);
  const there = Buffer.alloc(bytes.byteLength);
  fs.readSync(descriptor, there, 0, there.byteLength, 512);
  expect(there.equals(bytes)).toBe(true);
});
