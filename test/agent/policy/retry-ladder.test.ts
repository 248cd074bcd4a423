/** The published ladder, to the minute. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nextAttempt } from '../../../src/agent/policy/index.ts';

const MINUTE = 60_000;
const T = 1_770_000_000_000;

describe('the retry ladder', () => {
  it('is 1, 2, 4, 8 and 10 minutes from the begin of the first attempt, then every 30', () => {
    const minutes = Array.from({ length: 9 }, (_, i) => (nextAttempt(T, i + 1) - T) / MINUTE);
    expect(minutes).toEqual([1, 2, 4, 8, 10, 40, 70, 100, 130]);
  });

  it('is the same when attempts take a moment', () => {
    expect(nextAttempt(T, 1, T + 900)).toBe(T + MINUTE);
    expect(nextAttempt(T, 5, T + 8 * MINUTE + 900)).toBe(T + 10 * MINUTE);
    expect(nextAttempt(T, 7, T + 40 * MINUTE + 900)).toBe(T + 70 * MINUTE);
  });

  it('leaves out rungs that passed while an attempt ran', () => {
    expect(nextAttempt(T, 1, T + 5 * MINUTE)).toBe(T + 8 * MINUTE);
    expect(nextAttempt(T, 2, T + 10 * MINUTE)).toBe(T + 40 * MINUTE);
    expect(nextAttempt(T, 2, T + 3 * 24 * 60 * MINUTE)).toBe(T + (3 * 24 * 60 + 10) * MINUTE);
  });

  it('never makes anyone wait for more than 30 minutes, and always for the future', () => {
    const span = 10 * 365 * 24 * 60 * MINUTE;
    fc.assert(
      fc.property(fc.integer({ min: -span, max: span }), fc.integer({ min: 1, max: 100_000 }), (jumpMs, failures) => {
        const endedMs = T + jumpMs;
        const waitMs = nextAttempt(T, failures, endedMs) - endedMs;
        expect(waitMs).toBeGreaterThan(0);
        expect(waitMs).toBeLessThanOrEqual(30 * MINUTE);
      }),
    );
  });
});
