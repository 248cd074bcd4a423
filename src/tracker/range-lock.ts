/**
 * RangeLock: who changes a range of the disk has it alone. Requests for ranges that overlap are served in the order in
 * which they came; others go on side by side. That order is the order of the log and of the disk alike.
 */

/** A range that is held or waited for: bytes [from, to). */
export interface HeldRange {
  readonly from: number;
  readonly to: number;
  /** How many held or waiting ranges, all of them older, it has to wait for. */
  blockers: number;
  /** Ranges that came later and overlap. */
  readonly followers: HeldRange[];
  start: (() => void) | undefined;
}

export class RangeLock {
  /** All that are held or waiting, oldest first. */
  readonly #ranges: Set<HeldRange> = new Set();
  #idle: (() => void)[] = [];

  /** Ranges that are held or waited for. */
  get size(): number {
    return this.#ranges.size;
  }

  /** Takes a place in the order. It is held at once where `blockers` is 0, else when `wait` resolves. */
  take(from: number, to: number): HeldRange {
    const range: HeldRange = { from, to, blockers: 0, followers: [], start: undefined };
    for (const other of this.#ranges) {
      if (other.from < to && other.to > from) {
        other.followers.push(range);
        range.blockers += 1;
      }
    }
    this.#ranges.add(range);
    return range;
  }

  wait(range: HeldRange): Promise<void> {
    return range.blockers === 0
      ? Promise.resolve()
      : new Promise((start) => {
          range.start = start;
        });
  }

  release(range: HeldRange): void {
    this.#ranges.delete(range);
    for (const follower of range.followers) {
      follower.blockers -= 1;
      if (follower.blockers === 0) follower.start?.();
    }
    if (this.#ranges.size > 0) return;
    for (const idle of this.#idle) idle();
    this.#idle = [];
  }

  /** Resolves when nothing is held. The caller sees to it that nothing new is taken meanwhile. */
  idle(): Promise<void> {
    return this.#ranges.size === 0 ? Promise.resolve() : new Promise((idle) => this.#idle.push(idle));
  }
}
