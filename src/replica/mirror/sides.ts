/**
 * Which replica may follow which (docs/mirror.md): never one whose owner is later, never one that its owner writes, and what a side
 * has written since both parted is given up only when somebody says so.
 */
import { bytesEqual } from '../../bytes.ts';
import { BlockferryError } from '../../errors.ts';
import type { Replica } from '../replica.ts';
import type { Root } from '../root.ts';
import { keptPoints } from './plan.ts';

/** Whether the replica in `target` may be carried on from the one in `source`. @throws USAGE, REPLICA_FOREIGN, SPLIT_BRAIN, REPLICA_OTHER_SIDE */
export function checkFollower(target: Replica, source: Replica, choice: OwnersChoice): void {
  const facts = { from: source.store.url, to: target.store.url };
  if (!bytesEqual(target.description.replicaId, source.description.replicaId)) {
    throw new BlockferryError('REPLICA_FOREIGN', `${facts.to} already holds a replica that is not this item's`, {
      facts,
      hint: 'choose another URL',
    });
  }
  if (bytesEqual(target.record.hash, source.record.hash)) {
    throw new BlockferryError('USAGE', `${facts.from} and ${facts.to} are the same store`, {
      facts,
      hint: 'a replica follows the one in another store',
    });
  }
  checkOwners(target.record.root, { ...choice, ...facts });
}

export interface OwnersChoice {
  /** The other store's root. */
  readonly source: Root;
  /** Give up what the side that lost has made since. */
  readonly discardNewer: boolean;
}

/** The part of it that another commit in the target may change. @throws SPLIT_BRAIN, REPLICA_OTHER_SIDE */
export function checkOwners(
  now: Root,
  { source, discardNewer, from, to }: OwnersChoice & { readonly from: string; readonly to: string },
): void {
  const { owner, follows } = now;
  const facts = { from, to, epoch: source.owner.epoch, targetEpoch: owner.epoch };
  // It never held anything: whose it was said to be when it was made counts for nothing.
  if (follows && now.baselines.length === 0) return;
  const isOlder = owner.epoch < source.owner.epoch;
  if (!isOlder && (owner.epoch > source.owner.epoch || !bytesEqual(owner.side, source.owner.side))) {
    throw new BlockferryError('SPLIT_BRAIN', `another side took over in ${to}: its epoch is ${owner.epoch}`, {
      facts,
      hint: 'a person decides: to let the other store follow this one, run mirror with --from and --to exchanged',
    });
  }
  if (follows) return;
  if (!isOlder) {
    throw new BlockferryError('REPLICA_OTHER_SIDE', `the replica in ${to} is written by its owner`, {
      facts,
      hint: 'it follows no other store; exchange --from and --to, or choose another URL',
    });
  }
  const newer = now.points.length - keptPoints(now, source).length;
  if ((newer === 0 && owner.phase !== 'failed-over') || discardNewer) return;
  throw new BlockferryError('SPLIT_BRAIN', `${to} has ${newer} recovery points that ${from} does not have`, {
    facts: { ...facts, newer, phase: owner.phase },
    hint: 'they are of the side that lost; give them up with --discard-newer',
  });
}
