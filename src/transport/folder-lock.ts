/**
 * The lock of a folder store: held for the moments in which an object or a state is replaced, so that of two
 * processes that compare and swap only one wins.
 *
 * In `<folder>/@lock/` lie files with ascending numbers as names. The highest tells: even (or none) is free, odd is held.
 * Creating a file that must not exist yet is atomic on every file system, so exactly one process gets the next
 * number; numbers never go back, so a process that slept through a take-over finds a higher one and knows. A holder
 * that died leaves an odd number standing: whoever has watched the same number for `STALE_MS` of its own monotonic
 * time (wall clocks jump) takes over with the next odd one.
 */
import { join } from 'node:path';
import { BlockferryError, throwIfAborted } from '../errors.ts';
import type { Clock, FileSystem } from '../ports.ts';
import { isErrno } from './folder-errors.ts';
import { Gate } from './gate.ts';

const STALE_MS = 15_000;
const POLL_MS = 20;

/** A lock that is held. */
export interface HeldLock {
  /** @throws STORE_UNREACHABLE (retryable) if another process took over because this one took too long. */
  verify(): Promise<void>;
}

export class FolderLock {
  readonly #files: FileSystem;
  readonly #clock: Clock;
  readonly #directory: string;
  /** Within this process a queue is cheaper than watching files. */
  readonly #gate = new Gate();

  constructor(files: FileSystem, clock: Clock, directory: string) {
    this.#files = files;
    this.#clock = clock;
    this.#directory = join(directory, '@lock');
  }

  /** Runs `run` while no other process or caller holds the lock. */
  hold<T>(signal: AbortSignal | undefined, run: (lock: HeldLock) => Promise<T>): Promise<T> {
    return this.#gate.exclusive(async () => {
      const held = await this.#take(signal);
      try {
        return await run({ verify: () => this.#verify(held) });
      } finally {
        await this.#release(held);
      }
    });
  }

  async #take(signal: AbortSignal | undefined): Promise<number> {
    await this.#files.makeDirectory(this.#directory);
    let watched = -1;
    let sinceMs = 0;
    for (;;) {
      throwIfAborted(signal);
      const highest = await this.#highest();
      const nowMs = this.#clock.monotonicMs();
      if (highest !== watched) {
        watched = highest;
        sinceMs = nowMs;
      }
      const free = highest % 2 === 0;
      if (free || nowMs - sinceMs >= STALE_MS) {
        const mine = free ? highest + 1 : highest + 2;
        if ((await this.#create(mine)) && (await this.#highest()) === mine) {
          await this.#removeBelow(mine);
          return mine;
        }
      } else {
        await this.#clock.sleep(POLL_MS, signal);
      }
    }
  }

  async #release(held: number): Promise<void> {
    if (await this.#create(held + 1)) await this.#removeBelow(held + 1);
  }

  async #verify(held: number): Promise<void> {
    if ((await this.#highest()) === held) return;
    throw new BlockferryError('STORE_UNREACHABLE', `${this.#directory}: the lock was taken over by another process`, {
      facts: { source: this.#directory, rule: `hold the lock for less than ${STALE_MS} ms` },
      retryable: true,
    });
  }

  async #create(number: number): Promise<boolean> {
    try {
      await (await this.#files.open(this.#name(number), 'create')).close();
      return true;
    } catch (error) {
      if (isErrno(error, 'EEXIST')) return false;
      throw error;
    }
  }

  async #highest(): Promise<number> {
    return Math.max(0, ...(await this.#numbers()));
  }

  async #removeBelow(number: number): Promise<void> {
    for (const other of await this.#numbers()) {
      if (other < number) await this.#files.remove(this.#name(other));
    }
  }

  async #numbers(): Promise<number[]> {
    const entries = await this.#files.list(this.#directory);
    return entries.map(({ name }) => Number(name)).filter((number) => Number.isSafeInteger(number));
  }

  #name(number: number): string {
    return join(this.#directory, String(number));
  }
}
