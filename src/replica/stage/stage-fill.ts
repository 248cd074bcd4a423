/**
 * Filling a stage: chunks of a recovery point are fetched, verified by workers, and appended to stage.bin.
 *
 * What is staged already with the content that the manifest names is not fetched again. From time to time all of it is made
 * durable: bytes, then the records that lead to them, then the cursor. Memory: the buffers of the pool, changed pages of the
 * index up to a bound, a few manifest pages.
 */
import { bytesEqual, MIB } from '../../bytes.ts';
import { chunkLengthBytes, entryAt, readEntry, slotSizeBytes } from '../../chunker/index.ts';
import { fromWire } from '../../errors.ts';
import type { Ports } from '../../ports.ts';
import { BufferPool, RANGE_FIELDS, type WorkerPool } from '../../workers/index.ts';
import type { FetchedBatch, FrozenDisk } from '../frozen-disk.ts';
import { BATCHES_AHEAD, eachBatch, outputError } from '../restore.ts';
import type { Stage } from './stage-folder.ts';
import type { StagedChunk } from './stage-record.ts';
import type { StageProgress } from './stage-state.ts';

/** Bytes fetched per message to a worker. */
const BATCH_BYTES = 2 * MIB;
/** What is staged is made durable after so many bytes, so much time, or so many changed pages of the index. */
const DURABLE_BYTES = 64 * MIB;
const DURABLE_MS = 5_000;
const CHANGED_PAGES_MAX = 64;

export interface FillCounts {
  /** Chunks that were fetched, and the bytes of them that the store sent. */
  fetchedChunks: number;
  fetchedBytes: number;
  /** Chunks that become zeros: no bytes. */
  zeroChunks: number;
  /** Chunks that were staged already. */
  reusedChunks: number;
}

export interface FillSetup {
  readonly stage: Stage;
  /** The disk as the point has it. */
  readonly frozen: FrozenDisk;
  readonly pool: WorkerPool;
  readonly ports: Pick<Ports, 'clock' | 'failpoint'>;
  readonly signal: AbortSignal;
  /** Chunks below it were passed before. */
  readonly firstChunk?: number;
  /** What stage.json says of the comparison when all chunks below `cursor` are settled; absent: it stays as it is. */
  readonly progressAt?: (cursor: number) => StageProgress;
  /** Chunks to fetch whatever the index says of them. */
  readonly isRefetch?: boolean;
  readonly onFetched?: (counts: Readonly<FillCounts>) => void;
}

export class StageFill {
  readonly counts: FillCounts = { fetchedChunks: 0, fetchedBytes: 0, zeroChunks: 0, reusedChunks: 0 };
  readonly #setup: FillSetup;
  /** Chunks that were asked for and are not staged yet, in the order of asking. */
  readonly #pending: Set<number> = new Set();
  #passed: number;
  /** End of stage.bin. */
  #end = 0;
  #growing: Promise<unknown> = Promise.resolve();
  #newBytes = 0;
  #durableMs: number;

  constructor(setup: FillSetup) {
    this.#setup = setup;
    this.#passed = setup.firstChunk ?? 0;
    this.#durableMs = setup.ports.clock.monotonicMs();
  }

  /** Stages the chunks (ascending) that `chunks` gives, and makes all of it durable. */
  async run(chunks: AsyncIterable<number>): Promise<void> {
    const { stage, frozen, pool, signal } = this.#setup;
    this.#end = await stage.chunks.sizeBytes();
    const bufferBytes = Math.max(BATCH_BYTES, slotSizeBytes(frozen.description.chunkBytes));
    const buffers = new BufferPool(bufferBytes, pool.threads * 2 + BATCHES_AHEAD);
    try {
      await eachBatch(frozen, buffers, (batch) => this.#take(batch), this.#toFetch(chunks));
      await this.#makeDurable();
    } catch (error) {
      // Whoever stops it means to go on later.
      if (signal.aborted) await this.#makeDurable();
      throw outputError(error, stage.chunks.path);
    }
  }

  /** All chunks below this one were looked at: those that differ were given to `run`. */
  async pass(chunk: number): Promise<void> {
    this.#passed = chunk;
    await this.#makeDurableIfDue();
  }

  async *#toFetch(chunks: AsyncIterable<number>): AsyncGenerator<number> {
    const { stage, frozen, isRefetch = false } = this.#setup;
    for await (const chunk of chunks) {
      // A copy: the page may be dropped while the index is read.
      const entry = readEntry(Uint8Array.from(await frozen.tree.entry(chunk)));
      const staged = await stage.index.get(chunk);
      if (!entry) await this.#stageZeros(chunk, staged);
      else if (!isRefetch && isStaged(staged, entry.fingerprint)) this.counts.reusedChunks += 1;
      else {
        this.#pending.add(chunk);
        yield chunk;
      }
      await this.#makeDurableIfDue();
    }
  }

