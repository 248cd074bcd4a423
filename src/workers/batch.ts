/**
 * What a worker does with a batch: read and scan, or open and write. Synchronous from end to end; the thread entry only
 * carries messages. Memory: that of the thread for chunks, and the buffer that came with the task.
 */

import { MIB } from '../bytes.ts';
import {
  ChunkKernel,
  CRC64_BYTES,
  chunkLengthBytes,
  chunkMemory,
  crc64,
  createCodec,
  createFingerprinter,
  ENTRY_BYTES,
  type EpochKeys,
  entryAt,
  SlotCipher,
  slotSizeBytes,
} from '../chunker/index.ts';
import { isBlockferryError, toWire } from '../errors.ts';
import { ChunkReader } from './chunk-reader.ts';
import { RangeCursor, writeRange } from './file-ranges.ts';
import {
  type OpenResult,
  type OpenTask,
  type ScanResult,
  type ScanTask,
  VERDICT,
  type WorkerDisk,
  type WorkerSetup,
} from './protocol.ts';

/** Read at a time, where chunks follow one another in their file. */
const READ_BYTES: number = 1 * MIB;

/** A disk as a worker holds it. */
export interface BatchDisk {
  readonly disk: WorkerDisk;
  readonly kernel: ChunkKernel;
  /** Whether what is prepared gets a checksum for its way. */
  readonly checksums: boolean;
  /** Room for a chunk at least, where the kernel works on it without a copy; all disks of a thread have the same. */
  readonly scratch: Buffer;
}

/** The disks of a replica, ready for work. */
export async function prepareDisks(
  setup: WorkerSetup,
  randomBytes: (lengthBytes: number) => Uint8Array,
): Promise<readonly BatchDisk[]> {
  const { replicaId, currentEpoch } = setup;
  const fingerprinter = await createFingerprinter(setup.fingerprint, setup.fingerprintKey);
  const codec = createCodec(setup.compression);
  const epochs = new Map<number, EpochKeys>(setup.epochs.map((keys) => [keys.epoch, keys]));
  return setup.disks.map((disk) => {
    const cipher = new SlotCipher({ replicaId, diskId: disk.guid, epochs, currentEpoch, randomBytes });
    const kernel = new ChunkKernel({ fingerprinter, ...(disk.layout === 'raw' ? {} : { sealing: { cipher, codec } }) });
    const scratch = chunkMemory().input(Math.max(disk.chunkBytes, READ_BYTES));
    return { disk, kernel, checksums: setup.checksums, scratch };
  });
}

/** Reads each chunk, scans it, and lines up in `task.buffer` what has to be sent; ends early where that is full. */
export function scanBatch(task: ScanTask, { disk, kernel, checksums: wanted, scratch }: BatchDisk): ScanResult {
  const count = task.chunks.length;
  const verdicts = new Uint8Array(count);
  const entries = new Uint8Array(count * ENTRY_BYTES);
  const places = new Float64Array(count * 2);
  const checksums = new Uint8Array(wanted ? count * CRC64_BYTES : 0);
  const output = Buffer.from(task.buffer);
  const reader = new ChunkReader(task, disk.chunkBytes, scratch);
  const raw = disk.layout === 'raw';
  const roomBytes = raw ? disk.chunkBytes : slotSizeBytes(disk.chunkBytes);
  let used = 0;
  for (let i = 0; i < count; i += 1) {
    const chunk = task.chunks[i]!;
    const length = chunkLengthBytes(disk, chunk);
    if (task.purpose === 'send' && used + roomBytes > output.byteLength) {
      if (i === 0) throw new RangeError(`a chunk does not fit into ${output.byteLength} bytes`);
      const { readBytes } = reader;
      return { verdicts: verdicts.slice(0, i), entries, places, checksums, readBytes, buffer: task.buffer };
    }
    const plaintext = reader.read(i, length);
    const entry = entryAt(task.entries, i);
    if (task.purpose === 'compare') {
      verdicts[i] = VERDICT[kernel.compare(plaintext, entry)];
      continue;
    }
    const forced = task.forced[i] === 1;
    const newEntry = entryAt(entries, i);
    const scanned = kernel.scan(plaintext, chunk, task.generation, entry, forced, newEntry, output, used);
    verdicts[i] = VERDICT[scanned.verdict];
    if (scanned.verdict !== 'changed') continue;
    // Layout raw sends the bytes themselves.
    if (raw) plaintext.copy(output, used);
    const lengthBytes = raw ? length : scanned.slotBytes;
    places[i * 2] = used;
    places[i * 2 + 1] = lengthBytes;
    // While the bytes are in the cache of this core.
    if (wanted) checksums.set(crc64(output.subarray(used, used + lengthBytes)), i * CRC64_BYTES);
    used += lengthBytes;
  }
  return { verdicts, entries, places, checksums, readBytes: reader.readBytes, buffer: task.buffer };
}

/** Opens each chunk and writes it to its targets, if there are any. Damage is reported, not thrown. */
export function openBatch(task: OpenTask, { disk, kernel }: BatchDisk): OpenResult {
  const input = Buffer.from(task.buffer);
  const cursor = new RangeCursor(task.targets);
  const damage: OpenResult['damage'][number][] = [];
  let writtenBytes = 0;
  for (let i = 0; i < task.chunks.length; i += 1) {
    const chunk = task.chunks[i]!;
    const at = task.places[i * 2]!;
    const stored = input.subarray(at, at + task.places[i * 2 + 1]!);
    let plaintext: Uint8Array;
    try {
      plaintext = kernel.open(stored, chunk, entryAt(task.entries, i), chunkLengthBytes(disk, chunk));
    } catch (error) {
      // Anything else (zstd that this runtime lacks, say) is no damage and ends the batch.
      if (!isBlockferryError(error, 'REPLICA_SLOT', 'REPLICA_MANIFEST')) throw error;
      damage.push({ index: i, error: toWire(error) });
      continue;
    }
    cursor.visit(i, (offset, descriptor, fileOffset, lengthBytes) => {
      writtenBytes += writeRange(descriptor, plaintext.subarray(offset, offset + lengthBytes), fileOffset);
    });
  }
  return { writtenBytes, damage, buffer: task.buffer };
}
