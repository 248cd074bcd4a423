/**
 * Lanes and bandwidth of all machines, shared fairly among those that are active right now.
 *
 * Everybody who is active has at least one lane: where more are active than there are lanes, a few requests too many are
 * better than a machine that waits for one whose store is down.
 */
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
  onShare(listener: (share: Share) => void): void;
  leave(): void;
}

class Place implements ActiveShare {
  share: Share = { lanes: 1, bandwidthBytesPerSecond: undefined };
  readonly wish: ShareWish;
  readonly #listeners: ((share: Share) => void)[] = [];
  readonly #leave: (place: Place) => void;

  constructor(wish: ShareWish, leave: (place: Place) => void) {
    this.wish = wish;
    this.#leave = leave;
  }

  onShare(listener: (share: Share) => void): void {
    this.#listeners.push(listener);
  }

  give(share: Share): void {
    const { lanes, bandwidthBytesPerSecond } = this.share;
    if (share.lanes === lanes && share.bandwidthBytesPerSecond === bandwidthBytesPerSecond) return;
    this.share = share;
    for (const listener of this.#listeners) listener(share);
  }

  leave(): void {
    this.#leave(this);
  }
}

export class Shares {
  readonly #active: Set<Place> = new Set();
  #lanes: number;
  #bandwidthBytesPerSecond: number | undefined;

  constructor(lanes: number, bandwidthBytesPerSecond?: number) {
    this.#lanes = lanes;
    this.#bandwidthBytesPerSecond = bandwidthBytesPerSecond;
  }

  enter(wish: ShareWish): ActiveShare {
    const place = new Place(wish, (left) => {
      if (this.#active.delete(left)) this.#deal();
    });
    this.#active.add(place);
    this.#deal();
    return place;
  }

  /** What there is in all, from now on. */
  set(lanes: number, bandwidthBytesPerSecond: number | undefined): void {
    this.#lanes = lanes;
    this.#bandwidthBytesPerSecond = bandwidthBytesPerSecond;
    this.#deal();
  }

  #deal(): void {
    const places = [...this.#active];
    const wishes = places.map(({ wish }) => ({ wantsMin: wish.lanes.min, wantsMax: wish.lanes.max }));
    const lanes = fairLanes(this.#lanes, wishes);
    for (const [i, place] of places.entries()) {
      place.give({
        lanes: Math.max(1, Math.floor(lanes[i]! * place.wish.part)),
        bandwidthBytesPerSecond: this.#bandwidthOf(place.wish, places),
      });
    }
  }

  /** An even share; what those that are throttled leave of theirs is given to those that are not. */
  #bandwidthOf({ part }: ShareWish, places: readonly Place[]): number | undefined {
    const all = this.#bandwidthBytesPerSecond;
    if (all === undefined) return undefined;
    const even = all / places.length;
    const left = places.reduce((sum, { wish }) => sum + even * (1 - wish.part), 0);
    const unthrottled = places.filter(({ wish }) => wish.part >= 1).length;
    return Math.max(1, Math.floor(part < 1 ? even * part : even + left / unthrottled));
  }
}
