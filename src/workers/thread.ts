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

/** One draw of the system costs 25 µs, of few bytes or of many. */
const RANDOM_POOL_BYTES = 4096;

const setup: WorkerSetup = workerData;
const random: Buffer = Buffer.alloc(RANDOM_POOL_BYTES);
let randomUsed = RANDOM_POOL_BYTES;
const disks: Promise<readonly BatchDisk[]> = prepareDisks(setup, randomBytes);
const frames: FrameBench = prepareFrames(setup, randomBytes);

/** Bytes that nobody was given before. They are a view: good until the pool is filled again. */
function randomBytes(lengthBytes: number): Uint8Array {
  if (randomUsed + lengthBytes > RANDOM_POOL_BYTES) {
    randomFillSync(random);
    randomUsed = 0;
  }
  randomUsed += lengthBytes;
  return random.subarray(randomUsed - lengthBytes, randomUsed);
}

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
