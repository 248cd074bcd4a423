/**
 * Disks that wait for `commit` or `cancel`, and those of test failovers: what is about to be made is noted first, so that files
 * which a kill left are known as ours, made anew by the next run and removed by `cancel`. A file of anybody else is never touched.
 */
import { resolve } from 'node:path';
import { BlockferryError } from '../../errors.ts';
import { isOwner, type RecoveryPoint, type Replica, SIDE_BYTES } from '../../replica/index.ts';
import { diskStamp } from '../../tracker/index.ts';
import type { DiskFormat } from '../../vhd/index.ts';
import type { LocalItem } from '../local-state.ts';
import type { FailoverReport, KeySource, ReplicaReference, Session } from '../types.ts';
import { bringBack, outputPaths } from './bring-back.ts';
import {
  type BroughtDisk,
  type FailoverRecord,
  loadFailover,
  loadTests,
  saveFailover,
  saveTests,
  type TestRecord,
} from './record.ts';

/** What the disks are for. */
export interface Waiting {
  readonly kind: FailoverRecord['kind'];
  readonly planned: boolean;
  readonly point: RecoveryPoint;
  readonly reference: ReplicaReference;
}

export interface Where {
  readonly outDirectory: string;
  readonly format: DiskFormat;
}

/** Writes the disks of a point as new files; from then on they wait, instead of any before them, whose files stay. */
export async function bringToWait(
  session: Session,
  item: LocalItem,
  replica: Replica,
  waiting: Waiting,
  { outDirectory, format }: Where,
): Promise<FailoverReport> {
  const { files } = session.ports;
  const before = await loadFailover(item, files);
  if (before?.inPlace) throw waitsAlready(item, before);
  const paths = outputPaths(replica.description.disks, resolve(outDirectory), format);
  // A guest may run on what is complete.
  const ours = before && !before.isComplete ? before.disks.map(({ path }) => path) : [];
  await refuseExisting(session, paths, ours);
  const begun = paths.map((path) => ({ path, format, stamp: '' }));
  const record = await makeRecord(session, item, replica, waiting, { inPlace: false, isComplete: false, disks: begun });
  await saveFailover(item, record, files);
  for (const path of paths) await files.remove(path);
  const report = await bringBack(session, replica, waiting.point, { outDirectory, format });
  await saveFailover(item, { ...record, isComplete: true, disks: await stamped(session, begun) }, files);
  return report;
}

/** Notes that disks which were there before have become those of a point. */
export async function noteInPlace(
  session: Session,
  item: LocalItem,
  replica: Replica,
  waiting: Waiting,
  disks: readonly Omit<BroughtDisk, 'stamp'>[],
): Promise<void> {
  const complete = { inPlace: true, isComplete: true, disks: await stamped(session, disks) };
  await saveFailover(item, await makeRecord(session, item, replica, waiting, complete), session.ports.files);
}

/** Writes the disks of a point as new files that nothing waits for. */
export async function bringForTest(
  session: Session,
  item: LocalItem,
  replica: Replica,
  point: RecoveryPoint,
  { outDirectory, format }: Where,
): Promise<FailoverReport> {
  const { files, clock } = session.ports;
  const paths = outputPaths(replica.description.disks, resolve(outDirectory), format);
  const before = await loadTests(item, files);
  const unfinished = before.filter((each) => !each.isComplete).flatMap((each) => each.paths);
  await refuseExisting(session, paths, unfinished);
  const test: TestRecord = { pointId: point.id, paths, isComplete: false, sinceMs: clock.nowMs() };
  const others = before.filter((each) => !each.paths.some((path) => paths.includes(path)));
  await saveTests(item, [...others, test], files);
  for (const path of paths) await files.remove(path);
  const report = await bringBack(session, replica, point, { outDirectory, format });
  await saveTests(item, [...others, { ...test, isComplete: true }], files);
  return report;
}

/** @throws OUTPUT_EXISTS for files that are not of a failover before this one */
async function refuseExisting(
  { ports: { files } }: Session,
  paths: readonly string[],
  ours: readonly string[],
): Promise<void> {
  for (const path of paths) {
    if (ours.includes(path) || !(await files.exists(path))) continue;
    throw new BlockferryError('OUTPUT_EXISTS', `${path}: already exists`, {
      facts: { path },
      hint: 'name another directory, or move the file away; no file of yours is ever written over',
    });
  }
}

/** The error of whoever would begin while something waits. */
export function waitsAlready(item: LocalItem, { kind, point }: FailoverRecord): BlockferryError {
  return new BlockferryError('ILLEGAL_STATE', `a ${kind} of item "${item.name}" waits for commit or cancel`, {
    facts: { item: item.name, point: point.id },
    hint: `end it with: blockferry commit ${item.name}, or blockferry cancel ${item.name}`,
  });
}

async function makeRecord(
  { ports }: Session,
  item: LocalItem,
  replica: Replica,
  { kind, planned, point, reference }: Waiting,
  disks: Pick<FailoverRecord, 'inPlace' | 'isComplete' | 'disks'>,
): Promise<FailoverRecord> {
  const { root } = replica.record;
  const state = 'url' in reference ? undefined : await item.load();
  return {
    ...{ kind, planned, ...disks },
    fromOurs: state !== undefined && isOwner(root, state.side),
    url: 'url' in reference ? reference.url : state!.url,
    keys: 'url' in reference ? reference.keys.map(absolute) : [],
    point: { id: point.id, timeMs: point.timeMs },
    epoch: root.owner.epoch,
    newestGeneration: root.points.at(-1)!.generation,
    side: ports.random.bytes(SIDE_BYTES),
    sinceMs: ports.clock.nowMs(),
  };
}

async function stamped({ ports }: Session, disks: readonly Omit<BroughtDisk, 'stamp'>[]): Promise<BroughtDisk[]> {
  const all: BroughtDisk[] = [];
  for (const { path, format } of disks) all.push({ path, format, stamp: await diskStamp({ path, format }, ports) });
  return all;
}

const absolute = ({ type, path }: KeySource): KeySource => ({ type, path: resolve(path) });
