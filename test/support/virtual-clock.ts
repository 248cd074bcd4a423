/** A Clock whose time stands still until everything waits, then jumps to the next timer: hours in milliseconds. */
import { abortedError } from '../../src/errors.ts';
import type { Clock, Random } from '../../src/ports.ts';

interface Timer {
  readonly atMs: number;
  readonly fire: () => void;
}

export interface VirtualClock extends Clock {
  /** Lets time pass until `work` settles. Fails if it waits for something that is no timer. */
  run<T>(work: Promise<T>): Promise<T>;
  /** Lets time pass until no timer is left. */
  drain(): Promise<void>;
}

/** Everything that can run without time passing has run when this resolves. */
function quiet(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The same where nothing is waited for but promises, which are all through before the next tick: many times as fast. */
export function promisesQuiet(): Promise<void> {
  return new Promise((resolve) => process.nextTick(resolve));
}

export function virtualClock(startMs = 1_750_000_000_000, untilQuiet: () => Promise<void> = quiet): VirtualClock {
  const timers: Timer[] = [];
  let nowMs = 0;

  function next(): Timer | undefined {
    let first = 0;
    for (let i = 1; i < timers.length; i += 1) {
      if ((timers[i] as Timer).atMs < (timers[first] as Timer).atMs) first = i;
    }
    return timers.splice(first, 1)[0];
  }

  function step(): boolean {
    const timer = next();
    if (timer === undefined) return false;
    nowMs = Math.max(nowMs, timer.atMs);
    timer.fire();
    return true;
  }

  return {
    nowMs: () => startMs + nowMs,
    monotonicMs: () => nowMs,
    sleep(ms, signal) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted) {
          reject(abortedError(signal));
          return;
        }
        const onAbort = (): void => {
          timers.splice(timers.indexOf(timer), 1);
          reject(abortedError(signal as AbortSignal));
        };
        const timer: Timer = {
          atMs: nowMs + ms,
          fire: () => {
            signal?.removeEventListener('abort', onAbort);
            resolve();
          },
        };
        signal?.addEventListener('abort', onAbort, { once: true });
        timers.push(timer);
      });
    },
    async run(work) {
      let settled = false;
      const done = (): void => {
        settled = true;
      };
      work.then(done, done);
      for (;;) {
        await untilQuiet();
        if (settled) return await work;
        if (!step()) throw new Error('nothing is left to wait for, and the work has not ended');
      }
    },
    async drain() {
      do await untilQuiet();
      while (step());
    },
  };
}

/** A small seeded generator (mulberry32): the same seed, the same run. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  function fraction(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  return {
    fraction,
    bytes: (lengthBytes) => Uint8Array.from({ length: lengthBytes }, () => Math.floor(fraction() * 256)),
  };
}
