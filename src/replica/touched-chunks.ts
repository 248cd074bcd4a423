/**
 * Which chunks were touched, in memory that is bounded: as ranges, which are condensed when there are too many. It may then
 * hold chunks between two that were touched, but never lacks one.
 */
import type { SuspectRange } from './root.ts';
import { condenseSuspects } from './sync-ledger.ts';

export class TouchedChunks {
  readonly #max: number;
  #ranges: SuspectRange[] = [];

  /** @param max Ranges that `ranges` gives at most; a multiple of them is held */
  constructor(max: number) {
    this.#max = max;
  }

  /** Chunks [from, to) of a disk; cheapest in ascending order. */
  add(disk: number, from: number, to: number): void {
    const last = this.#ranges.at(-1);
    const isNext = last?.disk === disk && last.from <= from && from <= last.to;
    if (isNext) this.#ranges[this.#ranges.length - 1] = { ...last, to: Math.max(last.to, to) };
    else this.#ranges.push({ disk, from, to });
    if (this.#ranges.length > 8 * this.#max) this.#ranges = [...this.ranges()];
  }

  /** In order, apart, none overlapping. */
  ranges(): readonly SuspectRange[] {
    return condenseSuspects(this.#ranges, this.#max);
  }
}
