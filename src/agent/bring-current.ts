/**
 * Bringing a replica to what the disks hold, whoever has their tracking: at rest by one exact copy, under a tracker by a
 * copy while the guest writes and the log that covers it.
 *
 * Only chunks that may differ are looked at where tracking knows them; where it does not, all are, and a notice says why.
 */

import { bytesEqual } from '../bytes.ts';
import { isBlockferryError } from '../errors.ts';
import { randomGuid } from '../guid.ts';
import { assertReplicating, type ChunkRun, outstandingLogs, type SuspectRange } from '../replica/index.ts';
import { type ControlClient, type RestingTracking, resyncEpoch, ServedDisk } from '../tracker/index.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { runApply } from './apply.ts';
import { type OwnReplica, reopenOwn, withDisks } from './open-item.ts';
import { runSync } from './run-sync.ts';
import { cycle } from './ship.ts';
import { contentIds, type LogSource, type Tracking } from './tracking.ts';
import type { Session, SyncReport } from './types.ts';

/** A resync whose logs give way begins anew over what is left; a guest that writes faster than this copies wins. */
const ROUNDS_MAX = 8;

export interface CopyRequest {
  readonly phase: 'initial' | 'resync';
  /** Send every chunk, whatever its fingerprint says. */
  readonly full?: boolean;
  /** Chunks whose stored bytes are known to be bad. */
  readonly suspect?: readonly SuspectRange[];
}

type Runs = readonly (readonly ChunkRun[])[];

/** Copies what differs, and ends with a recovery point. */
export async function bringCurrent(
  session: Session,
  own: OwnReplica,
  tracking: Tracking,
  request: CopyRequest,
): Promise<SyncReport> {
  assertReplicating(own.replica.record.root, own.state.side);
  const applied = await applyOutstanding(session, own);
  // An apply that failed may have committed what it was about to do.
  const current = await reopenOwn(session, own);
  // Dirty chunks are what differs from base and all logs: with a log missing in the base they are not all.
  const isWhole = applied === 'done' && outstandingLogs(current.replica.record.root).length === 0;
  const usesRuns = isWhole && !request.full && request.phase === 'resync';
  return tracking.kind === 'served'
    ? copyServed(session, current, tracking, request, usesRuns)
    : copyResting(session, current, tracking.resting, request, usesRuns);
}

async function copyResting(
  session: Session,
  own: OwnReplica,
  resting: RestingTracking,
  request: CopyRequest,
  usesRuns: boolean,
): Promise<SyncReport> {
  const { runs, cause } = usesRuns ? await resting.changed() : {};
  if (cause !== undefined) tellAll(session, cause);
  return withDisks(session, own.state, async (sources) => {
    await resting.suspend();
    const { report, root } = await runSync(session, own, sources, { ...request, ...(runs ? { only: runs } : {}) });
    const heads = root.disks.map(({ head }) => head);
    await resting.settle(heads, contentIds(sources));
    return report;
  });
}

async function copyServed(
  session: Session,
  first: OwnReplica,
  { client, logs }: { readonly client: ControlClient; readonly logs: LogSource },
  request: CopyRequest,
  usesRuns: boolean,
): Promise<SyncReport> {
  let own = first;
  for (let round = 1; ; round += 1) {
    // What a round left is a base that differs in no more than what was written since.
    const report =
      round === 1
        ? await copyOnce(session, own, client, request, usesRuns)
        : await copyOnce(session, own, client, { phase: 'resync' }, true);
    own = await reopenOwn(session, own);
    try {
      await client.call('end-resync', { heads: own.replica.record.root.disks.map(({ head }) => head) });
      const shipped = await cycle(session, own, logs);
      const { pointId, generation } = shipped;
      return { ...report, pointId, generation };
    } catch (error) {
      if (!isBlockferryError(error, 'RESYNC_REQUIRED') || round === ROUNDS_MAX) throw error;
      const message = `the logs gave way during the copy (${error.message}); what was written since is copied next`;
      session.onEvent?.({ type: 'notice', code: 'RESYNC_AGAIN', message });
    }
  }
}

