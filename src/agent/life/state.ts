/**
 * The state of a machine, as a function of the facts. Numbers and names are those that Hyper-V Replica publishes, so that who
 * knows them needs no other list; where it has none, neither have we (docs/health.md).
 *
 * A state may lie over another one: a failover that waits, an operator's pause, an error. Such a state remembers in `back` where
 * the machine is when that is over.
 */
import type { ErrorFacts, ItemFacts, OwnerFacts, WaitingFacts } from './facts.ts';
import { remedyOf } from './remedies.ts';

export interface Published {
  readonly code: number;
  readonly name: string;
}

/** Every state, with the published one it is. */
export const LIFE_STATES = {
  'not-protected': { code: 0, name: 'NotEnabled' },
  ready: { code: 1, name: 'ReadyForInitialReplication' },
  'initial-replication': { code: 2, name: 'WaitingForInitialReplication' },
  protected: { code: 3, name: 'Replicating' },
  synced: { code: 4, name: 'SyncedReplicationComplete' },
  'failover-waiting': { code: 5, name: 'FailOverWaitingCompletion' },
  'failed-over': { code: 6, name: 'FailedOver' },
  suspended: { code: 7, name: 'Suspended' },
  error: { code: 8, name: 'Error' },
  'resync-required': { code: 9, name: 'WaitingForStartResynchronize' },
  resyncing: { code: 10, name: 'Resynchronizing' },
  'resync-suspended': { code: 11, name: 'ResynchronizeSuspended' },
  // The published way back is a failover in the other direction.
  'failback-waiting': { code: 5, name: 'FailOverWaitingCompletion' },
  'other-side': undefined,
  ended: { code: 0, name: 'NotEnabled' },
  unknown: undefined,
} as const satisfies Record<string, Published | undefined>;

export type LifeStateName = keyof typeof LIFE_STATES;

export type LifeState =
  | { readonly state: 'not-protected' | 'initial-replication' | 'protected' }
  | { readonly state: 'ready'; readonly firstCopyAtMs: number }
  | { readonly state: 'synced' | 'failed-over' | 'other-side' | 'ended'; readonly owner: OwnerFacts }
  | {
      readonly state: 'failover-waiting' | 'failback-waiting';
      readonly waiting: WaitingFacts;
      readonly back: LifeStateName;
    }
  | { readonly state: 'suspended' | 'resync-suspended'; readonly sinceMs: number; readonly back: LifeStateName }
  | { readonly state: 'error'; readonly error: ErrorFacts; readonly back: LifeStateName }
  | { readonly state: 'resync-required' | 'resyncing'; readonly reason: string }
  | { readonly state: 'unknown'; readonly error: ErrorFacts };

/** The published number and name of a state; undefined where it has none. */
export function publishedOf(state: LifeStateName): Published | undefined {
  return LIFE_STATES[state];
}

/** The state of a machine. Never throws, whatever the facts. */
export function stateOf(facts: ItemFacts): LifeState {
  const { waiting, replica, replicaError, localError } = facts;
  if (waiting && waiting.isComplete !== false) {
    const state = waiting.kind === 'failover' ? 'failover-waiting' : 'failback-waiting';
    return { state, waiting, back: stateOf(cancelled(facts)).state };
  }
  if (!replica) {
    const error = isNotThereYet(facts) ? undefined : (replicaError ?? localError);
    if (error) return { state: 'unknown', error };
  }
  if (replica) {
    const { owner } = replica;
    if (owner.phase === 'ended') return { state: 'ended', owner };
    if (!owner.isOurs) return { state: 'other-side', owner };
    if (owner.phase !== 'replicating') return { state: owner.phase, owner };
  }
  return followedState(facts);
}

/** The state of a machine whose replica follows its disks, or has still to be made. */
function followedState(facts: ItemFacts): LifeState {
  const error = errorOf(facts);
  if (error) return { state: 'error', error, back: followedState(withoutErrors(facts)).state };
  const { suspendedSinceMs, ...others } = facts;
  if (suspendedSinceMs !== undefined) {
    const under = followedState(others);
    if (under.state === 'protected') return { state: 'suspended', sinceMs: suspendedSinceMs, back: under.state };
    if (under.state === 'resync-required' || under.state === 'resyncing') {
      return { state: 'resync-suspended', sinceMs: suspendedSinceMs, back: under.state };
    }
    // Nothing replicates yet that could be suspended.
    return under;
  }
  return copyState(facts);
}

/** How far the copy is. */
function copyState(facts: ItemFacts): LifeState {
  const { replica, replicaError, firstCopyAtMs, nowMs, running } = facts;
  if (!replica || replica.points === 0 || replica.sync === 'initial') {
    const isBegun = replica?.sync === 'initial' || running === 'protect';
    if (!isBegun && firstCopyAtMs !== undefined && nowMs < firstCopyAtMs) return { state: 'ready', firstCopyAtMs };
    const isKnown = replica !== undefined || replicaError !== undefined || isBegun || firstCopyAtMs !== undefined;
    return { state: isKnown ? 'initial-replication' : 'not-protected' };
  }
  const reason = resyncReason(facts);
  if (running === 'resync') return { state: 'resyncing', reason: reason ?? 'an operator asked for it' };
  return reason === undefined ? { state: 'protected' } : { state: 'resync-required', reason };
}

/** Why deltas cannot go on; undefined where they can. */
function resyncReason({ replica, tracking, lastFailure }: ItemFacts): string | undefined {
  if (tracking && tracking.mode !== 'logging') return tracking.reason?.message ?? UNFINISHED_RESYNC;
  if (replica?.sync === 'resync') return UNFINISHED_RESYNC;
  // A tracker knows better than a failure of some time ago.
  const isRefused = !tracking && lastFailure && remedyOf(lastFailure.code) === 'resync';
  return isRefused ? lastFailure.message : undefined;
}

export const UNFINISHED_RESYNC = 'a resync was begun and has not ended';

/** What only a person can mend. */
function errorOf({ localError, sourceError, lastFailure }: ItemFacts): ErrorFacts | undefined {
  const isForPerson = lastFailure && remedyOf(lastFailure.code) === 'person';
  return localError ?? sourceError ?? (isForPerson ? lastFailure : undefined);
}

function withoutErrors({ localError: _local, sourceError: _source, lastFailure, ...facts }: ItemFacts): ItemFacts {
  return lastFailure && remedyOf(lastFailure.code) !== 'person' ? { ...facts, lastFailure } : facts;
}

/** A replica that nobody has ever seen is not lost: its first copy did not get that far. */
export function isNotThereYet({ replicaError, wasSeen, localError }: ItemFacts): boolean {
  return replicaError?.code === 'REPLICA_NOT_FOUND' && !wasSeen && !localError;
}

/** The facts as `cancel` leaves them: an owner that had stopped goes on. */
function cancelled({ waiting: _waiting, replica, ...facts }: ItemFacts): ItemFacts {
  if (!replica) return facts;
  const { owner } = replica;
  const isStopped = owner.isOurs && owner.phase === 'synced';
  return { ...facts, replica: isStopped ? { ...replica, owner: { ...owner, phase: 'replicating' } } : replica };
}
