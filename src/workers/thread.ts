/**
 * Entry of a worker thread. Makes the kernels from the setup once, then answers tasks. It is the one place outside
 * src/host that reaches for randomness and files itself: a thread cannot be handed ports.
 */
import { randomBytes } from 'node:crypto';
import { workerData } from 'node:worker_threads';
import { move, transferableSymbol, valueSymbol } from 'piscina';
import { toWire } from '../errors.ts';
import { type BatchDisk, openBatch, prepareDisks, scanBatch } from './batch.ts';
import { foldBatch } from './fold.ts';
import type { OpenResult, ScanResult, Task, WorkerSetup } from './protocol.ts';

const disks: Promise<readonly BatchDisk[]> = prepareDisks(workerData as WorkerSetup, (n) => randomBytes(n));

/** Transfers the buffer of a result instead of copying it. */
function moved(result: ScanResult | OpenResult): unknown {
  return move({ [transferableSymbol]: [result.buffer], [valueSymbol]: result } as never);
}

/** Runs one task. Errors travel as plain data: thrown ones would lose code and fields. */
export async function run(task: Task): Promise<unknown> {
  try {
    const disk = (await disks)[task.disk];
    if (!disk) throw new RangeError(`there is no disk ${task.disk}`);
    if (task.kind === 'scan') return moved(scanBatch(task, disk));
    return moved(task.kind === 'fold' ? foldBatch(task, disk) : openBatch(task, disk));
  } catch (error) {
    return { error: toWire(error) };
  }
}
