/**
 * How long the data that waits will take to upload, at the rate of the last minutes. The published thresholds: 30 minutes
 * warn, 45 are critical.
 */
import { MINUTE_MS } from './durations.ts';

export type BacklogLevel = 'ok' | 'warning' | 'critical';

/** Half of what is known of the rate is forgotten in this time: longer than a cycle, shorter than the threshold. */
const HALF_LIFE_MS: number = 5 * MINUTE_MS;
const WARNING_ABOVE_MINUTES = 30;
const CRITICAL_ABOVE_MINUTES = 45;

interface Sample {
  readonly atMs: number;
  readonly backlogBytes: number;
  readonly sentBytes: number;
}

export class BacklogForecast {
  #last: Sample | undefined;
  #bytesPerMs: number | undefined;

  /**
   * What waits now, and what was sent since the beginning (a counter that may begin anew). `nowMs` is monotonic time.
   * Time in which nothing waited says nothing about the rate.
   */
  sample(nowMs: number, backlogBytes: number, sentBytes: number): void {
    const last = this.#last;
    if (last && nowMs <= last.atMs) return;
    this.#last = { atMs: nowMs, backlogBytes, sentBytes };
    if (!last) return;
    const sent = sentBytes >= last.sentBytes ? sentBytes - last.sentBytes : sentBytes;
    if (sent === 0 && last.backlogBytes === 0) return;
    const elapsedMs = nowMs - last.atMs;
    const rate = sent / elapsedMs;
    const known = this.#bytesPerMs ?? rate;
    this.#bytesPerMs = rate + (known - rate) * 0.5 ** (elapsedMs / HALF_LIFE_MS);
  }

  /** Undefined while no rate is known; infinity while nothing gets through. */
  minutesToUpload(): number | undefined {
    if (!this.#last) return undefined;
    if (this.#last.backlogBytes === 0) return 0;
    if (this.#bytesPerMs === undefined) return undefined;
    return this.#last.backlogBytes / this.#bytesPerMs / MINUTE_MS;
  }

  level(): BacklogLevel {
    const minutes = this.minutesToUpload() ?? 0;
    if (minutes > CRITICAL_ABOVE_MINUTES) return 'critical';
    return minutes > WARNING_ABOVE_MINUTES ? 'warning' : 'ok';
  }
}
