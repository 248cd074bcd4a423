/** What a tracker tells of itself, and when its logs will give way if the guest goes on as it does. */
import type { Clock } from '../ports.ts';
import type { ItemDisk } from './tracked-item.ts';
import type { ResyncReason, TrackingMode } from './tracking-state.ts';

/** How much the last interval counts in the rate: half of it is forgotten in about a minute. */
const WEIGHT = 0.06;

export interface DiskTrackerStatus {
  readonly disk: string;
  /** Last log that the replica has, as far as this tracker knows. */
  readonly head: string;
  /** Bytes that its logs take, of `logBytesMax` at which they give way. */
  readonly logBytes: number;
  readonly logBytesMax: number;
  readonly logs: number;
  /** Chunks in the sets of its dirty map. */
  readonly activeChunks: number;
  readonly changedChunks: number;
  readonly chunkBytes: number;
}

export interface TrackerStatus {
  readonly mode: TrackingMode;
  readonly reason?: ResyncReason;
  /** Guest writes are refused: a planned failover was begun. */
  readonly stopped?: true;
  readonly disks: readonly DiskTrackerStatus[];
  /** Bytes a second that the logs grew by lately. */
  readonly logBytesPerSecond: number;
  /** When the first disk reaches half of its size in logs; undefined while nothing is written or nothing is logged. */
  readonly halfFullInMs?: number;
}

interface Rate {
  bytesPerSecond: number;
  storedBytes: number;
}

export class Forecast {
  readonly #disks: readonly ItemDisk[];
  readonly #clock: Clock;
  readonly #rates: readonly Rate[];
  #sampledMs: number;

  constructor(disks: readonly ItemDisk[], clock: Clock) {
    this.#disks = disks;
    this.#clock = clock;
    this.#sampledMs = clock.monotonicMs();
    this.#rates = disks.map(({ logs }) => ({ bytesPerSecond: 0, storedBytes: logs.storedBytes }));
  }

  /** Looks at the growth since the last time. */
  sample(): void {
    const nowMs = this.#clock.monotonicMs();
    const seconds = (nowMs - this.#sampledMs) / 1000;
    if (seconds <= 0) return;
    this.#sampledMs = nowMs;
    for (const [i, { logs }] of this.#disks.entries()) {
      const rate = this.#rates[i]!;
      // What was acknowledged and removed in between is no growth below zero.
      const grown = Math.max(0, logs.storedBytes - rate.storedBytes) / seconds;
      const weight = 1 - (1 - WEIGHT) ** seconds;
      rate.bytesPerSecond += (grown - rate.bytesPerSecond) * weight;
      rate.storedBytes = logs.storedBytes;
    }
  }

  status(mode: TrackingMode, reason: ResyncReason | undefined): TrackerStatus {
    const disks = this.#disks.map(({ logs, device }) => ({
      disk: device.name,
      head: logs.head,
      logBytes: logs.storedBytes,
      logBytesMax: device.sizeBytes / 2,
      logs: logs.named.length,
      activeChunks: device.map.count('active'),
      changedChunks: device.map.count('changed'),
      chunkBytes: device.map.chunkBytes,
    }));
    const left = disks.flatMap(({ logBytes, logBytesMax }, i) => {
      const { bytesPerSecond } = this.#rates[i]!;
      return bytesPerSecond < 1 ? [] : [((logBytesMax - logBytes) / bytesPerSecond) * 1000];
    });
    const halfFullInMs = mode === 'resync-required' || left.length === 0 ? undefined : Math.max(0, Math.min(...left));
    return {
      mode,
      ...(reason ? { reason } : {}),
      ...(this.#disks.some(({ device }) => device.isStopped) ? { stopped: true } : {}),
      disks,
      logBytesPerSecond: Math.round(this.#rates.reduce((sum, rate) => sum + rate.bytesPerSecond, 0)),
      ...(halfFullInMs === undefined ? {} : { halfFullInMs: Math.round(halfFullInMs) }),
    };
  }
}
