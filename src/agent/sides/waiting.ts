/**
 * Disks that wait for `commit` or `cancel`, and those of test failovers: what is about to be made is noted first, so that files
 * which a kill left are known as ours, made anew by the next run and removed by `cancel`. A file of anybody else is never touched.
 */
import { resolve } from 'node:path';
import { bytesEqual } from '../../bytes.ts';
import { BlockferryError } from '../../errors.ts';
import type { FileSystem } from '../../ports.ts';
import { type DiskDescription, isOwner, type RecoveryPoint, type Replica, SIDE_BYTES } from '../../replica/index.ts';
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
  type TestDisk,
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

/**
 * Where the disks would go. @throws ILLEGAL_STATE while something waits that must be ended first; OUTPUT_EXISTS for files that
 * are not what an unfinished run of this left
 */
export async function checkPlace(
  session: Session,
  item: LocalItem,
  disks: readonly DiskDescription[],
  { outDirectory, format }: Where,
): Promise<readonly string[]> {
  const before = await loadFailover(item, session.ports.files);
  if (before?.inPlace || before?.isCommitting) throw waitsAlready(item, before);
  const paths = outputPaths(disks, resolve(outDirectory), format);
  // A guest may run on what is complete.
  const ours = before && !before.isComplete ? before.disks.map(({ path }) => path) : [];
  await refuseExisting(session, paths, ours);
  return paths;
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
  const paths = await checkPlace(session, item, replica.description.disks, { outDirectory, format });
  const begun = paths.map((path) => ({ path, format, stamp: '' }));
  const record = await makeRecord(session, item, replica, waiting, { inPlace: false, isComplete: false, disks: begun });
  await saveFailover(item, record, files);
  await forgetTests(session, item, paths);
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
  const unfinished = before.filter((each) => !each.isComplete).flatMap((each) => each.disks.map(({ path }) => path));
  await refuseExisting(session, paths, unfinished);
  const begun = paths.map((path) => ({ path, identity: '' }));
  const test: TestRecord = { pointId: point.id, disks: begun, isComplete: false, sinceMs: clock.nowMs() };
  const others = before.filter((each) => !each.disks.some(({ path }) => paths.includes(path)));
  await saveTests(item, [...others, test], files);
  for (const path of paths) await files.remove(path);
  const report = await bringBack(session, replica, point, { outDirectory, format });
  const made: TestDisk[] = [];
  for (const path of paths) made.push({ path, identity: await fileIdentity(path, files) });
  await saveTests(item, [...others, { ...test, disks: made, isComplete: true }], files);
  return report;
}

/** Which file this is, under whatever name; '' if it is not there. */
export async function fileIdentity(path: string, files: FileSystem): Promise<string> {
  if (!(await files.exists(path))) return '';
  const file = await files.open(path, 'read');
  try {
    return (await file.stamp()).identity;
  } finally {
    await file.close();
  }
}

/** What is about to wait for a commit is no test any more. */
async function forgetTests({ ports: { files } }: Session, item: LocalItem, paths: readonly string[]): Promise<void> {
  const tests = await loadTests(item, files);
  if (!tests.some(({ disks }) => disks.some(({ path }) => paths.includes(path)))) return;
  const left = tests.map((test) => ({ ...test, disks: test.disks.filter(({ path }) => !paths.includes(path)) }));
  await saveTests(
    item,
    left.filter(({ disks }) => disks.length > 0),
    files,
  );
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
export function waitsAlready(item: LocalItem, { kind, point, isCommitting }: FailoverRecord): BlockferryError {
  const waits = isCommitting ? 'has a commit that was begun' : 'waits for commit or cancel';
  const cancel = isCommitting ? '' : `, or blockferry cancel ${item.name}`;
  return new BlockferryError('ILLEGAL_STATE', `a ${kind} of item "${item.name}" ${waits}`, {
    facts: { item: item.name, point: point.id },
    hint: `end it with: blockferry commit ${item.name}${cancel}`,
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
  const state = await item.find();
  if (state && !bytesEqual(state.replicaId, replica.description.replicaId)) throw otherItem(item);
  return {
    ...{ kind, planned, isCommitting: false, ...disks },
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

function otherItem({ name }: LocalItem): BlockferryError {
  return new BlockferryError('USAGE', `this home has an item "${name}" of another replica`, {
    facts: { item: name },
    hint: 'take another --home; with --test nothing waits for a commit, and any home will do',
  });
}

async function stamped({ ports }: Session, disks: readonly Omit<BroughtDisk, 'stamp'>[]): Promise<BroughtDisk[]> {
  const all: BroughtDisk[] = [];
  for (const { path, format } of disks) all.push({ path, format, stamp: await diskStamp({ path, format }, ports) });
  return all;
}

const absolute = ({ type, path }: KeySource): KeySource => ({ type, path: resolve(path) });
