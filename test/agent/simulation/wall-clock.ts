/** What a clock on the wall shows: windows as a person reads them, without the rules that the agent has for them. */
import { IANAZone } from 'luxon';
import type { DailyWindow } from '../../../src/agent/policy/index.ts';

const MINUTES_A_DAY = 24 * 60;

/** Whether the clock of the zone shows a time within the window, whose edges lie in no hour that clocks change. */
export function readsOpen({ from, to, zone }: DailyWindow, nowMs: number): boolean {
  const shown = Math.floor(nowMs / 60_000) + IANAZone.create(zone).offset(nowMs);
  const time = ((shown % MINUTES_A_DAY) + MINUTES_A_DAY) % MINUTES_A_DAY;
  const [opens, shuts] = [minutesOf(from), minutesOf(to)];
  if (opens === shuts) return true;
  return opens < shuts ? time >= opens && time < shuts : time >= opens || time < shuts;
}

function minutesOf(text: string): number {
  const [hours, minutes] = text.split(':');
  return Number(hours) * 60 + Number(minutes);
}
