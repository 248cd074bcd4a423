/**
 * failback: the disks of the side that is not the owner become those of the newest point (docs/life.md). `delta` compares them
 * where they lie, stages what differs beside them while the owner runs, and lays it into them once the owner has stopped;
 * `full` writes new files. Both end as a failover does: waiting for commit or cancel.
 *
 * The disks are the old ones until all that differs is staged, verified and marked complete, durably; from there on running
 * this again ends with the new ones, whenever it is killed.
 */
import { dirname, join, resolve } from 'node:path';
import { BlockferryError, isBlockferryError } from '../../errors.ts';
import {
  baselineOf,
  catchUp,
  compareDisk,
  completeStage,
  discardStage,
  FrozenDisk,
  hasStage,
  isOwner,
  layStage,
  openStage,
  outstandingLogs,
  proveDisk,
  type RecoveryPoint,
  type StageCounts,
  type StageProgressCounts,
  type StageSetup,
  stageDelta,
} from '../../replica/index.ts';
import { RestingTracking } from '../../tracker/index.ts';
import { openDisk, openDiskForWriting, type VirtualDisk } from '../../vhd/index.ts';
import { runApply } from '../apply.ts';
import { type ItemState, LocalItem } from '../local-state.ts';
import {
  KeptWorkers,
  latestPoint,
  type OwnReplica,
  readAccess,
  reopenOwn,
  sessionSignal,
  withOwn,
  withPinned,
} from '../open-item.ts';
import { withReasons } from '../refuse.ts';
import { trackedItem } from '../tracking.ts';
import type { FailbackDiskReport, FailbackReport, FailbackRequest, Session } from '../types.ts';
import { withBoth } from './lock.ts';
import { stop } from './planned.ts';
import { loadFailover } from './record.ts';
import { forgetStages, placeStages } from './stages.ts';
import { bringToWait, checkPlace, noteInPlace, type Waiting, waitsAlready } from './waiting.ts';

/** Where a failback goes. */
type Target = Pick<ItemState, 'disks' | 'formats'>;

/** What is done with one disk. */
interface DiskWork {
  readonly disk: number;
  readonly path: string;
  readonly format: ItemState['formats'][number];
  /** Folder of its stage. */
  readonly directory: string;
  /** The same for all disks and steps. */
  readonly workers: KeptWorkers;
}

/**
 * Brings the way back to where only `commit` is left; `waiting-for-owner` where the owner of another home has not stopped.
 * @throws ILLEGAL_STATE, SPLIT_BRAIN, ITEM_LOCKED while a tracker serves the disks, DISK_DIFFERS, and what disks and store throw
 */
export function failback(session: Session, name: string, request: FailbackRequest): Promise<FailbackReport> {
  const item = new LocalItem(session.home, name, session.ports.files);
  return withReasons(session, name, 'failback', () =>
    withBoth(session, item, () =>
      withOwn(session, name, async (own) => {
        await refuseWaiting(session, item);
        const target = targetOf(own);
        if (isOwner(own.replica.record.root, own.state.side)) return run(session, own, target, request);
        // Nobody may write to the disks meanwhile.
        const resting = await RestingTracking.open(trackedItem(session, item, own.state, own.replica.description));
        try {
          return await run(session, own, target, request);
        } finally {
          await resting.close();
        }
      }),
    ),
  );
}

/** New files that a kill left unfinished are made anew. */
async function refuseWaiting({ ports: { files } }: Session, item: LocalItem): Promise<void> {
  const waiting = await loadFailover(item, files);
  if (waiting?.isComplete || waiting?.isCommitting || waiting?.kind === 'failover') throw waitsAlready(item, waiting);
}

