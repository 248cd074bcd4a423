/**
 * Disks that wait for `commit` or `cancel`, and those of test failovers: what is about to be made is noted first, so that files
 * which a kill left are known as ours, made anew by the next run and removed by `cancel`. A file of anybody else is never touched.
 */
import { resolve } from 'node:path';
import { bytesEqual } from '../../bytes.ts';
import { BlockferryError, isBlockferryError } from '../../errors.ts';
import type { FileSystem } from '../../ports.ts';
import { type DiskDescription, isOwner, type RecoveryPoint, type Replica, SIDE_BYTES } from '../../replica/index.ts';
import { diskStamp } from '../../tracker/index.ts';
import type { DiskFormat } from '../../vhd/index.ts';
import type { LocalItem } from '../local-state.ts';
import type { FailoverReport, KeySource, ReplicaReference, Session } from '../types.ts';
import { bringBack, outputPaths } from './bring-back.ts';
import { withOutput, withSides, withTests } from './lock.ts';
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
export async function failoverToWait(
  session: Session,
  item: LocalItem,
  replica: Replica,
  waiting: Waiting,
  where: Where,
): Promise<FailoverReport> {
  const record = await beginIfPossible(session, item, replica, waiting, where);
  const report = await bringBack(session, replica, waiting.point, where);
  if (!record) return report;
  const disks = await stamped(session, record.disks);
  await withSides(session, item, () => complete(session, item, { ...record, isComplete: true, disks }));
  return report;
}

/** On the worst day disks come back whatever this home remembers; undefined where they cannot be committed from it. */
async function beginIfPossible(
  session: Session,
  item: LocalItem,
  replica: Replica,
  waiting: Waiting,
  where: Where,
): Promise<FailoverRecord | undefined> {
  try {
    if (!(await isOfAnother(item, replica))) {
      return await withSides(session, item, () => begin(session, item, replica, waiting, where));
    }
    notRemembered(session, `this home has an item "${item.name}" of another replica`);
  } catch (error) {
    if (!isBlockferryError(error, 'LOCAL_STATE')) throw error;
    notRemembered(session, error.message);
  }
  return undefined;
}

function notRemembered(session: Session, why: string): void {
  const message = `what is brought back cannot be committed from this home: ${why}`;
  session.onEvent?.({ type: 'notice', code: 'NOT_REMEMBERED', message });
}

/** The same for who holds the lock already. */
export async function bringToWait(
  session: Session,
  item: LocalItem,
  replica: Replica,
  waiting: Waiting,
  where: Where,
): Promise<FailoverReport> {
  return withOutput(session, where.outDirectory, async () => {
    const record = await begin(session, item, replica, waiting, where);
    const report = await bringBack(session, replica, waiting.point, where);
    await complete(session, item, { ...record, isComplete: true, disks: await stamped(session, record.disks) });
    return report;
  });
}

/** Notes what is about to be made, and clears the place of what an unfinished run left there. */
async function begin(
  session: Session,
  item: LocalItem,
  replica: Replica,
  waiting: Waiting,
  where: Where,
): Promise<FailoverRecord> {
  const { files } = session.ports;
  const paths = await checkPlace(session, item, replica.description.disks, where);
  const disks = paths.map((path) => ({ path, format: where.format, stamp: '' }));
  const record = await makeRecord(session, item, replica, waiting, { inPlace: false, isComplete: false, disks });
  await saveFailover(item, record, files);
  await withTests(session, item, () => forgetTests(session, item, paths));
  for (const path of paths) await files.remove(path);
  return record;
}

/** From here on they wait, unless somebody cancelled them, or had others wait, while they were made. */
async function complete(session: Session, item: LocalItem, record: FailoverRecord): Promise<void> {
  const { files } = session.ports;
  const now = await loadFailover(item, files);
  if (now && bytesEqual(now.side, record.side)) return saveFailover(item, record, files);
  notRemembered(session, now ? 'others were brought back meanwhile' : 'they were cancelled meanwhile');
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
  const save = async (test: TestRecord): Promise<void> => {
    const tests = await loadTests(item, files);
    const others = tests.filter(({ disks }) => !disks.some(({ path }) => paths.includes(path)));
    await saveTests(item, [...others, test], files);
  };
  const begun = paths.map((path) => ({ path, identity: '' }));
  const test: TestRecord = { pointId: point.id, disks: begun, isComplete: false, sinceMs: clock.nowMs() };
  await withTests(session, item, async () => {
    const unfinished = (await loadTests(item, files)).filter((each) => !each.isComplete);
    const ours = unfinished.flatMap(({ disks }) => disks.map(({ path }) => path));
    await refuseExisting(session, paths, ours);
    await save(test);
    for (const path of paths) await files.remove(path);
  });
  const report = await bringBack(session, replica, point, { outDirectory, format });
  const made: TestDisk[] = [];
  for (const path of paths) made.push({ path, identity: await fileIdentity(path, files) });
  await withTests(session, item, () => save({ ...test, disks: made, isComplete: true }));
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

async function isOfAnother(item: LocalItem, { description }: Replica): Promise<boolean> {
  const state = await item.find();
  return state !== undefined && !bytesEqual(state.replicaId, description.replicaId);
}

async function stamped({ ports }: Session, disks: readonly Omit<BroughtDisk, 'stamp'>[]): Promise<BroughtDisk[]> {
  const all: BroughtDisk[] = [];
  for (const { path, format } of disks) all.push({ path, format, stamp: await diskStamp({ path, format }, ports) });
  return all;
}

const absolute = ({ type, path }: KeySource): KeySource => ({ type, path: resolve(path) });
