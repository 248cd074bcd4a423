/**
 * Folding logs into the live bases: each touched chunk is read once, gets all that the logs say of it, and is written once.
 *
 * What a chunk was is read from the newest baseline, never from the live base: an interrupted run may have left anything
 * there. The caller has committed a root that names every touched chunk as suspect. Memory: the buffers of a pool, one
 * piece of each log, and the changed pages of the manifest up to a bound.
 */
import { chunkLengthBytes, ENTRY_BYTES, entryAt, isZero, isZeroEntry } from '../chunker/index.ts';
import { throwIfAborted } from '../errors.ts';
import { BufferPool, COVER_FIELDS, type ScanResult, VERDICT, type WorkerPool } from '../workers/index.ts';
import { BaseLayout, type BasePiece } from './base.ts';
import { type ChunkRun, chunkRuns } from './chunk-runs.ts';
import { batchBufferBytes, chunksPerBatch } from './disk-sync.ts';
import { FrozenDisk, type ReadAccess } from './frozen-disk.ts';
import { clearChunks, type LiveDisk } from './live-disk.ts';
import type { LogMerge, LogStep } from './log-merge.ts';
import type { Replica } from './replica.ts';
import type { Baseline, SuspectRange } from './root.ts';

/** Batches that wait for the store beyond those in the workers' hands; each has twice the memory of a sync's. */
const BATCHES_AHEAD = 3;

export interface FoldSetup {
  readonly replica: Replica;
  /** What the logs are laid over. */
  readonly baseline: Baseline;
  readonly merge: LogMerge;
  readonly live: readonly LiveDisk[];
  /** Generation of the slots written. */
  readonly generation: number;
  /** Left by an interrupted run: written again whatever their fingerprints say. */
  readonly doubtful: readonly SuspectRange[];
  readonly pool: WorkerPool;
  readonly access: ReadAccess;
  readonly signal: AbortSignal;
  /** Called between batches when so many pages have changed: commits them. */
  readonly changedPagesMax: number;
  readonly checkpoint: () => Promise<void>;
  readonly onProgress: (disk: number, counts: Readonly<FoldCounts>) => void;
}

export interface FoldCounts {
  chunksWritten: number;
  chunksCleared: number;
  fetchedBytes: number;
  sentBytes: number;
}

/** Chunks of one disk on their way. */
interface FoldBatch {
  readonly disk: number;
  readonly buffer: ArrayBuffer;
  readonly chunks: number[];
  /** What is new of each. */
  readonly covers: (readonly ChunkRun[])[];
}

export class LogFold {
  readonly #setup: FoldSetup;
  readonly #frozen: readonly FrozenDisk[];
  /** Bytes between the new bytes of two chunks, as the base has them: what lies side by side there is sent together. */
  readonly #strides: readonly number[];
  readonly #buffers: BufferPool;
  readonly #running: Set<Promise<void>> = new Set();
  readonly counts: FoldCounts = { chunksWritten: 0, chunksCleared: 0, fetchedBytes: 0, sentBytes: 0 };
  #batch: FoldBatch | undefined;
  #failure: unknown;

  constructor(setup: FoldSetup) {
    const { replica, baseline, access, pool } = setup;
    const { disks } = replica.description;
    this.#setup = setup;
    this.#frozen = disks.map((_, disk) => new FrozenDisk(replica, disk, baseline.disks[disk]!, access));
    this.#strides = disks.map((disk) => new BaseLayout(disk).strideBytes);
    // One half for what the base has, one for what is new and then for what is to be written.
    const bufferBytes = 2 * Math.max(...disks.map(({ chunkBytes }) => batchBufferBytes(chunkBytes)));
    this.#buffers = new BufferPool(bufferBytes, pool.threads + BATCHES_AHEAD);
  }

  /** Runs to the end of the logs; all is then acknowledged by the store and stands in the trees. */
  async run(): Promise<void> {
    const { merge, signal, live, changedPagesMax, checkpoint } = this.#setup;
    try {
      for (let step = await merge.next(); step; step = await merge.next()) {
        if (this.#failure !== undefined) throw this.#failure;
        throwIfAborted(signal);
        if (step.kind === 'zeros') await this.#clear(step);
        else await this.#patch(step.disk, step.chunk);
        const changedPages = live.reduce((sum, { tree }) => sum + tree.changedPages, 0);
        if (changedPages >= changedPagesMax) await checkpoint();
      }
      this.#dispatch();
    } catch (error) {
      this.#fail(error);
    }
    await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure;
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    this.#buffers.fail(this.#failure);
  }

  async #clear({ disk, from, to }: Extract<LogStep, { readonly kind: 'zeros' }>): Promise<void> {
    const { merge, live } = this.#setup;
    const doubtful = this.#doubtful(disk, from, to);
    this.counts.chunksCleared += await clearChunks(live[disk]!, { from, to }, doubtful);
    await merge.skip(disk, to);
  }

  /** Takes what is new of a chunk into the batch that is being filled. */
  async #patch(disk: number, chunk: number): Promise<void> {
    if (this.#batch && this.#batch.disk !== disk) this.#dispatch();
    this.#batch ??= { disk, buffer: await this.#buffers.acquire(), chunks: [], covers: [] };
    const { description } = this.#frozen[disk]!;
    const { buffer, chunks, covers } = this.#batch;
    const at = this.#freshOffset() + chunks.length * this.#strides[disk]!;
    const into = new Uint8Array(buffer, at, chunkLengthBytes(description, chunk));
    covers.push(await this.#setup.merge.compose(disk, chunk, into));
    chunks.push(chunk);
    if (chunks.length === chunksPerBatch(description.chunkBytes)) this.#dispatch();
  }

  #freshOffset(): number {
    return this.#buffers.bufferBytes / 2;
  }

