/** A machine in each of its states, and what each trigger does to the facts. */
import type { ItemFacts, LifeStateName, Trigger } from '../../../src/agent/life/index.ts';

export const NOW_MS: number = Date.UTC(2026, 10, 21, 12, 0, 0);
export const MINUTE_MS = 60_000;
export const HOUR_MS: number = 60 * MINUTE_MS;

type Owner = NonNullable<ItemFacts['replica']>['owner'];

const OURS: Owner = { isOurs: true, phase: 'replicating', epoch: 1, sinceMs: NOW_MS - 24 * HOUR_MS };

/** Replicates, and nothing is wrong with it. */
export const HEALTHY: ItemFacts & { readonly replica: NonNullable<ItemFacts['replica']> } = {
  nowMs: NOW_MS,
  item: 'web1',
  replica: { owner: OURS, points: 3, newestPointMs: NOW_MS - MINUTE_MS, outstandingLogs: 2, backlogBytes: 4096 },
  tracking: { mode: 'logging', served: true, stopped: false },
};

export function withOwner(facts: ItemFacts, owner: Partial<Owner>): ItemFacts {
  const { replica = HEALTHY.replica } = facts;
  return { ...facts, replica: { ...replica, owner: { ...replica.owner, ...owner } } };
}

export function withReplica(facts: ItemFacts, replica: Partial<NonNullable<ItemFacts['replica']>>): ItemFacts {
  return { ...facts, replica: { ...HEALTHY.replica, ...facts.replica, ...replica } };
}

type Reason = NonNullable<NonNullable<ItemFacts['tracking']>['reason']>;

export function marked(facts: ItemFacts, code: Reason['code'] = 'LOG_HALF_FULL'): ItemFacts {
  const message = 'the logs of d0 reached 8388608 bytes, half of its 16777216';
  const reason = { code, message, sinceMs: NOW_MS - HOUR_MS };
  return { ...facts, tracking: { mode: 'resync-required', reason, served: true, stopped: false } };
}

const EMPTY = { owner: OURS, points: 0, outstandingLogs: 0, backlogBytes: 0 };
const BROKEN_CHAIN = {
  code: 'CHAIN_PARENT_NOT_FOUND',
  message: 'web1.avhdx: its parent web1.vhdx is not there',
} as const;
const waiting = (kind: 'failover' | 'failback') => ({ kind, pointId: 'p7', sinceMs: NOW_MS - HOUR_MS }) as const;
const SYNCED = withOwner(HEALTHY, { phase: 'synced', point: 'p7' });
const OTHER = withOwner(HEALTHY, { isOurs: false, epoch: 2 });

export const MACHINES: Readonly<Record<LifeStateName, ItemFacts>> = {
  'not-protected': { nowMs: NOW_MS, item: 'web1' },
  ready: { nowMs: NOW_MS, item: 'web1', replica: EMPTY, firstCopyAtMs: NOW_MS + HOUR_MS },
  'initial-replication': { nowMs: NOW_MS, item: 'web1', replica: { ...EMPTY, sync: 'initial' } },
  protected: HEALTHY,
  synced: SYNCED,
  'failover-waiting': { ...HEALTHY, waiting: waiting('failover') },
  'failback-waiting': { ...OTHER, waiting: waiting('failback') },
  'failed-over': withOwner(HEALTHY, { phase: 'failed-over', epoch: 2, point: 'p7' }),
  suspended: { ...HEALTHY, suspendedSinceMs: NOW_MS - MINUTE_MS },
  error: { ...HEALTHY, sourceError: BROKEN_CHAIN },
  'resync-required': marked(HEALTHY),
  resyncing: { ...marked(HEALTHY), running: 'resync' },
  'resync-suspended': { ...marked(HEALTHY), suspendedSinceMs: NOW_MS - MINUTE_MS },
  'other-side': OTHER,
  ended: withOwner(HEALTHY, { phase: 'ended' }),
  unknown: { nowMs: NOW_MS, item: 'web1', replicaError: { code: 'STORE_UNREACHABLE', message: 'no answer' } },
};

