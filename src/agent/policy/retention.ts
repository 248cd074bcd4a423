/**
 * Which recovery points are given up: all are kept for two hours, then fewer and fewer, until they are too old.
 *
 * Promises, for a policy without a fault, however often and at whatever moments it is applied:
 * - The newest point is never dropped, nor one in use; these are kept besides the others, not instead of them.
 * - Each rule of thinning leaves one point per bucket of its width (multiples of it since 1970): the oldest
 *   app-consistent one, else the oldest. So where points were made at all, neighbours lie less than two widths apart.
 * - Applying it in every cycle ends at the same set as applying it once, since each bucket holds whole ones of the rule
 *   before, and the survivor of survivors is the survivor of all. (Only `pointsMax` may drop sooner.)
 * - Points age as new ones are made, and an interruption of more than a day (an outage, or a clock that jumped) does not
 *   age what came before it. So an outage drops nothing while it lasts, and neither the first point after it nor a wrong
 *   clock takes all the others along.
 */
import { DAY_MS, HOUR_MS } from './durations.ts';

export interface ThinningRule {
  /** Points older than this … */
  readonly olderThanMs: number;
  /** … are thinned to one in so long. */
  readonly onePerMs: number;
}

export interface RetentionPolicy {
  /** Age at which a point is dropped. */
  readonly keepMs: number;
  /** The same for app-consistent points, where they are to be held longer. */
  readonly appConsistentKeepMs?: number;
  /** Ascending by age and by width. */
  readonly thinning: readonly ThinningRule[];
  /** More than these are never kept, but for those in use: the oldest go first. */
  readonly pointsMax: number;
}

/** What is known of a point here. */
export interface RetainedPoint {
  readonly id: string;
  readonly timeMs: number;
  readonly consistency: 'crash' | 'app';
}

/**
 * 24 hours and the published thinning. With a point every 30 seconds, 15 days make 400 points, with one every 5 minutes 170;
 * 512 bounds what a root names and how many snapshots the store holds.
 */
export const RETENTION_DEFAULT: RetentionPolicy = {
  keepMs: 24 * HOUR_MS,
  thinning: [
    { olderThanMs: 2 * HOUR_MS, onePerMs: HOUR_MS },
    { olderThanMs: DAY_MS, onePerMs: 2 * HOUR_MS },
    { olderThanMs: 7 * DAY_MS, onePerMs: 4 * HOUR_MS },
  ],
  pointsMax: 512,
};

/** Twice the longest app-consistent interval: what is held for long has no such gaps of itself. */
const INTERRUPTION_MS: number = DAY_MS;
/** Survivors of empty buckets' neighbours are up to three widths apart; that must not look like an interruption. */
export const ONE_PER_MS_MAX: number = INTERRUPTION_MS / 3;

/** What is wrong with a policy that came from outside; undefined if nothing is. */
export function retentionFault({
  keepMs,
  appConsistentKeepMs,
  thinning,
  pointsMax,
}: RetentionPolicy): string | undefined {
  if (!(keepMs > 0)) return 'points are kept for longer than nothing';
  if (appConsistentKeepMs !== undefined && !(appConsistentKeepMs >= keepMs)) {
    return 'app-consistent points are kept at least as long as the others';
  }
  if (!Number.isSafeInteger(pointsMax) || pointsMax < 1) return `${pointsMax} is no number of points`;
  for (const [i, { olderThanMs, onePerMs }] of thinning.entries()) {
    const before = thinning[i - 1];
    if (!(olderThanMs >= 0) || !Number.isSafeInteger(onePerMs) || onePerMs < 1)
      return `rule ${i + 1} of thinning is empty`;
    if (onePerMs > ONE_PER_MS_MAX)
      return `rule ${i + 1} of thinning leaves less than one point in ${ONE_PER_MS_MAX / HOUR_MS} hours`;
    if (before && olderThanMs <= before.olderThanMs) return 'rules of thinning come in the order of their age';
    if (before && onePerMs % before.onePerMs !== 0)
      return 'each rule of thinning is as wide as the one before it, or a multiple';
  }
  return undefined;
}

/**
 * Ids to drop. `points` are in the order in which they were committed; their age is counted from the newest, which in a
 * running schedule is of now.
 */
export function pointsToDrop(
  points: readonly RetainedPoint[],
  policy: RetentionPolicy,
  inUse: ReadonlySet<string>,
): ReadonlySet<string> {
  const ages = agesOf(points);
  const age = ({ id }: RetainedPoint): number => ages.get(id)!;
  let kept = points;
  for (const { olderThanMs, onePerMs } of policy.thinning) {
    kept = thinned(kept, onePerMs, (point) => age(point) > olderThanMs);
  }
  const { keepMs, appConsistentKeepMs = keepMs, pointsMax } = policy;
  kept = kept.filter((point) => age(point) <= (point.consistency === 'app' ? appConsistentKeepMs : keepMs));
  const newest = points.at(-1);
  const survivors = new Set(kept.slice(-pointsMax).map(({ id }) => id));
  const isKept = ({ id }: RetainedPoint): boolean => survivors.has(id) || inUse.has(id) || id === newest?.id;
  return new Set(points.filter((point) => !isKept(point)).map(({ id }) => id));
}

/** How old each point is, interruptions left out. Where the clock went back between two, they are of one age. */
function agesOf(points: readonly RetainedPoint[]): ReadonlyMap<string, number> {
  const ages = new Map<string, number>();
  let ageMs = 0;
  let laterMs = points.at(-1)?.timeMs ?? 0;
  for (const { id, timeMs } of points.toReversed()) {
    const gapMs = laterMs - timeMs;
    if (gapMs > 0 && gapMs <= INTERRUPTION_MS) ageMs += gapMs;
    ages.set(id, ageMs);
    laterMs = timeMs;
  }
  return ages;
}

/** The points without those of `applies` that are not the survivor of their bucket. */
function thinned(
  points: readonly RetainedPoint[],
  onePerMs: number,
  applies: (point: RetainedPoint) => boolean,
): readonly RetainedPoint[] {
  const survivors = new Map<number, RetainedPoint>();
  const bucketOf = ({ timeMs }: RetainedPoint): number => Math.floor(timeMs / onePerMs);
  for (const point of points) {
    if (!applies(point)) continue;
    const rival = survivors.get(bucketOf(point));
    const wins = !rival || (point.consistency === 'app' && rival.consistency === 'crash');
    if (wins) survivors.set(bucketOf(point), point);
  }
  return points.filter((point) => !applies(point) || survivors.get(bucketOf(point)) === point);
}
