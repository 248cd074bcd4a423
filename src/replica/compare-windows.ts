/**
 * Comparing a disk with a manifest: workers read its data where it lies and give a verdict for each chunk. Fetches no slot.
 *
 * Windows come in the order of the disk, several at a time are in the workers' hands. Of what the source says is zeros
 * nothing is read: whoever takes a window asks the manifest what the replica has there.
 */
import { throwIfAborted } from '../errors.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { VERDICT, type WorkerPool } from '../workers/index.ts';
import type { ChunkRun } from './chunk-runs.ts';
import { chunksPerBatch } from './disk-sync.ts';
import { lookAhead } from './look-ahead.ts';
import type { ManifestTree } from './manifest-tree.ts';
import { packRanges } from './pack-ranges.ts';
import { type PlanWindow, planWindows } from './sync-plan.ts';

export interface CompareSource {
  readonly source: VirtualDisk;
  readonly disk: number;
  readonly chunkBytes: number;
  readonly tree: ManifestTree;
  /** The chunks to look at; absent: all. */
  readonly only?: readonly ChunkRun[] | undefined;
  /** Where to begin; absent: at the front. */
  readonly firstChunk?: number;
  readonly pool: WorkerPool;
  readonly signal: AbortSignal;
}

/** A window with what was found out about its data chunks, in their order. */
export interface ComparedWindow extends PlanWindow {
  readonly verdicts: Uint8Array;
  /** 48 bytes a data chunk: what the manifest says of it. */
  readonly entries: Uint8Array;
  readonly readBytes: number;
}

export function compareWindows(setup: CompareSource): AsyncGenerator<ComparedWindow> {
  const { source, chunkBytes, only, firstChunk = 0, pool } = setup;
  const plan = planWindows(source, { chunkBytes, firstChunk, only, dataChunksMax: chunksPerBatch(chunkBytes) });
  return lookAhead(plan, pool.threads * 2, (window) => compareWindow(setup, window));
}

async function compareWindow(setup: CompareSource, window: PlanWindow): Promise<ComparedWindow> {
  const { disk, chunkBytes, tree, pool, signal } = setup;
  throwIfAborted(signal);
  const { data } = window;
  const chunks = Float64Array.from(data, ({ chunk }) => chunk);
  const entries = await tree.entries(chunks);
  if (data.length === 0) return { ...window, verdicts: new Uint8Array(0), entries, readBytes: 0 };
  const { verdicts, readBytes } = await pool.scan({
    kind: 'scan',
    purpose: 'compare',
    disk,
    generation: 0,
    chunks,
    ...packRanges(data, chunkBytes),
    entries,
    forced: new Uint8Array(data.length),
    buffer: new ArrayBuffer(0),
  });
  return { ...window, verdicts, entries, readBytes };
}

/** The chunks of a window whose content is not what the manifest says, ascending. */
export async function* differingChunks(window: ComparedWindow, tree: ManifestTree): AsyncGenerator<number> {
  let run = 0;
  for (const [i, { chunk }] of window.data.entries()) {
    for (; run < window.empty.length && window.empty[run]!.from < chunk; run += 1) {
      yield* tree.usedChunks(window.empty[run]!.from, window.empty[run]!.to);
    }
    if (window.verdicts[i] !== VERDICT.same) yield chunk;
  }
  for (; run < window.empty.length; run += 1) yield* tree.usedChunks(window.empty[run]!.from, window.empty[run]!.to);
}
