/**
 * Where a time of day of a zone lies in Unix time. A day is the number of a calendar date, 0 being 1970-01-01.
 *
 * When clocks go forward, a time of day may not exist on that day: then it stands for the first instant after the gap.
 * When they go back it exists twice: the caller says whether it means the first or the last. Zones whose rules change by
 * half an hour or leave out a whole date are no different.
 */
import { IANAZone } from 'luxon';
import { DAY_MS, HOUR_MS, MINUTE_MS } from './durations.ts';

/** `HH:MM`, 00:00 to 23:59. */
export type TimeOfDay = string;

export const WEEKDAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const;
export type Weekday = (typeof WEEKDAYS)[number];

/** Minutes since midnight; undefined if the text is no time of day. */
export function minutesOf(time: TimeOfDay): number | undefined {
  const parts = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(time);
  return parts ? Number(parts[1]) * 60 + Number(parts[2]) : undefined;
}

/** Whether the name is a zone of the IANA database. */
export function isZone(name: string): boolean {
  return IANAZone.create(name).isValid;
}

/** The calendar date at `atMs` in the zone. */
export function dayAt(zone: string, atMs: number): number {
  return Math.floor((atMs + offsetMs(zone, atMs)) / DAY_MS);
}

export function weekdayOf(day: number): Weekday {
  // 1970-01-01 was a Thursday.
  return WEEKDAYS[(((day + 3) % 7) + 7) % 7] as Weekday;
}

/** The instant of a time of day; `which` one where it exists twice. */
export function instantOf(zone: string, day: number, minutes: number, which: 'first' | 'last'): number {
  const localMs = day * DAY_MS + minutes * MINUTE_MS;
  // Zones are at most 14 hours from UTC, so these two lie on either side of any change that matters here.
  const before = offsetMs(zone, localMs - DAY_MS);
  const after = offsetMs(zone, localMs + DAY_MS);
  if (before === after) return localMs - before;
  const valid = [localMs - before, localMs - after].filter((atMs) => atMs + offsetMs(zone, atMs) === localMs);
  if (valid.length === 0) return changeBetween(zone, localMs - after, localMs - before);
  return which === 'first' ? Math.min(...valid) : Math.max(...valid);
}

/** The first instant after `lowMs` at which the zone's offset is no longer that of `lowMs`. */
function changeBetween(zone: string, lowMs: number, highMs: number): number {
  const before = offsetMs(zone, lowMs);
  let low = lowMs;
  let high = highMs;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (offsetMs(zone, middle) === before) low = middle;
    else high = middle;
  }
  return high;
}

/** No zone changes its clocks twice within this time. */
const SPAN_MS = 6 * HOUR_MS;
/** Spans that are kept for a zone: the days around now, of which every turn asks. */
const SPANS_MAX = 256;
/** By zone and number of the span: its offset, or that it changes in between. Asking Intl takes longer than all else here. */
const known = new Map<string, Map<number, number | 'changes'>>();

function offsetMs(zone: string, atMs: number): number {
  let spans = known.get(zone);
  if (spans === undefined) {
    spans = new Map();
    known.set(zone, spans);
  }
  const span = Math.floor(atMs / SPAN_MS);
  let offset = spans.get(span);
  if (offset === undefined) {
    const first = lookUpOffsetMs(zone, span * SPAN_MS);
    offset = first === lookUpOffsetMs(zone, (span + 1) * SPAN_MS) ? first : 'changes';
    if (spans.size === SPANS_MAX) spans.clear();
    spans.set(span, offset);
  }
  return offset === 'changes' ? lookUpOffsetMs(zone, atMs) : offset;
}

function lookUpOffsetMs(zone: string, atMs: number): number {
  const minutes = IANAZone.create(zone).offset(atMs);
  if (Number.isNaN(minutes)) throw new RangeError(`${zone} has no time of day at ${atMs}`);
  return minutes * MINUTE_MS;
}
