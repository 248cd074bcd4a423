/** What a clock on the wall shows: windows as a person reads them, without the rules that the agent has for them. */
import { IANAZone } from 'luxon';
import type { DailyWindow } from '../../../src/agent/policy/index.ts';

const MINUTES_A_DAY = 24 * 60;
/** Clocks change at quarters of an hour, if at all. */
const QUARTER_MS = 900_000;

/** Minutes ahead of UTC in the quarter of an hour that begins there, by zone: asked a million times, it is the same few again. */
const offsets: Map<string, Map<number, number>> = new Map();

/** Whether the clock of the zone shows a time within the window, whose edges lie in no hour that clocks change. */
export function readsOpen({ from, to, zone }: DailyWindow, nowMs: number): boolean {
  const shown = Math.floor(nowMs / 60_000) + offsetAt(zone, nowMs);
  const time = ((shown % MINUTES_A_DAY) + MINUTES_A_DAY) % MINUTES_A_DAY;
  const [opens, shuts] = [minutesOf(from), minutesOf(to)];
  if (opens === shuts) return true;
  return opens < shuts ? time >= opens && time < shuts : time >= opens || time < shuts;
}

function offsetAt(zone: string, nowMs: number): number {
  const quarter = Math.floor(nowMs / QUARTER_MS);
  const known = offsets.get(zone) ?? new Map<number, number>();
  const offset = known.get(quarter) ?? IANAZone.create(zone).offset(quarter * QUARTER_MS);
  known.set(quarter, offset);
  offsets.set(zone, known);
  return offset;
}

function minutesOf(text: string): number {
  return Number(text.slice(0, 2)) * 60 + Number(text.slice(3));
}
