/**
 * What retention promises, checked from all points that were ever made: where a point was made and its time is not over, there is
 * one in its bucket; where it was over when points were dropped last, it is gone. Without a wall clock that jumps, and written
 * without the code that it checks.
 */
import type { RetentionPolicy } from '../../../src/agent/policy/index.ts';
import type { RecoveryPoint } from '../../../src/replica/root.ts';
import type { ReplicaModel } from './replica-model.ts';

const DAY = 86_400_000;

/** @throws Error naming the point that should be there, or should not */
export function checkRetention({ root, made, prunedAt, keptByPins }: ReplicaModel, policy: RetentionPolicy): void {
  const kept = root!.points;
  const keptIds = new Set(kept.map(({ id }) => id));
  const since = made.length - prunedAt;
  if (kept.at(-1)?.id !== made.at(-1)?.id) throw new Error('the newest point was dropped');
  if (kept.length > policy.pointsMax + since + keptByPins.size) throw new Error(`${kept.length} points were kept`);
  const ages = agesOf(made);
  const prunedAgo = ages[prunedAt - 1] ?? Number.POSITIVE_INFINITY;
  for (const [i, point] of made.entries()) {
    const { id, consistency } = point;
    const age = ages[i]!;
    const keepMs = consistency === 'app' ? (policy.appConsistentKeepMs ?? policy.keepMs) : policy.keepMs;
    if (!keptIds.has(id)) {
      if (age <= policy.keepMs && !stands(point, age, kept, policy)) {
        throw new Error(`${id}, ${age} ms old, was dropped, and nothing stands for it`);
      }
    } else if (age - prunedAgo > keepMs && !keptByPins.has(id)) throw new Error(`${id} was kept for ${age} ms`);
  }
}

/** Age of each, counted from the newest, interruptions left out. */
function agesOf(made: readonly RecoveryPoint[]): readonly number[] {
  const ages: number[] = new Array(made.length).fill(0);
  for (let i = made.length - 2; i >= 0; i -= 1) {
    const gapMs = made[i + 1]!.timeMs - made[i]!.timeMs;
    ages[i] = ages[i + 1]! + (gapMs <= DAY ? gapMs : 0);
  }
  return ages;
}

/** Whether the bucket of a point that was dropped has another one, or is over. */
function stands(
  { timeMs }: RecoveryPoint,
  age: number,
  kept: readonly RecoveryPoint[],
  { thinning, keepMs }: RetentionPolicy,
): boolean {
  return thinning.some(({ olderThanMs, onePerMs }) => {
    const bucket = Math.floor(timeMs / onePerMs);
    const bucketAge = age + (timeMs - bucket * onePerMs);
    // A rule reaches a bucket when it reaches its oldest point, which stands for the others; and with that it is over.
    if (bucketAge <= olderThanMs) return false;
    return bucketAge > keepMs || kept.some((other) => Math.floor(other.timeMs / onePerMs) === bucket);
  });
}