/** More of those that lie over another state. */
export const OVERLAID: readonly (readonly [LifeStateName, ItemFacts])[] = [
  ['failover-waiting', { ...SYNCED, waiting: waiting('failover') }],
  ['failover-waiting', { ...OTHER, waiting: waiting('failover') }],
  ['failover-waiting', { ...marked(HEALTHY), waiting: waiting('failover') }],
  ['failover-waiting', { nowMs: NOW_MS, waiting: waiting('failover') }],
  ['failback-waiting', { ...withOwner(OTHER, { phase: 'synced' }), waiting: waiting('failback') }],
  ['resync-suspended', { ...withReplica(HEALTHY, { sync: 'resync' }), suspendedSinceMs: NOW_MS }],
  ['error', { ...marked(HEALTHY), sourceError: BROKEN_CHAIN }],
  ['error', { ...HEALTHY, suspendedSinceMs: NOW_MS, sourceError: BROKEN_CHAIN }],
  ['error', { ...HEALTHY, lastFailure: { ...BROKEN_CHAIN, firstMs: NOW_MS - HOUR_MS, count: 1 } }],
  ['error', { ...MACHINES['initial-replication'], localError: { code: 'LOCAL_STATE', message: 'state.json' } }],
];

const same = (facts: ItemFacts): ItemFacts => facts;
const without = (facts: ItemFacts, ...keys: readonly (keyof ItemFacts)[]): ItemFacts =>
  Object.fromEntries(
    Object.entries(facts).filter(([key]) => !keys.includes(key as keyof ItemFacts)),
  ) as unknown as ItemFacts;

/** What the world looks like behind a trigger. */
export const EFFECTS: Readonly<Record<Trigger, (facts: ItemFacts) => ItemFacts>> = {
  protect: (facts) => {
    const isNew = !facts.replica || (facts.replica.points === 0 && !facts.replica.sync);
    return isNew
      ? { ...facts, replica: { ...EMPTY, sync: 'initial' }, running: 'protect' }
      : { ...facts, running: 'protect' };
  },
  ship: (facts) =>
    withReplica(without(facts, 'running'), { points: 4, newestPointMs: NOW_MS, sync: undefined } as never),
  apply: (facts) => (facts.replica?.points ? withReplica(facts, { outstandingLogs: 0 }) : facts),
  resync: (facts) => ({ ...facts, running: 'resync' }),
  failover: (facts) => ({ ...facts, waiting: waiting('failover') }),
  'failover-test': same,
  'failover-planned': (facts) =>
    facts.replica?.owner.isOurs && !facts.waiting
      ? withOwner(without(facts, 'sourceError', 'lastFailure', 'localError'), { phase: 'synced', point: 'p7' })
      : { ...facts, waiting: waiting('failover') },
  commit: (facts) =>
    withOwner(without(facts, 'waiting'), { isOurs: true, phase: 'failed-over', epoch: 3, point: 'p7' }),
  cancel: (facts) => {
    const { owner } = facts.replica ?? {};
    const isStopped = owner?.isOurs && owner.phase === 'synced';
    return without(isStopped ? withOwner(facts, { phase: 'replicating' }) : facts, 'waiting');
  },
  failback: (facts) => ({ ...facts, waiting: waiting('failback') }),
  reverse: (facts) => withOwner(facts, { phase: 'replicating' }),
  end: (facts) => withOwner(without(facts, 'waiting'), { isOurs: true, phase: 'ended' }),
  pause: (facts) => ({ ...without(facts, 'running'), suspendedSinceMs: NOW_MS }),
  resume: (facts) => without(facts, 'suspendedSinceMs'),
  'first-copy-planned': (facts) => ({ ...facts, firstCopyAtMs: NOW_MS + HOUR_MS }),
  'first-copy-due': (facts) => ({ ...facts, nowMs: facts.firstCopyAtMs! }),
  'first-copy-done': (facts) => withReplica(without(facts, 'running'), { points: 1, sync: undefined } as never),
  'logs-gave-way': (facts) => marked(facts),
  'resync-stopped': (facts) => without(facts, 'running'),
  'resync-done': (facts) => ({ ...without(facts, 'running'), tracking: HEALTHY.tracking! }),
  failed: (facts) => ({ ...facts, lastFailure: { ...BROKEN_CHAIN, firstMs: NOW_MS, count: 1 } }),
  recovered: (facts) => without(facts, 'sourceError', 'localError', 'lastFailure'),
  'taken-over': (facts) => withOwner(facts, { isOurs: false, epoch: 2, phase: 'failed-over' }),
  'ended-there': (facts) => withOwner(facts, { phase: 'ended' }),
};