  async #stageZeros(chunk: number, staged: StagedChunk | undefined): Promise<void> {
    if (staged?.kind === 'zeros') this.counts.reusedChunks += 1;
    else {
      await this.#setup.stage.index.set(chunk, { kind: 'zeros' });
      this.counts.zeroChunks += 1;
    }
  }

  /** Has a batch verified and written behind what is staged; gives its buffer back. */
  async #take({ chunks, entries, places, buffer, fetchedBytes }: FetchedBatch): Promise<ArrayBuffer> {
    const { stage, frozen, pool } = this.#setup;
    const lengths = Array.from(chunks, (chunk) => chunkLengthBytes(frozen.description, chunk));
    const totalBytes = lengths.reduce((sum, n) => sum + n, 0);
    let offset = await this.#grow(totalBytes);
    const targets = new Float64Array(chunks.length * RANGE_FIELDS);
    const offsets: number[] = [];
    for (const [i, lengthBytes] of lengths.entries()) {
      targets.set([i, 0, this.#descriptor(), offset, lengthBytes], i * RANGE_FIELDS);
      offsets.push(offset);
      offset += lengthBytes;
    }
    const result = await pool.open({ kind: 'open', disk: stage.disk, chunks, entries, places, buffer, targets });
    const damaged = result.damage[0];
    if (damaged) throw fromWire(damaged.error);
    for (const [i, chunk] of chunks.entries()) {
      const { fingerprint } = readEntry(entryAt(entries, i))!;
      await stage.index.set(chunk, { kind: 'bytes', offset: offsets[i]!, fingerprint });
      this.#pending.delete(chunk);
    }
    this.#newBytes += totalBytes;
    this.counts.fetchedChunks += chunks.length;
    this.counts.fetchedBytes += fetchedBytes;
    this.#setup.onFetched?.(this.counts);
    return result.buffer;
  }

  /**
   * Makes room at the end of stage.bin, and says where. Room is zeros, which is why workers may leave out zeros; and no
   * later start gives away what was given once. One after the other: a file must never be cut.
   */
  #grow(lengthBytes: number): Promise<number> {
    const grown = this.#growing.then(async () => {
      const offset = this.#end;
      await this.#setup.stage.chunks.truncate(offset + lengthBytes);
      this.#end = offset + lengthBytes;
      return offset;
    });
    this.#growing = grown.catch(() => {});
    return grown;
  }

  #descriptor(): number {
    const { descriptor, path } = this.#setup.stage.chunks;
    if (descriptor === undefined) throw new TypeError(`${path} has no descriptor for a worker to write`);
    return descriptor;
  }

  async #makeDurableIfDue(): Promise<void> {
    const { stage, ports } = this.#setup;
    const isDue =
      this.#newBytes >= DURABLE_BYTES ||
      stage.index.changedPages >= CHANGED_PAGES_MAX ||
      ports.clock.monotonicMs() - this.#durableMs >= DURABLE_MS;
    if (isDue) await this.#makeDurable();
  }

  async #makeDurable(): Promise<void> {
    const { stage, ports, progressAt } = this.#setup;
    const [oldest] = this.#pending;
    const cursor = Math.min(oldest ?? this.#passed, this.#passed);
    // Taken before the sync: a record that is set while it runs leads to bytes that it may have missed.
    const saveIndex = stage.index.freeze();
    this.#newBytes = 0;
    this.#durableMs = ports.clock.monotonicMs();
    await stage.chunks.sync();
    await ports.failpoint('stage.after-chunks');
    await saveIndex();
    await ports.failpoint('stage.after-index');
    if (progressAt) await stage.save({ progress: progressAt(cursor) });
  }
}

function isStaged(staged: StagedChunk | undefined, fingerprint: Uint8Array): boolean {
  return staged?.kind === 'bytes' && bytesEqual(staged.fingerprint, fingerprint);
}
