/**
 * The owner of a replica: the side whose disks it follows (docs/life.md). Roots are replaced by compare-and-swap, so a change
 * of owner is one instant, and what another side would commit after it is refused here.
 */
import { bytesEqual } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import type { Root } from './root.ts';

export const SIDE_BYTES = 16;

export const OWNER_PHASES = ['replicating', 'synced', 'failed-over', 'ended'] as const;

export interface Owner {
  /** Random id of one set of disks that can be the truth. */
  readonly side: Uint8Array;
  /** 1 for the first, one more with each change of side. */
  readonly epoch: number;
  /**
   * `replicating`: it syncs and ships. `synced`: it has stopped, and all it had is in the replica. `failed-over`: it took over and
   * has not replicated yet. `ended`: nobody replicates any more.
   */
  readonly phase: (typeof OWNER_PHASES)[number];
  /** Id of the point that the other side starts from (`synced`), or this one started from (`failed-over`). */
  readonly point?: string;
  readonly sinceMs: number;
}

/** Whether the replica follows this side. */
export function isOwner({ owner }: Pick<Root, 'owner'>, side: Uint8Array): boolean {
  return bytesEqual(owner.side, side);
}

/** Refuses whoever would change a replica as a follower that is none any more. @throws REPLICA_OTHER_SIDE */
export function assertFollowing({ owner, follows }: Pick<Root, 'owner' | 'follows'>): void {
  if (follows) return;
  throw new BlockferryError('REPLICA_OTHER_SIDE', `the replica follows no other store since epoch ${owner.epoch}`, {
    facts: { phase: owner.phase, epoch: owner.epoch },
    hint: 'a side took over in it, and its points are its own',
  });
}

/** Refuses whoever may not change what the replica holds of the disks. @throws REPLICA_OTHER_SIDE */
export function assertReplicating(root: Pick<Root, 'owner' | 'follows'>, side: Uint8Array): void {
  const { phase, epoch, point, sinceMs } = root.owner;
  const facts = { phase, epoch, sinceMs, ...(point === undefined ? {} : { point }) };
  const refuse = (message: string, hint: string): never => {
    throw new BlockferryError('REPLICA_OTHER_SIDE', message, { facts, hint });
  };
  if (phase === 'ended') {
    refuse('protection of this item was ended', 'to protect these disks again, choose another URL');
  }
  if (!isOwner(root, side)) {
    refuse(
      `the replica follows other disks than these, since epoch ${epoch}`,
      'these disks are behind: bring them up to date with blockferry failback, then commit',
    );
  }
  if (root.follows) {
    refuse(
      'this replica follows the one in another store',
      'replicate to the first store of the machine; this one is carried on with blockferry mirror',
    );
  }
  if (phase === 'synced') {
    refuse(
      `the disks were stopped for a planned failover at point ${point}`,
      'commit the failover where the disks were brought back, or go on here with blockferry cancel',
    );
  }
  if (phase === 'failed-over') {
    refuse(
      `these disks took over from point ${point} and do not replicate yet`,
      'start their replication with blockferry reverse',
    );
  }
}
