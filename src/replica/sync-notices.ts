/** What a sync tells that is no error: how it stands to one that was interrupted, and what it found broken and mended. */
import { bytesEqual } from '../bytes.ts';
import type { CopyState, SyncState } from './root.ts';

export interface SyncNotice {
  readonly code: 'SYNC_RESUMED' | 'SYNC_RESTARTED' | 'CHUNKS_IN_DOUBT' | 'TARGET_DAMAGED';
  readonly message: string;
}

/** What there is to tell when a sync begins where `start` says, behind an unfinished run. */
export function startNotices(unfinished: SyncState | undefined, start: CopyState): readonly SyncNotice[] {
  if (!unfinished) return [];
  const { kind, suspect } = unfinished;
  const notices: SyncNotice[] = [];
  if (start.disk > 0 || start.cursor > 0) {
    const message = `goes on where an interrupted sync stood: disk d${start.disk}, chunk ${start.cursor}`;
    notices.push({ code: 'SYNC_RESUMED', message });
  } else if (kind !== 'apply' && (unfinished.disk > 0 || unfinished.cursor > 0)) {
    const cause = bytesEqual(unfinished.source, start.source)
      ? 'chunks are to be sent whatever their fingerprints say'
      : 'the disks changed since, or others of their chunks are to be compared';
    notices.push({ code: 'SYNC_RESTARTED', message: `an interrupted sync begins anew: ${cause}` });
  }
  const doubted = suspect.reduce((sum, { from, to }) => sum + to - from, 0);
  if (doubted > 0) {
    const what = kind === 'apply' ? 'apply' : 'sync';
    const message = `${doubted} chunks are sent whole: an interrupted ${what} may have left them half written`;
    notices.push({ code: 'CHUNKS_IN_DOUBT', message });
  }
  return notices;
}

/** Chunks of a raw base that did not hold what their entry says. */
export function damageNotice(disk: number, chunks: number): SyncNotice {
  const message = `disk d${disk}: ${chunks} stored chunks did not verify and were sent whole`;
  return { code: 'TARGET_DAMAGED', message };
}
