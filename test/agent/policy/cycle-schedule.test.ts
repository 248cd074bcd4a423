/** When cycles are due, and which of them are app-consistent. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CYCLE_EVERY_MS, isAppConsistentDue, nextCycle } from '../../../src/agent/policy/index.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const T = 1_770_000_000_000;
const schedule = { everyMs: 5 * MINUTE };

/** All in minutes after T. */
function due(startedMin: number, endedMin: number, nowMin: number): readonly [number, number] {
  const [startedMs, endedMs, nowMs] = [startedMin, endedMin, nowMin].map((m) => T + m * MINUTE) as [
    number,
    number,
    number,
  ];
  const { dueMs, missed } = nextCycle(schedule, { startedMs, endedMs }, nowMs);
  return [(dueMs - T) / MINUTE, missed];
}

describe('a delta cycle', () => {
  it('is due at once where there was none', () => {
    expect(nextCycle(schedule, { startedMs: undefined, endedMs: T }, T)).toEqual({ dueMs: T, missed: 0 });
  });

  it('is due one interval after the last one began', () => {
    expect(due(0, 1, 1)).toEqual([5, 0]);
    expect(due(0, 1, 4)).toEqual([5, 0]);
    expect(due(0, 5, 5)).toEqual([5, 0]);
  });

  it('is delayed by one that overruns, and those that fell out are missed', () => {
    expect(due(0, 6, 6)).toEqual([6, 0]);
    expect(due(0, 12, 12)).toEqual([12, 1]);
    expect(due(0, 26, 26)).toEqual([26, 4]);
  });

  it('is due now where the clock jumped, either way', () => {
    expect(due(0, 1, -600)).toEqual([-600, 0]);
    expect(due(0, 1, 61)).toEqual([61, 11]);
    // A clock set ten years ahead has missed what seven days hold.
    expect(due(0, 1, 10 * 365 * 24 * 60)).toEqual([10 * 365 * 24 * 60, 7 * 24 * 12 - 1]);
    // The last one ended before the clock went back behind it.
    expect(due(0, 20, 7)).toEqual([7, 0]);
  });

  it('is never due in the past nor more than an interval ahead', () => {
    const span = 400 * 24 * HOUR;
    const when = fc.integer({ min: T - span, max: T + span });
    fc.assert(
      fc.property(fc.constantFrom(...CYCLE_EVERY_MS), when, when, when, (everyMs, startedMs, endedMs, nowMs) => {
        const { dueMs, missed } = nextCycle({ everyMs }, { startedMs, endedMs }, nowMs);
        expect(dueMs).toBeGreaterThanOrEqual(nowMs);
        expect(dueMs - nowMs).toBeLessThanOrEqual(everyMs);
        expect(missed).toBeGreaterThanOrEqual(0);
      }),
    );
  });
});

describe('an app-consistent point', () => {
  const hourly = { everyMs: 5 * MINUTE, appConsistentEveryMs: HOUR };

  it('is never due where none is asked for, and at once where none was made', () => {
    expect(isAppConsistentDue(schedule, undefined, T)).toBe(false);
    expect(isAppConsistentDue(hourly, undefined, T)).toBe(true);
  });

  it('is made by the nearest cycle, so that it keeps its pace', () => {
    expect(isAppConsistentDue(hourly, T, T + HOUR - 3 * MINUTE)).toBe(false);
    expect(isAppConsistentDue(hourly, T, T + HOUR - 2 * MINUTE)).toBe(true);
  });

  it('is due where the clock went back', () => {
    expect(isAppConsistentDue(hourly, T, T - 1)).toBe(true);
  });
});
