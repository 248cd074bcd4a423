/**
 * Deadlines of many requests over one timer: nearly every request ends before its own, and a timer with its promise and its
 * signal for each of them cost more than a tenth of what sending takes.
 *
 * A deadline fires once, at its time or a little after it. While none runs there is no timer, which would keep the process alive.
 */
import type { Clock } from '../ports.ts';

interface Deadline {
  readonly atMs: number;
  readonly missed: () => void;
}

export class Deadlines {
  readonly #clock: Clock;
  readonly #running: Set<Deadline> = new Set();
  #timer: { readonly atMs: number; readonly stop: AbortController } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `missed` after `ms`, unless what it returns is called before. */
  start(ms: number, missed: () => void): () => void {
    const deadline = { atMs: this.#clock.monotonicMs() + ms, missed };
    this.#running.add(deadline);
    if (this.#timer === undefined || deadline.atMs < this.#timer.atMs) this.#wait(deadline.atMs);
    return () => {
      this.#running.delete(deadline);
      if (this.#running.size === 0) this.#stop();
    };
  }

  #wait(atMs: number): void {
    this.#stop();
    const timer = { atMs, stop: new AbortController() };
    this.#timer = timer;
    this.#clock.sleep(Math.max(0, atMs - this.#clock.monotonicMs()), timer.stop.signal).then(
      () => this.#fire(),
      () => {},
    );
  }

  #stop(): void {
    this.#timer?.stop.abort();
    this.#timer = undefined;
  }

  /** The deadline that the timer was for has often been met long ago: the next one is looked for here. */
  #fire(): void {
    this.#timer = undefined;
    const nowMs = this.#clock.monotonicMs();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const deadline of [...this.#running]) {
      if (deadline.atMs > nowMs) {
        nextMs = Math.min(nextMs, deadline.atMs);
        continue;
      }
      this.#running.delete(deadline);
      deadline.missed();
    }
    if (nextMs < Number.POSITIVE_INFINITY && this.#timer === undefined) this.#wait(nextMs);
  }
}
