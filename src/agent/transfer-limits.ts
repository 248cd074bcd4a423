/**
 * What an operation may use of the line, changeable while it runs: requests to the store at a time, and bytes a second.
 * An agent that runs several operations gives each its share this way.
 */
import pLimit, { type LimitFunction } from 'p-limit';
import { BlockferryError } from '../errors.ts';
import type { Clock } from '../ports.ts';
import { Bandwidth } from '../transport/index.ts';

export const LANES_DEFAULT = 8;
export const LANES_MAX = 32;

/** What an operation asks before each request. */
export interface Limits {
  /** Shared by all blobs of the operation. */
  readonly requests: LimitFunction;
  readonly bandwidth: Pick<Bandwidth, 'take'>;
}

export class TransferLimits implements Limits {
  readonly requests: LimitFunction;
  readonly bandwidth: Bandwidth;

  /** @throws USAGE */
  constructor(clock: Clock, lanes: number = LANES_DEFAULT, bandwidthBytesPerSecond?: number) {
    this.requests = pLimit(checkLanes(lanes));
    this.bandwidth = new Bandwidth(clock, bandwidthBytesPerSecond);
  }

  /** Takes effect at once, for requests that wait as well; those under way end as they are. */
  set(lanes: number, bandwidthBytesPerSecond: number | undefined): void {
    this.requests.concurrency = checkLanes(lanes);
    this.bandwidth.setBytesPerSecond(bandwidthBytesPerSecond);
  }
}

function checkLanes(lanes: number): number {
  if (Number.isInteger(lanes) && lanes >= 1 && lanes <= LANES_MAX) return lanes;
  throw new BlockferryError('USAGE', `${lanes} upload lanes are outside 1 to ${LANES_MAX}`, { facts: { lanes } });
}
