/**
 * When a cycle that failed is tried again: 1, 2, 4, 8 and 10 minutes after the first attempt began, then every 30 minutes.
 *
 * Rungs that passed while an attempt ran are not made up for, and a clock that jumps never makes anyone wait for longer than
 * the widest step.
 */
import { MINUTE_MS } from './durations.ts';

/** As the published system does it: most faults of a network are over within minutes. */
const FIRST_RUNGS_MS: readonly number[] = [1, 2, 4, 8, 10].map((minutes) => minutes * MINUTE_MS);
/** Later on, often enough to notice within the hour that an outage is over, and rare enough not to be one. */
const LATER_EVERY_MS: number = 30 * MINUTE_MS;

/**
 * When to try again after `failures` attempts, the first of which began at `firstAttemptMs`. `endedMs` is when the last of
 * them ended, if not at once: the answer lies behind it.
 */
export function nextAttempt(firstAttemptMs: number, failures: number, endedMs?: number): number {
  const planned = Math.max(1, failures);
  if (endedMs === undefined) return firstAttemptMs + rungMs(planned);
  const rung = Math.max(planned, rungAfter(endedMs - firstAttemptMs));
  return Math.min(firstAttemptMs + rungMs(rung), endedMs + LATER_EVERY_MS);
}

/** The first rung that is more than so long after the first attempt. */
function rungAfter(sinceFirstMs: number): number {
  const early = FIRST_RUNGS_MS.findIndex((ms) => ms > sinceFirstMs);
  if (early >= 0) return early + 1;
  const last = FIRST_RUNGS_MS.length;
  return last + Math.floor((sinceFirstMs - rungMs(last)) / LATER_EVERY_MS) + 1;
}

/** Rung 1 is a minute after the first attempt. */
function rungMs(rung: number): number {
  const last = FIRST_RUNGS_MS.length;
  return rung <= last ? FIRST_RUNGS_MS[rung - 1]! : FIRST_RUNGS_MS[last - 1]! + (rung - last) * LATER_EVERY_MS;
}
