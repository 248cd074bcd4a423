/**
 * What a follower lacks of another store's replica, and the root that it has once that is carried (docs/mirror.md). Pure: both roots
 * in, a plan and a change of the follower's root out.
 *
 * States are compared by their names, which are the same in every store; so a log or a point is only ever carried onto the very
 * content that it was made over.
 */
import { bytesEqual } from '../../bytes.ts';
import { randomGuid } from '../../guid.ts';
import type { Random } from '../../ports.ts';
import { generationOf, type RootChange } from '../committer.ts';
import { type Baseline, baselineOf, logsOf, type RecoveryPoint, type Root, type ShippedLog } from '../root.ts';
import { stateAfter } from '../state-name.ts';
import { isNewestState } from '../take-over.ts';

export interface MirrorPlan {
  /** The other store's baseline that the follower's bases have to become first; absent where logs alone lead to the newest point. */
  readonly copy?: Baseline;
  /** Logs that the follower does not have, ascending. */
  readonly logs: readonly ShippedLog[];
  /** Points that it gets, as the other store has them. */
  readonly points: readonly RecoveryPoint[];
  /** Points that it goes on having. */
  readonly kept: readonly RecoveryPoint[];
}

/** A state that logs can be played over. */
interface Footing {
  readonly appliedLog: number;
  /** Names of the states that the logs behind it lead to, by the number of the last log. */
  readonly names: ReadonlyMap<number, string>;
}

/** What leads `target` to the newest point of `source`; without points to carry where it has that. */
export function planMirror(target: Root, source: Root): MirrorPlan {
  const kept = keptPoints(target, source);
  const newest = source.points.at(-1);
  if (!newest || newest.generation <= (kept.at(-1)?.generation ?? 0)) return { logs: [], points: [], kept };
  const own = target.baselines.at(-1);
  const isCopying = target.sync !== undefined && target.sync.kind !== 'apply';
  const footing = own && !isCopying ? footingOn(own, logsBehind(own, source, target)) : undefined;
  const reached = footing ? pointsFrom(footing, newerThan(kept, source), source) : [];
  if (footing && reached.at(-1) === newest) {
    return { logs: missingLogs(target, source, footing.appliedLog, newest.log), points: reached, kept };
  }
  const copy = baselineOf(source, newest);
  const fit = fitting(target, kept, copy);
  const points = pointsFrom(footingOn(copy, logsBehind(copy, source)), newerThan(fit, source), source, copy);
  return { copy, logs: missingLogs(target, source, copy.appliedLog, newest.log), points, kept: fit };
}

function newerThan(kept: readonly RecoveryPoint[], { points }: Root): readonly RecoveryPoint[] {
  const known = kept.at(-1)?.generation ?? 0;
  return points.filter(({ generation }) => generation > known);
}

/**
 * The points that a follower goes on having: all, as long as the same side owns both. Behind a change of side those up to the newest
 * that both have; the rest belongs to what was given up.
 */
export function keptPoints(target: Root, source: Root): readonly RecoveryPoint[] {
  if (target.owner.epoch === source.owner.epoch) return target.points;
  const theirs = new Map(source.points.map((point) => [point.id, point]));
  const last = target.points.findLastIndex((point) => {
    const same = theirs.get(point.id);
    return same !== undefined && isSamePoint(target, point, source, same);
  });
  return target.points.slice(0, last + 1);
}

function isSamePoint(target: Root, mine: RecoveryPoint, source: Root, theirs: RecoveryPoint): boolean {
  const [a, b] = [pointName(target, mine), pointName(source, theirs)];
  const sameContent = a === undefined || b === undefined || a === b;
  return mine.generation === theirs.generation && mine.timeMs === theirs.timeMs && sameContent;
}

/** Baselines ascend by their logs; behind a change of side an older one can have more of them than the one that is copied. */
function fitting(target: Root, kept: readonly RecoveryPoint[], copy: Baseline): readonly RecoveryPoint[] {
  return kept.filter((point) => baselineOf(target, point).appliedLog <= copy.appliedLog);
}

const hex = (name: Uint8Array): string => Buffer.from(name).toString('hex');

