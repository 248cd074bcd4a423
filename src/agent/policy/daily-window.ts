/**
 * A window that opens once a day: `18:30` to `06:00` in a zone. It may reach past midnight. A day's window begins at the
 * first instant of that day that reads `from` (after the gap, where clocks skip it) and ends at the last that reads `to`
 * (again after the gap), so a window is never shut in an hour that its text names. One that lies wholly in a gap does not open
 * that day. Where `from` equals `to`, it lasts until the same time of the next day.
 */
import { dayAt, instantOf, isZone, minutesOf, type TimeOfDay, WEEKDAYS, type Weekday, weekdayOf } from './zone-time.ts';

export interface DailyWindow {
  readonly from: TimeOfDay;
  readonly to: TimeOfDay;
  /** Days on which it opens, all by default. What opens on Friday at 18:30 ends on Saturday, whether that is listed or not. */
  readonly days?: readonly Weekday[];
  /** IANA name. */
  readonly zone: string;
}

/** A time in which the window is open all along, or shut all along: [fromMs, toMs). */
interface Stretch {
  readonly open: boolean;
  readonly fromMs: number;
  readonly toMs: number;
}

interface Run {
  readonly opensMs: number;
  readonly shutsMs: number;
}

/** A window of one day a week can lie in a gap once, and a run of open days may come first. */
const DAYS_AHEAD = 30;

/** What is wrong with a window that came from outside; undefined if nothing is. */
export function windowFault({ from, to, days, zone }: DailyWindow): string | undefined {
  const wrong = [from, to].find((time) => minutesOf(time) === undefined);
  if (wrong !== undefined) return `"${wrong}" is no time of day from 00:00 to 23:59`;
  if (!isZone(zone)) return `"${zone}" is no time zone`;
  if (days?.length === 0) return 'it opens on no day';
  const unknown = days?.find((day) => !WEEKDAYS.includes(day));
  return unknown === undefined ? undefined : `"${unknown}" is none of ${WEEKDAYS.join(', ')}`;
}

export function isOpen(window: DailyWindow, nowMs: number): boolean {
  return stretchAt(window, nowMs).open;
}

/** The first moment from `nowMs` on at which it is open: `nowMs` itself if it is. */
export function nextOpening(window: DailyWindow, nowMs: number): number {
  const { open, toMs } = stretchAt(window, nowMs);
  return open ? nowMs : toMs;
}

/** The first moment after `nowMs` at which it shuts, be it open now or later; infinity if it never does. */
export function nextClosing(window: DailyWindow, nowMs: number): number {
  const { open, toMs } = stretchAt(window, nowMs);
  return open ? toMs : stretchAt(window, toMs).toMs;
}

/** The next moment after `nowMs` at which it opens or shuts; infinity if it never does. */
export function nextChange(window: DailyWindow, nowMs: number): number {
  return stretchAt(window, nowMs).toMs;
}

/** Time zones are slow to ask, and rules are asked every cycle: the last answer of each window mostly still holds. */
const lastStretches = new WeakMap<DailyWindow, Stretch>();

function stretchAt(window: DailyWindow, nowMs: number): Stretch {
  const last = lastStretches.get(window);
  if (last && nowMs >= last.fromMs && nowMs < last.toMs) return last;
  const stretch = findStretch(window, nowMs);
  lastStretches.set(window, stretch);
  return stretch;
}

function findStretch(window: DailyWindow, nowMs: number): Stretch {
  if (isAlwaysOpen(window)) return { open: true, fromMs: Number.NEGATIVE_INFINITY, toMs: Number.POSITIVE_INFINITY };
  let shutSinceMs = nowMs;
  for (const { opensMs, shutsMs } of runsFrom(window, dayAt(window.zone, nowMs))) {
    if (nowMs < opensMs) return { open: false, fromMs: shutSinceMs, toMs: opensMs };
    if (nowMs < shutsMs) return { open: true, fromMs: opensMs, toMs: shutsMs };
    shutSinceMs = shutsMs;
  }
  throw new RangeError(`a window that does not open within ${DAYS_AHEAD} days of ${nowMs}`);
}

function isAlwaysOpen({ from, to, days }: DailyWindow): boolean {
  return from === to && (days === undefined || WEEKDAYS.every((day) => days.includes(day)));
}

/** The times in which it is open, ascending and apart, from yesterday on: yesterday's may still be open. */
function* runsFrom(window: DailyWindow, today: number): Generator<Run, void> {
  let run: Run | undefined;
  for (let day = today - 1; day <= today + DAYS_AHEAD; day += 1) {
    if (window.days && !window.days.includes(weekdayOf(day))) continue;
    const next = windowOf(window, day);
    if (next.shutsMs <= next.opensMs) continue;
    if (run && next.opensMs <= run.shutsMs) {
      // One follows the other at once; where clocks go back it may also reach into it.
      run = { opensMs: run.opensMs, shutsMs: Math.max(run.shutsMs, next.shutsMs) };
      continue;
    }
    if (run) yield run;
    run = next;
  }
  if (run) yield run;
}

/** When the window of one day opens and shuts. @throws RangeError for what `windowFault` finds */
function windowOf(window: DailyWindow, day: number): Run {
  const [from, to] = [minutesOf(window.from), minutesOf(window.to)];
  if (from === undefined || to === undefined) throw new RangeError(windowFault(window));
  const shutsOn = to > from ? day : day + 1;
  return {
    opensMs: instantOf(window.zone, day, from, 'first'),
    shutsMs: instantOf(window.zone, shutsOn, to, 'last'),
  };
}
