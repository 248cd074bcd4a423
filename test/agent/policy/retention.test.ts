/** Which points stay: examples by hand, and what holds for every history of points. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  pointsToDrop,
  RETENTION_DEFAULT,
  type RetainedPoint,
  type RetentionPolicy,
  retentionFault,
} from '../../../src/agent/policy/index.ts';
import { POINTS_KEPT } from '../../../src/replica/index.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** Midnight in UTC, so that buckets of hours begin with it. */
const T = Date.UTC(2026, 0, 15);
const NONE: ReadonlySet<string> = new Set();
const LONG: RetentionPolicy = { ...RETENTION_DEFAULT, keepMs: 15 * DAY };

let count = 0;
function point(timeMs: number, consistency: 'crash' | 'app' = 'crash'): RetainedPoint {
  count += 1;
  return { id: `p${count}`, timeMs, consistency };
}

/** Points every `stepMs` from T on. */
function row(stepMs: number, untilMs: number, appEvery = 0): readonly RetainedPoint[] {
  const steps = Math.floor(untilMs / stepMs);
  return Array.from({ length: steps + 1 }, (_, i) =>
    point(T + i * stepMs, appEvery > 0 && i % appEvery === 0 ? 'app' : 'crash'),
  );
}

function keep(points: readonly RetainedPoint[], policy: RetentionPolicy, inUse = NONE): readonly RetainedPoint[] {
  const drop = pointsToDrop(points, policy, inUse);
  return points.filter(({ id }) => !drop.has(id));
}

/** Points are made one after the other, and retention runs after each `every`-th. */
function live(points: readonly RetainedPoint[], policy: RetentionPolicy, every = 1): readonly RetainedPoint[] {
  let kept: readonly RetainedPoint[] = [];
  for (const [i, made] of points.entries()) {
    kept = [...kept, made];
    if (i % every === 0 || i === points.length - 1) kept = keep(kept, policy);
  }
  return kept;
}

const hoursAgo = (points: readonly RetainedPoint[]): readonly number[] =>
  points.map(({ timeMs }) => ((points.at(-1)?.timeMs ?? 0) - timeMs) / HOUR);

describe('the default', () => {
  it('has all of two hours, then one an hour for a day', () => {
    const kept = hoursAgo(keep(row(5 * MINUTE, 3 * DAY), RETENTION_DEFAULT));
    expect(kept.filter((hours) => hours <= 2)).toHaveLength(25);
    expect(kept.filter((hours) => hours > 2)).toEqual([
      24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3,
    ]);
  });

  it('thins to one in two hours from the second day and one in four from the eighth, where it keeps longer', () => {
    const kept = hoursAgo(keep(row(5 * MINUTE, 20 * DAY), LONG));
    const between = (from: number, to: number): readonly number[] => kept.filter((h) => h > from * 24 && h <= to * 24);
    expect(between(1, 7)).toHaveLength(72);
    expect(between(7, 15)).toHaveLength(48);
    expect(kept[0]).toBe(15 * 24);
    expect(kept).toHaveLength(25 + 22 + 72 + 48 - 1 + 1);
  });

  it('fits into a root, at the shortest cycle and for the longest time', () => {
    // Two hours of all, fifteen days of thinned ones, and ten minutes until the next look.
    const most = (2 * HOUR) / 30_000 + 22 + 72 + 48 + (10 * MINUTE) / 30_000;
    expect(most).toBeLessThan(LONG.pointsMax);
    expect(LONG.pointsMax).toBeLessThan(POINTS_KEPT);
  });

  it('has no fault', () => {
    expect(retentionFault(RETENTION_DEFAULT)).toBeUndefined();
    expect(retentionFault(LONG)).toBeUndefined();
  });
});

describe('a point', () => {
  it('that is the newest stays, however old the rest of the world is', () => {
    const alone = [point(T)];
    expect(keep(alone, { ...RETENTION_DEFAULT, keepMs: 1, pointsMax: 1 })).toEqual(alone);
    expect(keep([], RETENTION_DEFAULT)).toEqual([]);
  });

  it('in use stays besides the others, and goes when nobody uses it any more', () => {
    const points = row(5 * MINUTE, DAY);
    const used = points[7]!;
    const kept = keep(points, RETENTION_DEFAULT, new Set([used.id]));
    expect(kept).toContain(used);
    expect(kept.filter((p) => p !== used)).toEqual(keep(points, RETENTION_DEFAULT));
    expect(keep(kept, RETENTION_DEFAULT)).toEqual(keep(points, RETENTION_DEFAULT));
  });

  it('that is app-consistent is what is left of its hour', () => {
    const points = row(5 * MINUTE, 5 * HOUR).map((p, i) => (i === 7 ? { ...p, consistency: 'app' as const } : p));
    const firstHour = keep(points, RETENTION_DEFAULT).filter(({ timeMs }) => timeMs < T + HOUR);
    expect(firstHour).toEqual([points[7]]);
  });

  it('that is app-consistent is held longer where that is asked for', () => {
    const policy: RetentionPolicy = { ...RETENTION_DEFAULT, appConsistentKeepMs: 3 * DAY };
    const kept = live(row(5 * MINUTE, 5 * DAY, 48), policy);
    const old = kept.filter(({ timeMs }) => timeMs < T + 4 * DAY);
    expect(old.every(({ consistency }) => consistency === 'app')).toBe(true);
    expect(hoursAgo(kept).slice(0, 3)).toEqual([72, 68, 64]);
  });
});

