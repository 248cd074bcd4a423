/** The Clock and Random ports on a real machine. */
import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { abortedError } from '../errors.ts';
import type { Clock, Random } from '../ports.ts';

/** Wall clock, monotonic clock and timers of this machine. */
export const nodeClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  // Every request to a store has one, nearly all of which are aborted: timers/promises makes three errors of each.
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(abortedError(signal));
        return;
      }
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(abortedError(signal!));
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
};

/** The operating system's generator for keys and nonces; Math.random for jitter and sampling. */
export const nodeRandom: Random = {
  bytes: (lengthBytes) => randomBytes(lengthBytes),
  fraction: () => Math.random(),
};
