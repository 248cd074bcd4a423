/** What machines may use at a time: lanes, bandwidth, space. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type BandwidthProfile,
  bandwidthAt,
  fairLanes,
  type LaneWish,
  nextBandwidthChange,
  spaceVerdict,
} from '../../../src/agent/policy/index.ts';

const machines = (count: number): readonly LaneWish[] => Array.from({ length: count }, () => ({}));

describe('lanes', () => {
  it.each([
    [64, 1, [32]],
    [64, 2, [32, 32]],
    [10, 2, [5, 5]],
    [11, 2, [6, 5]],
    [8, 3, [3, 3, 2]],
    [2, 4, [1, 1, 0, 0]],
    [0, 2, [0, 0]],
    [64, 0, []],
  ])('%i for %i machines are %j', (total, count, lanes) => {
    expect(fairLanes(total, machines(count))).toEqual(lanes);
  });

  it('go by weight once all have their minimum', () => {
    expect(fairLanes(24, [{ weight: 2 }, { weight: 1 }])).toEqual([16, 8]);
    expect(fairLanes(9, [{ weight: 8 }, { weight: 1 }])).toEqual([5, 4]);
  });

  it('of a machine that wants few are the others', () => {
    expect(fairLanes(40, [{ wantsMax: 4 }, {}, {}])).toEqual([4, 18, 18]);
  });

  it('are fair in any company', () => {
    const wish = fc
      .record({ weight: fc.integer({ min: 1, max: 8 }), wantsMin: fc.integer({ min: 1, max: 8 }), more: fc.nat(24) })
      .map(({ weight, wantsMin, more }) => ({ weight, wantsMin, wantsMax: wantsMin + more }));
    fc.assert(
      fc.property(fc.nat(200), fc.array(wish, { maxLength: 20 }), (total, wishes) => {
        const lanes = fairLanes(total, wishes);
        const sum = (of: readonly number[]): number => of.reduce((a, b) => a + b, 0);
        expect(sum(lanes)).toBe(Math.min(total, sum(wishes.map(({ wantsMax }) => wantsMax))));
        const richest = Math.max(0, ...lanes);
        for (const [i, { weight, wantsMin, wantsMax }] of wishes.entries()) {
          expect(lanes[i]).toBeLessThanOrEqual(wantsMax);
          if (total >= wishes.length) expect(lanes[i]).toBeGreaterThanOrEqual(1);
          if (total >= sum(wishes.map((w) => w.wantsMin))) expect(lanes[i]).toBeGreaterThanOrEqual(wantsMin);
          // Nobody above its minimum has a lane that somebody else, who wants it, has a better claim to.
          for (const [j, other] of wishes.entries()) {
            if (lanes[j]! > other.wantsMin && lanes[i]! < wantsMax && richest > 0) {
              expect((lanes[j]! - 1) / other.weight).toBeLessThanOrEqual(lanes[i]! / weight);
            }
          }
        }
      }),
    );
  });

  it('are refused where the wish makes no sense', () => {
    expect(() => fairLanes(4, [{ weight: 0 }])).toThrow(RangeError);
    expect(() => fairLanes(4, [{ wantsMin: 5, wantsMax: 4 }])).toThrow(RangeError);
    expect(() => fairLanes(-1, [])).toThrow(RangeError);
  });
});

describe('bandwidth', () => {
  const day = (hour: number): number => Date.UTC(2026, 0, 15, hour);
  const profile: BandwidthProfile = {
    workHours: { from: '09:00', to: '18:00', days: ['thu'], zone: 'UTC', bytesPerSecond: 1000 },
    otherBytesPerSecond: 5000,
  };

  it('is another one in working hours', () => {
    expect([8, 9, 17, 18].map((hour) => bandwidthAt(profile, day(hour)))).toEqual([5000, 1000, 1000, 5000]);
    expect(bandwidthAt(profile, day(12 + 24))).toBe(5000);
  });

  it('says when it changes', () => {
    expect(nextBandwidthChange(profile, day(8))).toBe(day(9));
    expect(nextBandwidthChange(profile, day(9))).toBe(day(18));
  });

  it('has no cap where none is set, and never changes where nothing does', () => {
    expect(bandwidthAt({}, day(0))).toBeUndefined();
    expect(nextBandwidthChange({}, day(0))).toBeUndefined();
    expect(nextBandwidthChange({ ...profile, otherBytesPerSecond: 1000 }, day(0))).toBeUndefined();
    const always = { workHours: { from: '00:00', to: '00:00', zone: 'UTC', bytesPerSecond: 7 } };
    expect([bandwidthAt(always, day(3)), nextBandwidthChange(always, day(3))]).toEqual([7, undefined]);
  });
});

describe('space', () => {
  it.each([
    [100, 'ok'],
    [30, 'ok'],
    [29, 'low'],
    [25, 'low'],
    [24, 'throttle'],
    [20, 'throttle'],
    [19, 'stop'],
    [0, 'stop'],
  ])('%i %% free is %s', (free, verdict) => {
    expect(spaceVerdict(free, 100)).toBe(verdict);
  });

  it('cannot be judged without a volume', () => {
    expect(() => spaceVerdict(0, 0)).toThrow(RangeError);
    expect(() => spaceVerdict(Number.NaN, 1)).toThrow(RangeError);
  });
});
