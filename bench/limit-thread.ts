/** A thread of limit-process.ts: every second piece of a file. */
import { closeSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { chunkMemory, createCodec, isZero } from '../src/chunker/index.ts';
import { KIB, MIB } from './lab.ts';

const PIECE_BYTES = 2 * MIB;
const CHUNK_BYTES = 256 * KIB;

const { args, thread, threads } = workerData as {
  readonly args: readonly [what: 'read' | 'compress' | 'copy', path: string, to?: string];
  readonly thread: number;
  readonly threads: number;
};
const [what, path, to] = args;
const codec = createCodec('lz4');
const buffer = chunkMemory().input(PIECE_BYTES);
const descriptor = openSync(path, 'r');
const target = to === undefined ? undefined : openSync(to, 'r+');
const sizeBytes = fstatSync(descriptor).size;
for (let at = thread * PIECE_BYTES; at < sizeBytes; at += threads * PIECE_BYTES) {
  const piece = buffer.subarray(0, readSync(descriptor, buffer, 0, PIECE_BYTES, at));
  if (what === 'read') continue;
  for (let from = 0; from < piece.byteLength; from += CHUNK_BYTES) {
    const chunk = piece.subarray(from, from + CHUNK_BYTES);
    if (isZero(chunk)) continue;
    if (target === undefined) codec.compress(chunk);
    else writeSync(target, chunk, 0, chunk.byteLength, at + from);
  }
}
closeSync(descriptor);
if (target !== undefined) closeSync(target);
