/** The Clock and Random ports on a real machine. */
import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { abortedError } from '../errors.ts';
import type { Clock, Random } from '../ports.ts';

/** Wall clock, monotonic clock and timers of this machine. */
export const nodeClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await delay(ms, undefined, signal ? { signal } : {});
    } catch (error) {
      throw signal?.aborted ? abortedError(signal) : error;
    }
  },
};

/** The operating system's generator for keys and nonces; Math.random for jitter and sampling. */
export const nodeRandom: Random = {
  bytes: (lengthBytes) => randomBytes(lengthBytes),
  fraction: () => Math.random(),
};
