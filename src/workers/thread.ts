/**
 * Entry of a worker thread. Makes the kernels from the setup once, then answers tasks. It is the one place outside
 * src/host that reaches for randomness and files itself: a thread cannot be handed ports.
 */
import { randomFillSync } from 'node:crypto';
import { workerData } from 'node:worker_threads';
import { move, transferableSymbol, valueSymbol } from 'piscina';
import { toWire } from '../errors.ts';
import { type BatchDisk, openBatch, prepareDisks, scanBatch } from './batch.ts';
import { foldBatch } from './fold.ts';
import { type FrameBench, openFrame, prepareFrames, sealFrame } from './frames.ts';
import type { Results, Task, WorkerSetup } from './protocol.ts';
import { RandomPool } from './random-pool.ts';

const setup: WorkerSetup = workerData;
const random = new RandomPool((into) => randomFillSync(into));
const randomBytes = (lengthBytes: number): Uint8Array => random.bytes(lengthBytes);
const disks: Promise<readonly BatchDisk[]> = prepareDisks(setup, randomBytes);
const frames: FrameBench = prepareFrames(setup, randomBytes);

/** Transfers the buffer of a result instead of copying it. */
function moved(result: Results[keyof Results]): unknown {
  return move({ [transferableSymbol]: [result.buffer], [valueSymbol]: result } as never);
}

/** Runs one task. Errors travel as plain data: thrown ones would lose code and fields. */
export async function run(task: Task): Promise<unknown> {
  try {
    return moved(await work(task));
  } catch (error) {
    return { error: toWire(error) };
  }
}

async function work(task: Task): Promise<Results[keyof Results]> {
  if (task.kind === 'seal-frame') return sealFrame(task, frames);
  if (task.kind === 'open-frame') return openFrame(task, frames);
  const disk = (await disks)[task.disk];
  if (!disk) throw new RangeError(`there is no disk ${task.disk}`);
  if (task.kind === 'scan') return scanBatch(task, disk);
  return task.kind === 'fold' ? foldBatch(task, disk) : openBatch(task, disk);
}
