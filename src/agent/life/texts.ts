/** Numbers and times as causes and refusals say them. */

const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
/** A Date of JavaScript ends there. */
const TIME_MS_MAX = 8.64e15;

/** Unix milliseconds as ISO 8601 in UTC, to the second; a time that is none is told as the number it is. */
export function timeText(ms: number): string {
  if (!(Math.abs(ms) <= TIME_MS_MAX)) return `${ms} ms`;
  return new Date(ms).toISOString().replace(/\.\d{3}Z$/, 'Z');
}

/** `45 s`, `4 min 10 s`, `2 h 05 min`, `3 d 04 h`. */
export function spanText(ms: number): string {
  const two = (n: number): string => String(n).padStart(2, '0');
  if (ms < MINUTE_MS) return `${Math.max(0, Math.floor(ms / SECOND_MS))} s`;
  if (ms < HOUR_MS) return `${Math.floor(ms / MINUTE_MS)} min ${two(Math.floor((ms % MINUTE_MS) / SECOND_MS))} s`;
  if (ms < 48 * HOUR_MS) return `${Math.floor(ms / HOUR_MS)} h ${two(Math.floor((ms % HOUR_MS) / MINUTE_MS))} min`;
  const hours = Math.floor(ms / HOUR_MS);
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

/** A share in percent, with a decimal where it would look like the threshold that it is beyond. */
export function percentText(share: number): string {
  return `${Number((share * 100).toFixed(1))} %`;
}
