/**
 * The second half of a restore: the shipped logs of a point over the disks that its baseline was just written into.
 *
 * Logs are merged, so each place is written once, with its newest bytes, in the order of the disk. More logs than are read
 * side by side are played in rounds, oldest first. Zeros go only where something may have been written before: the rest of
 * a new file is zeros already, and takes no space.
 */
import { chunkLengthBytes, isZero, isZeroEntry } from '../chunker/index.ts';
import { throwIfAborted } from '../errors.ts';
import type { Ports } from '../ports.ts';
import type { DiskWriter } from '../vhd/index.ts';
import { type ChunkRun, runsWithin } from './chunk-runs.ts';
import { FrozenDisk } from './frozen-disk.ts';
import { LOGS_PER_ROUND, type LogMerge, type LogStep, mergeLogs } from './log-merge.ts';
import type { Replica } from './replica.ts';
import { outputError } from './restore.ts';
import { baselineOf, logsOf, type RecoveryPoint, type ShippedLog } from './root.ts';
import type { LogAccess } from './shipped-log.ts';
import { TouchedChunks } from './touched-chunks.ts';

/** Ranges in which what earlier rounds touched is remembered. */
const TOUCHED_RANGES_MAX = 65_536;

export interface PlaySetup {
  readonly replica: Replica;
  readonly point: RecoveryPoint;
  /** One per disk, with the chunks of the baseline in it. */
  readonly writers: readonly DiskWriter[];
  readonly access: LogAccess;
  readonly ports: Pick<Ports, 'failpoint'>;
  readonly onProgress?: (counts: Readonly<PlayCounts>) => void;
}

export interface PlayCounts {
  readonly logs: number;
  /** Of the objects, as far as they were played. */
  fetchedBytes: number;
  readonly totalBytes: number;
  /** Per disk. */
  readonly writtenBytes: number[];
}

/** Plays the logs between the baseline of a point and the point. @throws REPLICA_LOG, OUTPUT_FAILED */
export async function playLogs(setup: PlaySetup): Promise<PlayCounts> {
  const { replica, point, writers, access, ports, onProgress } = setup;
  const { root } = replica.record;
  const logs = logsOf(root, point);
  const { disks } = baselineOf(root, point);
  const targets = writers.map((writer, i) => new Target(i, writer, new FrozenDisk(replica, i, disks[i]!, access)));
  const totalBytes = sum(logs, 'sizeBytes');
  const counts = { logs: logs.length, fetchedBytes: 0, totalBytes, writtenBytes: writers.map(() => 0) };
  for (let at = 0; at < logs.length; at += LOGS_PER_ROUND) {
    const round = logs.slice(at, at + LOGS_PER_ROUND);
    const before = counts.fetchedBytes;
    const sizeBytes = sum(round, 'sizeBytes');
    const dataBytes = Math.max(1, sum(round, 'dataBytes'));
    const merge = mergeLogs(replica, round, access);
    try {
      for (let step = await merge.next(); step; step = await merge.next()) {
        throwIfAborted(access.signal);
        counts.writtenBytes[step.disk]! += await targets[step.disk]!.play(step, merge);
        counts.fetchedBytes = before + Math.floor((sizeBytes * merge.dataBytes) / dataBytes);
        onProgress?.(counts);
      }
    } finally {
      await merge.close();
    }
    counts.fetchedBytes = before + sizeBytes;
    for (const target of targets) target.endRound();
  }
  onProgress?.(counts);
  await ports.failpoint('restore.after-logs');
  return counts;
}

function sum(logs: readonly ShippedLog[], field: 'sizeBytes' | 'dataBytes'): number {
  return logs.reduce((total, log) => total + log[field], 0);
}

/** A disk being restored, and which of its chunks may hold anything but zeros. */
class Target {
  readonly #disk: number;
  readonly #writer: DiskWriter;
  readonly #base: FrozenDisk;
  readonly #chunk: Uint8Array;
  readonly #touched: TouchedChunks = new TouchedChunks(TOUCHED_RANGES_MAX);
  /** What the rounds before this one touched. */
  #before: readonly ChunkRun[] = [];

  constructor(disk: number, writer: DiskWriter, base: FrozenDisk) {
    this.#disk = disk;
    this.#writer = writer;
    this.#base = base;
    this.#chunk = new Uint8Array(base.description.chunkBytes);
  }

  endRound(): void {
    this.#before = this.#touched.ranges();
  }

  /** Takes a step of the merge; returns the bytes written. */
  async play(step: LogStep, merge: LogMerge): Promise<number> {
    if (step.kind === 'patch') return this.#patch(step.chunk, merge);
    await merge.skip(this.#disk, step.to);
    return this.#clear(step);
  }

  async #patch(chunk: number, merge: LogMerge): Promise<number> {
    const bytes = this.#chunk.subarray(0, chunkLengthBytes(this.#base.description, chunk));
    const cover = await merge.compose(this.#disk, chunk, bytes);
    const isFresh = !(await this.#isInBase(chunk)) && !this.#wasTouched(chunk);
    let written = 0;
    for (const { from, to } of cover) {
      const part = bytes.subarray(from, to);
      if (!isFresh || !isZero(part)) written += await this.#write(part, chunk, from);
    }
    this.#touched.add(this.#disk, chunk, chunk + 1);
    return written;
  }

  async #clear({ from, to }: ChunkRun): Promise<number> {
    this.#chunk.fill(0);
    let written = 0;
    const clearChunk = async (chunk: number): Promise<void> => {
      const lengthBytes = chunkLengthBytes(this.#base.description, chunk);
      written += await this.#write(this.#chunk.subarray(0, lengthBytes), chunk, 0);
    };
    for await (const chunk of this.#base.tree.usedChunks(from, to)) await clearChunk(chunk);
    for (const run of runsWithin(this.#before, from, to)) {
      for (let chunk = run.from; chunk < run.to; chunk += 1)
        if (!(await this.#isInBase(chunk))) await clearChunk(chunk);
    }
    return written;
  }

  async #isInBase(chunk: number): Promise<boolean> {
    return !isZeroEntry(await this.#base.tree.entry(chunk));
  }

  #wasTouched(chunk: number): boolean {
    const [run] = runsWithin(this.#before, chunk, chunk + 1);
    return run !== undefined;
  }

  async #write(bytes: Uint8Array, chunk: number, offset: number): Promise<number> {
    try {
      await this.#writer.write(bytes, chunk * this.#base.description.chunkBytes + offset);
    } catch (error) {
      throw outputError(error, this.#writer.path);
    }
    return bytes.byteLength;
  }
}
