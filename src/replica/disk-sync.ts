/**
 * sync of one disk: compare every planned chunk with the manifest, send what differs.
 *
 * The main thread plans and talks to the store; workers read, compare and seal. Batches finish in any order; the ledger
 * keeps what a crash may find. Memory: the buffers of the pool, a few manifest pages, two windows of plan.
 */

import { MIB } from '../bytes.ts';
import { CRC64_BYTES, entryAt, isZeroEntry, slotSizeBytes } from '../chunker/index.ts';
import { throwIfAborted } from '../errors.ts';
import type { Ports } from '../ports.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { type BufferPool, type ScanResult, type ScanTask, VERDICT, type WorkerPool } from '../workers/index.ts';
import type { BasePiece } from './base.ts';
import { BusyTime } from './busy-time.ts';
import { type ChunkRun, chunkRuns } from './chunk-runs.ts';
import type { LiveBase } from './live-base.ts';
import { clearChunks } from './live-disk.ts';
import type { ManifestTree } from './manifest-tree.ts';
import { packRanges } from './pack-ranges.ts';
import type { ChangedChunk, RawPatches } from './raw-patches.ts';
import type { SyncLedger } from './sync-ledger.ts';
import { type DataChunk, type PlanWindow, planWindows } from './sync-plan.ts';

/** Bytes of disk per message to a worker, all of which it may have to bring back: small enough to spread. */
const BATCH_BYTES = 2 * MIB;
/** The same while nothing changes, where nothing is brought back. If something does, and its buffer is full, the rest is another message. */
const QUIET_BYTES = 8 * MIB;
/** Bytes of disk per window, the grain of checkpoints and of what an interrupted run sends twice. */
const WINDOW_BYTES = 64 * MIB;
/**
 * Runs of scattered chunks per window: the windows that are under way together stay within what a root can name as
 * suspects without condensing.
 */
const WINDOW_RUNS_MAX = 128;
/** A checkpoint is due after this much sent, or this much time. */
const CHECKPOINT_SENT_BYTES = 64 * MIB;
const CHECKPOINT_MS = 5_000;

/** Size of the buffers that a sync of chunks of this size needs. */
export function batchBufferBytes(chunkBytes: number): number {
  return chunksPerBatch(chunkBytes) * slotSizeBytes(chunkBytes);
}

export function chunksPerBatch(chunkBytes: number): number {
  return Math.max(1, BATCH_BYTES / chunkBytes);
}

export interface DiskSyncCounts {
  readBytes: number;
  doneBytes: number;
  chunksCompared: number;
  chunksSent: number;
  chunksCleared: number;
  /** Bytes handed to the store: of a chunk of a raw base, often but a few of its blocks. */
  sentBytes: number;
  /** Bytes of the base that were fetched to find these blocks. */
  fetchedBytes: number;
  /** Chunks that turned out damaged in the base meanwhile; they were sent whole. */
  chunksDamaged: number;
  /** Time in which workers had something to read, and in which the store was being sent something. */
  readMs: number;
  sendMs: number;
}

/** Counts of a disk of which nothing was done. */
export const NO_COUNTS: Readonly<DiskSyncCounts> = {
  readBytes: 0,
  doneBytes: 0,
  chunksCompared: 0,
  chunksSent: 0,
  chunksCleared: 0,
  sentBytes: 0,
  fetchedBytes: 0,
  chunksDamaged: 0,
  readMs: 0,
  sendMs: 0,
};

export interface DiskSyncSetup {
  readonly disk: number;
  readonly source: VirtualDisk;
  readonly chunkBytes: number;
  /** Generation of the slots written. */
  readonly generation: number;
  readonly tree: ManifestTree;
  readonly base: LiveBase;
  readonly ledger: SyncLedger;
  /** The chunks to look at, with all suspects among them; absent: all. */
  readonly only?: readonly ChunkRun[] | undefined;
  /** Every chunk counts as differing. */
  readonly full: boolean;
  /** Finds what of changed chunks has to be written; absent: they are written whole. */
  readonly findPatches?: ((changes: readonly ChangedChunk[], buffer: ArrayBuffer) => Promise<RawPatches>) | undefined;
  /** Commits a root that allows writing below `intentEnd`, with all that is settled. */
  readonly checkpoint: (intentEnd: number) => Promise<void>;
  readonly pool: WorkerPool;
  readonly buffers: BufferPool;
  readonly ports: Ports;
  readonly signal: AbortSignal;
  readonly onProgress: (counts: Readonly<DiskSyncCounts>) => void;
}

