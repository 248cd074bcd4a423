/**
 * apply, the verb: fold shipped logs into the live bases, the newest write of each place, and freeze the result as the new
 * baseline. Needs the store and the key, nothing of the source's host.
 *
 * Commit order: a root that names every chunk the logs touch as suspect; slots; manifest pages; snapshots; the root with
 * the baseline. Points stand on snapshots, which none of this changes, so all of them can be restored at any instant.
 * Interrupted anywhere, a later apply lays the same logs over the same baseline once more and writes every suspect
 * again; a sync that comes first does so from its source.
 */
import { BlockferryError } from '../errors.ts';
import type { Ports } from '../ports.ts';
import type { WorkerPool } from '../workers/index.ts';
import { collectLogs } from './collect-logs.ts';
import { collectSnapshots } from './collect-snapshots.ts';
import type { Committer } from './committer.ts';
import { type FoldCounts, LogFold } from './fold-logs.ts';
import type { ReadAccess } from './frozen-disk.ts';
import { flushLiveDisks, freezeLiveDisks, type LiveDisk, openLiveDisk } from './live-disk.ts';
import { LOGS_PER_ROUND, mergeLogs } from './log-merge.ts';
import {
  type Baseline,
  isProcessed,
  outstandingLogs,
  type RecoveryPoint,
  type Root,
  type ShippedLog,
  SUSPECT_RANGES_MAX,
  type SuspectRange,
} from './root.ts';
import { readShippedLog } from './shipped-log.ts';
import { TouchedChunks } from './touched-chunks.ts';
import type { WriterSession } from './writer-session.ts';

const CHANGED_PAGES_MAX = 512;

export interface ApplySetup {
  readonly committer: Committer;
  readonly session: WriterSession;
  readonly pool: WorkerPool;
  readonly ports: Ports;
  readonly access: ReadAccess;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ApplyProgress) => void;
  /** Changed manifest pages held in memory, 64 KiB each: with more of them what is done so far is committed. */
  readonly changedPagesMax?: number;
}

export interface ApplyProgress {
  readonly disk: string;
  /** Guest bytes of the logs that were taken, of all that are outstanding. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly transferredBytes: number;
}

export interface ApplyResult {
  readonly root: Root;
  readonly appliedLogs: number;
  readonly chunksWritten: number;
  readonly fetchedBytes: number;
  readonly sentBytes: number;
  /** The newest point that needs no log any more. */
  readonly point?: RecoveryPoint;
}

/**
 * Folds all outstanding logs.
 * @throws RESYNC_REQUIRED while a sync is unfinished; REPLICA_LOG, REPLICA_SLOT, REPLICA_MANIFEST for what does not verify
 */
export async function apply(setup: ApplySetup): Promise<ApplyResult> {
  const { committer, session, ports, signal } = setup;
  const { replica } = committer;
  checkSettled(committer.root);
  const totals = { appliedLogs: 0, chunksWritten: 0, fetchedBytes: 0, sentBytes: 0 };
  if (outstandingLogs(committer.root).length > 0) {
    const live: LiveDisk[] = [];
    for (let disk = 0; disk < replica.description.disks.length; disk += 1) {
      live.push(await openLiveDisk(replica, disk, session, ports));
    }
    await collectSnapshots(committer.root, live);
    const totalBytes = outstandingLogs(committer.root).reduce((sum, { dataBytes }) => sum + dataBytes, 0);
    let doneBytes = 0;
    for (let logs = nextRound(committer.root); logs.length > 0; logs = nextRound(committer.root)) {
      const counts = await applyRound(setup, live, logs, (disk, dataBytes, { fetchedBytes, sentBytes }) => {
        const transferredBytes = totals.fetchedBytes + totals.sentBytes + fetchedBytes + sentBytes;
        setup.onProgress?.({ disk: `d${disk}`, doneBytes: doneBytes + dataBytes, totalBytes, transferredBytes });
      });
      doneBytes += logs.reduce((sum, { dataBytes }) => sum + dataBytes, 0);
      totals.appliedLogs += logs.length;
      totals.chunksWritten += counts.chunksWritten + counts.chunksCleared;
      // Each log is read twice.
      totals.fetchedBytes += counts.fetchedBytes + 2 * logs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      totals.sentBytes += counts.sentBytes;
      await collectSnapshots(committer.root, live);
    }
  }
  const { root } = committer;
  await collectLogs(root, replica.store, { signal });
  const point = root.points.findLast((each) => isProcessed(root, each));
  return { root, ...totals, ...(point ? { point } : {}) };
}

