/**
 * Reading and writing file ranges inside a worker, synchronously: a worker has nothing else to do meanwhile, and a
 * synchronous call costs a third of an asynchronous one. Descriptors belong to the main thread, which keeps them open.
 */
import { readSync, writeSync } from 'node:fs';
import { isZero } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { type PackedRanges, RANGE_FIELDS } from './protocol.ts';

/** Runs of zeros of at least this length are left out of a fresh file, where they are zeros already. */
const ZERO_RUN_BYTES = 64 * 1024;

/** Walks the ranges of a batch chunk by chunk. */
export class RangeCursor {
  readonly #ranges: PackedRanges;
  #at = 0;

  constructor(ranges: PackedRanges) {
    this.#ranges = ranges;
  }

  /** Calls `visit` for each range of the chunk with this index in the batch; indexes must ascend. */
  visit(
    index: number,
    visit: (offset: number, descriptor: number, fileOffset: number, lengthBytes: number) => void,
  ): void {
    const ranges = this.#ranges;
    for (; this.#at < ranges.length && ranges[this.#at] === index; this.#at += RANGE_FIELDS) {
      visit(ranges[this.#at + 1]!, ranges[this.#at + 2]!, ranges[this.#at + 3]!, ranges[this.#at + 4]!);
    }
  }
}

/** Fills `into` from `fileOffset`; what lies beyond the end of the file is zeros. */
export function readRange(descriptor: number, into: Uint8Array, fileOffset: number): void {
  into.fill(0, readUpTo(descriptor, into, fileOffset));
}

/** Fills `into` from `fileOffset` as far as the file goes; returns how far. */
export function readUpTo(descriptor: number, into: Uint8Array, fileOffset: number): number {
  let done = 0;
  while (done < into.byteLength) {
    let got: number;
    try {
      got = readSync(descriptor, into, done, into.byteLength - done, fileOffset + done);
    } catch (cause) {
      throw fileFailure('DISK_UNREADABLE', 'reading', into.byteLength, fileOffset, cause);
    }
    if (got === 0) break;
    done += got;
  }
  return done;
}

/** Writes all of `from` but long runs of zeros, in one call what lies between two of them; returns the bytes written. */
export function writeRange(descriptor: number, from: Uint8Array, fileOffset: number): number {
  const writeData = (start: number, end: number): number => {
    if (start < end) writeAll(descriptor, from.subarray(start, end), fileOffset + start);
    return end - start;
  };
  let [written, start] = [0, 0];
  for (let at = 0; at < from.byteLength; at += ZERO_RUN_BYTES) {
    const end = Math.min(from.byteLength, at + ZERO_RUN_BYTES);
    if (!isZero(from.subarray(at, end))) continue;
    written += writeData(start, at);
    start = end;
  }
  return written + writeData(start, from.byteLength);
}

function writeAll(descriptor: number, from: Uint8Array, fileOffset: number): void {
  let done = 0;
  while (done < from.byteLength) {
    try {
      done += writeSync(descriptor, from, done, from.byteLength - done, fileOffset + done);
    } catch (cause) {
      throw fileFailure('OUTPUT_FAILED', 'writing', from.byteLength, fileOffset, cause);
    }
  }
}

function fileFailure(
  code: 'DISK_UNREADABLE' | 'OUTPUT_FAILED',
  what: string,
  lengthBytes: number,
  offset: number,
  cause: unknown,
): BlockferryError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new BlockferryError(code, `${what} ${lengthBytes} bytes at offset ${offset} failed: ${reason}`, {
    cause,
    facts: { offset, lengthBytes },
  });
}
