/**
 * The second half of a restore: the shipped logs of a point over the disks that its baseline was just written into, oldest
 * first, so that the newest write of a place is the last.
 *
 * Zeros go only where something was written before: the rest of a new file is zeros already, and takes no space.
 */
import { alignDown } from '../bytes.ts';
import type { DiskWriter } from '../vhd/index.ts';
import { FrozenDisk } from './frozen-disk.ts';
import type { Replica } from './replica.ts';
import { baselineOf, logsOf, type RecoveryPoint } from './root.ts';
import { type LogAccess, readShippedLog } from './shipped-log.ts';

export interface PlaySetup {
  readonly replica: Replica;
  readonly point: RecoveryPoint;
  /** One per disk, with the chunks of the baseline in it. */
  readonly writers: readonly DiskWriter[];
  readonly access: LogAccess;
  readonly onProgress?: (counts: Readonly<PlayCounts>) => void;
}

export interface PlayCounts {
  readonly logs: number;
  /** Bytes of the objects that were read. */
  fetchedBytes: number;
  readonly totalBytes: number;
  /** Per disk. */
  readonly writtenBytes: number[];
}

/** Plays the logs between the baseline of a point and the point. @throws REPLICA_LOG, OUTPUT_FAILED */
export async function playLogs({ replica, point, writers, access, onProgress }: PlaySetup): Promise<PlayCounts> {
  const { root } = replica.record;
  const logs = logsOf(root, point);
  const { disks } = baselineOf(root, point);
  const targets = writers.map((writer, i) => new Target(writer, new FrozenDisk(replica, i, disks[i]!, access)));
  const totalBytes = logs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const counts = { logs: logs.length, fetchedBytes: 0, totalBytes, writtenBytes: writers.map(() => 0) };
  for (const log of logs) {
    for await (const { disk, offset, lengthBytes, bytes } of readShippedLog(replica, log, access)) {
      const written = bytes ? targets[disk]!.write(bytes, offset) : targets[disk]!.clear(offset, offset + lengthBytes);
      counts.writtenBytes[disk]! += await written;
    }
    counts.fetchedBytes += log.sizeBytes;
    onProgress?.(counts);
  }
  return counts;
}

/** A disk being restored, and which of its chunks may hold anything but zeros. */
class Target {
  readonly #writer: DiskWriter;
  readonly #base: FrozenDisk;
  readonly #chunkBytes: number;
  readonly #zeros: Uint8Array;
  /** Chunks that a log wrote; those of the base are told by its manifest. */
  readonly #written: Set<number> = new Set();

  constructor(writer: DiskWriter, base: FrozenDisk) {
    this.#writer = writer;
    this.#base = base;
    this.#chunkBytes = base.description.chunkBytes;
    this.#zeros = new Uint8Array(this.#chunkBytes);
  }

  async write(bytes: Uint8Array, offset: number): Promise<number> {
    const end = offset + bytes.byteLength;
    for (let at = alignDown(offset, this.#chunkBytes); at < end; at += this.#chunkBytes) {
      this.#written.add(at / this.#chunkBytes);
    }
    await this.#writer.write(bytes, offset);
    return bytes.byteLength;
  }

  /** Makes [from, to) zeros; returns the bytes that it took. */
  async clear(from: number, to: number): Promise<number> {
    const first = Math.floor(from / this.#chunkBytes);
    const end = Math.ceil(to / this.#chunkBytes);
    let cleared = 0;
    for await (const chunk of this.#base.tree.usedChunks(first, end)) {
      if (!this.#written.has(chunk)) cleared += await this.#clearChunk(chunk, from, to);
    }
    const written = end - first < this.#written.size ? range(first, end) : this.#written;
    for (const chunk of written) {
      if (chunk >= first && chunk < end && this.#written.has(chunk)) cleared += await this.#clearChunk(chunk, from, to);
    }
    return cleared;
  }

  async #clearChunk(chunk: number, from: number, to: number): Promise<number> {
    const start = Math.max(from, chunk * this.#chunkBytes);
    const lengthBytes = Math.min(to, (chunk + 1) * this.#chunkBytes) - start;
    await this.#writer.write(this.#zeros.subarray(0, lengthBytes), start);
    return lengthBytes;
  }
}

function* range(from: number, to: number): Generator<number> {
  for (let n = from; n < to; n += 1) yield n;
}
