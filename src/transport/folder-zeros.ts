/** Looking for zeros, a granule at a time, by comparison of memory. */
import { UNDO_GRANULE_BYTES } from './folder-undo.ts';

/** To compare with. */
const ZEROS = Buffer.alloc(UNDO_GRANULE_BYTES);

function isZero(bytes: Buffer): boolean {
  return bytes.equals(bytes.byteLength === ZEROS.byteLength ? ZEROS : ZEROS.subarray(0, bytes.byteLength));
}

/** Runs of `bytes`, which stand at `offset` of the blob, that are not zero; cut at granules. */
export function* filledRuns(
  bytes: Buffer,
  offset: number,
): Generator<{ readonly start: number; readonly end: number }> {
  let start = -1;
  for (let at = 0; at < bytes.byteLength; ) {
    const next = Math.min(bytes.byteLength, at + UNDO_GRANULE_BYTES - ((offset + at) % UNDO_GRANULE_BYTES));
    const filled = !isZero(bytes.subarray(at, next));
    if (filled && start < 0) start = at;
    if (!filled && start >= 0) {
      yield { start, end: at };
      start = -1;
    }
    at = next;
  }
  if (start >= 0) yield { start, end: bytes.byteLength };
}

/** Whether there is nothing else in it. */
export function isAllZero(bytes: Buffer): boolean {
  return filledRuns(bytes, 0).next().done === true;
}
