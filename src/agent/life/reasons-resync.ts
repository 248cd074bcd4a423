/** Reasons for which deltas cannot go on and a compare has to: one for each that tracking can have. */
import type { ResyncReason } from '../../tracker/index.ts';
import type { Reason, Seen } from './reason.ts';
import { UNFINISHED_RESYNC } from './state.ts';
import { timeText } from './texts.ts';

const RESYNC = 'blockferry resync NAME; it reads only what may differ, while the guest writes on';
const RESYNC_ALL = 'blockferry resync NAME; it compares all chunks, since nobody knows what was written';
const SPACE_FIRST =
  'free space on the volume of the disks, then blockferry resync NAME, which reads only what may differ';
const VOLUME_FIRST = 'check the volume of the disks, then blockferry resync NAME, which reads only what may differ';

export type ResyncCode =
  | 'RESYNC_NO_SPACE'
  | 'RESYNC_LOG_FAILED'
  | 'RESYNC_MAP_LOST'
  | 'RESYNC_EDITED_OFFLINE'
  | 'RESYNC_LOG_LOST'
  | 'RESYNC_LOG_CHAIN'
  | 'RESYNC_LOG_HALF_FULL'
  | 'RESYNC_NOT_SYNCED'
  | 'RESYNC_INTERRUPTED';

/** Worst first: what needs more than a resync before it. */
export const RESYNC_REASONS: Readonly<Record<ResyncCode, Reason>> = {
  RESYNC_NO_SPACE: because('NO_SPACE', SPACE_FIRST),
  RESYNC_LOG_FAILED: because('LOG_FAILED', VOLUME_FIRST),
  RESYNC_MAP_LOST: because('MAP_LOST', RESYNC_ALL),
  RESYNC_EDITED_OFFLINE: because('EDITED_OFFLINE', RESYNC_ALL),
  RESYNC_LOG_LOST: because('LOG_LOST', RESYNC),
  RESYNC_LOG_CHAIN: because('LOG_CHAIN', RESYNC),
  RESYNC_LOG_HALF_FULL: because('LOG_HALF_FULL', `${RESYNC}; then ship more often, or see why cycles are missed`),
  RESYNC_NOT_SYNCED: because('NOT_SYNCED', RESYNC_ALL),
  RESYNC_INTERRUPTED: because('RESYNC_INTERRUPTED', 'blockferry resync NAME; it goes on where it stopped'),
};

function because(code: ResyncReason['code'], next: string): Reason {
  return {
    severity: 'critical',
    cause: (seen) => causeOf(seen, code),
    next: ({ state }) => (state.state === 'resyncing' ? 'nothing: the resync runs' : next),
  };
}

function causeOf({ facts: { tracking, replica } }: Seen, code: ResyncReason['code']): string | undefined {
  // Before the first point the copy itself is what is missing.
  if (!replica || replica.points === 0 || !replica.owner.isOurs || replica.owner.phase !== 'replicating') {
    return undefined;
  }
  const isMarked = tracking !== undefined && tracking.mode !== 'logging';
  if (isMarked && tracking.reason) {
    const { reason } = tracking;
    return reason.code === code ? `${reason.message}, since ${timeText(reason.sinceMs)}` : undefined;
  }
  return code === 'RESYNC_INTERRUPTED' && (isMarked || replica.sync === 'resync') ? UNFINISHED_RESYNC : undefined;
}
