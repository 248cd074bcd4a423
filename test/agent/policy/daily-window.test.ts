/** When a daily window is open, on ordinary days and on those on which clocks change. */
import fc from 'fast-check';
import { DateTime } from 'luxon';
import { describe, expect, it } from 'vitest';
import {
  type DailyWindow,
  isOpen,
  nextChange,
  nextClosing,
  nextOpening,
  WEEKDAYS,
  windowFault,
} from '../../../src/agent/policy/index.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

const at = (iso: string): number => DateTime.fromISO(iso, { setZone: true }).toMillis();
const nights: DailyWindow = { from: '18:30', to: '06:00', zone: 'Europe/Berlin' };

/** The open times of a window that begin within [fromIso, toIso), as instants in UTC. */
function openings(window: DailyWindow, fromIso: string, toIso: string): readonly string[] {
  const found: string[] = [];
  const text = (ms: number): string => new Date(ms).toISOString().slice(0, 16);
  let nowMs = at(fromIso);
  if (isOpen(window, nowMs)) nowMs = nextClosing(window, nowMs);
  for (;;) {
    const opensMs = nextOpening(window, nowMs);
    if (opensMs >= at(toIso)) return found;
    nowMs = nextClosing(window, opensMs);
    found.push(`${text(opensMs)} ${text(nowMs)}`);
  }
}

describe('a window past midnight', () => {
  it('is open from its first minute until before its last', () => {
    expect(isOpen(nights, at('2026-01-15T18:29:59+01:00'))).toBe(false);
    expect(isOpen(nights, at('2026-01-15T18:30:00+01:00'))).toBe(true);
    expect(isOpen(nights, at('2026-01-16T05:59:59+01:00'))).toBe(true);
    expect(isOpen(nights, at('2026-01-16T06:00:00+01:00'))).toBe(false);
  });

  it('says when it opens and shuts next, from inside and outside', () => {
    const [inside, outside] = [at('2026-01-15T23:00+01:00'), at('2026-01-15T12:00+01:00')];
    expect(nextOpening(nights, inside)).toBe(inside);
    expect(nextClosing(nights, inside)).toBe(at('2026-01-16T06:00+01:00'));
    expect(nextOpening(nights, outside)).toBe(at('2026-01-15T18:30+01:00'));
    expect(nextClosing(nights, outside)).toBe(at('2026-01-16T06:00+01:00'));
  });

  it('belongs to the day on which it opens', () => {
    const window: DailyWindow = { ...nights, days: ['fri'] };
    expect(openings(window, '2026-01-12T00:00+01:00', '2026-01-25T00:00+01:00')).toEqual([
      '2026-01-16T17:30 2026-01-17T05:00',
      '2026-01-23T17:30 2026-01-24T05:00',
    ]);
  });
});

describe('a window that begins when it ends', () => {
  it('is always open where it opens on all days', () => {
    const window: DailyWindow = { from: '09:00', to: '09:00', zone: 'Europe/Berlin' };
    expect(isOpen(window, 0)).toBe(true);
    expect(nextClosing(window, 0)).toBe(Number.POSITIVE_INFINITY);
  });

  it('runs through the days that it names', () => {
    const window: DailyWindow = { from: '00:00', to: '00:00', days: ['sat', 'sun'], zone: 'America/New_York' };
    expect(openings(window, '2026-03-02T00:00-05:00', '2026-03-16T00:00-04:00')).toEqual([
      '2026-03-07T05:00 2026-03-09T04:00',
      '2026-03-14T04:00 2026-03-16T04:00',
    ]);
  });
});

describe('where clocks go forward', () => {
  it('an edge that does not exist lies at the first instant after the gap', () => {
    // Berlin, 2026-03-29: 02:00 is 03:00.
    const opens: DailyWindow = { from: '02:30', to: '05:00', zone: 'Europe/Berlin' };
    expect(openings(opens, '2026-03-28T12:00Z', '2026-03-29T12:00Z')).toEqual(['2026-03-29T01:00 2026-03-29T03:00']);
    const shuts: DailyWindow = { from: '22:00', to: '02:30', zone: 'Europe/Berlin' };
    expect(openings(shuts, '2026-03-28T12:00Z', '2026-03-29T12:00Z')).toEqual(['2026-03-28T21:00 2026-03-29T01:00']);
  });

  it('the same is so in New York', () => {
    const window: DailyWindow = { from: '02:00', to: '02:45', zone: 'America/New_York' };
    expect(openings(window, '2026-03-07T12:00Z', '2026-03-09T12:00Z')).toEqual(['2026-03-09T06:00 2026-03-09T06:45']);
    const longer: DailyWindow = { ...window, to: '03:30' };
    expect(openings(longer, '2026-03-08T00:00Z', '2026-03-08T23:00Z')).toEqual(['2026-03-08T07:00 2026-03-08T07:30']);
  });

  it('half an hour is no different: Lord Howe', () => {
    // 2026-10-04: 02:00 +10:30 is 02:30 +11.
    const window: DailyWindow = { from: '02:10', to: '03:00', zone: 'Australia/Lord_Howe' };
    expect(openings(window, '2026-10-03T12:00Z', '2026-10-04T12:00Z')).toEqual(['2026-10-03T15:30 2026-10-03T16:00']);
  });

  it('a whole date may be missing: Samoa, the 30th of December 2011', () => {
    const window: DailyWindow = { from: '22:00', to: '06:00', zone: 'Pacific/Apia' };
    expect(openings(window, '2011-12-29T12:00Z', '2011-12-31T23:00Z')).toEqual([
      // The night of the 29th ends where the gap does; that of the 30th has only its morning.
      '2011-12-30T08:00 2011-12-30T16:00',
      '2011-12-31T08:00 2011-12-31T16:00',
    ]);
  });
});

