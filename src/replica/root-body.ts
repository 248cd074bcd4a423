/**
 * The body of a root as JSON: every list capped, every number in its range, and then what must agree with something else.
 *
 * A root that passes names, for each of its points, a baseline and all logs to play over it. Whether the store really has
 * them is found out when they are read.
 */
import { BlockferryError } from '../errors.ts';
import { normalizeGuid } from '../guid.ts';
import { BASELINES_MAX, DISKS_PER_ITEM_MAX, RECOVERY_POINTS_MAX, SHIPPED_LOGS_MAX } from '../limits.ts';
import type { JsonReader } from './json.ts';
import { OWNER_PHASES, type Owner, SIDE_BYTES } from './owner.ts';
import {
  type Baseline,
  newestLog,
  outstandingLogs,
  type PointDisk,
  type RecoveryPoint,
  ROOT_HASH_BYTES,
  type Root,
  type ShippedLog,
  SUSPECT_RANGES_MAX,
  type SyncState,
  sameTables,
  type TableReference,
} from './root.ts';
import { STATE_BYTES } from './state-name.ts';

/** 64 TiB in 64 KiB chunks has 386 table pages. */
const TABLES_MAX = 512;
export const SEGMENTS_MAX = 64;
const COUNT_MAX = Number.MAX_SAFE_INTEGER;
const LOG_ID_BYTES = 16;

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const tablesJson = (tables: readonly TableReference[]) => tables.map((table) => ({ ...table, tag: hex(table.tag) }));

export const pointDiskJson = (disk: PointDisk) => ({
  ...disk,
  tables: tablesJson(disk.tables),
  baseSnapshots: disk.baseSnapshots.map((s) => ({ ...s })),
});

function baselineJson({ generation, appliedLog, state, disks }: Baseline) {
  return { generation, appliedLog, state: state && hex(state), disks: disks.map(pointDiskJson) };
}

function syncJson(sync: SyncState) {
  const suspect = sync.suspect.map((range) => ({ ...range }));
  return sync.kind === 'apply' ? { ...sync, suspect } : { ...sync, source: hex(sync.source), suspect };
}

export function rootJson(root: Root) {
  const { generation, keyringCounter, timeMs, writer, owner, follows, sync } = root;
  return {
    generation,
    previous: hex(root.previous),
    description: hex(root.description),
    keyringCounter,
    timeMs,
    writer,
    owner: { ...owner, side: hex(owner.side) },
    follows: follows && { ...follows },
    disks: root.disks.map(({ tables, head }) => ({ tables: tablesJson(tables), head })),
    baselines: root.baselines.map(baselineJson),
    points: root.points.map((point) => ({ ...point })),
    logs: root.logs.map((log) => ({ ...log, id: hex(log.id) })),
    sync: sync && syncJson(sync),
  };
}

/** @throws REPLICA_FULL for lists longer than a reader takes. */
export function checkCounts({ baselines, points, logs }: Root): void {
  if (baselines.length > BASELINES_MAX) throw rootFull('baselines', baselines.length, BASELINES_MAX);
  if (points.length > RECOVERY_POINTS_MAX) throw rootFull('recovery points', points.length, RECOVERY_POINTS_MAX);
  if (logs.length > SHIPPED_LOGS_MAX) throw rootFull('shipped logs', logs.length, SHIPPED_LOGS_MAX);
}

/** What is to be committed has more of something than a reader takes. */
export function rootFull(what: string, count: number, max: number): BlockferryError {
  return new BlockferryError('REPLICA_FULL', `the root would have ${count} ${what}, a root holds at most ${max}`, {
    facts: { what, count, max },
    hint: 'nothing was changed; run apply, which folds the shipped logs into the base',
  });
}

