/**
 * The second half of a delta failback: a stage is marked complete, its chunks are written into the disk in place, and the disk
 * is proved to be what the manifest says.
 *
 * Before the mark the disk was never touched. After it a kill leaves a disk between two states, which laying once more repairs:
 * every chunk is verified against the manifest before anything is written, and all of them are written again.
 */
import { MIB } from '../../bytes.ts';
import { chunkCount, chunkLengthBytes, ENTRY_BYTES } from '../../chunker/index.ts';
import { BlockferryError, throwIfAborted } from '../../errors.ts';
import type { RandomAccessFile } from '../../ports.ts';
import type { VirtualDisk, WritableDisk } from '../../vhd/index.ts';
import { RANGE_FIELDS, VERDICT, type WorkerPool } from '../../workers/index.ts';
import { compareWindows, differingChunks } from '../compare-windows.ts';
import { chunksPerBatch } from '../disk-sync.ts';
import { FrozenDisk, type ReadAccess } from '../frozen-disk.ts';
import { lookAhead } from '../look-ahead.ts';
import type { Replica } from '../replica.ts';
import type { RecoveryPoint } from '../root.ts';
import { checkTarget, notWhole, openPoint, processedBaseline, type StageSetup } from './stage-delta.ts';
import { type FillCounts, StageFill } from './stage-fill.ts';
import type { Stage } from './stage-folder.ts';
import type { StagedChunk } from './stage-record.ts';

/** Written to the disk in one piece at most. */
const WRITE_BYTES_MAX = 4 * MIB;

/**
 * Verifies all that is staged, and marks the stage complete, durably. What does not verify is fetched again.
 * @throws USAGE unless the stage is whole, and leads to this point
 */
export async function completeStage(setup: StageSetup): Promise<Readonly<FillCounts>> {
  const { stage, ports } = setup;
  const { frozen, staged } = openPoint(setup);
  const { progress } = stage;
  if (!progress || progress.cursor < chunkCount(frozen.description)) throw notWhole(stage);
  if (progress.staged.baseline !== staged.baseline) {
    throw new BlockferryError(
      'USAGE',
      `${stage.directory} leads to point ${progress.staged.pointId}, not ${staged.pointId}`,
      {
        facts: { source: stage.directory, staged: progress.staged.pointId, point: staged.pointId },
        hint: 'bring it up to the point first',
      },
    );
  }
  const counts = await refreshStage(setup, frozen);
  if (stage.phase === 'staging') await stage.save({ phase: 'complete' });
  await ports.failpoint('stage.after-complete');
  return counts;
}

/** Fetches again what is staged and is not what the manifest says. */
async function refreshStage(setup: StageSetup, frozen: FrozenDisk): Promise<Readonly<FillCounts>> {
  const { stage, pool, ports, access } = setup;
  const fill = new StageFill({ stage, frozen, pool, ports, signal: access.signal, isRefetch: true });
  await fill.run(untrue(setup, frozen));
  return fill.counts;
}

type StagedBatch = readonly (readonly [chunk: number, staged: StagedChunk])[];

/** Staged chunks whose content is not what the manifest says, ascending. */
async function* untrue({ stage, pool, access }: StageSetup, frozen: FrozenDisk): AsyncGenerator<number> {
  const check = async (batch: StagedBatch): Promise<readonly number[]> => {
    throwIfAborted(access.signal);
    return untrueOf(batch, stage, frozen, pool);
  };
  const batches = inBatches(stage.index.staged(), chunksPerBatch(frozen.description.chunkBytes));
  for await (const chunks of lookAhead(batches, pool.threads * 2, check)) yield* chunks;
}

async function* inBatches<T>(items: AsyncIterable<T>, sizeMax: number): AsyncGenerator<readonly T[]> {
  let batch: T[] = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length < sizeMax) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

async function untrueOf(
  batch: StagedBatch,
  { disk, chunks: file }: Stage,
  { tree, description }: FrozenDisk,
  pool: WorkerPool,
): Promise<readonly number[]> {
  const { descriptor } = file;
  if (descriptor === undefined) throw new TypeError(`${file.path} has no descriptor for a worker to read`);
  const entries = new Uint8Array(batch.length * ENTRY_BYTES);
  const ranges: number[] = [];
  for (const [i, [chunk, staged]] of batch.entries()) {
    entries.set(await tree.entry(chunk), i * ENTRY_BYTES);
    // What is staged as zeros has no range, and so reads as zeros.
    if (staged.kind === 'bytes') ranges.push(i, 0, descriptor, staged.offset, chunkLengthBytes(description, chunk));
  }
  if (ranges.length % RANGE_FIELDS !== 0) throw new TypeError('ranges have five fields each');
  const { verdicts } = await pool.scan({
    kind: 'scan',
    purpose: 'compare',
    disk,
    generation: 0,
    chunks: Float64Array.from(batch, ([chunk]) => chunk),
    ranges: Float64Array.from(ranges),
    inline: [],
    entries,
    forced: new Uint8Array(batch.length),
    buffer: new ArrayBuffer(0),
  });
  return batch.filter((_, i) => verdicts[i] !== VERDICT.same).map(([chunk]) => chunk);
}

export interface LaySetup extends StageSetup {
  /** The disk that was compared, now open for writing. The caller closes it, then proves it. */
  readonly target: WritableDisk;
  readonly onProgress?: (counts: LayCounts) => void;
}

export interface LayCounts {
  readonly chunksWritten: number;
  readonly chunksZeroed: number;
  readonly writtenBytes: number;
  /** Calls that wrote them. */
  readonly writes: number;
}

