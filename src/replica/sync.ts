/**
 * sync, the verb: bring the base of every disk to what its source holds, and commit that as a baseline.
 *
 * Initial replication is a sync against an empty manifest, resync one against a full one, over all chunks or over those
 * that may differ. Of disks at rest the baseline is a recovery point. While a guest writes (`tracked`) it is a mixture of
 * moments, and becomes one with the log that covers the copy. Recovery points that exist stay as they are throughout.
 *
 * Interrupted at any instant, a later sync goes on where the last committed root stands: it neither sends again what was
 * committed nor reads again what was compared, unless the source, or what to look at, is another one.
 */
import { createHash } from 'node:crypto';
import { bytesEqual } from '../bytes.ts';
import { ChunkKernel, createFingerprinter } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { GUID_BYTES, randomGuid } from '../guid.ts';
import type { Ports } from '../ports.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { BufferPool, type WorkerPool } from '../workers/index.ts';
import { type ChunkRun, joinRuns } from './chunk-runs.ts';
import { collectLogs } from './collect-logs.ts';
import { collectSnapshots } from './collect-snapshots.ts';
import type { Committer } from './committer.ts';
import { batchBufferBytes, DiskSync, type DiskSyncCounts, type DiskSyncSetup, NO_COUNTS } from './disk-sync.ts';
import type { LiveBase } from './live-base.ts';
import { flushLiveDisk, freezeLiveDisks, type LiveDisk, openLiveDisk } from './live-disk.ts';
import { assertReplicating } from './owner.ts';
import { type AskPins, askPins } from './pins.ts';
import { findPatches } from './raw-patches.ts';
import type { Replica } from './replica.ts';
import {
  type Baseline,
  type CopyState,
  newestLog,
  outstandingLogs,
  type RecoveryPoint,
  type Root,
  type SuspectRange,
} from './root.ts';
import { sourceChanged, sourceStamp } from './source-stamp.ts';
import { STATE_BYTES } from './state-name.ts';
import { condenseSuspects, INHERITED_SUSPECTS_MAX, SyncLedger } from './sync-ledger.ts';
import { damageNotice, type SyncNotice, startNotices } from './sync-notices.ts';
import { dataBytes } from './sync-plan.ts';
import type { WriterSession } from './writer-session.ts';

/** Batches that wait for the store beyond those in the workers' hands. */
const BATCHES_AHEAD = 4;

export interface SyncSetup {
  readonly committer: Committer;
  /** Whose disks these are. */
  readonly side: Uint8Array;
  readonly session: WriterSession;
  readonly pool: WorkerPool;
  /** In the order of the description. */
  readonly sources: readonly VirtualDisk[];
  /** The disks are being written, and their logs have every write since before the first question for extents. */
  readonly tracked?: TrackedCopy;
  /**
   * The chunks of each disk that may differ from the live base; absent: all. What an interrupted run left in doubt is
   * always looked at as well.
   */
  readonly only?: readonly (readonly ChunkRun[])[];
  /** Send every chunk, whatever its fingerprint says. */
  readonly full?: boolean;
  /** Chunks whose stored bytes are known to be bad. */
  readonly suspect?: readonly SuspectRange[];
  readonly ports: Ports;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: SyncProgress) => void;
  readonly onNotice?: (notice: SyncNotice) => void;
}

/** A copy of disks while a guest writes them. */
export interface TrackedCopy {
  /** 32 bytes that name this copy and its set of chunks: a run with the same ones goes on where the last one stood. */
  readonly epoch: Uint8Array;
  /** Per disk the head that the logs of this copy begin with. */
  readonly heads: readonly string[];
}

export interface SyncProgress extends Readonly<DiskSyncCounts> {
  readonly disk: number;
  readonly totalBytes: number;
}

export interface SyncResult {
  /** Absent for a tracked copy. */
  readonly point?: RecoveryPoint;
  readonly root: Root;
  readonly disks: readonly Readonly<DiskSyncCounts>[];
}

interface SyncDisk extends LiveDisk {
  readonly findPatches: DiskSyncSetup['findPatches'];
}

/**
 * Runs a sync to its baseline.
 * @throws REPLICA_OTHER_SIDE, SOURCE_CHANGED, REPLICA_BEHIND, and what disks, store and keys throw
 */
