/**
 * Making the live bases of a follower what a baseline of another store holds: manifests are compared, slots that differ copied.
 *
 * Sealed slots stay as they are: both replicas have the same id and keys, and an entry names the slot and no other. Each is opened on
 * its way and not written unless it verifies. Commit order is that of a sync: a root that names the chunks of a window as suspect, slots,
 * pages, and so on; the caller commits the baseline. What an interrupted run left in doubt is cleared first, so that comparing finds it.
 */
import { createHash } from 'node:crypto';
import { bytesEqual, KIB, MIB } from '../../bytes.ts';
import { chunkCount, entryAt, isZeroEntry } from '../../chunker/index.ts';
import { fromWire, throwIfAborted } from '../../errors.ts';
import type { Ports } from '../../ports.ts';
import { BufferPool, type WorkerPool } from '../../workers/index.ts';
import { isSameBase, overtaken, withTables } from '../apply.ts';
import { chunkRuns } from '../chunk-runs.ts';
import { collectSnapshots } from '../collect-snapshots.ts';
import type { Committer } from '../committer.ts';
import { batchBufferBytes } from '../disk-sync.ts';
import { type FetchedBatch, FrozenDisk, type ReadAccess } from '../frozen-disk.ts';
import { clearChunks, flushLiveDisks, freezeLiveDisks, type LiveDisk, openLiveDisk } from '../live-disk.ts';
import { askPins } from '../pins.ts';
import type { Replica } from '../replica.ts';
import { BATCHES_AHEAD, eachBatch } from '../restore.ts';
import type { Baseline, CopyState, Root, SuspectRange } from '../root.ts';
import { condenseSuspects, INHERITED_SUSPECTS_MAX } from '../sync-ledger.ts';
import { treeDifferences } from '../tree-differences.ts';
import type { WriterSession } from '../writer-session.ts';
import type { Copied } from './plan.ts';

/** What an interrupted run copies twice. */
const WINDOW_BYTES: number = 128 * MIB;

/** Between sites a byte costs more than a request: compressed slots leave gaps that are nearly as long as they are. */
const GAP_BYTES: number = 4 * KIB;

export interface CopySetup {
  readonly committer: Committer;
  readonly session: WriterSession;
  readonly source: Replica;
  /** A baseline of `source`, pinned. */
  readonly baseline: Baseline;
  readonly pool: WorkerPool;
  /** How the other store is read. */
  readonly access: ReadAccess;
  readonly ports: Ports;
  readonly signal: AbortSignal;
  /** Bytes of disk that are copied between two roots at most. */
  readonly windowBytes?: number;
  /** Throws where a root of the follower is none that may be carried on. */
  readonly check: (now: Root) => void;
  readonly onProgress: (disk: number, doneBytes: number, sentBytes: number) => void;
}

export interface CopyCounts {
  chunksCopied: number;
  chunksCleared: number;
  /** Bytes of slots that came from the other store, and that went to the follower. */
  fetchedBytes: number;
  sentBytes: number;
}

/** Chunks that are settled between two roots, ascending. */
interface Window {
  readonly from: number;
  /** Behind the last chunk that was looked at. */
  readonly to: number;
  readonly copy: readonly number[];
  readonly clear: readonly number[];
}

/** @throws REPLICA_SLOT, REPLICA_MANIFEST for what does not verify; REPLICA_FENCED, REPLICA_LEASED */
export async function copyBaseline(setup: CopySetup): Promise<Copied & { readonly counts: Readonly<CopyCounts> }> {
  const { committer, session, baseline, ports, signal } = setup;
  const { replica, root } = committer;
  const live: LiveDisk[] = [];
  for (const disk of replica.description.disks.keys()) live.push(await openLiveDisk(replica, disk, session, ports));
  const now = await committer.refresh(signal);
  if (!isSameBase(now, root)) throw overtaken(now);
  await collectSnapshots(now, live, askPins(replica, ports.clock, { signal }));
  const copy = new BaselineCopy(setup, live);
  await copy.run();
  const { disks, baseline: frozen } = await freezeLiveDisks(committer.root, live, baseline.appliedLog, 'mirror', ports);
  const { state } = baseline;
  return { disks, baseline: { ...frozen, ...(state ? { state } : {}) }, counts: copy.counts };
}

class BaselineCopy {
  readonly #setup: CopySetup;
  readonly #live: readonly LiveDisk[];
  readonly #start: CopyState;
  readonly counts: CopyCounts = { chunksCopied: 0, chunksCleared: 0, fetchedBytes: 0, sentBytes: 0 };

  constructor(setup: CopySetup, live: readonly LiveDisk[]) {
    this.#setup = setup;
    this.#live = live;
    this.#start = startingState(setup.committer.root, setup.baseline);
  }

