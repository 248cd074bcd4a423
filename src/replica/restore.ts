/**
 * restore, the verb: the disks of a recovery point into new files.
 *
 * The main thread fetches, workers open, check and write. Anything that does not verify ends the restore; the caller
 * gives files their final names only when all disks of an item are written, verified and durable.
 */
import { MIB } from '../bytes.ts';
import { slotSizeBytes } from '../chunker/index.ts';
import { BlockferryError, fromWire, isBlockferryError } from '../errors.ts';
import type { Ports } from '../ports.ts';
import type { DiskWriter } from '../vhd/index.ts';
import { BufferPool, RANGE_FIELDS, type WorkerPool } from '../workers/index.ts';
import { type FetchedBatch, FrozenDisk, type ReadAccess } from './frozen-disk.ts';
import type { Replica } from './replica.ts';
import { baselineOf, type RecoveryPoint } from './root.ts';

/** Bytes fetched per message to a worker. */
const BATCH_BYTES = 2 * MIB;
/** Batches on their way from the store beyond those in the workers' hands. */
export const BATCHES_AHEAD = 4;

export interface RestoreSetup {
  readonly replica: Replica;
  readonly point: RecoveryPoint;
  readonly disk: number;
  /** A new file of the disk's size. The caller finishes it, when all disks of the item are there, or aborts it. */
  readonly writer: DiskWriter;
  readonly pool: WorkerPool;
  readonly access: ReadAccess;
  readonly ports: Ports;
  readonly onProgress?: (progress: RestoreCounts) => void;
}

export interface RestoreCounts {
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly fetchedBytes: number;
  readonly writtenBytes: number;
}

/** Writes all chunks of one disk. @throws REPLICA_SLOT and others if anything does not verify; OUTPUT_FAILED */
export async function restoreDisk(setup: RestoreSetup): Promise<RestoreCounts> {
  try {
    const counts = await copyChunks(setup);
    await setup.ports.failpoint('restore.after-data');
    return counts;
  } catch (error) {
    throw outputError(error, setup.writer.path);
  }
}

async function copyChunks(setup: RestoreSetup): Promise<RestoreCounts> {
  const { replica, point, disk, pool, access } = setup;
  const { disks } = baselineOf(replica.record.root, point);
  const frozen = new FrozenDisk(replica, disk, disks[disk]!, access);
  const { chunkBytes } = frozen.description;
  const totalBytes = setup.onProgress ? (await frozen.countUsed()) * chunkBytes : 0;
  const bufferBytes = Math.max(BATCH_BYTES, slotSizeBytes(chunkBytes));
  const buffers = new BufferPool(bufferBytes, pool.threads * 2 + BATCHES_AHEAD);
  const counts = { doneBytes: 0, totalBytes, fetchedBytes: 0, writtenBytes: 0 };
  // One placement at a time: a writer allocates in the order of the calls.
  let placing: Promise<unknown> = Promise.resolve();
  await eachBatch(frozen, buffers, async (batch) => {
    const placed = placing.then(() => placeBatch(batch, setup.writer, frozen));
    placing = placed.catch(() => {});
    const targets = await placed;
    const { chunks, entries, places, buffer } = batch;
    const result = await pool.open({ kind: 'open', disk, chunks, entries, places, buffer, targets });
    const damaged = result.damage[0];
    if (damaged) throw fromWire(damaged.error);
    counts.doneBytes += chunks.length * chunkBytes;
    counts.fetchedBytes += batch.fetchedBytes;
    counts.writtenBytes += result.writtenBytes;
    setup.onProgress?.(counts);
    return result.buffer;
  });
  return counts;
}

/**
 * Runs `work` for every batch of the disk, as many at a time as there are buffers; `work` returns the buffer that comes
 * back. The first failure ends it.
 */
export async function eachBatch(
  frozen: FrozenDisk,
  buffers: BufferPool,
  work: (batch: FetchedBatch) => Promise<ArrayBuffer>,
  numbers: AsyncIterable<number> = frozen.usedChunks(),
): Promise<void> {
  const running = new Set<Promise<void>>();
  let failure: unknown;
  const fail = (error: unknown): void => {
    failure ??= error;
    buffers.fail(failure);
  };
  try {
    for await (const { fetched } of frozen.batches(numbers, buffers)) {
      const task: Promise<void> = fetched
        .then(work)
        .then((buffer) => buffers.release(buffer))
        .catch(fail)
        .finally(() => running.delete(task));
      running.add(task);
    }
  } catch (error) {
    fail(error);
  }
  await Promise.all(running);
  if (failure !== undefined) throw failure;
}

/** Allocates room for the chunks in the target, in order, and says where each part goes. */
async function placeBatch(
  { chunks }: FetchedBatch,
  writer: DiskWriter,
  { description }: FrozenDisk,
): Promise<Float64Array> {
  const fields: number[] = [];
  const { chunkBytes, virtualSizeBytes } = description;
  for (const [index, chunk] of chunks.entries()) {
    const start = chunk * chunkBytes;
    const length = Math.min(chunkBytes, virtualSizeBytes - start);
    let offset = 0;
    for (const { file, fileOffset, lengthBytes } of await writer.place(start, length)) {
      if (file.descriptor === undefined) throw new TypeError(`${file.path} has no descriptor for a worker to write`);
      fields.push(index, offset, file.descriptor, fileOffset, lengthBytes);
      offset += lengthBytes;
    }
  }
  if (fields.length % RANGE_FIELDS !== 0) throw new TypeError('ranges have five fields each');
  return Float64Array.from(fields);
}

/** A full disk or a lost file becomes an error that names the output. */
export function outputError(error: unknown, path: string): unknown {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  if (isBlockferryError(error) || code === undefined) return error;
  return new BlockferryError('OUTPUT_FAILED', `${path}: cannot be written: ${(error as Error).message}`, {
    cause: error,
    facts: { source: path },
    hint: code === 'ENOSPC' ? 'free space on that volume, or choose another --out' : 'choose another --out',
  });
}