/** Reads and checks a body. */
export function readRoot(json: JsonReader): Root {
  const sync = json.optional('sync');
  const follows = json.optional('follows');
  const root = {
    generation: json.field('generation').integer(1, COUNT_MAX),
    previous: json.field('previous').hex(ROOT_HASH_BYTES),
    description: json.field('description').hex(ROOT_HASH_BYTES),
    keyringCounter: json.field('keyringCounter').integer(1, COUNT_MAX),
    timeMs: json.field('timeMs').integer(0, COUNT_MAX),
    writer: json.field('writer').string(),
    owner: readOwner(json.field('owner')),
    ...(follows ? { follows: { generation: follows.field('generation').integer(1, COUNT_MAX) } } : {}),
    disks: json
      .field('disks')
      .list(DISKS_PER_ITEM_MAX)
      .map((disk) => ({ tables: readTables(disk), head: readGuid(disk.field('head')) })),
    baselines: json.field('baselines').list(BASELINES_MAX).map(readBaseline),
    points: json.field('points').list(RECOVERY_POINTS_MAX).map(readPoint),
    logs: json.field('logs').list(SHIPPED_LOGS_MAX).map(readLog),
    ...(sync ? { sync: readSync(sync) } : {}),
  };
  checkBaselines(root, json.field('baselines'));
  checkLogs(root, json.field('logs'));
  checkPoints(root, json.field('points'));
  checkLive(root, json);
  return root;
}

function readOwner(json: JsonReader): Owner {
  const point = json.optional('point')?.string(64);
  return {
    side: json.field('side').hex(SIDE_BYTES),
    epoch: json.field('epoch').integer(1, COUNT_MAX),
    phase: json.field('phase').oneOf(OWNER_PHASES),
    ...(point === undefined ? {} : { point }),
    sinceMs: json.field('sinceMs').integer(0, COUNT_MAX),
  };
}

function readGuid(json: JsonReader): string {
  const text = json.string(64);
  return normalizeGuid(text) === text ? text : json.fail('is a GUID in upper case');
}

function readTables(json: JsonReader): readonly TableReference[] {
  return json
    .field('tables')
    .list(TABLES_MAX)
    .map((table) => ({
      page: table.field('page').integer(0, TABLES_MAX),
      generation: table.field('generation').integer(1, COUNT_MAX),
      epoch: table.field('epoch').integer(1, 0xffff_ffff),
      copy: table.field('copy').integer(0, 1) as 0 | 1,
      tag: table.field('tag').hex(16),
    }));
}

function readBaseline(json: JsonReader): Baseline {
  const state = json.optional('state')?.hex(STATE_BYTES);
  return {
    generation: json.field('generation').integer(1, COUNT_MAX),
    appliedLog: json.field('appliedLog').integer(0, COUNT_MAX),
    ...(state === undefined ? {} : { state }),
    disks: json.field('disks').list(DISKS_PER_ITEM_MAX).map(readPointDisk),
  };
}

export function readPointDisk(disk: JsonReader): PointDisk {
  return {
    tables: readTables(disk),
    manifestSnapshot: disk.field('manifestSnapshot').string(256),
    baseSnapshots: disk
      .field('baseSnapshots')
      .list(SEGMENTS_MAX)
      .map((s) => ({
        segment: s.field('segment').integer(0, SEGMENTS_MAX),
        snapshot: s.field('snapshot').string(256),
      })),
  };
}

function readPoint(json: JsonReader): RecoveryPoint {
  const group = json.optional('group')?.string(64);
  return {
    id: json.field('id').string(64),
    timeMs: json.field('timeMs').integer(0, COUNT_MAX),
    consistency: json.field('consistency').oneOf(['crash', 'app']),
    generation: json.field('generation').integer(1, COUNT_MAX),
    baseline: json.field('baseline').integer(1, COUNT_MAX),
    log: json.field('log').integer(0, COUNT_MAX),
    ...(group === undefined ? {} : { group }),
  };
}

function readLog(json: JsonReader): ShippedLog {
  return {
    seq: json.field('seq').integer(1, COUNT_MAX),
    id: json.field('id').hex(LOG_ID_BYTES),
    frames: json.field('frames').integer(1, COUNT_MAX),
    sizeBytes: json.field('sizeBytes').integer(1, COUNT_MAX),
    dataBytes: json.field('dataBytes').integer(0, COUNT_MAX),
  };
}