describe('an interruption', () => {
  it('drops nothing while it lasts, and does not age what came before it', () => {
    const before = live(row(5 * MINUTE, DAY), RETENTION_DEFAULT);
    const first = point(T + 4 * DAY);
    expect(keep([...before, first], RETENTION_DEFAULT)).toEqual([...before, first]);
  });

  it('is a clock set years ahead, too', () => {
    const before = live(row(5 * MINUTE, DAY), RETENTION_DEFAULT);
    const ahead = [point(T + 3650 * DAY), point(T + 3650 * DAY + 5 * MINUTE)];
    const back = [point(T + DAY + 10 * MINUTE), point(T + DAY + 15 * MINUTE)];
    const kept = keep(keep([...before, ...ahead], RETENTION_DEFAULT).concat(back), RETENTION_DEFAULT);
    expect(kept.length).toBeGreaterThanOrEqual(before.length + 2);
  });
});

describe('the number of points', () => {
  it('is bounded; the oldest go, but not those in use', () => {
    const points = row(5 * MINUTE, HOUR);
    const policy = { ...RETENTION_DEFAULT, pointsMax: 3 };
    expect(keep(points, policy)).toEqual(points.slice(-3));
    expect(keep(points, policy, new Set([points[0]!.id]))).toEqual([points[0], ...points.slice(-3)]);
  });
});

describe('a policy from outside', () => {
  it.each([
    [{ keepMs: 0 }, 'longer than nothing'],
    [{ appConsistentKeepMs: HOUR }, 'at least as long'],
    [{ pointsMax: 0 }, 'no number of points'],
    [{ thinning: [{ olderThanMs: HOUR, onePerMs: 0 }] }, 'empty'],
    [{ thinning: [{ olderThanMs: HOUR, onePerMs: DAY }] }, 'less than one point'],
    [
      {
        thinning: [
          { olderThanMs: HOUR, onePerMs: HOUR },
          { olderThanMs: HOUR, onePerMs: HOUR },
        ],
      },
      'order of their age',
    ],
    [
      {
        thinning: [
          { olderThanMs: HOUR, onePerMs: 2 * HOUR },
          { olderThanMs: DAY, onePerMs: 3 * HOUR },
        ],
      },
      'multiple',
    ],
  ])('%j is refused', (wrong, reason) => {
    expect(retentionFault({ ...RETENTION_DEFAULT, ...wrong })).toContain(reason);
  });
});

const anyPolicy: fc.Arbitrary<RetentionPolicy> = fc
  .record({
    widths: fc.constantFrom([1], [1, 2], [1, 2, 4], [2, 8], [1, 1, 3]),
    ages: fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 3, maxLength: 3 }),
    keep: fc.integer({ min: 4, max: 60 }),
    more: fc.nat(40),
  })
  .map(({ widths, ages, keep: hours, more }) => {
    let age = 0;
    const thinning = widths.map((width, i) => {
      age += ages[i]!;
      return { olderThanMs: age * HOUR, onePerMs: width * HOUR };
    });
    return { keepMs: hours * HOUR, appConsistentKeepMs: (hours + more) * HOUR, thinning, pointsMax: 10_000 };
  });

/** Two days and a half of points, with gaps of up to an hour and app-consistent ones here and there. */
const anyHistory = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.nat(9)), { minLength: 1, maxLength: 160 })
  .map((steps) => {
    let timeMs = T;
    return steps.map(([minutes, app]) => {
      timeMs += minutes * MINUTE;
      return point(timeMs, app === 0 ? 'app' : 'crash');
    });
  });

describe('any history of points', () => {
  it('ends at the same set, be it thinned after each point, now and then, or once', () => {
    fc.assert(
      fc.property(anyHistory, anyPolicy, fc.integer({ min: 2, max: 30 }), (points, policy, every) => {
        expect(retentionFault(policy)).toBeUndefined();
        const once = keep(points, policy);
        expect(live(points, policy)).toEqual(once);
        expect(live(points, policy, every)).toEqual(once);
        expect(keep(once, policy)).toEqual(once);
      }),
      { numRuns: 200 },
    );
  });

  it('has a point wherever the policy promises one', () => {
    fc.assert(
      fc.property(anyHistory, anyPolicy, (points, policy) => {
        const kept = live(points, policy);
        const nowMs = points.at(-1)!.timeMs;
        for (const made of points) {
          const age = nowMs - made.timeMs;
          if (age > policy.keepMs) continue;
          const width = policy.thinning.findLast(({ olderThanMs }) => age > olderThanMs)?.onePerMs;
          if (width === undefined) expect(kept).toContain(made);
          else expect(kept.some(({ timeMs }) => Math.abs(timeMs - made.timeMs) < width)).toBe(true);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('has no more points than the policy promises, and none that is too old', () => {
    fc.assert(
      fc.property(anyHistory, anyPolicy, (points, policy) => {
        const kept = live(points, policy);
        const nowMs = points.at(-1)!.timeMs;
        for (const { olderThanMs, onePerMs } of policy.thinning) {
          const buckets = kept
            .filter((p) => nowMs - p.timeMs > olderThanMs && p !== points.at(-1))
            .map(({ timeMs }) => Math.floor(timeMs / onePerMs));
          expect(new Set(buckets).size).toBe(buckets.length);
        }
        for (const { timeMs, consistency } of kept) {
          const keepMs = consistency === 'app' ? policy.appConsistentKeepMs! : policy.keepMs;
          expect(nowMs - timeMs).toBeLessThanOrEqual(keepMs);
        }
      }),
      { numRuns: 200 },
    );
  });
});
