/**
 * How many requests may be under way at one blob: additive increase, multiplicative decrease.
 *
 * Overload shows as 503 and 429, but in storms mostly as 500 OperationTimedOut, 408, 502, 504 and silence; a queue in
 * between shows as latency that grows with the number of requests. Each halves the limit (latency takes a little less),
 * at most once per episode: failures of requests that were sent before the last decrease tell nothing new. While all
 * that is allowed is used and answered, the limit grows by one per round, and by a tenth near the limit that failed last.
 */
import { throwIfAborted } from '../errors.ts';
import type { Clock } from '../ports.ts';
import { congestionCause } from './outcome.ts';
import { shared } from './signals.ts';

const ON_OVERLOAD = 0.5;
const ON_LATENCY = 0.8;
/** Growth per round from this share of the limit that failed last. */
const NEAR_FAILURE = 0.85;
const GROWTH_NEAR_FAILURE = 0.1;
/** Latency counts as grown above this multiple of the usual one, and by at least so much. */
const LATENCY_FACTOR = 3;
const LATENCY_GROWTH_MS = 500;
const LATENCY_SAMPLES_MIN = 16;
const SMOOTHING = 0.2;
/** The usual latency is the least seen, forgotten by one per cent a sample so that a new route becomes usual. */
const FORGETTING = 1.01;
const SMALLEST_CLASS_BYTES = 64 * 1024;

/** Why the limit is what it is; for people and for metrics. */
export interface CongestionReport {
  readonly limit: number;
  readonly inFlight: number;
  readonly waiting: number;
  readonly decreases: number;
  /** `HTTP 503 ServerBusy`, `no answer in time`, `latency 4100 ms, usually 900 ms` … */
  readonly lastCause?: string;
  readonly lastDecreaseAgoMs?: number;
}

interface LatencyClass {
  samples: number;
  usualMs: number;
  smoothMs: number;
}

export class CongestionWindow {
  readonly #clock: Clock;
  readonly #limitMax: number;
  readonly #classes = new Map<number, LatencyClass>();
  readonly #waiting: (() => void)[] = [];
  #limit: number;
  #inFlight = 0;
  #decreases = 0;
  /** The limit that was too high, the last time one was. */
  #failedLimit = Number.POSITIVE_INFINITY;
  #lastCause: string | undefined;
  #lastDecreaseMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, limitFirst: number, limitMax: number) {
    this.#clock = clock;
    this.#limit = limitFirst;
    this.#limitMax = limitMax;
  }

  /** Waits for a place. Every `enter` that resolves is followed by one `leave`. @throws ABORTED */
  async enter(signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    if (this.#inFlight < Math.floor(this.#limit)) {
      this.#inFlight += 1;
      return;
    }
    const admitted = await new Promise<boolean>((resolve) => {
      const admit = (): void => {
        signal?.removeEventListener('abort', giveUp);
        resolve(true);
      };
      const giveUp = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(admit), 1);
        resolve(false);
      };
      if (signal) shared(signal).addEventListener('abort', giveUp, { once: true });
      this.#waiting.push(admit);
    });
    if (!admitted) throwIfAborted(signal);
  }

  /** One request ended: when it was sent, how long its body was (0: its time tells nothing), its error if it failed. */
  leave(sentMs: number, lengthBytes: number, error?: unknown): void {
    const wasFull = this.#inFlight >= Math.floor(this.#limit);
    this.#inFlight -= 1;
    const cause = error === undefined ? undefined : congestionCause(error);
    if (cause !== undefined) this.#decrease(ON_OVERLOAD, cause, sentMs);
    else if (error === undefined) this.#answered(sentMs, lengthBytes, wasFull);
    this.#admit();
  }

  report(): CongestionReport {
    const report = {
      limit: Math.floor(this.#limit),
      inFlight: this.#inFlight,
      waiting: this.#waiting.length,
      decreases: this.#decreases,
    };
    if (this.#lastCause === undefined) return report;
    const lastDecreaseAgoMs = this.#clock.monotonicMs() - this.#lastDecreaseMs;
    return { ...report, lastCause: this.#lastCause, lastDecreaseAgoMs };
  }

  #answered(sentMs: number, lengthBytes: number, wasFull: boolean): void {
    const grown = lengthBytes === 0 ? undefined : this.#latencyGrowth(lengthBytes, this.#clock.monotonicMs() - sentMs);
    if (grown !== undefined) this.#decrease(ON_LATENCY, grown, sentMs);
    else if (wasFull) this.#limit = Math.min(this.#limitMax, this.#limit + this.#growth() / this.#limit);
  }

  /** Per round. Where it failed last time it may well fail again, so the limit creeps there. */
  #growth(): number {
    return this.#limit >= NEAR_FAILURE * this.#failedLimit ? GROWTH_NEAR_FAILURE : 1;
  }

  #decrease(factor: number, cause: string, sentMs: number): void {
    if (sentMs <= this.#lastDecreaseMs) return;
    this.#failedLimit = this.#limit;
    this.#limit = Math.max(1, this.#limit * factor);
    this.#decreases += 1;
    this.#lastCause = cause;
    this.#lastDecreaseMs = this.#clock.monotonicMs();
  }

  /** Compares with requests of about the same length; a phrase if it takes much longer than usual by now. */
  #latencyGrowth(lengthBytes: number, latencyMs: number): string | undefined {
    const name = Math.ceil(Math.log2(Math.max(1, lengthBytes / SMALLEST_CLASS_BYTES)));
    const known = this.#classes.get(name) ?? { samples: 0, usualMs: latencyMs, smoothMs: latencyMs };
    this.#classes.set(name, known);
    known.samples += 1;
    known.usualMs = Math.min(latencyMs, known.usualMs * FORGETTING);
    known.smoothMs += SMOOTHING * (latencyMs - known.smoothMs);
    const { samples, usualMs, smoothMs } = known;
    const isGrown = smoothMs > LATENCY_FACTOR * usualMs && smoothMs > usualMs + LATENCY_GROWTH_MS;
    if (samples < LATENCY_SAMPLES_MIN || !isGrown) return undefined;
    return `latency ${Math.round(smoothMs)} ms, usually ${Math.round(usualMs)} ms`;
  }

  #admit(): void {
    while (this.#inFlight < Math.floor(this.#limit)) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#inFlight += 1;
      next();
    }
  }
}