/** The name of what a point holds; undefined where its baseline is older than names. */
function pointName(root: Root, point: RecoveryPoint): string | undefined {
  const { state } = baselineOf(root, point);
  return state && hex(stateAfter(state, logsOf(root, point)));
}

/** The logs behind a baseline without a gap: those of the other store, else those that the follower has. */
function logsBehind({ appliedLog }: Baseline, source: Root, target?: Root): readonly ShippedLog[] {
  const bySeq = new Map([...(target?.logs ?? []), ...source.logs].map((log) => [log.seq, log]));
  const logs: ShippedLog[] = [];
  for (let log = bySeq.get(appliedLog + 1); log; log = bySeq.get(log.seq + 1)) logs.push(log);
  return logs;
}

function footingOn({ appliedLog, state }: Baseline, logs: readonly ShippedLog[]): Footing {
  const names = new Map<number, string>();
  if (!state) return { appliedLog, names };
  let name = state;
  names.set(appliedLog, hex(name));
  for (const log of logs) {
    name = stateAfter(name, [log]);
    names.set(log.seq, hex(name));
  }
  return { appliedLog, names };
}

/** The points that logs lead to; of a baseline that is copied also those that stand on it, should it have no name. */
function pointsFrom(
  { names }: Footing,
  points: readonly RecoveryPoint[],
  source: Root,
  copy?: Baseline,
): readonly RecoveryPoint[] {
  return points.filter((point) => {
    if (point.baseline === copy?.generation) return true;
    const name = pointName(source, point);
    return name !== undefined && names.get(point.log) === name;
  });
}

function missingLogs(target: Root, source: Root, after: number, last: number): readonly ShippedLog[] {
  const had = new Map(target.logs.map(({ seq, id }) => [seq, id]));
  return source.logs.filter(({ seq, id }) => {
    const there = had.get(seq);
    return seq > after && seq <= last && !(there && bytesEqual(there, id));
  });
}

/** A baseline that was copied, with the live tables that it froze. */
export interface Copied {
  readonly disks: Root['disks'];
  readonly baseline: Baseline;
}

/** The follower's root once everything that the plan names is there. */
export function mirroredRoot(
  now: Root,
  source: Root,
  { kept, points, logs }: MirrorPlan,
  copied: Copied | undefined,
  random: Random,
): RootChange {
  const generation = generationOf(now.generation, points);
  const baselines = copied
    ? [...now.baselines.filter((each) => stands(kept, each)), { ...copied.baseline, generation }]
    : now.baselines;
  const base = baselines.at(-1)!;
  const carried = points.map((point) => ({ ...point, baseline: base.generation }));
  const all = [...kept, ...carried];
  const change = {
    owner: source.owner,
    follows: { generation: source.generation },
    baselines,
    points: all,
    logs: neededLogs(now, all, baselines, logs),
    ...(copied ? { sync: null } : {}),
  };
  if (carried.length === 0 && kept.length === now.points.length) return change;
  const newest = source.points.at(-1);
  // A change log goes on from what is held now, or none does.
  const goesOn = newest !== undefined && carried.at(-1)?.id === newest.id && isNewestState(source, newest);
  const tables = copied?.disks ?? now.disks;
  const disks = tables.map((disk, i) => ({
    tables: disk.tables,
    head: goesOn ? source.disks[i]!.head : randomGuid(random.bytes(16)),
  }));
  return { ...change, disks };
}

function stands(points: readonly RecoveryPoint[], { generation }: Baseline): boolean {
  return points.some(({ baseline }) => baseline === generation);
}

/** The logs that points need, of those that are there and those that were carried; what was given up is not among them. */
function neededLogs(
  now: Root,
  points: readonly RecoveryPoint[],
  baselines: readonly Baseline[],
  carried: readonly ShippedLog[],
): readonly ShippedLog[] {
  const applied = new Map(baselines.map(({ generation, appliedLog }) => [generation, appliedLog]));
  const isNeeded = ({ seq }: ShippedLog): boolean =>
    points.some(({ baseline, log }) => seq > applied.get(baseline)! && seq <= log);
  const bySeq = new Map([...now.logs, ...carried].map((log) => [log.seq, log]));
  return [...bySeq.values()].filter(isNeeded).sort((a, b) => a.seq - b.seq);
}
