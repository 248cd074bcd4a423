/** Reports that more than one command prints, in words. */
import { formatSize, type SyncReport } from '../index.ts';
import { count, formatDuration } from './format.ts';

/** What a sync did, a line per disk and one for the item. */
export function syncLines(report: SyncReport): string[] {
  const lines = report.disks.map(
    ({ disk, readBytes, chunksCompared, chunksSent, chunksCleared, sentBytes }) =>
      `${disk}: read ${formatSize(readBytes)}, compared ${count(chunksCompared, 'chunk')}, sent ${chunksSent} (${formatSize(sentBytes)}), cleared ${chunksCleared}`,
  );
  const { item, pointId, generation, changed, elapsedMs } = report;
  const what = changed ? `recovery point ${pointId}` : `nothing differed; newest recovery point ${pointId}`;
  return [...lines, `${item}: ${what}, generation ${generation}, in ${formatDuration(elapsedMs)}`];
}
