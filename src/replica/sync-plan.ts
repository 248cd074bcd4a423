/**
 * What a sync has to look at, in chunk order: a source's extents cut at chunk borders.
 *
 * A chunk with any data is a `DataChunk` with the places to read; what is absent or zero comes as long empty spans, so
 * that the plan of an empty 64 TiB disk is one item. Of a disk of which only some chunks are to be looked at, extents are
 * asked for those alone. The extents of a window are asked when it is its turn: those of a disk that is being written
 * are true for the moment only. Reads no data and knows nothing of the replica.
 */
import type { Extent, VirtualDisk } from '../vhd/index.ts';
import { type ChunkRun, runsWithin } from './chunk-runs.ts';

/** A chunk of which at least a part is data. */
export interface DataChunk {
  readonly chunk: number;
  /** Data extents inside the chunk; the rest of it is zeros. */
  readonly extents: readonly Extent[];
}

/** A run of the plan: chunks [from, to), those of them that are to be looked at being either in `data` or in `empty`. */
export interface PlanWindow {
  readonly from: number;
  readonly to: number;
  readonly data: readonly DataChunk[];
  /** What the source says is zeros. */
  readonly empty: readonly ChunkRun[];
}

export interface PlanOptions {
  readonly chunkBytes: number;
  /** Where the first window begins. */
  readonly firstChunk: number;
  /** The chunks to look at; absent: all. */
  readonly only?: readonly ChunkRun[] | undefined;
  /** Data chunks of a window at most. */
  readonly dataChunksMax: number;
  /** Runs of `only` in a window at most. */
  readonly runsMax?: number;
}

/** Part of a data or memory extent. */
export function sliceExtent(extent: Extent, start: number, end: number): Extent {
  const skip = start - extent.offset;
  const range = { offset: start, lengthBytes: end - start };
  if (extent.kind === 'data') return { ...extent, ...range, fileOffset: extent.fileOffset + skip };
  if (extent.kind === 'memory') return { ...extent, ...range, bytes: extent.bytes.subarray(skip, skip + end - start) };
  return { ...extent, ...range };
}

/** Collects one window. */
class WindowBuilder {
  readonly #dataChunksMax: number;
  readonly #data: { readonly chunk: number; readonly extents: Extent[] }[] = [];
  readonly #empty: ChunkRun[] = [];
  /** The first chunk that nothing was said of yet. */
  next: number;

  constructor(from: number, dataChunksMax: number) {
    this.next = from;
    this.#dataChunksMax = dataChunksMax;
  }

  get isFull(): boolean {
    return this.#data.length >= this.#dataChunksMax;
  }

  addEmpty(to: number): void {
    if (to > this.next) this.#empty.push({ from: this.next, to });
    this.next = Math.max(this.next, to);
  }

  /** A data extent inside one chunk. False if that chunk would be one too many. */
  add(chunk: number, extent: Extent): boolean {
    if (this.#data.at(-1)?.chunk !== chunk) {
      if (this.isFull) return false;
      this.addEmpty(chunk);
      this.#data.push({ chunk, extents: [] });
      this.next = chunk + 1;
    }
    this.#data.at(-1)!.extents.push(extent);
    return true;
  }

  window(from: number, to: number): PlanWindow {
    return { from, to, data: this.#data, empty: this.#empty };
  }
}

/**
 * Windows over chunks [firstChunk, end of disk) of at most `dataChunksMax` data chunks, and of at most as many empty
 * spans and runs more. They follow one another without gaps.
 */
export async function* planWindows(disk: VirtualDisk, options: PlanOptions): AsyncGenerator<PlanWindow> {
  const { chunkBytes, firstChunk, dataChunksMax, runsMax = Number.POSITIVE_INFINITY } = options;
  const end = Math.ceil(disk.info.virtualSizeBytes / chunkBytes);
  const set = options.only ?? [{ from: 0, to: end }];
  for (let from = firstChunk; from < end; ) {
    const builder = new WindowBuilder(from, dataChunksMax);
    let runs = 0;
    for (const run of runsWithin(set, from, end)) {
      if (builder.isFull || runs === runsMax) break;
      await planRun(disk, chunkBytes, run, builder);
      runs += 1;
    }
    // Up to the next chunk to look at: a window of nothing but others would be one for nothing.
    const [rest] = runsWithin(set, builder.next, end);
    const to = rest?.from ?? end;
    yield builder.window(from, to);
    from = to;
  }
}

/** Adds what the disk has in a run; up to the first chunk that the window has no room for. */
async function planRun(disk: VirtualDisk, chunkBytes: number, run: ChunkRun, builder: WindowBuilder): Promise<void> {
  builder.next = run.from;
  const { offset, lengthBytes } = bytesOfRun(disk, chunkBytes, run);
  for await (const extent of disk.extents(offset, lengthBytes)) {
    if (extent.kind === 'absent' || extent.kind === 'zero') continue;
    const end = extent.offset + extent.lengthBytes;
    for (let at = extent.offset; at < end; ) {
      const chunk = Math.floor(at / chunkBytes);
      const to = Math.min(end, (chunk + 1) * chunkBytes);
      if (!builder.add(chunk, sliceExtent(extent, at, to))) return;
      at = to;
    }
  }
  builder.addEmpty(run.to);
}

function bytesOfRun({ info }: VirtualDisk, chunkBytes: number, { from, to }: ChunkRun) {
  const offset = from * chunkBytes;
  return { offset, lengthBytes: Math.min(to * chunkBytes, info.virtualSizeBytes) - offset };
}

/** Bytes of the disk from a chunk on that its files hold: what has to be read. Costs the block tables, no data. */
export async function dataBytes(
  disk: VirtualDisk,
  firstChunk: number,
  chunkBytes: number,
  only?: readonly ChunkRun[],
): Promise<number> {
  const end = Math.ceil(disk.info.virtualSizeBytes / chunkBytes);
  let total = 0;
  for (const run of runsWithin(only ?? [{ from: 0, to: end }], firstChunk, end)) {
    const { offset, lengthBytes } = bytesOfRun(disk, chunkBytes, run);
    for await (const extent of disk.extents(offset, lengthBytes)) {
      if (extent.kind === 'data' || extent.kind === 'memory') total += extent.lengthBytes;
    }
  }
  return total;
}