/**
 * Writes all that is staged into the disk, durably. Does nothing where that was done before.
 * @throws USAGE before the stage is complete; SOURCE_CHANGED for a disk of another size; OUTPUT_FAILED
 */
export async function layStage(setup: LaySetup): Promise<LayCounts> {
  const { stage, target, ports, access } = setup;
  const { frozen } = openPoint(setup);
  checkTarget(target, frozen.description);
  const layer = new Layer(setup, frozen);
  if (stage.phase === 'laid') return layer.counts;
  if (stage.phase === 'staging') throw notWhole(stage);
  await refreshStage(setup, frozen);
  for await (const [chunk, staged] of stage.index.staged()) {
    throwIfAborted(access.signal);
    await layer.lay(chunk, staged);
  }
  await layer.end();
  await target.flush();
  await ports.failpoint('lay.after-sync');
  await stage.save({ phase: 'laid' });
  return layer.counts;
}

/** Writes chunks that come in the order of the disk, neighbours together. Memory: one buffer. */
class Layer {
  counts: LayCounts = { chunksWritten: 0, chunksZeroed: 0, writtenBytes: 0, writes: 0 };
  readonly #setup: LaySetup;
  readonly #frozen: FrozenDisk;
  readonly #file: RandomAccessFile;
  readonly #buffer: Uint8Array = new Uint8Array(WRITE_BYTES_MAX);
  /** What is to be written next; of bytes they stand at the head of the buffer. */
  #run:
    | { readonly kind: StagedChunk['kind']; readonly offset: number; lengthBytes: number; chunks: number }
    | undefined;

  constructor(setup: LaySetup, frozen: FrozenDisk) {
    this.#setup = setup;
    this.#frozen = frozen;
    this.#file = setup.stage.chunks;
  }

  async lay(chunk: number, staged: StagedChunk): Promise<void> {
    const { description } = this.#frozen;
    const offset = chunk * description.chunkBytes;
    const lengthBytes = chunkLengthBytes(description, chunk);
    const isNext = this.#run?.kind === staged.kind && this.#run.offset + this.#run.lengthBytes === offset;
    const hasRoom = staged.kind === 'zeros' || (this.#run?.lengthBytes ?? 0) + lengthBytes <= WRITE_BYTES_MAX;
    if (!isNext || !hasRoom) await this.end();
    this.#run ??= { kind: staged.kind, offset, lengthBytes: 0, chunks: 0 };
    if (staged.kind === 'bytes') {
      const into = this.#buffer.subarray(this.#run.lengthBytes, this.#run.lengthBytes + lengthBytes);
      into.fill(0, await this.#file.read(into, staged.offset));
    }
    this.#run.lengthBytes += lengthBytes;
    this.#run.chunks += 1;
  }

  /** Writes what came together. */
  async end(): Promise<void> {
    const run = this.#run;
    if (!run) return;
    this.#run = undefined;
    const { target, ports, onProgress } = this.#setup;
    const isZeros = run.kind === 'zeros';
    if (isZeros) await target.zero(run.offset, run.lengthBytes, { unmap: true });
    else await target.write(this.#buffer.subarray(0, run.lengthBytes), run.offset);
    await ports.failpoint('lay.after-write');
    const { chunksWritten, chunksZeroed, writtenBytes, writes } = this.counts;
    this.counts = {
      chunksWritten: chunksWritten + (isZeros ? 0 : run.chunks),
      chunksZeroed: chunksZeroed + (isZeros ? run.chunks : 0),
      writtenBytes: writtenBytes + (isZeros ? 0 : run.lengthBytes),
      writes: writes + 1,
    };
    onProgress?.(this.counts);
  }
}

export interface ProofSetup {
  readonly replica: Replica;
  readonly point: RecoveryPoint;
  readonly disk: number;
  readonly target: VirtualDisk;
  readonly pool: WorkerPool;
  readonly access: ReadAccess;
  readonly onProgress?: (doneBytes: number) => void;
}

export interface ProofCounts {
  /** All chunks of the disk, each found to be what the manifest says. */
  readonly chunks: number;
  readonly readBytes: number;
}

/**
 * Compares every chunk of a disk with the manifest of a processed point.
 * @throws DISK_DIFFERS naming the first chunk that is another; USAGE for a point with logs to play; SOURCE_CHANGED for a disk of
 * another size
 */
export async function proveDisk(setup: ProofSetup): Promise<ProofCounts> {
  const { replica, point, disk, target, pool, access } = setup;
  const frozen = new FrozenDisk(replica, disk, processedBaseline(replica, point).disks[disk]!, access);
  const { tree, description } = frozen;
  const { chunkBytes, virtualSizeBytes } = description;
  checkTarget(target, description);
  let readBytes = 0;
  for await (const window of compareWindows({ source: target, disk, chunkBytes, tree, pool, signal: access.signal })) {
    for await (const chunk of differingChunks(window, tree)) throw differs(target, chunk, chunkBytes, point);
    readBytes += window.readBytes;
    setup.onProgress?.(Math.min(window.to * chunkBytes, virtualSizeBytes));
  }
  return { chunks: chunkCount(description), readBytes };
}

function differs({ info }: VirtualDisk, chunk: number, chunkBytes: number, point: RecoveryPoint): BlockferryError {
  const source = info.chain[0]!;
  const offset = chunk * chunkBytes;
  return new BlockferryError(
    'DISK_DIFFERS',
    `${source}: chunk ${chunk} at offset ${offset} is not that of point ${point.id}`,
    {
      facts: { source, chunk, offset, point: point.id, rule: 'each chunk has the fingerprint of the manifest' },
      hint: 'see that nothing else writes to the disk, bring it and the replica together with resync (or failback), then try again',
    },
  );
}
