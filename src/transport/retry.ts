/**
 * The one retry policy. Stores try once; what is worth trying again carries `retryable`, and only this file does it.
 *
 * Waits grow exponentially with full jitter (a random share of the step, so that lanes which failed together do not come
 * back together), never below what the store asked for, and end after a number of tries or a span of time.
 */
import { BlockferryError, isBlockferryError, throwIfAborted } from '../errors.ts';
import type { Clock, Random } from '../ports.ts';
import { retryAfterMs } from './outcome.ts';
import { shared } from './signals.ts';

export interface RetryPolicy {
  readonly triesMax: number;
  /** No try begins later than this after the first one began. */
  readonly elapsedMsMax: number;
  readonly firstWaitMs: number;
  readonly waitMsMax: number;
}

/** About two minutes of refusals, or ten minutes of silence. */
export const RETRY_POLICY: RetryPolicy = {
  triesMax: 12,
  elapsedMsMax: 600_000,
  firstWaitMs: 250,
  waitMsMax: 30_000,
};

/** Until a first request was answered: a mistyped address or a closed port should be told in seconds. */
export const FIRST_CONTACT_POLICY: RetryPolicy = {
  triesMax: 10,
  elapsedMsMax: 15_000,
  firstWaitMs: 250,
  waitMsMax: 2_000,
};

/** A try failed and another one follows. */
export interface RetryEvent {
  readonly operation: string;
  /** Tries so far. */
  readonly tries: number;
  readonly waitMs: number;
  readonly error: BlockferryError;
}

export interface RetryOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly policy?: RetryPolicy;
  /** Until the first answer to any call. Default: `policy`. */
  readonly firstContact?: RetryPolicy;
  readonly onRetry?: (event: RetryEvent) => void;
}

export class Retry {
  readonly #options: RetryOptions;
  #policy: RetryPolicy;

  constructor(options: RetryOptions) {
    this.#options = options;
    this.#policy = options.firstContact ?? options.policy ?? RETRY_POLICY;
  }

  /** The store answered, if only to refuse: from now on it is worth waiting for. */
  #answered(): void {
    this.#policy = this.#options.policy ?? RETRY_POLICY;
  }

  /** Calls `call` until it succeeds, fails for good, or the policy ends it. `operation` is for events and messages. */
  async run<T>(operation: string, call: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const { clock, onRetry } = this.#options;
    const startedMs = clock.monotonicMs();
    for (let tries = 1; ; tries += 1) {
      throwIfAborted(signal);
      try {
        const result = await call();
        this.#answered();
        return result;
      } catch (error) {
        if (!isBlockferryError(error) || !error.retryable) throw error;
        if (!isBlockferryError(error, 'STORE_UNREACHABLE', 'STORE_TIMEOUT')) this.#answered();
        const waitMs = this.#waitMs(tries, error);
        const elapsedMs = clock.monotonicMs() - startedMs;
        if (tries >= this.#policy.triesMax || elapsedMs + waitMs > this.#policy.elapsedMsMax) {
          throw givenUp(error, tries, elapsedMs);
        }
        onRetry?.({ operation, tries, waitMs, error });
        await clock.sleep(waitMs, signal && shared(signal));
      }
    }
  }

  #waitMs(tries: number, error: BlockferryError): number {
    const { firstWaitMs, waitMsMax } = this.#policy;
    const stepMs = Math.min(waitMsMax, firstWaitMs * 2 ** (tries - 1));
    return Math.round(Math.max(retryAfterMs(error), stepMs * this.#options.random.fraction()));
  }
}

/** The last error, which says how long it was tried; nobody above tries again. */
function givenUp(error: BlockferryError, tries: number, elapsedMs: number): BlockferryError {
  const seconds = Math.round(elapsedMs / 1000);
  return new BlockferryError(error.code, `${error.message} (${tries} tries in ${seconds} s)`, {
    cause: error,
    facts: { ...error.facts, tries, elapsedMs },
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  });
}