export async function sync(setup: SyncSetup): Promise<SyncResult> {
  const { committer, sources, tracked, ports, signal } = setup;
  assertReplicating(committer.root, setup.side);
  checkSizes(setup);
  checkSet(setup);
  const stamp = await copyStamp(setup);
  const live: SyncDisk[] = [];
  for (let disk = 0; disk < sources.length; disk += 1) live.push(await openDisk(setup, disk));
  await ports.failpoint('sync.after-fence');
  const pins = (): AskPins => askPins(committer.replica, ports.clock, { signal });
  await collectSnapshots(committer.root, live, pins());
  const start = startingState(setup, stamp);
  for (const notice of startNotices(committer.root.sync, start)) setup.onNotice?.(notice);
  const counts: Readonly<DiskSyncCounts>[] = [];
  for (let disk = 0; disk < sources.length; disk += 1) {
    counts.push(await syncDisk(setup, live, disk, start));
  }
  if (!tracked && !bytesEqual(await copyStamp(setup), stamp)) {
    throw sourceChanged(sources.flatMap((source) => source.info.chain));
  }
  const root = await commitBaseline(setup, live);
  // Asked anew: it is the pins behind the root that count.
  const pinned = pins();
  await collectSnapshots(root, live, pinned);
  await collectLogs(root, committer.replica.store, pinned, { signal });
  const point = tracked ? {} : { point: root.points.at(-1)! };
  return { ...point, root, disks: counts };
}

/** What a later run must have in common with this one to go on where it stood. */
async function copyStamp({ sources, tracked, only }: SyncSetup): Promise<Uint8Array> {
  if (tracked) return tracked.epoch;
  const stamp = await sourceStamp(sources);
  if (!only) return stamp;
  // Of another set other chunks below the cursor would have been looked at.
  const hash = createHash('sha256').update(stamp);
  for (const [disk, runs] of only.entries()) for (const { from, to } of runs) hash.update(`${disk} ${from} ${to}\n`);
  return hash.digest();
}

/** A set of dirty chunks says what differs from the newest state that was shipped: the base must have just that. */
function checkSet({ committer, sources, tracked, only }: SyncSetup): void {
  for (const list of [only, tracked?.heads]) {
    if (list && list.length !== sources.length) throw new RangeError(`${list.length} of ${sources.length} disks`);
  }
  const { baselines } = committer.root;
  const outstanding = outstandingLogs(committer.root).length;
  if (!only || (baselines.length > 0 && outstanding === 0)) return;
  const lacks = baselines.length === 0 ? 'a first copy' : `${outstanding} shipped logs`;
  throw new BlockferryError('REPLICA_BEHIND', `the base lacks ${lacks}: dirty chunks alone do not make it current`, {
    facts: { baselines: baselines.length, outstanding },
    hint: 'apply the shipped logs first, or compare all chunks',
  });
}

function checkSizes({ committer, sources }: SyncSetup): void {
  const { disks } = committer.replica.description;
  for (const [i, source] of sources.entries()) {
    const expected = disks[i]!.virtualSizeBytes;
    const { virtualSizeBytes, chain } = source.info;
    if (virtualSizeBytes === expected) continue;
    throw new BlockferryError('SOURCE_CHANGED', `${chain[0]} has ${virtualSizeBytes} bytes, its replica ${expected}`, {
      facts: { source: chain[0] ?? '', virtualSizeBytes, expected },
      hint: 'a resized disk needs a new replica: protect it under another URL',
    });
  }
}

async function openDisk({ committer, session, ports }: SyncSetup, disk: number): Promise<SyncDisk> {
  const { replica } = committer;
  const live = await openLiveDisk(replica, disk, session, ports);
  return { ...live, findPatches: await patchFinder(replica, disk, live.base) };
}

/** Of a raw base that a sync has filled once, no more is written than the blocks that differ. */
async function patchFinder(replica: Replica, disk: number, base: LiveBase): Promise<DiskSyncSetup['findPatches']> {
  const { description, keyring, record } = replica;
  if (description.disks[disk]!.layout !== 'raw' || record.root.baselines.length === 0) return undefined;
  const kernel = new ChunkKernel({
    fingerprinter: await createFingerprinter(description.fingerprint, keyring.keys.fingerprint),
  });
  return (changes, buffer) => findPatches(changes, buffer, base, kernel);
}