/** The disks that are not the truth now: the item's own, or in the owner's home those from before it took over. */
function targetOf({ replica, state, item }: OwnReplica): Target {
  if (!isOwner(replica.record.root, state.side)) return state;
  if (state.former) return state.former;
  throw new BlockferryError(
    'ILLEGAL_STATE',
    `the replica follows the disks of item "${item.name}" here: there is no way back`,
    {
      facts: { item: item.name },
      hint: 'failback is run where the machine came from; to bring its disks somewhere else use blockferry failover',
    },
  );
}

async function run(
  session: Session,
  first: OwnReplica,
  target: Target,
  request: FailbackRequest,
): Promise<FailbackReport> {
  const startedMs = session.ports.clock.monotonicMs();
  if (request.mode === 'full') return end(session, first, target, request, [], [], startedMs);
  const own = await applied(session, first);
  // Pinned to the end: what is staged is caught up from this point, however long the owner takes to stop.
  return withPinned(session, own.replica, latestPoint(own.replica), async (replica, point) => {
    const workers = new KeptWorkers(session);
    try {
      const works = await diskWorks(session, own, target, request, workers);
      const staged = await stageAll(session, { ...own, replica }, point, works);
      return await end(session, own, target, request, works, staged, startedMs);
    } finally {
      await workers.close();
    }
  });
}

/** Has the owner stop, and brings the disks to where only `commit` is left. */
async function end(
  session: Session,
  first: OwnReplica,
  target: Target,
  request: FailbackRequest,
  works: readonly DiskWork[],
  staged: readonly StageCounts[],
  startedMs: number,
): Promise<FailbackReport> {
  const { clock } = session.ports;
  const counts = { item: first.item.name, mode: request.mode };
  if (request.mode === 'full' && request.outDirectory !== undefined) {
    const { outDirectory, format = target.formats[0]! } = request;
    await checkPlace(session, first.item, first.replica.description.disks, { outDirectory, format });
  }
  const own = await stopOwner(session, first);
  if (!own) {
    const pointId = latestPoint((await reopenOwn(session, first)).replica).id;
    const disks = works.map((work, i) => diskReport(work, staged[i]));
    return { ...counts, state: 'waiting-for-owner', pointId, disks, elapsedMs: clock.monotonicMs() - startedMs };
  }
  const point = latestPoint(own.replica);
  const waiting = { kind: 'failback', planned: true, point, reference: { name: own.item.name } } as const;
  let disks: readonly FailbackDiskReport[];
  if (request.mode === 'full') disks = await writeAll(session, own, waiting, target, request);
  else {
    disks = await layAll(session, own, point, works, staged);
    await noteInPlace(session, own.item, own.replica, waiting, works);
    for (const { directory } of works) await discardStage(directory, session.ports.files);
    await forgetStages(own.item, target.disks, session.ports.files);
  }
  return { ...counts, state: 'ready', pointId: point.id, disks, elapsedMs: clock.monotonicMs() - startedMs };
}

async function diskWorks(
  { ports: { files }, home }: Session,
  { item }: OwnReplica,
  { disks, formats }: Target,
  { retention }: FailbackRequest,
  workers: KeptWorkers,
): Promise<readonly DiskWork[]> {
  const directories = await placeStages(item, disks, retention, { home, files });
  return disks.map((path, disk) => ({ disk, path, format: formats[disk]!, directory: directories[disk]!, workers }));
}

/** Compares and fetches while the owner runs. */
async function stageAll(
  session: Session,
  own: OwnReplica,
  point: RecoveryPoint,
  works: readonly DiskWork[],
): Promise<StageCounts[]> {
  await makeStages(session, own, point, works);
  const counts: StageCounts[] = [];
  for (const work of works) counts.push(await stageOne(session, own, point, work));
  return counts;
}

