/**
 * A cap on bytes per second over everything that shares it, changeable at run time.
 *
 * Each taker gets a place in line, counted in bytes; the line is served at the rate. Idle time is not saved up, so
 * there are no bursts above the cap beyond one request.
 */
import { throwIfAborted } from '../errors.ts';
import type { Clock } from '../ports.ts';
import { shared } from './signals.ts';

export class Bandwidth {
  readonly #clock: Clock;
  #bytesPerSecond: number | undefined;
  /** Bytes handed out and asked for since the beginning, and how many of them the rate has paid for. */
  #reservedBytes = 0;
  #paidBytes = 0;
  #paidAtMs: number;
  #changed: AbortController = new AbortController();

  /** Without a rate there is no cap. */
  constructor(clock: Clock, bytesPerSecond?: number) {
    this.#clock = clock;
    this.#paidAtMs = clock.monotonicMs();
    this.#bytesPerSecond = checkRate(bytesPerSecond);
  }

  get bytesPerSecond(): number | undefined {
    return this.#bytesPerSecond;
  }

  /** Takes effect at once, for those who wait as well. */
  setBytesPerSecond(bytesPerSecond: number | undefined): void {
    this.#pay();
    this.#bytesPerSecond = checkRate(bytesPerSecond);
    const changed = this.#changed;
    this.#changed = new AbortController();
    changed.abort();
  }

  /** Resolves when `lengthBytes` may be sent. @throws ABORTED */
  async take(lengthBytes: number, signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    this.#pay();
    const turn = this.#reservedBytes;
    this.#reservedBytes += lengthBytes;
    for (;;) {
      this.#pay();
      if (this.#bytesPerSecond === undefined || this.#paidBytes >= turn) return;
      const waitMs = Math.max(1, Math.ceil(((turn - this.#paidBytes) / this.#bytesPerSecond) * 1000));
      const changed = shared(this.#changed.signal);
      try {
        await this.#clock.sleep(waitMs, signal ? AbortSignal.any([signal, changed]) : changed);
      } catch (error) {
        if (!changed.aborted) throw error;
        throwIfAborted(signal);
      }
    }
  }

  #pay(): void {
    const nowMs = this.#clock.monotonicMs();
    const earned =
      this.#bytesPerSecond === undefined
        ? Number.POSITIVE_INFINITY
        : ((nowMs - this.#paidAtMs) / 1000) * this.#bytesPerSecond;
    this.#paidBytes = Math.min(this.#reservedBytes, this.#paidBytes + earned);
    this.#paidAtMs = nowMs;
  }
}

function checkRate(bytesPerSecond: number | undefined): number | undefined {
  if (bytesPerSecond === undefined || (Number.isFinite(bytesPerSecond) && bytesPerSecond > 0)) return bytesPerSecond;
  throw new RangeError(`${bytesPerSecond} bytes per second is no rate`);
}
