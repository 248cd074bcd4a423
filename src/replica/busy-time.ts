/** Time during which at least one of several pieces of work that overlap was under way: what a rate is measured by. */
import type { Clock } from '../ports.ts';

export class BusyTime {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  #running = 0;
  #sinceMs = 0;
  #totalMs = 0;

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  /** Of the work that ended, or was under way while other work ended. */
  get totalMs(): number {
    return this.#totalMs;
  }

  async during<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running === 0) this.#sinceMs = this.#clock.monotonicMs();
    this.#running += 1;
    try {
      return await work();
    } finally {
      this.#running -= 1;
      const nowMs = this.#clock.monotonicMs();
      this.#totalMs += nowMs - this.#sinceMs;
      this.#sinceMs = nowMs;
    }
  }
}
