/**
 * sync, the verb: bring the base of every disk to what its source holds, and commit a recovery point.
 *
 * Initial replication is a sync against an empty manifest, resync one against a full one. Interrupted at any instant,
 * a later sync goes on where the last committed root stands: it neither sends again what was committed nor reads again
 * what was compared, unless the source changed in between.
 */
import { bytesEqual } from '../bytes.ts';
import { ChunkKernel, createFingerprinter } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { GUID_BYTES, randomGuid } from '../guid.ts';
import type { Ports } from '../ports.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { BufferPool, type WorkerPool } from '../workers/index.ts';
import { collectSnapshots } from './collect-snapshots.ts';
import type { Committer } from './committer.ts';
import { batchBufferBytes, DiskSync, type DiskSyncCounts, type DiskSyncSetup, NO_COUNTS } from './disk-sync.ts';
import type { LiveBase } from './live-base.ts';
import { flushLiveDisk, freezeLiveDisks, type LiveDisk, openLiveDisk } from './live-disk.ts';
import { findPatches } from './raw-patches.ts';
import type { Replica } from './replica.ts';
import { type CopyState, newestLog, type RecoveryPoint, type Root, type SuspectRange } from './root.ts';
import { sourceChanged, sourceStamp } from './source-stamp.ts';
import { condenseSuspects, INHERITED_SUSPECTS_MAX, SyncLedger } from './sync-ledger.ts';
import { dataBytes } from './sync-plan.ts';
import type { WriterSession } from './writer-session.ts';

/** Batches that wait for the store beyond those in the workers' hands. */
const BATCHES_AHEAD = 4;

export interface SyncSetup {
  readonly committer: Committer;
  readonly session: WriterSession;
  readonly pool: WorkerPool;
  /** In the order of the description. */
  readonly sources: readonly VirtualDisk[];
  /** Send every chunk, whatever its fingerprint says. */
  readonly full?: boolean;
  /** Chunks whose stored bytes are known to be bad. */
  readonly suspect?: readonly SuspectRange[];
  readonly ports: Ports;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: SyncProgress) => void;
}

export interface SyncProgress extends Readonly<DiskSyncCounts> {
  readonly disk: number;
  readonly totalBytes: number;
}

export interface SyncResult {
  readonly point: RecoveryPoint;
  readonly root: Root;
  readonly disks: readonly Readonly<DiskSyncCounts>[];
}

interface SyncDisk extends LiveDisk {
  readonly findPatches: DiskSyncSetup['findPatches'];
}

/** Runs a sync to its recovery point. @throws SOURCE_CHANGED, and what disks, store and keys throw. */
export async function sync(setup: SyncSetup): Promise<SyncResult> {
  const { committer, sources, ports } = setup;
  checkSizes(setup);
  const stamp = await sourceStamp(sources);
  const live: SyncDisk[] = [];
  for (let disk = 0; disk < sources.length; disk += 1) live.push(await openDisk(setup, disk));
  await ports.failpoint('sync.after-fence');
  await collectSnapshots(committer.root, live);
  const start = startingState(setup, stamp);
  const counts: Readonly<DiskSyncCounts>[] = [];
  for (let disk = 0; disk < sources.length; disk += 1) {
    counts.push(await syncDisk(setup, live, disk, start));
  }
  if (!bytesEqual(await sourceStamp(sources), stamp)) {
    throw sourceChanged(sources.flatMap((source) => source.info.chain));
  }
  const root = await commitPoint(setup, live);
  await collectSnapshots(root, live);
  return { point: root.points.at(-1)!, root, disks: counts };
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
  const { committer, sources, pool, ports, signal, full = false } = setup;
  const { chunkBytes } = committer.replica.description.disks[disk]!;
  const settled = disk < start.disk;
  if (settled) return NO_COUNTS;
  const { tree, base } = live[disk]!;
  const ledger = new SyncLedger(
    disk,
    disk === start.disk ? start.cursor : 0,
    start.suspect.filter((range) => range.disk >= disk),
  );
  const totalBytes = setup.onProgress ? await dataBytes(sources[disk]!, ledger.cursor, chunkBytes) : 0;
  const buffers = new BufferPool(batchBufferBytes(chunkBytes), pool.threads * 2 + BATCHES_AHEAD);
  const checkpoint = async (intentEnd: number): Promise<void> => {
    await committer.commit(async (root) => {
      // Both as they are before the flush: what settles while it runs is not in it, and must be named as suspect.
      const { cursor } = ledger;
      const suspect = ledger.suspects(intentEnd);
      const disks = await flushLiveDisk(root, live, disk, 'sync', ports);
      return { disks, sync: { kind: start.kind, source: start.source, disk, cursor, suspect } };
    }, signal);
    ledger.committed(intentEnd);
    await ports.failpoint('sync.after-intent');
  };
  const run = new DiskSync({
    disk,
    source: sources[disk]!,
    chunkBytes,
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
  // The next disk's checkpoints say that this one is settled, so what was settled here must be committed first.
  if (disk + 1 < live.length && base.changed) await checkpoint(ledger.cursor);
  return run.counts;
}

/** Flushes everything, freezes all blobs, and commits the recovery point that names the frozen state. */
async function commitPoint({ committer, ports, signal }: SyncSetup, live: readonly LiveDisk[]): Promise<Root> {
  return committer.commit(async (root) => {
    // What was read is newer than all logs, so they have nothing to add to it.
    const { disks, baseline } = await freezeLiveDisks(root, live, newestLog(root), 'sync', ports);
    const { generation } = baseline;
    const point: RecoveryPoint = {
      id: `p${generation}`,
      timeMs: ports.clock.nowMs(),
      consistency: 'crash',
      generation,
      baseline: generation,
      log: baseline.appliedLog,
    };
    return {
      // No change log leads from what the replica held to this.
      disks: disks.map(({ tables }) => ({ tables, head: randomGuid(ports.random.bytes(GUID_BYTES)) })),
      baselines: [...root.baselines, baseline],
      points: [...root.points, point],
      sync: null,
    };
  }, signal);
}