/** One copy while the guest writes; it ends with a base that the running logs make whole. */
async function copyOnce(
  session: Session,
  own: OwnReplica,
  client: ControlClient,
  request: CopyRequest,
  usesRuns: boolean,
): Promise<SyncReport> {
  const { root } = own.replica.record;
  const status = await client.call('status', {});
  const begun = status.disks.map(({ head }) => head);
  const isBegun = status.mode === 'resyncing';
  const isCommitted = isBegun && !root.sync && root.disks.every(({ head }, i) => head === begun[i]);
  const { sync: unfinished } = root;
  const isUnfinished =
    isBegun &&
    unfinished !== undefined &&
    unfinished.kind !== 'apply' &&
    bytesEqual(unfinished.source, resyncEpoch(begun));
  const heads = isCommitted || isUnfinished ? begun : root.disks.map(() => freshGuid(session));
  if (isCommitted) return nothingToCopy(own);
  if (!isUnfinished) await client.call('begin-resync', { heads });
  const only = usesRuns ? await dirtySet(client, 'closed', root.disks.length) : undefined;
  return withServedDisks(session, client, root.disks.length, async (sources) => {
    const tracked = { epoch: resyncEpoch(heads), heads };
    const { report } = await runSync(session, own, sources, { ...request, tracked, ...(only ? { only } : {}) });
    return report;
  });
}

/** Folds what was shipped into the base, so that only unshipped changes differ. */
async function applyOutstanding(session: Session, own: OwnReplica): Promise<'done' | 'failed'> {
  const { root } = own.replica.record;
  const isCopying = root.sync !== undefined && root.sync.kind !== 'apply';
  if (isCopying || outstandingLogs(root).length === 0) return 'done';
  try {
    await runApply(session, own);
    return 'done';
  } catch (error) {
    if (!isBlockferryError(error) || error.area !== 'replica') throw error;
    tellAll(session, `shipped logs cannot be applied: ${error.message}`);
    return 'failed';
  }
}

/** Chunks of each disk: those that a begun resync has to look at, or all that may differ now. */
export async function dirtySet(client: ControlClient, set: 'closed' | 'changed', disks: number): Promise<Runs> {
  const sets: ChunkRun[][] = [];
  for (let disk = 0; disk < disks; disk += 1) {
    const runs: ChunkRun[] = [];
    for (let from: number | undefined = 0; from !== undefined; ) {
      const page: { readonly runs: readonly ChunkRun[]; readonly next?: number } = await client.call('dirty-set', {
        disk,
        from,
        set,
      });
      runs.push(...page.runs);
      from = page.next;
    }
    sets.push(runs);
  }
  return sets;
}

/** Opens the disks that a tracker serves, for reading, and closes them whatever happens. */
export async function withServedDisks<T>(
  session: Session,
  client: ControlClient,
  count: number,
  work: (disks: readonly VirtualDisk[]) => Promise<T>,
): Promise<T> {
  const disks: ServedDisk[] = [];
  try {
    for (let i = 0; i < count; i += 1) disks.push(await ServedDisk.open(client, i, session.ports));
    return await work(disks);
  } finally {
    for (const disk of disks) await disk.close();
  }
}

function nothingToCopy({ replica }: OwnReplica): SyncReport {
  const { description, record } = replica;
  const disks = description.disks.map(({ id, virtualSizeBytes }) => ({
    ...{ disk: id, virtualSizeBytes, readBytes: 0, chunksCompared: 0, chunksSent: 0, chunksCleared: 0, sentBytes: 0 },
  }));
  const { generation } = record.root;
  return { item: description.item, pointId: '', generation, changed: false, disks, elapsedMs: 0 };
}

function freshGuid({ ports }: Session): string {
  return randomGuid(ports.random.bytes(16));
}

function tellAll(session: Session, cause: string): void {
  session.onEvent?.({ type: 'notice', code: 'FULL_COMPARE', message: `all chunks are compared: ${cause}` });
}
