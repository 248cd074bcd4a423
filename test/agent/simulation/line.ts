/**
 * The line to the store. Each transfer has the rate that its share and the line allow, from moment to moment, and whether all of them
 * together keep to the profile is checked whenever one of the rates changes.
 */

import type { OperationContext } from '../../../src/agent/daemon/types.ts';
import type { Life, World } from './world.ts';

/** What there is in all at a moment. */
export interface Capacity {
  readonly bytesPerSecond: number;
  /** What the profile allows; undefined: no cap. */
  readonly capBytesPerSecond: number | undefined;
}

/** One lane carries so much at most: latency bounds it. */
const LANE_BYTES_PER_SECOND = 4_000_000;
/** A look at the line at least so often. */
const QUANTUM_MS = 60_000;
/** An agent may notice so late that somebody set the wall clock. */
const GRACE_MS = 5 * 60_000 + 1000;

interface Transfer {
  readonly life: Life;
  bytesPerSecond: number;
}

export class Line {
  readonly #world: World;
  readonly #capacity: (nowMs: number) => Capacity;
  readonly #transfers: Set<Transfer> = new Set();
  #overSinceMs: number | undefined;

  constructor(world: World, capacity: (nowMs: number) => Capacity) {
    this.#world = world;
    this.#capacity = capacity;
  }

  /** Sends so many bytes. @throws what the world does to it, and when its signal fires. */
  async send(life: Life, machine: string, bytes: number, context: OperationContext): Promise<void> {
    const transfer: Transfer = { life, bytesPerSecond: this.#rate(context) };
    let leftBytes = bytes;
    let sinceMs = 0;
    const settle = (): void => {
      const nowMs = this.#world.monotonicMs();
      leftBytes -= ((nowMs - sinceMs) / 1000) * transfer.bytesPerSecond;
      sinceMs = nowMs;
      transfer.bytesPerSecond = this.#rate(context);
    };
    context.onShare(() => {
      if (this.#transfers.has(transfer)) settle();
    });
    while (leftBytes >= 1) {
      await this.#world.request(life, machine, context.signal);
      if (this.#world.has('store-full', machine)) this.#world.fail('store-full');
      sinceMs = this.#world.monotonicMs();
      transfer.bytesPerSecond = this.#rate(context);
      this.#transfers.add(transfer);
      this.#check();
      try {
        await life.clock.sleep(Math.min(QUANTUM_MS, (leftBytes / transfer.bytesPerSecond) * 1000 + 1), context.signal);
        settle();
      } finally {
        this.#transfers.delete(transfer);
      }
    }
    this.#check();
  }

  #rate({ lanes, bandwidthBytesPerSecond }: OperationContext): number {
    const { bytesPerSecond } = this.#capacity(this.#world.nowMs());
    return Math.min(bytesPerSecond, lanes * LANE_BYTES_PER_SECOND, bandwidthBytesPerSecond ?? bytesPerSecond);
  }

  /** Whether the profile was exceeded for longer than a moment. */
  #check(): void {
    const { capBytesPerSecond } = this.#capacity(this.#world.nowMs());
    let sum = 0;
    for (const transfer of this.#transfers) {
      if (transfer.life.isDead) this.#transfers.delete(transfer);
      else sum += transfer.bytesPerSecond;
    }
    const isOver = capBytesPerSecond !== undefined && sum > capBytesPerSecond * 1.001 + this.#transfers.size;
    if (!isOver) {
      this.#overSinceMs = undefined;
      return;
    }
    const nowMs = this.#world.monotonicMs();
    this.#overSinceMs ??= nowMs;
    if (nowMs - this.#overSinceMs > GRACE_MS) {
      this.#world.broken(`${sum} bytes a second for ${nowMs - this.#overSinceMs} ms: ${capBytesPerSecond} are allowed`);
      this.#overSinceMs = undefined;
    }
  }
}
