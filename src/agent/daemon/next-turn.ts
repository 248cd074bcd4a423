/**
 * What a machine does next, and when: pure functions of its configuration, what it remembers and what was seen. The loop that
 * acts on it is machine.ts.
 */
import type { ItemFacts, LifeState, LifeStateName } from '../life/index.ts';
import {
  type CycleSchedule,
  isAppConsistentDue,
  isOpen,
  nextCycle,
  nextOpening,
  type SpaceVerdict,
} from '../policy/index.ts';
import { retryMs } from './machine-record.ts';
import type { AgentVerb, Failure, GroupStanding, MachineConfig, MachineRecord } from './types.ts';

/** Thinning counts in hours; a look every ten minutes is early enough, and a root is not rewritten in each cycle. */
const PRUNE_EVERY_MS = 600_000;

/** What decisions are made of. */
export interface MachineView {
  readonly config: MachineConfig;
  readonly record: MachineRecord;
  /** undefined before the first look. */
  readonly seen?: { readonly facts: ItemFacts; readonly state: LifeState; readonly atMs: number };
  readonly space: SpaceVerdict;
  /** Of a machine that ships with others. */
  readonly group?: GroupStanding;
}

/** What the agent has to do in a state: the first copy, cycles, a resync, or nothing: that is a person's business. */
export type Duty = 'protect' | 'cycle' | 'resync' | 'fault' | 'none';

const DUTIES: { readonly [Name in LifeStateName]: Duty } = {
  'not-protected': 'protect',
  ready: 'protect',
  'initial-replication': 'protect',
  protected: 'cycle',
  'resync-required': 'resync',
  resyncing: 'resync',
  'resync-suspended': 'resync',
  error: 'fault',
  unknown: 'fault',
  synced: 'none',
  'failover-waiting': 'none',
  'failed-over': 'none',
  suspended: 'none',
  'failback-waiting': 'none',
  'other-side': 'none',
  ended: 'none',
};

export function dutyOf(state: LifeState, { replica }: ItemFacts): Duty {
  // Disks that were brought back and not committed change nothing for an owner that goes on: nobody is left unprotected.
  const goesOn = replica?.owner.isOurs && replica.owner.phase === 'replicating';
  return DUTIES[state.state === 'failover-waiting' && goesOn ? state.back : state.state];
}

export interface Turn {
  /** What it will most likely be. */
  readonly verb: AgentVerb;
  readonly dueMs: number;
}

/** The next turn; undefined if only a person can cause one. */
export function nextTurn(view: MachineView, nowMs: number): Turn | undefined {
  const { config, record, seen } = view;
  if (record.suspendedSinceMs !== undefined) return undefined;
  const { failure } = record;
  if (failure) {
    const dueMs = retryDueMs(failure, nowMs);
    return dueMs === undefined ? undefined : { verb: failure.verb, dueMs };
  }
  if (!seen) return { verb: 'observe', dueMs: nowMs };
  const look: Turn = { verb: 'observe', dueMs: later(seen.atMs, config.everyMs, nowMs) };
  const duty = dutyOf(seen.state, seen.facts);
  // A copy that ended well and did not help is no reason for the next one at once.
  const copyMs = later(record.lastCopyMs, config.everyMs, nowMs);
  if (duty !== 'protect' && lacksTracker(view)) return look;
  if (record.resyncAsked && (duty === 'cycle' || duty === 'resync')) return { verb: 'resync', dueMs: nowMs };
  switch (duty) {
    case 'protect':
      return isHeldBack(view) ? look : { verb: 'protect', dueMs: Math.max(copyMs, config.firstCopyAtMs ?? nowMs) };
    case 'cycle':
      // Its group ships it, unless that cannot.
      if (view.group && !view.group.isApart) return look;
      return { verb: 'ship', dueMs: dueCycle(view, nowMs).dueMs };
    case 'resync':
      if (config.resync === 'manual' || isHeldBack(view)) return look;
      return { verb: 'resync', dueMs: nextOpening(config.resync, copyMs) };
    case 'fault':
    case 'none':
      return look;
  }
}

/** What is to be done now that everything was looked at, whatever failed before; undefined if nothing is. */
export function actionAt(view: MachineView, nowMs: number): Exclude<AgentVerb, 'observe'> | undefined {
  const { failure: _failure, ...record } = view.record;
  const turn = nextTurn({ ...view, record }, nowMs);
  return turn === undefined || turn.verb === 'observe' || turn.dueMs > nowMs ? undefined : turn.verb;
}

/** When the next cycle is due, and how many will have fallen out. */
export function dueCycle({ config, record }: MachineView, nowMs: number): ReturnType<typeof nextCycle> {
  return nextCycle(schedule(config), record.lastCycle ?? { startedMs: undefined, endedMs: nowMs }, nowMs);
}

export function consistencyAt({ config, record }: MachineView, nowMs: number): 'crash' | 'app' {
  return isAppConsistentDue(schedule(config), record.lastAppMs, nowMs) ? 'app' : 'crash';
}

/** What follows a cycle: folding logs into the base, or retention. A failure of it has a ladder of its own. */
export function upkeepAt({ config, record, seen }: MachineView, nowMs: number): readonly ('apply' | 'prune')[] {
  if (!seen || dutyOf(seen.state, seen.facts) !== 'cycle' || isWaiting(record.upkeepFailure, nowMs)) return [];
  const { outstandingLogs = 0, points = 0 } = seen.facts.replica ?? {};
  const isOld = later(record.lastApplyMs, config.apply.ageMs, nowMs) <= nowMs;
  const appliesNow = outstandingLogs >= config.apply.logs || (outstandingLogs > 0 && isOld);
  const prunesNow = later(record.lastPruneMs, PRUNE_EVERY_MS, nowMs) <= nowMs || points > config.retention.pointsMax;
  return [...(appliesNow ? (['apply'] as const) : []), ...(prunesNow ? (['prune'] as const) : [])];
}

function isWaiting(failure: Failure | undefined, nowMs: number): boolean {
  return failure !== undefined && (retryDueMs(failure, nowMs) ?? Number.POSITIVE_INFINITY) > nowMs;
}

/** When a failure is tried again; now, if it lies in the future (a clock that was set back). */
function retryDueMs(failure: Failure, nowMs: number): number | undefined {
  const dueMs = retryMs(failure);
  return dueMs !== undefined && failure.lastMs > nowMs ? nowMs : dueMs;
}

/** Whether the resync that runs now has to stop when its window closes. */
export function isWindowOpen({ config }: MachineView, nowMs: number): boolean {
  return config.resync !== 'manual' && isOpen(config.resync, nowMs);
}

/**
 * Its tracker is about to come, and needs what an operation would hold: who works on disks at rest keeps it from serving them,
 * and the machine from starting.
 */
export function lacksTracker({ config, seen }: MachineView): boolean {
  return config.serve !== undefined && !seen?.facts.tracking?.served;
}

/** Copies of much at once are not begun where space is short. */
function isHeldBack({ space, config }: MachineView): boolean {
  return space === 'stop' && config.lowSpace === 'act';
}

/** `spanMs` after `sinceMs`, and now if that was never or lies in the future (a clock that was set back). */
function later(sinceMs: number | undefined, spanMs: number, nowMs: number): number {
  return sinceMs === undefined || sinceMs > nowMs ? nowMs : Math.max(nowMs, sinceMs + spanMs);
}

function schedule({ everyMs, appConsistent }: MachineConfig): CycleSchedule {
  return { everyMs, ...(appConsistent ? { appConsistentEveryMs: appConsistent.everyMs } : {}) };
}
