/**
 * verify, the verb: open every slot and log of a recovery point (or a sample of them), and on request compare the manifest
 * with the live disk. Changes nothing, writes nothing; what does not verify is reported, not thrown.
 */
import { entryAt, isZeroEntry } from '../chunker/index.ts';
import { isBlockferryError, throwIfAborted, toWire, type WireError } from '../errors.ts';
import type { Ports } from '../ports.ts';
import { BufferPool, VERDICT, type WorkerPool } from '../workers/index.ts';
import { type ChunkRun, runsWithin } from './chunk-runs.ts';
import { type CompareSource, compareWindows } from './compare-windows.ts';
import { batchBufferBytes } from './disk-sync.ts';
import { type DiskState, FrozenDisk, type ReadAccess } from './frozen-disk.ts';
import type { Replica } from './replica.ts';
import { BATCHES_AHEAD, eachBatch } from './restore.ts';
import type { ShippedLog } from './root.ts';
import { type LogAccess, readShippedLog } from './shipped-log.ts';

export interface VerifySetup {
  readonly replica: Replica;
  readonly disk: number;
  readonly state: DiskState;
  readonly pool: WorkerPool;
  readonly access: ReadAccess;
  /** Share of the chunks to open, in (0, 1]. */
  readonly share: number;
  readonly ports: Ports;
  readonly onProgress?: (openedBytes: number, fetchedBytes: number) => void;
}

export interface Damage {
  readonly chunk: number;
  readonly error: WireError;
}

export interface VerifyCounts {
  readonly chunksOpened: number;
  readonly fetchedBytes: number;
  readonly damage: readonly Damage[];
}

/** Opens the slots of one disk. A manifest that does not verify ends it with an error: nothing below it can be named. */
export async function verifyDisk(setup: VerifySetup): Promise<VerifyCounts> {
  const { replica, state, disk, pool, access, ports, share } = setup;
  const frozen = new FrozenDisk(replica, disk, state, access);
  const { chunkBytes } = frozen.description;
  const buffers = new BufferPool(batchBufferBytes(chunkBytes), pool.threads * 2 + BATCHES_AHEAD);
  const damage: Damage[] = [];
  let chunksOpened = 0;
  let fetchedBytes = 0;
  const open = async (batch: Parameters<Parameters<typeof eachBatch>[2]>[0]): Promise<ArrayBuffer> => {
    const { chunks, entries, places, buffer } = batch;
    const result = await pool.open({
      kind: 'open',
      disk,
      chunks,
      entries,
      places,
      buffer,
      targets: new Float64Array(0),
    });
    for (const { index, error } of result.damage) damage.push({ chunk: chunks[index]!, error });
    chunksOpened += chunks.length;
    fetchedBytes += batch.fetchedBytes;
    setup.onProgress?.(chunksOpened * chunkBytes, fetchedBytes);
    return result.buffer;
  };
  await eachBatch(frozen, buffers, open, sample(frozen.usedChunks(), share, ports));
  return { chunksOpened, fetchedBytes, damage: damage.sort((a, b) => a.chunk - b.chunk) };
}

/** Each item with the probability `share`. */
async function* sample(chunks: AsyncIterable<number>, share: number, { random }: Ports): AsyncGenerator<number> {
  for await (const chunk of chunks) if (share >= 1 || random.fraction() < share) yield chunk;
}

/** Opens all frames of a shipped log; what does not verify is returned, not thrown. */
export async function checkShippedLog(
  replica: Replica,
  log: ShippedLog,
  access: LogAccess,
): Promise<WireError | undefined> {
  try {
    for await (const _ of readShippedLog(replica, log, access)) throwIfAborted(access.signal);
    return undefined;
  } catch (error) {
    if (!isBlockferryError(error) || error.area !== 'replica') throw error;
    return toWire(error);
  }
}

export interface CompareSetup extends Omit<CompareSource, 'firstChunk'> {
  /** Chunks that a sync sends whatever their fingerprint says: they count as differing. */
  readonly suspect?: readonly ChunkRun[];
  readonly onProgress?: (readBytes: number) => void;
}

export interface CompareCounts {
  /** All that a sync would send or clear. */
  readonly differingChunks: number;
  /** Those of them that it would clear. */
  readonly clearedChunks: number;
  /** Those of them that the replica has in another version, which a sync of a raw base fetches. */
  readonly patchedChunks: number;
  readonly readBytes: number;
}

/** Chunks of a live disk whose content is not what the manifest says. Reads the disk, fetches no slot. */
export async function compareDisk(setup: CompareSetup): Promise<CompareCounts> {
  const { tree, suspect = [] } = setup;
  const counts = { differingChunks: 0, clearedChunks: 0, patchedChunks: 0, readBytes: 0 };
  for await (const { data, empty, verdicts, entries, readBytes } of compareWindows(setup)) {
    for (const { from, to } of empty) {
      const used = await tree.countUsed(from, to);
      counts.differingChunks += used;
      counts.clearedChunks += used;
    }
    for (const [i, { chunk }] of data.entries()) {
      const isSuspect = !runsWithin(suspect, chunk, chunk + 1).next().done;
      if (verdicts[i] === VERDICT.same && !isSuspect) continue;
      counts.differingChunks += 1;
      if (verdicts[i] === VERDICT.zero) counts.clearedChunks += 1;
      else if (!isSuspect && !isZeroEntry(entryAt(entries, i))) counts.patchedChunks += 1;
    }
    counts.readBytes += readBytes;
    setup.onProgress?.(counts.readBytes);
  }
  return counts;
}