/** Makes the stages that are not there, on volumes that have room for all of them: before anything is fetched. */
async function makeStages(
  session: Session,
  own: OwnReplica,
  point: RecoveryPoint,
  works: readonly DiskWork[],
): Promise<void> {
  const { files } = session.ports;
  const neededBytes = new Map<string, number>();
  for (const work of works) {
    const { directory, disk } = work;
    if (await hasStage(directory, files)) continue;
    await files.makeDirectory(directory);
    const { identity } = await files.volume(directory);
    const before = neededBytes.get(identity) ?? 0;
    const needed = before + (await stageBytes(session, own, point, work, (await files.freeBytes(directory)) - before));
    neededBytes.set(identity, needed);
    await (await openStage({ directory, replica: own.replica, disk, files, neededBytes: needed })).close();
  }
}

/** What the stage of a disk may take: all that the point has, and where there is no room for that, what really differs. */
async function stageBytes(
  session: Session,
  { replica }: OwnReplica,
  point: RecoveryPoint,
  work: DiskWork,
  freeBytes: number,
): Promise<number> {
  const { disk } = work;
  const state = baselineOf(replica.record.root, point).disks[disk]!;
  const frozen = new FrozenDisk(replica, disk, state, readAccess(session));
  const { tree } = frozen;
  const { chunkBytes } = frozen.description;
  const usedBytes = (await frozen.countUsed()) * chunkBytes;
  if (usedBytes <= freeBytes) return usedBytes;
  const signal = sessionSignal(session);
  const pool = await work.workers.of(replica);
  return withTarget(session, work, async (source) => {
    const { differingChunks } = await compareDisk({ source, disk, chunkBytes, tree, pool, signal });
    return differingChunks * chunkBytes;
  });
}

async function stageOne(session: Session, own: OwnReplica, point: RecoveryPoint, work: DiskWork): Promise<StageCounts> {
  const left = await withStage(session, own, point, work, async ({ stage }) => stage.phase);
  if (left === 'complete') await endLaying(session, own, work);
  // What was laid has done its duty: the disk is compared anew.
  if (left !== 'staging') await discardStage(work.directory, session.ports.files);
  return bringUp(session, own, point, work);
}

/**
 * Brings a stage to the point: where the disk was compared with an older one, by what the trees have differently, which is
 * quick; else by comparing it.
 */
async function bringUp(session: Session, own: OwnReplica, point: RecoveryPoint, work: DiskWork): Promise<StageCounts> {
  const { id } = own.replica.description.disks[work.disk]!;
  const onProgress = ({ doneBytes, totalBytes, fetchedBytes }: StageProgressCounts): void => {
    const progress = { phase: 'failback', disk: id, doneBytes, totalBytes } as const;
    session.onEvent?.({ type: 'progress', ...progress, transferredBytes: fetchedBytes });
  };
  return withStage(session, own, point, work, (setup) =>
    withTarget(session, work, async (target) => {
      try {
        if (setup.stage.isWhole) return await catchUp({ ...setup, target });
      } catch (error) {
        if (!isBlockferryError(error, 'SOURCE_CHANGED') && !isBlockferryError(error, 'REPLICA_MANIFEST')) throw error;
        const message = `disk ${id} is compared once more: ${error.message}`;
        session.onEvent?.({ type: 'notice', code: 'FAILBACK_COMPARES', message });
      }
      return stageDelta({ ...setup, target, onProgress });
    }),
  );
}

/** A run was killed while it wrote the disk: it becomes that of its point before anything else is done with it. */
async function endLaying(session: Session, own: OwnReplica, work: DiskWork): Promise<void> {
  const { points } = own.replica.record.root;
  const newest = latestPoint(own.replica);
  const id = await withStage(session, own, newest, work, async ({ stage }) => stage.progress?.staged.pointId);
  const point = points.find((each) => each.id === id);
  if (point) await layOne(session, own, point, work);
  // The only state that it could end with is gone: what is there is compared with the newest, whatever it is.
  else await session.ports.files.removeTree(work.directory);
}