/** Where to begin: after an interruption at its cursor, if the source is still the same; else at the front. */
function startingState({ committer, suspect = [], full }: SyncSetup, stamp: Uint8Array): CopyState {
  const { sync: unfinished, baselines } = committer.root;
  const kind = baselines.length === 0 ? 'initial' : 'resync';
  const inherited = condenseSuspects([...(unfinished?.suspect ?? []), ...suspect], INHERITED_SUSPECTS_MAX);
  const interrupted = unfinished?.kind === 'apply' ? undefined : unfinished;
  const resumes = interrupted && !full && suspect.length === 0 && bytesEqual(interrupted.source, stamp);
  const position = resumes ? { disk: interrupted.disk, cursor: interrupted.cursor } : { disk: 0, cursor: 0 };
  return { kind, source: stamp, ...position, suspect: inherited };
}

async function syncDisk(
  setup: SyncSetup,
  live: readonly SyncDisk[],
  disk: number,
  start: CopyState,
): Promise<Readonly<DiskSyncCounts>> {
  const { committer, sources, pool, ports, signal, onNotice, full = false } = setup;
  const source = sources[disk]!;
  const { chunkBytes } = committer.replica.description.disks[disk]!;
  const settled = disk < start.disk;
  if (settled) return NO_COUNTS;
  const { tree, base } = live[disk]!;
  const suspect = start.suspect.filter((range) => range.disk >= disk);
  const only = setup.only && joinRuns([...setup.only[disk]!, ...suspect.filter((range) => range.disk === disk)]);
  const ledger = new SyncLedger(disk, disk === start.disk ? start.cursor : 0, suspect, only);
  const totalBytes = setup.onProgress ? await dataBytes(source, ledger.cursor, chunkBytes, only) : 0;
  const buffers = new BufferPool(batchBufferBytes(chunkBytes), pool.threads * 2 + BATCHES_AHEAD);
  const checkpoint = async (intentEnd: number): Promise<void> => {
    await committer.commit(async (root) => {
      // Both as they are before the flush: what settles while it runs is not in it, and must be named as suspect.
      const { cursor } = ledger;
      const named = ledger.suspects(intentEnd);
      const disks = await flushLiveDisk(root, live, disk, 'sync', ports);
      return { disks, sync: { kind: start.kind, source: start.source, disk, cursor, suspect: named } };
    }, signal);
    ledger.committed(intentEnd);
    await ports.failpoint('sync.after-intent');
  };
  const run = new DiskSync({
    disk,
    source,
    chunkBytes,
    only,
    generation: committer.root.generation + 1,
    tree,
    base,
    ledger,
    full,
    findPatches: live[disk]!.findPatches,
    checkpoint,
    pool,
    buffers,
    ports,
    signal,
    onProgress: (counts) => setup.onProgress?.({ ...counts, disk, totalBytes }),
  });
  await run.run();
  if (run.counts.chunksDamaged > 0) onNotice?.(damageNotice(disk, run.counts.chunksDamaged));
  // The next disk's checkpoints say that this one is settled, so what was settled here must be committed first.
  if (disk + 1 < live.length && base.changed) await checkpoint(ledger.cursor);
  return run.counts;
}

/** Flushes everything, freezes all blobs, and commits the baseline that names the frozen state. */
async function commitBaseline(setup: SyncSetup, live: readonly LiveDisk[]): Promise<Root> {
  const { committer, tracked, ports, signal } = setup;
  return committer.commit(async (root) => {
    // What was read is newer than all logs, so they have nothing to add to it.
    const { disks, baseline: frozen } = await freezeLiveDisks(root, live, newestLog(root), 'sync', ports);
    const baseline = { ...frozen, state: ports.random.bytes(STATE_BYTES) };
    // No change log leads from what the replica held to this.
    const heads = tracked?.heads ?? disks.map(() => randomGuid(ports.random.bytes(GUID_BYTES)));
    return {
      disks: disks.map(({ tables }, i) => ({ tables, head: heads[i]! })),
      baselines: [...root.baselines, baseline],
      points: tracked ? root.points : [...root.points, pointOf(baseline, ports.clock.nowMs())],
      sync: null,
    };
  }, signal);
}

/** The recovery point that a baseline is by itself. */
function pointOf({ generation, appliedLog }: Baseline, timeMs: number): RecoveryPoint {
  return { id: `p${generation}`, timeMs, consistency: 'crash', generation, baseline: generation, log: appliedLog };
}