export class DiskSync {
  readonly #setup: DiskSyncSetup;
  readonly counts: DiskSyncCounts = { ...NO_COUNTS };
  readonly #reading: BusyTime;
  readonly #sending: BusyTime;
  readonly #running: Set<Promise<void>> = new Set();
  /** The last batch that came back had nothing for the store. */
  #quiet = false;
  #failure: unknown;
  #checkpoint: Promise<void> | undefined;
  #checkpointSentBytes = 0;
  #checkpointMs: number;

  constructor(setup: DiskSyncSetup) {
    this.#setup = setup;
    this.#reading = new BusyTime(setup.ports.clock);
    this.#sending = new BusyTime(setup.ports.clock);
    this.#checkpointMs = setup.ports.clock.monotonicMs();
  }

  /** Runs to the end of the disk; all that differs is then acknowledged by the store and stands in the tree. */
  async run(): Promise<void> {
    const { source, chunkBytes, ledger, only } = this.#setup;
    const dataChunksMax = Math.max(1, WINDOW_BYTES / chunkBytes);
    const plan = planWindows(source, {
      chunkBytes,
      firstChunk: ledger.cursor,
      only,
      dataChunksMax,
      runsMax: WINDOW_RUNS_MAX,
    });
    try {
      let next = await plan.next();
      while (!next.done) {
        const window = next.value;
        next = await plan.next();
        await this.#window(window, next.done ? window.to : next.value.to);
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      await plan.return(undefined);
      // Work that fails may leave some that it had begun.
      while (this.#running.size > 0) await Promise.allSettled([...this.#running]);
    }
    await this.#checkpoint?.catch((error) => this.#fail(error));
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Starts all work of a window; returns when the last batch was handed to a worker, not when it is done. */
  async #window(window: PlanWindow, lookahead: number): Promise<void> {
    const { chunkBytes, ledger } = this.#setup;
    const settle = ledger.open(window.from, window.to);
    const allow = (): Promise<void> => this.#allow(window.to, lookahead);
    const work: Promise<void>[] = [];
    if (window.empty.length > 0) work.push(this.#start(this.#clearWindow(window, allow)));
    for (let at = 0; at < window.data.length; ) {
      const buffer = await this.#acquire(false);
      const end = at + (this.#quiet ? Math.max(1, QUIET_BYTES / chunkBytes) : chunksPerBatch(chunkBytes));
      work.push(this.#start(this.#batch(window.data.slice(at, end), buffer, allow)));
      at = end;
    }
    const settled = Promise.all(work).then(() => {
      // Work that failed was caught where it was started; a window with such a hole must never count as settled.
      if (this.#failure !== undefined) return;
      settle();
      this.#checkpointIfDue();
    });
    void this.#start(settled);
  }

  async #acquire(next: boolean): Promise<ArrayBuffer> {
    const buffer = await this.#setup.buffers.acquire(next);
    if (this.#failure !== undefined) throw this.#failure;
    throwIfAborted(this.#setup.signal);
    return buffer;
  }

  /** Keeps track of work that runs by itself; its failure ends the sync. */
  #start(work: Promise<void>): Promise<void> {
    const tracked = work.catch((error) => this.#fail(error)).finally(() => this.#running.delete(tracked));
    this.#running.add(tracked);
    return tracked;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#setup.buffers.fail(this.#failure);
  }

  /** Resolves when writing below `to` is allowed, and has the next window's permission fetched meanwhile. */
  async #allow(to: number, lookahead: number): Promise<void> {
    const { ledger, checkpoint } = this.#setup;
    while (!ledger.allows(to)) {
      await (this.#checkpoint ?? this.#startCheckpoint(() => checkpoint(lookahead)));
      if (this.#failure !== undefined) throw this.#failure;
    }
    if (!ledger.allows(lookahead) && !this.#checkpoint) void this.#startCheckpoint(() => checkpoint(lookahead));
  }

  #checkpointIfDue(): void {
    const { ledger, checkpoint, ports } = this.#setup;
    const sentBytes = this.counts.sentBytes - this.#checkpointSentBytes;
    const elapsedMs = ports.clock.monotonicMs() - this.#checkpointMs;
    if (this.#checkpoint || (sentBytes < CHECKPOINT_SENT_BYTES && elapsedMs < CHECKPOINT_MS)) return;
    void this.#startCheckpoint(() => checkpoint(ledger.cursor));
  }

  #startCheckpoint(commit: () => Promise<void>): Promise<void> {
    this.#checkpointSentBytes = this.counts.sentBytes;
    this.#checkpointMs = this.#setup.ports.clock.monotonicMs();
    const running = this.#start(commit()).finally(() => {
      if (this.#checkpoint === running) this.#checkpoint = undefined;
    });
    this.#checkpoint = running;
    return running;
  }

  /** Clears what the replica holds of chunks that the source says are zeros, and what is in doubt there. */
  async #clearWindow(window: PlanWindow, allow: () => Promise<void>): Promise<void> {
    for (const span of window.empty) {
      const doubtful = this.#setup.ledger.suspectWithin(span.from, span.to);
      const cleared = await clearChunks(this.#setup, span, doubtful, allow);
      this.counts.chunksCleared += cleared;
    }
  }

  async #batch(asked: readonly DataChunk[], buffer: ArrayBuffer, allow: () => Promise<void>): Promise<void> {
    const { disk, generation, tree, ledger, pool, buffers, chunkBytes, full } = this.#setup;
    const numbers = Float64Array.from(asked, ({ chunk }) => chunk);
    const entries = await tree.entries(numbers);
    const forced = Uint8Array.from(asked, ({ chunk }) => (full || ledger.isSuspect(chunk) ? 1 : 0));
    const task: ScanTask = {
      kind: 'scan',
      purpose: 'send',
      disk,
      generation,
      chunks: numbers,
      ...packRanges(asked, chunkBytes),
      entries,
      forced,
      buffer,
    };
    const result = await this.#reading.during(() => pool.scan(task));
    const chunks = asked.slice(0, result.verdicts.length);
    this.#quiet = !result.verdicts.includes(VERDICT.changed);
    const rest = this.#rest(asked.slice(chunks.length), allow);
    await this.#send(chunks, entries, forced, result, allow);
    buffers.release(result.buffer);
    this.counts.readBytes += result.readBytes;
    this.counts.doneBytes += chunks.reduce(
      (sum, { extents }) => sum + extents.reduce((n, e) => n + e.lengthBytes, 0),
      0,
    );
    this.counts.chunksCompared += chunks.length;
    this.counts.readMs = this.#reading.totalMs;
    this.counts.sendMs = this.#sending.totalMs;
    this.#setup.onProgress(this.counts);
    await rest;
  }

  /** What a buffer had no room for goes on at once, before more is begun. */
  async #rest(chunks: readonly DataChunk[], allow: () => Promise<void>): Promise<void> {
    if (chunks.length > 0) await this.#start(this.#acquire(true).then((buffer) => this.#batch(chunks, buffer, allow)));
  }

  async #send(
    chunks: readonly DataChunk[],
    oldEntries: Uint8Array,
    forced: Uint8Array,
    { verdicts, entries, places, checksums, buffer }: ScanResult,
    allow: () => Promise<void>,
  ): Promise<void> {
    const { base, tree } = this.#setup;
    const changed: ChangedChunk[] = [];
    const zero: number[] = [];
    for (const [i, { chunk }] of chunks.entries()) {
      if (verdicts[i] === VERDICT.changed) {
        const place = { offset: places[i * 2]!, lengthBytes: places[i * 2 + 1]! };
        const crc64 = checksums.length > 0 ? checksums.subarray(i * CRC64_BYTES, (i + 1) * CRC64_BYTES) : undefined;
        changed.push({ chunk, ...place, crc64, oldEntry: entryAt(oldEntries, i), isForced: forced[i] === 1 });
      } else if (verdicts[i] === VERDICT.zero) zero.push(chunk);
    }
    if (changed.length === 0 && zero.length === 0) return;
    const pieces = await this.#pieces(changed, buffer, allow);
    await allow();
    // Not `+= await`: that would read the sum before the wait and lose what others add meanwhile.
    const sentBytes = await this.#sending.during(() => base.write(pieces, buffer));
    this.counts.sentBytes += sentBytes;
    for (const { from, to } of chunkRuns(zero)) await base.clear(from, to);
    for (const [i, { chunk }] of chunks.entries()) {
      if (verdicts[i] === VERDICT.same) continue;
      if (verdicts[i] === VERDICT.changed) this.counts.chunksSent += 1;
      else if (!isZeroEntry(entryAt(oldEntries, i))) this.counts.chunksCleared += 1;
      await tree.setEntry(chunk, entryAt(entries, i));
    }
  }

  /** What of changed chunks has to be written, over what is cleared here first where that helps. */
  async #pieces(
    changed: readonly ChangedChunk[],
    buffer: ArrayBuffer,
    allow: () => Promise<void>,
  ): Promise<readonly BasePiece[]> {
    const { base, findPatches } = this.#setup;
    if (!findPatches) return changed;
    const { clear, pieces, fetchedBytes, damaged } = await findPatches(changed, buffer);
    this.counts.fetchedBytes += fetchedBytes;
    this.counts.chunksDamaged += damaged;
    if (clear.length > 0) await allow();
    for (const { from, to } of clear) await base.clear(from, to);
    return pieces;
  }
}
