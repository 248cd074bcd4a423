/** A bound on the bytes that all requests hold at a time. Who does not fit waits, in the order of arrival. */
import { abortedError } from '../errors.ts';

interface Waiting {
  readonly bytes: number;
  readonly enter: () => void;
}

export class HeldBytes {
  readonly #bytesMax: number;
  #held = 0;
  #waiting: Waiting[] = [];

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Runs `work` with so many bytes held; more than there are at all count as all of them. @throws ABORTED */
  async hold<T>(wanted: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const bytes = Math.min(wanted, this.#bytesMax);
    await this.#enter(bytes, signal);
    try {
      return await work();
    } finally {
      this.#held -= bytes;
      this.#admit();
    }
  }

  #enter(bytes: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        bytes,
        enter: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        this.#waiting = this.#waiting.filter((other) => other !== waiting);
        reject(abortedError(signal));
        this.#admit();
      };
      if (signal.aborted) return reject(abortedError(signal));
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(waiting);
      this.#admit();
    });
  }

  #admit(): void {
    for (let next = this.#waiting[0]; next && this.#held + next.bytes <= this.#bytesMax; next = this.#waiting[0]) {
      this.#waiting.shift();
      this.#held += next.bytes;
      next.enter();
    }
  }
}
