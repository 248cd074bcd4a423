/**
 * reverse: the side that took over replicates. What its guest wrote under a tracker is shipped; what was written untracked is
 * found by comparing.
 */
import { BlockferryError, isBlockferryError } from '../../errors.ts';
import { Committer, isOwner } from '../../replica/index.ts';
import { bringCurrent } from '../bring-current.ts';
import { LocalItem } from '../local-state.ts';
import { type OwnReplica, openOwn, sessionSignal, withLockSoon, withOwn } from '../open-item.ts';
import { withReasons } from '../refuse.ts';
import { cycle } from '../ship.ts';
import { trackedItem, withTracking } from '../tracking.ts';
import type { ReverseReport, Session } from '../types.ts';

/** Begins to replicate from disks that took over; safe to repeat. @throws REPLICA_OTHER_SIDE */
export function reverse(session: Session, name: string): Promise<ReverseReport> {
  const item = new LocalItem(session.home, name, session.ports.files);
  return withReasons(session, name, 'reverse', () => withLockSoon(session, item, () => replicate(session, item)));
}

function replicate(session: Session, item: LocalItem): Promise<ReverseReport> {
  const { name } = item;
  return withOwn(session, name, async (first) => {
    await beginReplicating(session, first);
    const own = await openOwn(session, item, first.state, first.replica.store);
    const tracked = trackedItem(session, item, own.state, own.replica.description);
    return withTracking(tracked, async (tracking): Promise<ReverseReport> => {
      try {
        const { sentBytes, dataBytes, pointId, generation } = await cycle(session, own, tracking.logs);
        return { item: name, by: 'logs', pointId, generation, sentBytes, readBytes: dataBytes };
      } catch (error) {
        if (!isBlockferryError(error, 'RESYNC_REQUIRED')) throw error;
        session.onEvent?.({ type: 'notice', code: 'REVERSE_COMPARES', message: error.message });
      }
      const { disks, pointId, generation } = await bringCurrent(session, own, tracking, { phase: 'resync' });
      const sum = (value: (disk: (typeof disks)[number]) => number): number =>
        disks.reduce((total, disk) => total + value(disk), 0);
      const sentBytes = sum((disk) => disk.sentBytes);
      return { item: name, by: 'compare', pointId, generation, sentBytes, readBytes: sum((disk) => disk.readBytes) };
    });
  });
}

async function beginReplicating(session: Session, { replica, saveAnchor, state }: OwnReplica): Promise<void> {
  const { ports } = session;
  const { root } = replica.record;
  if (isOwner(root, state.side) && root.owner.phase === 'replicating') return;
  const committer = new Committer(replica, 'blockferry', saveAnchor, ports);
  await committer.commitOver(({ owner }) => {
    if (!isOwner({ owner }, state.side) || owner.phase !== 'failed-over') {
      throw new BlockferryError('REPLICA_OTHER_SIDE', 'only disks that took over can begin to replicate', {
        facts: { phase: owner.phase, epoch: owner.epoch },
        hint: 'bring disks back with blockferry failover or failback and commit them first',
      });
    }
    const { side, epoch } = owner;
    return { owner: { side, epoch, phase: 'replicating', sinceMs: ports.clock.nowMs() } };
  }, sessionSignal(session));
}
