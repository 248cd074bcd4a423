/**
 * Folding in a worker: the old content of each chunk from its slot, what logs say of it over that, and out comes what a scan
 * gives: a verdict, the new entry, and what is to be stored. An old slot that does not verify ends the batch: nothing is ever
 * folded into bytes that nobody vouches for.
 */
import { chunkLengthBytes, ENTRY_BYTES, entryAt, isZeroEntry, slotSizeBytes } from '../chunker/index.ts';
import type { BatchDisk } from './batch.ts';
import { COVER_FIELDS, type FoldTask, type ScanResult, VERDICT } from './protocol.ts';

const NO_CHECKSUMS: Uint8Array = new Uint8Array();

/** Folds each chunk; what has to be stored stands where its new bytes were. */
export function foldBatch(task: FoldTask, { disk, kernel, scratch }: BatchDisk): ScanResult {
  const count = task.chunks.length;
  const verdicts = new Uint8Array(count);
  const entries = new Uint8Array(count * ENTRY_BYTES);
  const places = new Float64Array(count * 2);
  const bytes = Buffer.from(task.buffer);
  const raw = disk.layout === 'raw';
  const strideBytes = raw ? disk.chunkBytes : slotSizeBytes(disk.chunkBytes);
  if (task.freshOffset + count * strideBytes > bytes.byteLength) {
    throw new RangeError(`a batch of ${count} chunks does not fit into ${bytes.byteLength} bytes`);
  }
  let at = 0;
  for (let i = 0; i < count; i += 1) {
    const chunk = task.chunks[i]!;
    const plaintext = scratch.subarray(0, chunkLengthBytes(disk, chunk));
    const entry = entryAt(task.entries, i);
    const stored = bytes.subarray(task.stored[i * 2]!, task.stored[i * 2]! + task.stored[i * 2 + 1]!);
    if (stored.byteLength > 0) plaintext.set(kernel.open(stored, chunk, entry, plaintext.byteLength));
    else if (isZeroEntry(entry)) plaintext.fill(0);
    const freshOffset = task.freshOffset + i * strideBytes;
    let covered = stored.byteLength > 0 || isZeroEntry(entry) ? plaintext.byteLength : 0;
    for (; at < task.covers.length && task.covers[at] === i; at += COVER_FIELDS) {
      const from = task.covers[at + 1]!;
      const to = task.covers[at + 2]!;
      bytes.copy(plaintext, from, freshOffset + from, freshOffset + to);
      covered += to - from;
    }
    // What is left in `plaintext` of the chunk before must never stand for this one.
    if (covered < plaintext.byteLength) throw new RangeError(`chunk ${chunk} has neither old nor new bytes everywhere`);
    const forced = task.forced[i] === 1;
    const newEntry = entryAt(entries, i);
    const scanned = kernel.scan(plaintext, chunk, task.generation, entry, forced, newEntry, bytes, freshOffset);
    verdicts[i] = VERDICT[scanned.verdict];
    if (scanned.verdict !== 'changed') continue;
    if (raw) plaintext.copy(bytes, freshOffset);
    places[i * 2] = freshOffset;
    places[i * 2 + 1] = raw ? plaintext.byteLength : scanned.slotBytes;
  }
  return { verdicts, entries, places, checksums: NO_CHECKSUMS, readBytes: 0, buffer: task.buffer };
}
