/**
 * Dropping recovery points: a root without them, then what nobody needs any more is deleted from the store. Works beside ship
 * and apply, whoever runs them.
 */
import type { Clock } from '../ports.ts';
import { collectDropped } from './collect-dropped.ts';
import type { Committer } from './committer.ts';
import { assertFollowing, assertReplicating } from './owner.ts';
import { askPins } from './pins.ts';
import type { RecoveryPoint, Root } from './root.ts';

export interface RetainSetup {
  readonly committer: Committer;
  /** Whose points they are; absent: a follower's, which are nobody's but its own. */
  readonly side?: Uint8Array;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface RetainResult {
  readonly root: Root;
  readonly dropped: readonly RecoveryPoint[];
}

/**
 * Drops the points with these ids, but never the newest one, nor the owner's. A point that is being read leaves the root, and
 * what it needs is deleted later.
 * @throws REPLICA_OTHER_SIDE
 */
export async function retainPoints(setup: RetainSetup, drop: ReadonlySet<string>): Promise<RetainResult> {
  const { committer, side, clock, signal } = setup;
  if (droppable(committer.root, drop).length === 0) return { root: committer.root, dropped: [] };
  let before = committer.root;
  const root = await committer.commitOver((now) => {
    if (side) assertReplicating(now, side);
    else assertFollowing(now);
    before = now;
    const dropped = droppable(now, drop);
    return { points: now.points.filter((point) => !dropped.includes(point)) };
  }, signal);
  const { replica } = committer;
  await collectDropped(before, root, replica.store, askPins(replica, clock, { signal }), { signal });
  return { root, dropped: droppable(before, drop) };
}

function droppable({ points, owner }: Root, drop: ReadonlySet<string>): readonly RecoveryPoint[] {
  return points.slice(0, -1).filter(({ id }) => drop.has(id) && id !== owner.point);
}
