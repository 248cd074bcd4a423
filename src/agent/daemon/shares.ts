/**
 * Lanes and bandwidth of all machines, shared fairly among those that are active right now.
 *
 * Everybody who is active has at least one lane: where more are active than there are lanes, a few requests too many are
 * better than a machine that waits for one whose store is down.
 */
import type { Clock } from '../../ports.ts';
import { Bandwidth, SharedBandwidth } from '../../transport/index.ts';
import { fairLanes } from '../policy/index.ts';
import type { Share } from './types.ts';

export interface ShareWish {
  readonly lanes: { readonly min: number; readonly max: number };
  /** Part of its fair share that it takes, 0 … 1: who is throttled leaves the rest to the others. */
  readonly part: number;
}

/** A place among the active. */
export interface ActiveShare {
  readonly share: Share;
  /** What its requests ask: its share of the cap, and what the others leave of theirs unless it is throttled. */
  readonly bandwidth: Pick<Bandwidth, 'take'>;
  onShare(listener: (share: Share) => void): void;
  leave(): void;
}

class Place implements ActiveShare {
  share: Share = { lanes: 1, bandwidthBytesPerSecond: undefined };
  readonly wish: ShareWish;
  readonly bandwidth: Pick<Bandwidth, 'take'>;
  /** Of who is throttled: it has no more than its part, whoever is idle. */
  readonly #own: Bandwidth | undefined;
  readonly #listeners: ((share: Share) => void)[] = [];
  readonly #leave: (place: Place) => void;

  constructor(wish: ShareWish, part: Pick<Bandwidth, 'take'>, clock: Clock, leave: (place: Place) => void) {
    this.wish = wish;
    this.#own = wish.part < 1 ? new Bandwidth(clock) : undefined;
    this.bandwidth = this.#own ? inSeries(this.#own, part) : part;
    this.#leave = leave;
  }

  onShare(listener: (share: Share) => void): void {
    this.#listeners.push(listener);
  }

  give(share: Share): void {
    const { lanes, bandwidthBytesPerSecond } = this.share;
    if (share.lanes === lanes && share.bandwidthBytesPerSecond === bandwidthBytesPerSecond) return;
    this.share = share;
    this.#own?.setBytesPerSecond(share.bandwidthBytesPerSecond);
    for (const listener of this.#listeners) listener(share);
  }

  leave(): void {
    this.#leave(this);
  }
}

function inSeries(...all: readonly Pick<Bandwidth, 'take'>[]): Pick<Bandwidth, 'take'> {
  const take = async (lengthBytes: number, signal?: AbortSignal): Promise<void> => {
    for (const each of all) await each.take(lengthBytes, signal);
  };
  return { take };
}

export class Shares {
  readonly #active: Set<Place> = new Set();
  readonly #clock: Clock;
  readonly #bandwidth: SharedBandwidth;
  #lanes: number;

  constructor(clock: Clock, lanes: number, bandwidthBytesPerSecond?: number) {
    this.#clock = clock;
    this.#bandwidth = new SharedBandwidth(clock, bandwidthBytesPerSecond);
    this.#lanes = lanes;
  }

  enter(wish: ShareWish): ActiveShare {
    const place = new Place(wish, this.#bandwidth.part(), this.#clock, (left) => {
      if (this.#active.delete(left)) this.#deal();
    });
    this.#active.add(place);
    this.#deal();
    return place;
  }

  /** What there is in all, from now on. */
  set(lanes: number, bandwidthBytesPerSecond: number | undefined): void {
    this.#lanes = lanes;
    this.#bandwidth.setBytesPerSecond(bandwidthBytesPerSecond);
    this.#deal();
  }

  #deal(): void {
    const places = [...this.#active];
    const wishes = places.map(({ wish }) => ({ wantsMin: wish.lanes.min, wantsMax: wish.lanes.max }));
    const lanes = fairLanes(this.#lanes, wishes);
    const all = this.#bandwidth.bytesPerSecond;
    for (const [i, place] of places.entries()) {
      const { part } = place.wish;
      place.give({
        lanes: Math.max(1, Math.floor(lanes[i]! * part)),
        bandwidthBytesPerSecond: all === undefined ? undefined : Math.max(1, Math.floor((all / places.length) * part)),
      });
    }
  }
}