describe('where clocks go back', () => {
  it('a window opens at the first and shuts at the last of an hour that is there twice', () => {
    // Berlin, 2026-10-25: 03:00 is 02:00.
    const opens: DailyWindow = { from: '02:30', to: '05:00', zone: 'Europe/Berlin' };
    expect(openings(opens, '2026-10-24T12:00Z', '2026-10-25T12:00Z')).toEqual(['2026-10-25T00:30 2026-10-25T04:00']);
    const shuts: DailyWindow = { from: '22:00', to: '02:30', zone: 'Europe/Berlin' };
    expect(openings(shuts, '2026-10-24T12:00Z', '2026-10-25T12:00Z')).toEqual(['2026-10-24T20:00 2026-10-25T01:30']);
    const within: DailyWindow = { from: '01:15', to: '01:45', zone: 'America/New_York' };
    expect(openings(within, '2026-11-01T00:00Z', '2026-11-01T23:00Z')).toEqual(['2026-11-01T05:15 2026-11-01T06:45']);
  });

  it('half an hour is no different: Lord Howe', () => {
    // 2026-04-05: 02:00 +11 is 01:30 +10:30.
    const window: DailyWindow = { from: '01:40', to: '01:50', zone: 'Australia/Lord_Howe' };
    expect(openings(window, '2026-04-04T06:00Z', '2026-04-05T06:00Z')).toEqual(['2026-04-04T14:40 2026-04-04T15:20']);
  });

  it('a window may reach into the next one, and is then one', () => {
    const window: DailyWindow = { from: '02:40', to: '02:20', zone: 'Europe/Berlin' };
    // On the 25th it shuts at the second 02:20, after it opened at the first 02:40.
    expect(openings(window, '2026-10-24T12:00Z', '2026-10-25T12:00Z')).toEqual([]);
    expect(nextClosing(window, at('2026-10-24T12:00Z'))).toBe(at('2026-10-26T02:20+01:00'));
  });
});

describe('what comes from outside', () => {
  it.each([
    [{ from: '24:00' }, 'no time of day'],
    [{ to: '6:00' }, 'no time of day'],
    [{ zone: 'Europe/Atlantis' }, 'no time zone'],
    [{ days: [] }, 'no day'],
    [{ days: ['someday'] as never }, 'none of mon'],
  ])('%j is refused', (wrong, reason) => {
    expect(windowFault({ ...nights, ...wrong })).toContain(reason);
  });

  it('a good one has no fault', () => {
    expect(windowFault({ ...nights, days: ['mon'] })).toBeUndefined();
  });
});

/** Slow and obvious: the wall clock reads a time within the window. True away from changed clocks. */
function readsOpen({ from, to, days, zone }: DailyWindow, ms: number): boolean {
  const local = DateTime.fromMillis(ms, { zone });
  const time = local.toFormat('HH:mm');
  const opensToday = !days || days.includes(WEEKDAYS[local.weekday - 1]!);
  const openedYesterday = !days || days.includes(WEEKDAYS[local.minus({ days: 1 }).weekday - 1]!);
  if (from < to) return opensToday && time >= from && time < to;
  return (opensToday && time >= from) || (openedYesterday && time < to);
}

const timeOfDay = fc
  .tuple(fc.nat(23), fc.nat(59))
  .map(([hour, minute]) => `${String(hour).padStart(2, '0')}:${String(minute).padStart(2, '0')}`);
const anyWindow: fc.Arbitrary<DailyWindow> = fc.record({
  from: timeOfDay,
  to: timeOfDay,
  days: fc.subarray([...WEEKDAYS], { minLength: 1 }),
  zone: fc.constantFrom('Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'UTC'),
});
const anyTime = fc.integer({ min: at('2025-01-01T00:00Z'), max: at('2027-12-31T00:00Z') });

describe('any window at any time', () => {
  it('is open when its wall clock reads so, days with changed clocks left out', () => {
    fc.assert(
      fc.property(anyWindow, anyTime, (window, nowMs) => {
        const offsets = [-26, 0, 26].map((h) => DateTime.fromMillis(nowMs + h * HOUR, { zone: window.zone }).offset);
        fc.pre(new Set(offsets).size === 1);
        expect(isOpen(window, nowMs)).toBe(readsOpen(window, nowMs));
      }),
      { numRuns: 300 },
    );
  });

  it('is what it was until its next change, and then is not', () => {
    fc.assert(
      fc.property(anyWindow, anyTime, fc.double({ min: 0, max: 1, noNaN: true }), (window, nowMs, share) => {
        const changeMs = nextChange(window, nowMs);
        fc.pre(Number.isFinite(changeMs));
        expect(changeMs).toBeGreaterThan(nowMs);
        const between = nowMs + Math.floor((changeMs - 1 - nowMs) * share);
        // A copy has no remembered answer.
        expect(isOpen({ ...window }, between)).toBe(isOpen(window, nowMs));
        expect(isOpen({ ...window }, changeMs)).toBe(!isOpen(window, nowMs));
      }),
      { numRuns: 300 },
    );
  });
});