function checkSettled({ sync }: Root): void {
  if (!sync || sync.kind === 'apply') return;
  throw new BlockferryError('RESYNC_REQUIRED', `a ${sync.kind} sync was begun and has not ended`, {
    facts: { kind: sync.kind },
    hint: sync.kind === 'initial' ? 'run protect again to finish it' : 'run resync to finish it, then apply',
  });
}

/** The oldest outstanding logs, for a baseline of their own; at least those that an interrupted round was about. */
function nextRound(root: Root): readonly ShippedLog[] {
  const logs = outstandingLogs(root);
  const interrupted = root.sync?.kind === 'apply' ? root.sync.log : 0;
  return logs.filter(({ seq }, i) => i < LOGS_PER_ROUND || seq <= interrupted);
}

/** Folds `logs` over the newest baseline and commits the next one. */
async function applyRound(
  setup: ApplySetup,
  live: readonly LiveDisk[],
  logs: readonly ShippedLog[],
  onProgress: (disk: number, dataBytes: number, counts: Readonly<FoldCounts>) => void,
): Promise<Readonly<FoldCounts>> {
  const { committer, pool, ports, access, signal, changedPagesMax = CHANGED_PAGES_MAX } = setup;
  const { replica, root } = committer;
  const before = root.baselines.at(-1)!;
  const log = logs.at(-1)!.seq;
  const doubtful = root.sync?.suspect ?? [];
  const suspect = await touchedChunks(setup, logs);
  await committer.commit(async () => ({ sync: { kind: 'apply', log, suspect } }), signal);
  await ports.failpoint('apply.after-intent');
  const merge = mergeLogs(replica, logs, { ...access, pool });
  const fold = new LogFold({
    ...{ replica, merge, live, doubtful, pool, access, signal, changedPagesMax },
    baseline: before,
    generation: committer.root.generation + 1,
    checkpoint: async () => {
      await committer.commit(async (now) => ({ disks: await flushLiveDisks(now, live, 'apply', ports) }), signal);
    },
    onProgress: (disk, counts) => onProgress(disk, merge.dataBytes, counts),
  });
  try {
    await fold.run();
  } finally {
    await merge.close();
  }
  await committer.commit(async (now) => {
    const { disks, baseline } = await freezeLiveDisks(now, live, log, 'apply', ports);
    const points = now.points.map((point) => rebase(point, before, baseline));
    return { disks, baselines: [...now.baselines, baseline], points, sync: null };
  }, signal);
  return fold.counts;
}

/** A point that all of the folded logs lead to has fewer of them to play, or none, if it stands on what they made. */
function rebase(point: RecoveryPoint, before: Baseline, baseline: Baseline): RecoveryPoint {
  const leadsThrough = point.baseline === before.generation && point.log >= baseline.appliedLog;
  return leadsThrough ? { ...point, baseline: baseline.generation } : point;
}

/**
 * What a round may leave in doubt: every chunk that its logs touch; an interrupted one was about no others. Reads the logs
 * once more than folding does, so that nothing is overwritten before all of them were seen to be whole.
 */
async function touchedChunks(
  { committer: { replica }, pool, access }: ApplySetup,
  logs: readonly ShippedLog[],
): Promise<readonly SuspectRange[]> {
  const touched = new TouchedChunks(SUSPECT_RANGES_MAX);
  for (const log of logs) {
    for await (const { disk, offset, lengthBytes } of readShippedLog(replica, log, { ...access, pool })) {
      const { chunkBytes } = replica.description.disks[disk]!;
      touched.add(disk, Math.floor(offset / chunkBytes), Math.ceil((offset + lengthBytes) / chunkBytes));
    }
  }
  return touched.ranges();
}