function readSync(json: JsonReader): SyncState {
  const kind = json.field('kind').oneOf(['initial', 'resync', 'apply']);
  const suspect = json.field('suspect').list(SUSPECT_RANGES_MAX).map(readSuspect);
  if (kind === 'apply') {
    const log = json.field('log').integer(1, COUNT_MAX);
    return { kind, log, begun: json.field('begun').integer(1, COUNT_MAX), suspect };
  }
  return {
    kind,
    source: json.field('source').hex(32),
    disk: json.field('disk').integer(0, DISKS_PER_ITEM_MAX),
    cursor: json.field('cursor').integer(0, COUNT_MAX),
    suspect,
  };
}

function readSuspect(json: JsonReader) {
  return {
    disk: json.field('disk').integer(0, DISKS_PER_ITEM_MAX),
    from: json.field('from').integer(0, COUNT_MAX),
    to: json.field('to').integer(0, COUNT_MAX),
  };
}

function checkBaselines({ generation, disks, baselines }: Root, json: JsonReader): void {
  for (const [i, baseline] of baselines.entries()) {
    const before = baselines[i - 1];
    if (baseline.disks.length !== disks.length) json.fail('each has one state per disk');
    if (baseline.generation > generation) json.fail('none is newer than the root');
    if (before && before.generation >= baseline.generation) json.fail('generations ascend');
    if (before && before.appliedLog > baseline.appliedLog) json.fail('none lacks a log that an older one has');
  }
}

function checkLogs(root: Root, json: JsonReader): void {
  const { logs, baselines } = root;
  for (const [i, log] of logs.entries()) {
    if (i > 0 && logs[i - 1]!.seq >= log.seq) json.fail('numbers ascend');
  }
  const applied = baselines.at(-1)?.appliedLog ?? 0;
  if (!hasAll(logIndex(root), applied, newestLog(root))) json.fail('all logs after the newest baseline are there');
}

function checkPoints(root: Root, json: JsonReader): void {
  const { generation, points } = root;
  const applied = new Map(root.baselines.map((baseline) => [baseline.generation, baseline.appliedLog]));
  const index = logIndex(root);
  if (new Set(points.map(({ id }) => id)).size < points.length) json.fail('ids are unique');
  for (const [i, point] of points.entries()) {
    const appliedLog = applied.get(point.baseline);
    if (point.generation > generation) json.fail('none is newer than the root');
    if (i > 0 && points[i - 1]!.generation >= point.generation) json.fail('generations ascend');
    if (appliedLog === undefined) json.fail('each names a baseline that exists');
    if (point.log < appliedLog) json.fail('none is older than its baseline');
    if (!hasAll(index, appliedLog, point.log)) json.fail('each names logs that exist');
  }
}

function logIndex({ logs }: Root): ReadonlyMap<number, number> {
  return new Map(logs.map(({ seq }, i) => [seq, i]));
}

/** Whether all logs of (after, last] are there: as many of them as there are numbers. */
function hasAll(index: ReadonlyMap<number, number>, after: number, last: number): boolean {
  if (after >= last) return true;
  const from = index.get(after + 1);
  const to = index.get(last);
  return from !== undefined && to !== undefined && to - from === last - after - 1;
}

/** What stands of the live bases. */
function checkLive({ disks, baselines, sync, logs }: Root, json: JsonReader): void {
  const newest = baselines.at(-1);
  for (const { disk, from, to } of sync?.suspect ?? []) {
    if (disk >= disks.length || from >= to) json.field('sync').fail('suspects are ranges of disks that exist');
  }
  if (sync?.kind === 'apply' && !outstandingLogs({ baselines, logs }).some(({ seq }) => seq === sync.log)) {
    json.field('sync').fail('an apply is of logs that are outstanding');
  }
  if (sync) return;
  if (!newest) json.fail('there is a baseline unless the first sync is under way');
  const frozen = disks.every(({ tables }, i) => sameTables(tables, newest.disks[i]!.tables));
  if (!frozen) json.field('disks').fail('tables are those of the newest baseline unless a sync is under way');
}
