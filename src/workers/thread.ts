/**
 * Entry of a worker thread. Makes the kernels from the setup once, then answers tasks. It is the one place outside
 * src/host that reaches for randomness and files itself: a thread cannot be handed ports.
 */
import { randomBytes } from 'node:crypto';
import { workerData } from 'node:worker_threads';
import { move, transferableSymbol, valueSymbol } from 'piscina';
import { ChunkKernel, createCodec, createFingerprinter, type EpochKeys, SlotCipher } from '../chunker/index.ts';
import { toWire } from '../errors.ts';
import { type BatchDisk, openBatch, scanBatch } from './batch.ts';
import type { OpenResult, ScanResult, Task, WorkerSetup } from './protocol.ts';

async function makeDisks(setup: WorkerSetup): Promise<readonly BatchDisk[]> {
  const { replicaId, currentEpoch } = setup;
  const fingerprinter = await createFingerprinter(setup.fingerprint, setup.fingerprintKey);
  const codec = createCodec(setup.compression);
  const epochs = new Map<number, EpochKeys>(setup.epochs.map((keys) => [keys.epoch, keys]));
  return setup.disks.map((disk) => {
    const context = { replicaId, diskId: disk.guid, epochs, currentEpoch, randomBytes: (n: number) => randomBytes(n) };
    const sealing = disk.layout === 'raw' ? {} : { sealing: { cipher: new SlotCipher(context), codec } };
    const kernel = new ChunkKernel({ fingerprinter, ...sealing });
    return { disk, kernel, scratch: Buffer.allocUnsafeSlow(disk.chunkBytes) };
  });
}

const disks: Promise<readonly BatchDisk[]> = makeDisks(workerData as WorkerSetup);

/** Transfers the buffer of a result instead of copying it. */
function moved(result: ScanResult | OpenResult): unknown {
  return move({ [transferableSymbol]: [result.buffer], [valueSymbol]: result } as never);
}

/** Runs one task. Errors travel as plain data: thrown ones would lose code and fields. */
export async function run(task: Task): Promise<unknown> {
  try {
    const disk = (await disks)[task.disk];
    if (!disk) throw new RangeError(`there is no disk ${task.disk}`);
    return moved(task.kind === 'scan' ? scanBatch(task, disk) : openBatch(task, disk));
  } catch (error) {
    return { error: toWire(error) };
  }
}
