/**
 * One cap on bytes per second for several that share it. Each has an even part where all want more; what one does not use, the others have.
 *
 * Start-time fair queueing: the bytes of each are counted, a request begins where the one before it of the same ended, and the one that
 * begins first is let through next. Who was idle begins where the others are: what it left is not owed to it.
 */
import { abortedError, throwIfAborted } from '../errors.ts';
import type { Clock } from '../ports.ts';
import { Bandwidth } from './bandwidth.ts';
import { shared } from './signals.ts';

interface Waiting {
  readonly beginBytes: number;
  /** Its turn has come; resolves when it was let through, or gave up. */
  readonly pass: () => Promise<void>;
}

export class SharedBandwidth {
  readonly #line: Bandwidth;
  readonly #waiting: Set<Waiting> = new Set();
  /** Where the request began that was let through last. */
  #atBytes = 0;
  #isServing = false;

  /** Without a rate there is no cap. */
  constructor(clock: Clock, bytesPerSecond?: number) {
    this.#line = new Bandwidth(clock, bytesPerSecond);
  }

  get bytesPerSecond(): number | undefined {
    return this.#line.bytesPerSecond;
  }

  /** Takes effect at once, for those who wait as well. */
  setBytesPerSecond(bytesPerSecond: number | undefined): void {
    this.#line.setBytesPerSecond(bytesPerSecond);
  }

  /** The part of one of them. */
  part(): Pick<Bandwidth, 'take'> {
    let endBytes = 0;
    const take = async (lengthBytes: number, signal?: AbortSignal): Promise<void> => {
      throwIfAborted(signal);
      const beginBytes = Math.max(this.#atBytes, endBytes);
      endBytes = beginBytes + lengthBytes;
      await this.#wait(beginBytes, lengthBytes, signal);
    };
    return { take };
  }

  #wait(beginBytes: number, lengthBytes: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiting.delete(waiting);
        reject(abortedError(signal!));
      };
      const pass = async (): Promise<void> => {
        signal?.removeEventListener('abort', onAbort);
        await this.#line.take(lengthBytes, signal).then(resolve, reject);
      };
      const waiting: Waiting = { beginBytes, pass };
      if (signal) shared(signal).addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(waiting);
      if (!this.#isServing) void this.#serve();
    });
  }

  /** Lets those who wait through, one after the other; never fails. */
  async #serve(): Promise<void> {
    this.#isServing = true;
    for (let next = this.#first(); next; next = this.#first()) {
      this.#waiting.delete(next);
      this.#atBytes = next.beginBytes;
      await next.pass();
    }
    this.#isServing = false;
  }

  /** Of those that begin at the same place, the one that came first. */
  #first(): Waiting | undefined {
    let first: Waiting | undefined;
    for (const each of this.#waiting) if (!first || each.beginBytes < first.beginBytes) first = each;
    return first;
  }
}
