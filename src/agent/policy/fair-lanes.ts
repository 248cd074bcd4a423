/**
 * How many requests at a time each machine may have of those that the store bears: fairly, by weight, and never more in
 * all than there are.
 *
 * Everybody gets one lane before anybody gets two, then all are brought to their minimum, then to their maximum. Where there
 * are more machines than lanes, the first ones get one each and the others none: they wait, and whoever calls puts those
 * first that waited longest.
 */
export interface LaneWish {
  /** Of two machines that want more than there is, one of weight 2 gets twice as much. Default 1. */
  readonly weight?: number;
  readonly wantsMin?: number;
  readonly wantsMax?: number;
}

/** The published throttle of a machine: four threads by default. */
export const LANES_MIN_DEFAULT = 4;
/** And at most 32. */
export const LANES_MAX_DEFAULT = 32;

/** Lanes of each machine, in the order of `machines`. Their sum is at most `totalLanes`. */
export function fairLanes(totalLanes: number, machines: readonly LaneWish[]): readonly number[] {
  if (!Number.isSafeInteger(totalLanes) || totalLanes < 0) throw new RangeError(`${totalLanes} lanes`);
  const wishes = machines.map(({ weight = 1, wantsMin = LANES_MIN_DEFAULT, wantsMax = LANES_MAX_DEFAULT }) => {
    if (!(weight > 0) || wantsMin < 1 || wantsMax < wantsMin) {
      throw new RangeError(`weight ${weight}, ${wantsMin} to ${wantsMax} lanes`);
    }
    return { weight, levels: [1, wantsMin, wantsMax] };
  });
  const lanes = machines.map(() => 0);
  let left = totalLanes;
  for (const level of [0, 1, 2]) {
    while (left > 0) {
      const poorest = poorestBelow(lanes, wishes, level);
      if (poorest === undefined) break;
      lanes[poorest]! += 1;
      left -= 1;
    }
  }
  return lanes;
}

/** Who has least for its weight among those below their wish; the first of equals. */
function poorestBelow(
  lanes: readonly number[],
  wishes: readonly { readonly weight: number; readonly levels: readonly number[] }[],
  level: number,
): number | undefined {
  let poorest: number | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const [i, { weight, levels }] of wishes.entries()) {
    const share = lanes[i]! / weight;
    if (lanes[i]! >= levels[level]! || share >= least) continue;
    poorest = i;
    least = share;
  }
  return poorest;
}
