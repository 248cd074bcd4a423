/** What two manifests of one disk say differently. Pages that are the same in both are not looked into. */
import { bytesEqual } from '../bytes.ts';
import { chunkCount, ENTRIES_PER_PAGE, isZeroEntry, readEntry } from '../chunker/index.ts';
import type { ManifestTree } from './manifest-tree.ts';

/** Chunks from `firstChunk` on that two trees say different content of, ascending. */
export async function* treeDifferences(
  before: ManifestTree,
  after: ManifestTree,
  firstChunk = 0,
): AsyncGenerator<number> {
  const chunks = chunkCount(after.geometry);
  for await (const page of after.differingPages(before)) {
    const end = Math.min(chunks, (page + 1) * ENTRIES_PER_PAGE);
    for (let chunk = Math.max(firstChunk, page * ENTRIES_PER_PAGE); chunk < end; chunk += 1) {
      if (!isSameContent(await before.entry(chunk), await after.entry(chunk))) yield chunk;
    }
  }
}

function isSameContent(a: Uint8Array, b: Uint8Array): boolean {
  if (isZeroEntry(a) || isZeroEntry(b)) return isZeroEntry(a) && isZeroEntry(b);
  return bytesEqual(readEntry(a)!.fingerprint, readEntry(b)!.fingerprint);
}