/** The replica once the owner has stopped and all it had is in the base; undefined while an owner elsewhere goes on. */
async function stopOwner(session: Session, first: OwnReplica): Promise<OwnReplica | undefined> {
  const own = await reopenOwn(session, first);
  const { root } = own.replica.record;
  const isOurs = isOwner(root, own.state.side);
  if (isOurs && root.owner.phase !== 'synced') await stop(session, own);
  else if (root.owner.phase !== 'synced') return undefined;
  return applied(session, await reopenOwn(session, own));
}

/** Lays what differs into all disks, and proves that they are the point's. */
async function layAll(
  session: Session,
  own: OwnReplica,
  point: RecoveryPoint,
  works: readonly DiskWork[],
  staged: readonly StageCounts[],
): Promise<readonly FailbackDiskReport[]> {
  const caught: StageCounts[] = [];
  for (const work of works) caught.push(await bringUp(session, own, point, work));
  for (const work of works) await withStage(session, own, point, work, completeStage);
  const reports: FailbackDiskReport[] = [];
  for (const [i, work] of works.entries()) {
    const { writtenBytes } = await layOne(session, own, point, work);
    const pool = await work.workers.of(own.replica);
    await withTarget(session, work, (target) =>
      proveDisk({ replica: own.replica, point, disk: work.disk, target, pool, access: readAccess(session) }),
    );
    reports.push({ ...diskReport(work, staged[i], caught[i]), writtenBytes });
  }
  return reports;
}

async function layOne(session: Session, own: OwnReplica, point: RecoveryPoint, work: DiskWork) {
  const { ports } = session;
  return withStage(session, own, point, work, async (setup) => {
    const target = await openDiskForWriting(work.path, { ports, format: work.format });
    try {
      return await layStage({ ...setup, target });
    } finally {
      await target.close();
    }
  });
}

async function writeAll(
  session: Session,
  { item, replica }: OwnReplica,
  waiting: Waiting,
  { disks: old, formats }: Target,
  { outDirectory, format = formats[0]! }: FailbackRequest,
): Promise<readonly FailbackDiskReport[]> {
  const directory = resolve(outDirectory ?? join(dirname(old[0]!), `failback-${waiting.point.id}`));
  const { disks } = await bringToWait(session, item, replica, waiting, { outDirectory: directory, format });
  return disks.map(({ disk, path, writtenBytes, transferredBytes }) => {
    return { disk, path, differingChunks: 0, readBytes: 0, fetchedBytes: transferredBytes, writtenBytes };
  });
}

async function withStage<T>(
  session: Session,
  { replica }: OwnReplica,
  point: RecoveryPoint,
  { directory, disk, workers }: DiskWork,
  work: (setup: StageSetup) => Promise<T>,
): Promise<T> {
  const { ports } = session;
  const stage = await openStage({ directory, replica, disk, files: ports.files });
  try {
    const pool = await workers.of(replica);
    return await work({ stage, replica, point, pool, access: readAccess(session), ports });
  } finally {
    await stage.close();
  }
}

async function withTarget<T>(
  { ports }: Session,
  { path, format }: DiskWork,
  work: (target: VirtualDisk) => Promise<T>,
): Promise<T> {
  const target = await openDisk(path, { ports, format });
  try {
    return await work(target);
  } finally {
    await target.close();
  }
}

/** The replica with all that was shipped in its base. */
async function applied(session: Session, own: OwnReplica): Promise<OwnReplica> {
  if (outstandingLogs(own.replica.record.root).length === 0) return own;
  await runApply(session, own);
  return reopenOwn(session, own);
}

function diskReport({ disk, path }: DiskWork, ...counts: readonly (StageCounts | undefined)[]): FailbackDiskReport {
  const sum = (value: (each: StageCounts) => number): number =>
    counts.reduce((total, each) => total + (each ? value(each) : 0), 0);
  return {
    ...{ disk: `d${disk}`, path },
    differingChunks: sum((each) => each.differingChunks),
    readBytes: sum((each) => each.readBytes),
    fetchedBytes: sum((each) => each.fetchedBytes),
    writtenBytes: 0,
  };
}