  async run(): Promise<void> {
    const { disk: first, cursor: from, suspect } = this.#start;
    if (suspect.length > 0) await this.#intend(first, { from, to: from, copy: [], clear: [] });
    for (const disk of this.#live.keys()) if (disk >= this.#start.disk) await this.#copyDisk(disk);
  }

  async #copyDisk(disk: number): Promise<void> {
    const { source, baseline, access, signal, windowBytes = WINDOW_BYTES } = this.#setup;
    const { tree } = this.#live[disk]!;
    const firstChunk = disk === this.#start.disk ? this.#start.cursor : 0;
    const frozen = new FrozenDisk(source, disk, baseline.disks[disk]!, { ...access, gapBytes: GAP_BYTES });
    // A root names these as suspect by now. Below the cursor nothing is in doubt.
    for (const { from, to } of this.#start.suspect.filter((range) => range.disk === disk)) {
      const run = { from: Math.max(from, firstChunk), to };
      if (run.from < run.to) await clearChunks(this.#live[disk]!, run, [run]);
    }
    const chunksMax = Math.max(1, Math.floor(windowBytes / frozen.description.chunkBytes));
    const differing = treeDifferences(tree, frozen.tree, firstChunk);
    for await (const window of windowsOf(frozen, differing, firstChunk, chunksMax)) {
      throwIfAborted(signal);
      await this.#intend(disk, window);
      await this.#settle(disk, frozen, window);
      const { chunkBytes, virtualSizeBytes } = frozen.description;
      this.#setup.onProgress(disk, Math.min(window.to * chunkBytes, virtualSizeBytes), this.counts.sentBytes);
    }
  }

  /** Commits all that is settled, and the chunks of a window as suspect. */
  async #intend(disk: number, { from, copy, clear }: Window): Promise<void> {
    const { committer, ports, signal, check } = this.#setup;
    const { kind, source, suspect: inherited } = this.#start;
    const flushed = await flushLiveDisks(committer.root, this.#live, 'mirror', ports);
    const left = inherited.filter((range) => range.disk > disk || (range.disk === disk && range.to > from));
    const runs = chunkRuns([...copy, ...clear].sort((a, b) => a - b));
    const own = condenseSuspects(
      runs.map((run) => ({ disk, ...run })),
      INHERITED_SUSPECTS_MAX,
    );
    const suspect = [...left, ...own];
    const before = committer.root;
    await committer.commitOver((now) => {
      check(now);
      if (!isSameBase(now, before)) throw overtaken(now);
      return { disks: withTables(now, flushed), sync: { kind, source, disk, cursor: from, suspect } };
    }, signal);
    await ports.failpoint('mirror.after-intent');
  }

  async #settle(disk: number, frozen: FrozenDisk, { copy, clear }: Window): Promise<void> {
    const { pool } = this.#setup;
    const live = this.#live[disk]!;
    for (const run of chunkRuns(clear)) this.counts.chunksCleared += await clearChunks(live, run, []);
    const { chunkBytes } = frozen.description;
    const buffers = new BufferPool(batchBufferBytes(chunkBytes), pool.threads * 2 + BATCHES_AHEAD);
    await eachBatch(frozen, buffers, (batch) => this.#copy(disk, batch), inOrder(copy));
  }

  /** Checks what was fetched, and writes it as it is. */
  async #copy(disk: number, batch: FetchedBatch): Promise<ArrayBuffer> {
    const { chunks, entries, places, fetchedBytes } = batch;
    const { base, tree } = this.#live[disk]!;
    const { pool, signal } = this.#setup;
    const targets = new Float64Array(0);
    const { buffer, damage } = await pool.open({
      kind: 'open',
      disk,
      chunks,
      entries,
      places,
      buffer: batch.buffer,
      targets,
    });
    const [damaged] = damage;
    if (damaged) throw fromWire(damaged.error);
    throwIfAborted(signal);
    const pieces = Array.from(chunks, (chunk, i) => ({
      ...{ chunk, offset: places[i * 2]!, lengthBytes: places[i * 2 + 1]! },
    }));
    const sentBytes = await base.write(pieces, buffer);
    for (const [i, chunk] of chunks.entries()) await tree.setEntry(chunk, entryAt(entries, i));
    this.counts.chunksCopied += chunks.length;
    this.counts.fetchedBytes += fetchedBytes;
    this.counts.sentBytes += sentBytes;
    return buffer;
  }
}

/** Where to begin: after an interruption at its cursor, if the baseline is the same; else at the front. */
function startingState({ sync, baselines }: Root, baseline: Baseline): CopyState {
  const kind = baselines.length === 0 ? 'initial' : 'resync';
  const source = stampOf(baseline);
  const suspect: readonly SuspectRange[] = condenseSuspects(sync?.suspect ?? [], INHERITED_SUSPECTS_MAX);
  const resumes = sync && sync.kind !== 'apply' && bytesEqual(sync.source, source);
  return { kind, source, ...(resumes ? { disk: sync.disk, cursor: sync.cursor } : { disk: 0, cursor: 0 }), suspect };
}

/** Tells this copy from one of another baseline, and from a sync of disks. */
function stampOf({ generation, appliedLog, state }: Baseline): Uint8Array {
  const hash = createHash('sha256').update(`rmirror1\0${appliedLog} `);
  return (state ? hash.update(state) : hash.update(`generation ${generation}`)).digest();
}

/** Chunks that differ in windows of bounded length; the last one ends with the disk. */
async function* windowsOf(
  frozen: FrozenDisk,
  differing: AsyncIterable<number>,
  firstChunk: number,
  chunksMax: number,
): AsyncGenerator<Window> {
  let from = firstChunk;
  let copy: number[] = [];
  let clear: number[] = [];
  for await (const chunk of differing) {
    (isZeroEntry(await frozen.tree.entry(chunk)) ? clear : copy).push(chunk);
    if (copy.length + clear.length < chunksMax) continue;
    yield { from, to: chunk + 1, copy, clear };
    from = chunk + 1;
    copy = [];
    clear = [];
  }
  if (copy.length + clear.length > 0) yield { from, to: chunkCount(frozen.description), copy, clear };
}

async function* inOrder(chunks: readonly number[]): AsyncGenerator<number> {
  yield* chunks;
}
