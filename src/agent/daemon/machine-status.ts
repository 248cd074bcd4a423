/** How a machine is, for people and programs: its state, its health with cause and next step, its numbers. */
import {
  type CycleFigures,
  HEALTH_THRESHOLDS,
  type Health,
  healthOf,
  type ItemFacts,
  publishedOf,
  stateOf,
  type Verb,
} from '../life/index.ts';
import type { BacklogForecast } from '../policy/index.ts';
import type { MachineMemory } from './machine-memory.ts';
import { type MachineView, nextTurn } from './next-turn.ts';
import type { FollowerStatus, MachineStatus, RunningVerb } from './types.ts';

export interface StatusSource {
  readonly view: MachineView;
  readonly memory: MachineMemory;
  readonly forecast: BacklogForecast;
  readonly stores: readonly FollowerStatus[];
  readonly nowMs: number;
  readonly running?: RunningVerb;
  readonly share?: MachineStatus['share'];
  readonly space?: MachineStatus['space'];
  readonly retention?: string;
}

export function machineStatus(source: StatusSource): MachineStatus {
  const { view, memory, stores, nowMs, running, share, space } = source;
  const { record, config } = view;
  const facts = factsNow(source);
  const { state } = stateOf(facts);
  const { replica } = facts;
  const published = publishedOf(state);
  const next = running === undefined ? nextTurn(view, nowMs) : undefined;
  const { failure, upkeepFailure, suspendedSinceMs, totals, lastMs } = record;
  const newestPointMs = replica?.newestPointMs;
  return {
    name: config.name,
    state,
    ...(published ? { stateCode: published.code } : {}),
    health: machineHealth(source, facts),
    ...(running === undefined ? {} : { running }),
    ...(next ? { next } : {}),
    ...(failure ? { failure } : {}),
    ...(upkeepFailure ? { upkeepFailure } : {}),
    ...(suspendedSinceMs === undefined ? {} : { suspendedSinceMs }),
    ...(newestPointMs === undefined ? {} : { newestPointMs, rpoMs: Math.max(0, nowMs - newestPointMs) }),
    points: replica?.points ?? 0,
    outstandingLogs: replica?.outstandingLogs ?? 0,
    backlogBytes: replica?.backlogBytes ?? 0,
    totals,
    statistics: memory.summary,
    lastMs,
    ...(space ? { space } : {}),
    ...(share ? { share } : {}),
    ...(view.group ? { group: view.group.name } : {}),
    ...(stores.length > 0 ? { also: stores } : {}),
  };
}

/** Its health alone, which is looked at in every turn. */
export function machineHealth(source: StatusSource, facts: ItemFacts = factsNow(source)): Health {
  const { rpoThresholdMs } = source.view.config;
  return healthOf(facts, figuresOf(source), { ...HEALTH_THRESHOLDS, rpoMs: rpoThresholdMs });
}

function figuresOf({ view, memory, forecast, stores, space, retention }: StatusSource): CycleFigures {
  const { due, missed, averageLatencyMs } = memory.summary;
  const minutes = forecast.minutesToUpload();
  const { lastSynchronisedMs } = memory;
  return {
    ...{ due, missed, averageLatencyMs, stores },
    ...(lastSynchronisedMs === undefined ? {} : { lastSynchronisedMs }),
    ...(minutes === undefined ? {} : { upload: { level: forecast.level(), minutes } }),
    ...(space ? { space } : {}),
    ...(retention === undefined ? {} : { retention }),
    ...(view.group?.isApart && view.group.trouble ? { apart: { group: view.group.name, ...view.group.trouble } } : {}),
  };
}

/** What was seen last, with what runs and failed since. */
function factsNow({ view, memory, nowMs, running }: StatusSource): ItemFacts {
  const { firstCopyAtMs } = view.config;
  const seen: ItemFacts = view.seen?.facts ?? {
    nowMs,
    ...(firstCopyAtMs === undefined ? {} : { firstCopyAtMs }),
  };
  const verb = running === undefined || running === 'observe' || running === 'prune' ? undefined : running;
  return {
    ...seen,
    ...memory.facts(),
    nowMs,
    item: view.config.name,
    ...(verb ? { running: verb satisfies Verb } : {}),
  };
}
