/**
 * A WorkerPool without threads: the same work on the same messages, in this thread. Buffers are detached on their way as
 * they are by a transfer, and answers come later, so that callers meet the same order of events. Tests put it in the
 * place of src/workers/pool.ts: thousands of runs start no thread, and every range that is read can be counted.
 */

import { randomBytes } from 'node:crypto';
import { setImmediate as later } from 'node:timers/promises';
import { fromWire, isBlockferryError, throwIfAborted, toWire } from '../../src/errors.ts';
import { type BatchDisk, openBatch, prepareDisks, scanBatch } from '../../src/workers/batch.ts';
import { foldBatch } from '../../src/workers/fold.ts';
import { type FrameBench, openFrame, prepareFrames, sealFrame } from '../../src/workers/frames.ts';
import type { WorkerPoolOptions } from '../../src/workers/pool.ts';
import {
  type FoldTask,
  type OpenFrameResult,
  type OpenFrameTask,
  type OpenResult,
  type OpenTask,
  RANGE_FIELDS,
  type ScanResult,
  type ScanTask,
  type SealFrameResult,
  type SealFrameTask,
  type Task,
  type WorkerSetup,
} from '../../src/workers/protocol.ts';

/** What was asked of the pools since `forget`. */
export const poolLog: { readonly scans: ScanTask[]; forget(): void } = {
  scans: [],
  forget() {
    this.scans.length = 0;
  },
};

/** What a scan has done of its task: it may end early. */
function done(task: ScanTask, count: number): ScanTask {
  const ranges = task.ranges.filter((_, i) => task.ranges[i - (i % RANGE_FIELDS)]! < count);
  return { ...task, chunks: task.chunks.subarray(0, count), ranges };
}

export class InProcessPool {
  readonly threads: number;
  readonly #disks: Promise<readonly BatchDisk[]>;
  readonly #frames: FrameBench;
  readonly #signal: AbortSignal | undefined;

  constructor(setup: WorkerSetup, options: WorkerPoolOptions = {}) {
    this.threads = options.threads ?? 2;
    this.#signal = options.signal;
    this.#disks = prepareDisks(setup, (n) => randomBytes(n));
    this.#frames = prepareFrames(setup, (n) => randomBytes(n));
  }

  async scan(task: ScanTask): Promise<ScanResult> {
    const at = poolLog.scans.push(task) - 1;
    const result = await this.#run(task, (moved, disks) => scanBatch(moved, disks[moved.disk]!));
    poolLog.scans[at] = done(task, result.verdicts.length);
    return result;
  }

  async open(task: OpenTask): Promise<OpenResult> {
    return this.#run(task, (moved, disks) => openBatch(moved, disks[moved.disk]!));
  }

  async fold(task: FoldTask): Promise<ScanResult> {
    return this.#run(task, (moved, disks) => foldBatch(moved, disks[moved.disk]!));
  }

  async sealFrame(task: SealFrameTask): Promise<SealFrameResult> {
    return this.#run(task, (moved) => sealFrame(moved, this.#frames));
  }

  async openFrame(task: OpenFrameTask): Promise<OpenFrameResult> {
    return this.#run(task, (moved) => openFrame(moved, this.#frames));
  }

  async close(): Promise<void> {}

  async #run<T extends Task, R>(task: T, work: (task: T, disks: readonly BatchDisk[]) => R): Promise<R> {
    throwIfAborted(this.#signal);
    const moved = { ...task, buffer: structuredClone(task.buffer, { transfer: [task.buffer] }) };
    await later();
    try {
      return work(moved, await this.#disks);
    } catch (error) {
      throw isBlockferryError(error) ? error : fromWire(toWire(error));
    }
  }
}
