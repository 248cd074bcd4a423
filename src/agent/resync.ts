/** resync: compare the disks with the replica and send what differs. */
import { chunkRuns, type SuspectRange, verifyDisk } from '../replica/index.ts';
import { bringCurrent } from './bring-current.ts';
import { LocalItem } from './local-state.ts';
import { type OwnReplica, readAccess, withLock, withOwn, withWorkers } from './open-item.ts';
import { withReasons } from './refuse.ts';
import { trackedItem, withTracking } from './tracking.ts';
import type { Session, SyncReport } from './types.ts';

export interface ResyncRequest {
  /** Send every chunk, whatever its fingerprint says. */
  readonly full?: boolean;
  /** Open every stored slot first, and send those that do not verify. */
  readonly verifyTarget?: boolean;
}

/** Repairs the replica of an item, also while a tracker serves its disks; ends with a new recovery point. */
export async function resync(session: Session, name: string, request: ResyncRequest = {}): Promise<SyncReport> {
  const item = new LocalItem(session.home, name, session.ports.files);
  const state = await item.load();
  return withReasons(session, name, 'resync', () =>
    withLock(session, item, () =>
      withOwn(session, name, (own) =>
        withTracking(trackedItem(session, item, state, own.replica.description), async (tracking) => {
          const suspect = request.verifyTarget ? await damagedRanges(session, own) : [];
          const phase = own.replica.record.root.baselines.length === 0 ? 'initial' : 'resync';
          return bringCurrent(session, own, tracking, { phase, full: request.full ?? false, suspect });
        }),
      ),
    ),
  );
}

/** Chunks of the live base that do not verify, as suspects for the sync. */
async function damagedRanges(session: Session, { replica }: OwnReplica): Promise<readonly SuspectRange[]> {
  return withWorkers(session, replica, async (pool) => {
    const ranges: SuspectRange[] = [];
    for (const [disk, { tables }] of replica.record.root.disks.entries()) {
      const { damage } = await verifyDisk({
        replica,
        disk,
        state: { tables, live: true },
        pool,
        access: readAccess(session),
        share: 1,
        ports: session.ports,
      });
      ranges.push(...chunkRuns(damage.map(({ chunk }) => chunk)).map((run) => ({ disk, ...run })));
      if (damage.length > 0) {
        const message = `disk d${disk}: ${damage.length} stored chunks do not verify and are sent again`;
        session.onEvent?.({ type: 'notice', code: 'TARGET_DAMAGED', message });
      }
    }
    return ranges;
  });
}
