/**
 * Taking a replica over: the root by which another side becomes the owner (docs/life.md). Pure; whoever commits it does so by
 * compare-and-swap, so the old side has committed before it or never will again.
 */
import { BlockferryError } from '../errors.ts';
import { randomGuid } from '../guid.ts';
import type { Random } from '../ports.ts';
import type { RootChange } from './committer.ts';
import { baselineOf, newestLog, type RecoveryPoint, type Root } from './root.ts';

export interface TakeOver {
  /** The new owner. */
  readonly side: Uint8Array;
  /** Id of the point that its disks were made from. */
  readonly point: string;
  /** The owner's epoch, and the generation of the newest point, when they were made. */
  readonly epoch: number;
  readonly newestGeneration: number;
  /** Only from an owner that has stopped at this very point. */
  readonly planned: boolean;
  /** Give up what the owner has shipped since. */
  readonly discardNewer: boolean;
  readonly nowMs: number;
  readonly random: Random;
}

/** Whether the replica holds nothing beyond this point: what is written on disks made from it is the next delta. */
export function isNewestState(root: Root, point: RecoveryPoint): boolean {
  return (
    root.points.at(-1)?.id === point.id &&
    baselineOf(root, point) === root.baselines.at(-1) &&
    point.log === newestLog(root) &&
    (root.sync === undefined || root.sync.kind === 'apply')
  );
}

/** What the root becomes. @throws SPLIT_BRAIN, POINT_NOT_FOUND, REPLICA_OTHER_SIDE */
export function takeOver(root: Root, take: TakeOver): RootChange {
  const point = checkTake(root, take);
  const owner = {
    side: take.side,
    epoch: root.owner.epoch + 1,
    phase: 'failed-over' as const,
    point: point.id,
    sinceMs: take.nowMs,
  };
  // Whatever this replica followed, it is the new owner's now.
  if (isNewestState(root, point)) return { owner, follows: null, points: [point] };
  return { owner, follows: null, points: [point], ...giveUpNewer(root, point, take.random) };
}

function checkTake(root: Root, { point: id, epoch, newestGeneration, planned, discardNewer }: TakeOver): RecoveryPoint {
  const { owner, points } = root;
  if (owner.phase === 'ended') {
    throw new BlockferryError('REPLICA_OTHER_SIDE', 'protection of this item was ended', {
      facts: { epoch: owner.epoch },
      hint: 'the disks that were brought back are whole; protect them to another URL',
    });
  }
  if (owner.epoch !== epoch) {
    throw new BlockferryError('SPLIT_BRAIN', `another side took over meanwhile: epoch ${owner.epoch}, not ${epoch}`, {
      facts: { epoch: owner.epoch, seen: epoch },
      hint: 'cancel this failover, and begin it again if this side is to take over',
    });
  }
  const point = points.find((each) => each.id === id);
  if (!point) {
    throw new BlockferryError('POINT_NOT_FOUND', `recovery point ${id} is not kept any more`, {
      facts: { point: id },
      hint: 'cancel this failover and begin it again with a point that is listed by: blockferry points',
    });
  }
  if (planned && (owner.phase !== 'synced' || owner.point !== id)) {
    throw new BlockferryError('SPLIT_BRAIN', `the owner goes on: it has not stopped at point ${id}`, {
      facts: { phase: owner.phase, point: id },
      hint: 'its planned failover was cancelled; cancel this side too, or begin again',
    });
  }
  const newer = points.filter(({ generation }) => generation > newestGeneration);
  if (newer.length > 0 && !discardNewer) {
    throw new BlockferryError('SPLIT_BRAIN', `the owner has made ${newer.length} recovery points since`, {
      facts: { newer: newer.length, newestMs: newer.at(-1)!.timeMs },
      hint: 'it is alive: cancel this failover; or stop it and begin again; or give its points up with --discard-newer',
    });
  }
  return point;
}

/**
 * Logs behind the point are dropped, and no log of the old side goes on. Where the point stands on the newest baseline, that is
 * the point again; else the live bases stay ahead of it, and the new owner has to compare.
 */
function giveUpNewer(root: Root, point: RecoveryPoint, random: Random): RootChange {
  const newest = root.baselines.at(-1)!;
  const last = point.baseline === newest.generation ? point.log : newest.appliedLog;
  const disks = root.disks.map((disk) => ({ ...disk, head: randomGuid(random.bytes(16)) }));
  const logs = root.logs.filter(({ seq }) => seq <= last);
  if (root.sync === undefined) return { disks, logs };
  // What it left in doubt stays so; nothing that it compared counts for other disks.
  const { suspect } = root.sync;
  return { disks, logs, sync: { kind: 'resync', source: new Uint8Array(32), disk: 0, cursor: 0, suspect } };
}
