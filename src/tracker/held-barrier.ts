/**
 * A barrier that is held for others: the disks of one item rest, with their next logs ready, until whoever asked says which
 * moment it is for all of them. It never rests for longer than it was told; a guest that waits is let go without a rotation.
 */
import { BlockferryError } from '../errors.ts';
import type { Clock } from '../ports.ts';
import type { Rotation } from './item-tracker.ts';

/** The longest that writes may be held. */
export const HOLD_MS_MAX = 10_000;

/** Rotates at the moment that `gate` resolves with; not at all if it rejects. */
type Rotate = (heads: readonly string[], gate: () => Promise<number>) => Promise<Rotation>;

interface Held {
  readonly decide: (timeMs: number | undefined) => void;
  readonly rotation: Promise<Rotation>;
}

export class HeldBarrier {
  readonly #rotate: Rotate;
  readonly #clock: Clock;
  #held: Held | undefined;

  constructor(rotate: Rotate, clock: Clock) {
    this.#rotate = rotate;
    this.#clock = clock;
  }

  /** Resolves when nothing is written any more. @throws RESYNC_REQUIRED, BARRIER_LOST while one is held already */
  async hold(heads: readonly string[], holdMs: number): Promise<void> {
    if (this.#held) throw lost('another group holds the barrier');
    const rests = deferred<void>();
    const moment = deferred<number | undefined>();
    const rotation = this.#rotate(heads, async () => {
      rests.resolve();
      return this.#decided(moment.promise, holdMs);
    });
    const held: Held = { decide: moment.resolve, rotation };
    this.#held = held;
    const forget = (): void => {
      if (this.#held === held) this.#held = undefined;
    };
    rotation.then(forget, forget);
    await Promise.race([rests.promise, rotation]);
  }

  /** Rotates at the moment that all share. @throws BARRIER_LOST if it was not held so long */
  async rotate(timeMs: number): Promise<Rotation> {
    const held = this.#held;
    if (!held) throw lost('it was held for too long');
    held.decide(timeMs);
    return held.rotation;
  }

  /** Lets writes go on without a rotation. */
  async release(): Promise<void> {
    const held = this.#held;
    held?.decide(undefined);
    await held?.rotation.catch(() => {});
  }

  async #decided(moment: Promise<number | undefined>, holdMs: number): Promise<number> {
    const waited = new AbortController();
    const late = this.#clock.sleep(Math.min(holdMs, HOLD_MS_MAX), waited.signal).then(
      () => undefined,
      () => undefined,
    );
    try {
      const timeMs = await Promise.race([moment, late]);
      if (timeMs === undefined) throw lost('the others were not ready in time');
      return timeMs;
    } finally {
      waited.abort();
    }
  }
}

function lost(why: string): BlockferryError {
  return new BlockferryError('BARRIER_LOST', `the shared moment was missed: ${why}`, {
    hint: 'run the command again; nothing is lost, what was logged is shipped by the next cycle',
  });
}

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
