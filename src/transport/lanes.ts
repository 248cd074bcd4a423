/**
 * Lanes: how requests to one blob go out. A bound over all blobs (p-limit), what the blob stands (congestion), and what
 * the link may carry (bandwidth), in this order, so that a request that waits for its bytes already has its place.
 */
import pLimit, { type LimitFunction } from 'p-limit';
import { throwIfAborted } from '../errors.ts';
import type { Clock } from '../ports.ts';
import type { Bandwidth } from './bandwidth.ts';
import { type CongestionReport, CongestionWindow } from './congestion.ts';

/** 15 requests of 4 MiB per second are all that a page blob takes; 8 in flight reach that at half a second each. */
const LIMIT_FIRST = 8;

export interface LanesOptions {
  readonly clock: Clock;
  /** Requests under way at most, or a limit shared with the lanes of other blobs. */
  readonly limit: number | LimitFunction;
  readonly bandwidth?: Pick<Bandwidth, 'take'>;
  /** How far a shared limit may be raised later; default: it stays. */
  readonly limitMax?: number;
}

export interface LaneOptions {
  readonly signal?: AbortSignal;
  /** Awaited when the lane is ours, before the request counts as sent. */
  readonly ready?: () => Promise<void>;
}

export class Lanes {
  readonly #clock: Clock;
  readonly #limit: LimitFunction;
  readonly #window: CongestionWindow;
  readonly #bandwidth: Pick<Bandwidth, 'take'> | undefined;

  constructor({ clock, limit, bandwidth, limitMax }: LanesOptions) {
    this.#clock = clock;
    this.#limit = typeof limit === 'number' ? pLimit(limit) : limit;
    const { concurrency } = this.#limit;
    this.#window = new CongestionWindow(clock, Math.min(LIMIT_FIRST, concurrency), limitMax ?? concurrency);
    this.#bandwidth = bandwidth;
  }

  /** Runs `call`, a request that carries `lengthBytes`, when its turn has come. */
  run<T>(lengthBytes: number, call: () => Promise<T>, options: LaneOptions = {}): Promise<T> {
    return this.#limit(() => this.#inLane(lengthBytes, call, options));
  }

  /** How many requests are allowed by now, and why. */
  report(): CongestionReport {
    return this.#window.report();
  }

  async #inLane<T>(lengthBytes: number, call: () => Promise<T>, { signal, ready }: LaneOptions): Promise<T> {
    await this.#window.enter(signal);
    let sentMs = this.#clock.monotonicMs();
    let failure: unknown;
    try {
      await this.#bandwidth?.take(lengthBytes, signal);
      await ready?.();
      throwIfAborted(signal);
      sentMs = this.#clock.monotonicMs();
      return await call();
    } catch (error) {
      failure = error ?? new Error('failed');
      throw error;
    } finally {
      this.#window.leave(sentMs, lengthBytes, failure);
    }
  }
}
