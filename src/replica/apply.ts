/**
 * apply, the verb: fold shipped logs into the live bases, the newest write of each place, and freeze the result as the new
 * baseline. Needs the store and the key, nothing of the source's host.
 *
 * Commit order: a root that names every chunk the logs touch as suspect; slots; manifest pages; snapshots; the root with
 * the baseline. Points stand on snapshots, which none of this changes, so all of them can be restored at any instant.
 * Interrupted anywhere, a later apply lays the same logs over the same baseline once more and writes every suspect
 * again; a sync that comes first does so from its source. Logs may be shipped all the while, from anywhere.
 */
import { bytesEqual } from '../bytes.ts';
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
import { askPins } from './pins.ts';
import {
  type Baseline,
  type DiskHead,
  isProcessed,
  outstandingLogs,
  type RecoveryPoint,
  type Root,
  type ShippedLog,
  SUSPECT_RANGES_MAX,
  type SuspectRange,
  sameTables,
} from './root.ts';
import { readShippedLog } from './shipped-log.ts';
import { STATE_BYTES, stateAfter } from './state-name.ts';
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
  const { committer, signal } = setup;
  checkSettled(committer.root);
  const totals = { appliedLogs: 0, chunksWritten: 0, fetchedBytes: 0, sentBytes: 0 };
  if (outstandingLogs(committer.root).length > 0) {
    const live = await takeOver(setup);
    const totalBytes = sum(outstandingLogs(committer.root), 'dataBytes');
    let doneBytes = 0;
    for (let logs = nextRound(committer.root); logs.length > 0; logs = nextRound(committer.root)) {
      const counts = await applyRound(setup, live, logs, (disk, dataBytes, { fetchedBytes, sentBytes }) => {
        const transferredBytes = totals.fetchedBytes + totals.sentBytes + fetchedBytes + sentBytes;
        setup.onProgress?.({ disk: `d${disk}`, doneBytes: doneBytes + dataBytes, totalBytes, transferredBytes });
      });
      doneBytes += sum(logs, 'dataBytes');
      totals.appliedLogs += logs.length;
      totals.chunksWritten += counts.chunksWritten + counts.chunksCleared;
      // Each log is read twice.
      totals.fetchedBytes += counts.fetchedBytes + 2 * sum(logs, 'sizeBytes');
      totals.sentBytes += counts.sentBytes;
      await collectSnapshots(committer.root, live, askPins(committer.replica, setup.ports.clock, { signal }));
    }
  }
  const { root, replica } = committer;
  await collectLogs(root, replica.store, askPins(replica, setup.ports.clock, { signal }), { signal });
  const point = root.points.findLast((each) => isProcessed(root, each));
  return { root, ...totals, ...(point ? { point } : {}) };
}

/** Opens all disks for writing, then looks whether the root is still one of these bases: until then others may write. */
async function takeOver({ committer, session, ports, signal }: ApplySetup): Promise<readonly LiveDisk[]> {
  const { replica, root } = committer;
  const live: LiveDisk[] = [];
  for (let disk = 0; disk < replica.description.disks.length; disk += 1) {
    live.push(await openLiveDisk(replica, disk, session, ports));
  }
  const now = await committer.refresh(signal);
  if (!isSameBase(now, root)) throw overtaken(now);
  return live;
}

function sum(logs: readonly ShippedLog[], field: 'dataBytes' | 'sizeBytes'): number {
  return logs.reduce((total, log) => total + log[field], 0);
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
  const { generation: begun } = await committer.commitOver((now) => {
    if (!isSameBase(now, root) || !hasLogs(now, logs)) throw overtaken(now);
    return { sync: { kind: 'apply', log, begun: now.generation + 1, suspect } };
  }, signal);
  await ports.failpoint('apply.after-intent');
  const merge = mergeLogs(replica, logs, { ...access, pool });
  const fold = new LogFold({
    ...{ replica, merge, live, doubtful, pool, access, signal, changedPagesMax },
    baseline: before,
    generation: committer.root.generation + 1,
    checkpoint: async () => {
      const flushed = await flushLiveDisks(committer.root, live, 'apply', ports);
      await committer.commitOver((now) => ({ disks: withTables(ours(now, begun), flushed) }), signal);
    },
    onProgress: (disk, counts) => onProgress(disk, merge.dataBytes, counts),
  });
  try {
    await fold.run();
  } finally {
    await merge.close();
  }
  const frozen = await freezeLiveDisks(committer.root, live, log, 'apply', ports);
  await committer.commitOver((now) => {
    const { baselines, points, generation } = ours(now, begun);
    const state = before.state ? stateAfter(before.state, logs) : ports.random.bytes(STATE_BYTES);
    const baseline = { ...frozen.baseline, generation: generation + 1, state };
    return {
      disks: withTables(now, frozen.disks),
      baselines: [...baselines, baseline],
      points: points.map((point) => rebase(point, before, baseline)),
      sync: null,
    };
  }, signal);
  return fold.counts;
}

const NO_ID = new Uint8Array(0);

/** Whether the live bases are what they were: logs and points may have come. */
export function isSameBase(now: Root, before: Root): boolean {
  const begunOf = ({ sync }: Root): number => (sync?.kind === 'apply' ? sync.begun : 0);
  return (
    now.sync?.kind === before.sync?.kind &&
    begunOf(now) === begunOf(before) &&
    now.baselines.at(-1)?.generation === before.baselines.at(-1)?.generation &&
    now.disks.every(({ tables }, i) => sameTables(tables, before.disks[i]!.tables))
  );
}

/** Whether a root still names these logs: a side that took over may have given them up. */
function hasLogs(now: Root, logs: readonly ShippedLog[]): boolean {
  const ids = new Map(now.logs.map((each) => [each.seq, each.id]));
  return logs.every(({ seq, id }) => bytesEqual(ids.get(seq) ?? NO_ID, id));
}

/** A root in which the apply that was `begun` then is still the one under way. @throws REPLICA_FENCED */
function ours(now: Root, begun: number): Root {
  if (now.sync?.kind === 'apply' && now.sync.begun === begun) return now;
  throw overtaken(now);
}

export function overtaken({ generation }: Root): BlockferryError {
  return new BlockferryError('REPLICA_FENCED', 'another writer changed the base of this replica meanwhile', {
    facts: { generation },
    hint: 'see that one machine at a time applies or syncs, then run apply again',
  });
}

/** What each disk has by now, with other tables: heads may have moved on. */
export function withTables({ disks }: Root, flushed: readonly DiskHead[]): readonly DiskHead[] {
  return disks.map((disk, i) => ({ ...disk, tables: flushed[i]!.tables }));
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
