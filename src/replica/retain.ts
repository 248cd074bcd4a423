/**
 * What a root keeps: the newest recovery points, and what they and the newest baseline need. What drops out of a root is
 * deleted from the store after that root was committed, never before.
 */
import type { Root } from './root.ts';

/**
 * Recovery points kept, where no policy asks for fewer. All of two hours at one every 30 seconds are 240, thinned to 15 days 400; every
 * point may hold snapshots of its own, so it is not as many as a root could name.
 */
export const POINTS_KEPT = 1024;

type Kept = Pick<Root, 'baselines' | 'points' | 'logs'>;

/** The same without points beyond POINTS_KEPT, and without baselines and logs that nobody needs. The owner's point stays. */
export function retain({ baselines, points: all, logs, owner }: Kept & Pick<Root, 'owner'>): Kept {
  const points = all.filter(({ id }, i) => i >= all.length - POINTS_KEPT || id === owner.point);
  const newest = baselines.at(-1);
  /** Baseline → the last log that is played over it. */
  const needed = new Map<number, number>();
  for (const { baseline, log } of points) needed.set(baseline, Math.max(log, needed.get(baseline) ?? 0));
  if (newest) needed.set(newest.generation, Number.MAX_SAFE_INTEGER);
  const kept = baselines.filter(({ generation }) => needed.has(generation));
  const ranges = kept.map(({ generation, appliedLog }) => ({ after: appliedLog, last: needed.get(generation)! }));
  return {
    baselines: kept,
    points,
    logs: logs.filter(({ seq }) => ranges.some(({ after, last }) => seq > after && seq <= last)),
  };
}