  /** Starts the work of the batch that was filled. */
  #dispatch(): void {
    const batch = this.#batch;
    if (!batch) return;
    this.#batch = undefined;
    const task: Promise<void> = this.#fold(batch)
      .catch((error) => this.#fail(error))
      .finally(() => this.#running.delete(task));
    this.#running.add(task);
  }

  async #fold(batch: FoldBatch): Promise<void> {
    const { disk, chunks, covers } = batch;
    const { pool, generation } = this.#setup;
    const entries = await this.#oldEntries(batch);
    const { stored, buffer } = await this.#fetchOld(batch, entries);
    const result = await pool.fold({
      kind: 'fold',
      disk,
      generation,
      chunks: Float64Array.from(chunks),
      entries,
      forced: Uint8Array.from(chunks, (chunk) => (this.#doubtful(disk, chunk, chunk + 1).length > 0 ? 1 : 0)),
      stored,
      freshOffset: this.#freshOffset(),
      covers: packCovers(covers),
      buffer,
    });
    await this.#write(batch, entries, result);
    this.#buffers.release(result.buffer);
    this.#setup.onProgress(disk, this.counts);
  }

  async #oldEntries({ disk, chunks }: FoldBatch): Promise<Uint8Array> {
    const { tree } = this.#frozen[disk]!;
    const entries = new Uint8Array(chunks.length * ENTRY_BYTES);
    for (const [i, chunk] of chunks.entries()) entries.set(await tree.entry(chunk), i * ENTRY_BYTES);
    return entries;
  }

  /** Fetches what the baseline has of the chunks that are neither zeros there nor new from end to end. */
  async #fetchOld(
    { disk, chunks, covers, buffer }: FoldBatch,
    entries: Uint8Array,
  ): Promise<{ readonly stored: Float64Array; readonly buffer: ArrayBuffer }> {
    const frozen = this.#frozen[disk]!;
    const needed = chunks.flatMap((chunk, i) => {
      const [cover] = covers[i]!;
      const isWhole = cover?.from === 0 && cover.to === chunkLengthBytes(frozen.description, chunk);
      return isWhole || isZeroEntry(entryAt(entries, i)) ? [] : [i];
    });
    const stored = new Float64Array(chunks.length * 2);
    if (needed.length === 0) return { stored, buffer };
    const fetched = await frozen.fetch(
      needed.map((i) => chunks[i]!),
      buffer,
      this.#freshOffset(),
    );
    for (const [n, i] of needed.entries()) stored.set(fetched.places.subarray(n * 2, n * 2 + 2), i * 2);
    this.counts.fetchedBytes += fetched.fetchedBytes;
    return { stored, buffer };
  }

  async #write({ disk, chunks, covers }: FoldBatch, oldEntries: Uint8Array, result: ScanResult): Promise<void> {
    const { base, tree } = this.#setup.live[disk]!;
    const { verdicts, entries, places, buffer } = result;
    const isRaw = this.#frozen[disk]!.description.layout === 'raw';
    const pieces: BasePiece[] = [];
    const zero: number[] = [];
    for (const [i, chunk] of chunks.entries()) {
      const whole = { chunk, offset: places[i * 2]!, lengthBytes: places[i * 2 + 1]! };
      if (verdicts[i] === VERDICT.zero) zero.push(chunk);
      else if (verdicts[i] === VERDICT.changed) pieces.push(...(isRaw ? partsOf(whole, covers[i]!) : [whole]));
    }
    const isEmpty = ({ offset, lengthBytes }: BasePiece): boolean =>
      isRaw && isZero(new Uint8Array(buffer, offset, lengthBytes));
    for (const piece of pieces.filter(isEmpty)) await base.clearPart(piece);
    // Not `+= await`: that would read the sum before the wait and lose what others add meanwhile.
    const sentBytes = await base.write(
      pieces.filter((piece) => !isEmpty(piece)),
      buffer,
    );
    this.counts.sentBytes += sentBytes;
    for (const { from, to } of chunkRuns(zero)) await base.clear(from, to);
    for (const [i, chunk] of chunks.entries()) {
      if (verdicts[i] === VERDICT.same) continue;
      if (verdicts[i] === VERDICT.changed) this.counts.chunksWritten += 1;
      else if (!isZeroEntry(entryAt(oldEntries, i))) this.counts.chunksCleared += 1;
      await tree.setEntry(chunk, entryAt(entries, i));
    }
  }

  /** What is doubtful of chunks [from, to). */
  #doubtful(disk: number, from: number, to: number): readonly ChunkRun[] {
    return this.#setup.doubtful
      .filter((range) => range.disk === disk && range.from < to && range.to > from)
      .map((range) => ({ from: Math.max(from, range.from), to: Math.min(to, range.to) }));
  }
}

/** The parts of a chunk that are new; of a raw base nothing else has to be written. */
function partsOf({ chunk, offset }: BasePiece, cover: readonly ChunkRun[]): readonly BasePiece[] {
  return cover.map(({ from, to }) => ({ chunk, chunkOffset: from, offset: offset + from, lengthBytes: to - from }));
}

function packCovers(covers: readonly (readonly ChunkRun[])[]): Float64Array {
  const count = covers.reduce((sum, cover) => sum + cover.length, 0);
  const packed = new Float64Array(count * COVER_FIELDS);
  let at = 0;
  for (const [i, cover] of covers.entries()) {
    for (const { from, to } of cover) {
      packed.set([i, from, to], at);
      at += COVER_FIELDS;
    }
  }
  return packed;
}
