/**
 * How many machines work at once: each operation that moves data brings worker threads and their buffers along. First come, first
 * served, and who comes is due; but cycles go before copies, and one place is never given to a copy: what takes hours does not keep
 * anybody from its recovery points.
 */
import { abortedError } from '../../errors.ts';

/** `cycle`: short and due often. `copy`: a first copy or a resync. */
export type PlaceKind = 'cycle' | 'copy';

/** A place for copies besides the one for cycles. */
export const PLACES_MIN = 2;

export class WorkPlaces {
  #places: number;
  readonly #taken: Record<PlaceKind, number> = { cycle: 0, copy: 0 };
  readonly #waiting: Readonly<Record<PlaceKind, Set<() => void>>> = { cycle: new Set(), copy: new Set() };

  /** At least PLACES_MIN. */
  constructor(places: number) {
    this.#places = Math.max(PLACES_MIN, places);
  }

  /** So many from now on; who has a place keeps it. */
  set(places: number): void {
    this.#places = Math.max(PLACES_MIN, places);
    this.#give();
  }

  /** Waits for a place; what it resolves to gives it back. @throws ABORTED when the signal fires first */
  async take(kind: PlaceKind, signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) throw abortedError(signal);
    await new Promise<void>((resolve, reject) => {
      const waiting = this.#waiting[kind];
      const onPlace = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      const onAbort = (): void => {
        waiting.delete(onPlace);
        reject(abortedError(signal));
      };
      signal.addEventListener('abort', onAbort, { once: true });
      waiting.add(onPlace);
      this.#give();
    });
    let isGivenBack = false;
    return () => {
      if (isGivenBack) return;
      isGivenBack = true;
      this.#taken[kind] -= 1;
      this.#give();
    };
  }

  /** Gives what is free to those who wait. */
  #give(): void {
    for (;;) {
      const { cycle, copy } = this.#taken;
      if (cycle + copy >= this.#places) return;
      const kind = this.#waiting.cycle.size > 0 ? 'cycle' : copy < this.#places - 1 ? 'copy' : undefined;
      const [next] = kind ? this.#waiting[kind] : [];
      if (!kind || !next) return;
      this.#waiting[kind].delete(next);
      this.#taken[kind] += 1;
      next();
    }
  }
}
