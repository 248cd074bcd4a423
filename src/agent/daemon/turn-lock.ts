/**
 * Whose turn it is at a machine: its own loop's, its group's, or an operator's. One at a time, in the order in which they asked.
 */
import { abortedError } from '../../errors.ts';

export class TurnLock {
  #isTaken = false;
  readonly #waiting: Set<() => void> = new Set();

  /** Waits for the turn; what it resolves to gives it back. @throws ABORTED when the signal fires first */
  async take(signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) throw abortedError(signal);
    if (this.#isTaken) await this.#wait(signal);
    this.#isTaken = true;
    let isGivenBack = false;
    return () => {
      if (isGivenBack) return;
      isGivenBack = true;
      this.#pass();
    };
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onTurn = (): void => {
        signal.removeEventListener('abort', onAbort);
        this.#waiting.delete(onTurn);
        resolve();
      };
      const onAbort = (): void => {
        this.#waiting.delete(onTurn);
        reject(abortedError(signal));
      };
      this.#waiting.add(onTurn);
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** It stays taken where somebody waits: nobody may come in between. */
  #pass(): void {
    const [next] = this.#waiting;
    if (next) next();
    else this.#isTaken = false;
  }
}
