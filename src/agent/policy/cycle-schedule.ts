/**
 * When the next delta cycle is due, and which of them make an app-consistent point.
 *
 * A cycle is due one interval after the last one began. One that takes longer than that delays the next, which then begins
 * at once: cycles never overlap and never pile up, and what fell out in between is counted as missed. Where the wall clock
 * jumped back, the next cycle is due now; where it jumped ahead, too.
 */
import { DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS } from './durations.ts';

export interface CycleSchedule {
  readonly everyMs: number;
  readonly appConsistentEveryMs?: number;
}

/** The published frequencies. */
export const CYCLE_EVERY_MS: readonly number[] = [30 * SECOND_MS, 5 * MINUTE_MS, 15 * MINUTE_MS];
/** The published default: a loss of five minutes, and a network that rests in between. */
export const CYCLE_EVERY_MS_DEFAULT: number = 5 * MINUTE_MS;
export const APP_CONSISTENT_EVERY_MS_MIN: number = 1 * HOUR_MS;
export const APP_CONSISTENT_EVERY_MS_MAX: number = 12 * HOUR_MS;

/** Nobody looks further back than the longest monitoring interval; a clock set years ahead has missed no more. */
const MISSED_OVER_MS_MAX: number = 7 * DAY_MS;

/** The last cycle: when it began (undefined: there was none yet) and ended. */
export interface LastCycle {
  readonly startedMs: number | undefined;
  readonly endedMs: number;
}

export interface DueCycle {
  /** Not before `nowMs`. */
  readonly dueMs: number;
  /** Cycles that will have fallen out if it begins then. */
  readonly missed: number;
}

export function nextCycle({ everyMs }: CycleSchedule, last: LastCycle, nowMs: number): DueCycle {
  const { startedMs, endedMs } = last;
  if (startedMs === undefined || startedMs > nowMs) return { dueMs: nowMs, missed: 0 };
  const dueMs = Math.max(startedMs + everyMs, Math.min(endedMs, nowMs), nowMs);
  const overMs = Math.min(dueMs - startedMs, MISSED_OVER_MS_MAX);
  return { dueMs, missed: Math.floor(overMs / everyMs) - 1 };
}

/** Whether the cycle that begins now is the one nearest to the time at which an app-consistent point is due. */
export function isAppConsistentDue(schedule: CycleSchedule, lastAppMs: number | undefined, nowMs: number): boolean {
  const { everyMs, appConsistentEveryMs } = schedule;
  if (appConsistentEveryMs === undefined) return false;
  if (lastAppMs === undefined || lastAppMs > nowMs) return true;
  return nowMs - lastAppMs >= appConsistentEveryMs - everyMs / 2;
}
