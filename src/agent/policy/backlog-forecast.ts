/**
 * How long the data that waits will take to upload, at the rate of the last transfers. The published thresholds: 30 minutes
 * warn, 45 are critical.
 *
 * The rate is that of time spent sending: what a guest writes between two cycles says nothing about the line, and neither does a
 * rest.
 */
import { MINUTE_MS } from './durations.ts';

export type BacklogLevel = 'ok' | 'warning' | 'critical';

/** Half of what is known of the rate is forgotten after so much sending: some cycles, and less than the threshold. */
const HALF_LIFE_MS: number = 5 * MINUTE_MS;
const WARNING_ABOVE_MINUTES = 30;
const CRITICAL_ABOVE_MINUTES = 45;

export class BacklogForecast {
  #waitingBytes = 0;
  #bytesPerMs: number | undefined;

  /** So much waits now. */
  waits(backlogBytes: number): void {
    this.#waitingBytes = backlogBytes;
  }

  /** So much was sent in so long. */
  sent(bytes: number, elapsedMs: number): void {
    if (!(elapsedMs > 0)) return;
    const rate = bytes / elapsedMs;
    const known = this.#bytesPerMs ?? rate;
    this.#bytesPerMs = rate + (known - rate) * 0.5 ** (elapsedMs / HALF_LIFE_MS);
  }

  /** Undefined while no rate is known; infinity while nothing gets through. */
  minutesToUpload(): number | undefined {
    if (this.#waitingBytes === 0) return 0;
    if (this.#bytesPerMs === undefined) return undefined;
    return this.#waitingBytes / this.#bytesPerMs / MINUTE_MS;
  }

  level(): BacklogLevel {
    const minutes = this.minutesToUpload() ?? 0;
    if (minutes > CRITICAL_ABOVE_MINUTES) return 'critical';
    return minutes > WARNING_ABOVE_MINUTES ? 'warning' : 'ok';
  }
}
