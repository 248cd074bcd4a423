/**
 * What leads from one state to the next. A trigger is a verb, at the moment at which it takes effect (a copy: at which it begins),
 * or something that happens. A verb that has no line in a state is illegal there: refusals.ts says why.
 *
 * A home can have been both sides; then a failback goes to its former disks, and a `reverse` that was killed is repeated.
 *
 * `back` stands for the state that lies under this one. `unknown` is no state of the machine but a lack of knowledge: any verb may be
 * tried, and nothing is said of where the machine will be found.
 */
import type { Verb } from './facts.ts';
import type { LifeState, LifeStateName } from './state.ts';

/** What happens without being asked for. */
export const OCCURRENCES = {
  'first-copy-planned': 'a first copy was configured for a later time',
  'first-copy-due': 'the time of the first copy has come',
  'first-copy-done': 'the first recovery point was committed',
  'logs-gave-way': 'the change logs no longer have every write',
  'resync-stopped': 'a resync was interrupted',
  'resync-done': 'a resync ended with a recovery point',
  failed: 'an error that only a person can mend',
  recovered: 'what failed has succeeded again',
  'taken-over': 'another side committed its failover',
  'ended-there': 'the other side ended protection',
} as const;

export type Occurrence = keyof typeof OCCURRENCES;
export type Trigger = Verb | Occurrence;

const TRANSITIONS = {
  'not-protected': {
    protect: 'initial-replication',
    'first-copy-planned': 'ready',
  },
  ready: {
    protect: 'initial-replication',
    pause: 'ready',
    resume: 'ready',
    end: 'ended',
    'first-copy-due': 'initial-replication',
    failed: 'error',
  },
  'initial-replication': {
    protect: 'initial-replication',
    resync: 'initial-replication',
    ship: 'protected',
    apply: 'initial-replication',
    pause: 'initial-replication',
    resume: 'initial-replication',
    end: 'ended',
    'first-copy-done': 'protected',
    failed: 'error',
  },
  protected: {
    protect: 'protected',
    ship: 'protected',
    apply: 'protected',
    resync: 'resyncing',
    failover: 'failover-waiting',
    'failover-test': 'protected',
    'failover-planned': 'synced',
    // A planned failover that was interrupted leaves a guest that may not write.
    cancel: 'protected',
    failback: 'failback-waiting',
    reverse: 'protected',
    end: 'ended',
    pause: 'suspended',
    'logs-gave-way': 'resync-required',
    failed: 'error',
    'taken-over': 'other-side',
  },
  synced: {
    apply: 'synced',
    failover: 'failover-waiting',
    'failover-test': 'synced',
    'failover-planned': 'synced',
    cancel: 'protected',
    failback: 'failback-waiting',
    'taken-over': 'other-side',
  },
  // The replica is only read: where its owner is here too, it goes on. `end` takes over and ends.
  'failover-waiting': {
    ship: 'failover-waiting',
    apply: 'failover-waiting',
    resync: 'failover-waiting',
    failover: 'failover-waiting',
    'failover-test': 'failover-waiting',
    'failover-planned': 'failover-waiting',
    commit: 'failed-over',
    cancel: 'back',
    end: 'ended',
    pause: 'failover-waiting',
    resume: 'failover-waiting',
  },
  'failed-over': {
    apply: 'failed-over',
    'failover-test': 'failed-over',
    failback: 'failback-waiting',
    reverse: 'protected',
    end: 'ended',
    'taken-over': 'other-side',
  },
  suspended: {
    apply: 'suspended',
    failover: 'failover-waiting',
    'failover-test': 'suspended',
    cancel: 'suspended',
    failback: 'failback-waiting',
    end: 'ended',
    resume: 'back',
    'logs-gave-way': 'resync-suspended',
    failed: 'error',
    'taken-over': 'other-side',
  },
  error: {
    protect: 'error',
    ship: 'error',
    apply: 'error',
    resync: 'error',
    failover: 'failover-waiting',
    'failover-test': 'error',
    'failover-planned': 'synced',
    cancel: 'error',
    failback: 'failback-waiting',
    reverse: 'error',
    end: 'ended',
    pause: 'error',
    resume: 'error',
    recovered: 'back',
    'taken-over': 'other-side',
  },
  'resync-required': {
    protect: 'resync-required',
    resync: 'resyncing',
    apply: 'resync-required',
    failover: 'failover-waiting',
    'failover-test': 'resync-required',
    'failover-planned': 'synced',
    cancel: 'resync-required',
    failback: 'failback-waiting',
    reverse: 'resync-required',
    end: 'ended',
    pause: 'resync-suspended',
    'resync-done': 'protected',
    failed: 'error',
    'taken-over': 'other-side',
  },
  resyncing: {
    failover: 'failover-waiting',
    'failover-test': 'resyncing',
    pause: 'resync-suspended',
    'resync-stopped': 'resync-required',
    'resync-done': 'protected',
    failed: 'error',
    'taken-over': 'other-side',
  },
  'resync-suspended': {
    apply: 'resync-suspended',
    failover: 'failover-waiting',
    'failover-test': 'resync-suspended',
    cancel: 'resync-suspended',
    failback: 'failback-waiting',
    end: 'ended',
    resume: 'back',
    failed: 'error',
    'taken-over': 'other-side',
  },
  'failback-waiting': {
    apply: 'failback-waiting',
    'failover-test': 'failback-waiting',
    failback: 'failback-waiting',
    commit: 'failed-over',
    cancel: 'back',
    end: 'ended',
  },
  'other-side': {
    apply: 'other-side',
    failover: 'failover-waiting',
    'failover-test': 'other-side',
    'failover-planned': 'failover-waiting',
    failback: 'failback-waiting',
    // What an interrupted failback fetched is removed.
    cancel: 'other-side',
    'ended-there': 'ended',
  },
  ended: {
    apply: 'ended',
    failover: 'failover-waiting',
    'failover-test': 'ended',
    end: 'ended',
  },
  unknown: {
    protect: 'unknown',
    ship: 'unknown',
    apply: 'unknown',
    resync: 'unknown',
    failover: 'unknown',
    'failover-test': 'unknown',
    'failover-planned': 'unknown',
    commit: 'unknown',
    cancel: 'unknown',
    failback: 'unknown',
    reverse: 'unknown',
    end: 'unknown',
    pause: 'unknown',
    resume: 'unknown',
  },
} as const satisfies Readonly<Record<LifeStateName, Readonly<Partial<Record<Trigger, LifeStateName | 'back'>>>>>;

/** What can lead out of a state, or leave it as it is. */
export type TriggerOf<S extends LifeStateName> = keyof (typeof TRANSITIONS)[S] & Trigger;

/** The verbs that a state refuses. */
export type IllegalVerb<S extends LifeStateName> = Exclude<Verb, TriggerOf<S>>;

/** Where `trigger` leads. A trigger that the state does not have is no program. */
export function transition<S extends LifeState>(from: S, trigger: TriggerOf<S['state']>): LifeStateName {
  const target = targetOf(from.state, trigger)!;
  return target === 'back' && 'back' in from ? from.back : (target as LifeStateName);
}

/** The same where the state is known by name only, for whoever looks through the table; undefined: not possible. */
export function targetOf(from: LifeStateName, trigger: Trigger): LifeStateName | 'back' | undefined {
  const row: Readonly<Partial<Record<Trigger, LifeStateName | 'back'>>> = TRANSITIONS[from];
  return row[trigger];
}
