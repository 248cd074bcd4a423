/**
 * What a sync has to look at, in chunk order: a source's extents cut at chunk borders.
 *
 * A chunk with any data is a `DataChunk` with the places to read; what is absent or zero comes as long empty spans, so
 * that the plan of an empty 64 TiB disk is one item. Reads no data and knows nothing of the replica.
 */
import type { Extent, VirtualDisk } from '../vhd/index.ts';

/** A chunk of which at least a part is data. */
export interface DataChunk {
  readonly chunk: number;
  /** Data extents inside the chunk; the rest of it is zeros. */
  readonly extents: readonly Extent[];
}

/** Chunks [from, to). */
export interface ChunkRun {
  readonly from: number;
  readonly to: number;
}

/** A run of the plan: chunks [from, to), all of them either in `data` or in `empty`. */
export interface PlanWindow {
  readonly from: number;
  readonly to: number;
  readonly data: readonly DataChunk[];
  /** What the source says is zeros. */
  readonly empty: readonly ChunkRun[];
}

/** Ascending chunk numbers as runs of neighbours [from, to). */
export function chunkRuns(chunks: readonly number[]): readonly ChunkRun[] {
  const runs: { from: number; to: number }[] = [];
  for (const chunk of chunks) {
    const last = runs.at(-1);
    if (last?.to === chunk) last.to = chunk + 1;
    else runs.push({ from: chunk, to: chunk + 1 });
  }
  return runs;
}

/** Part of a data or memory extent. */
export function sliceExtent(extent: Extent, start: number, end: number): Extent {
  const skip = start - extent.offset;
  const range = { offset: start, lengthBytes: end - start };
  if (extent.kind === 'data') return { ...extent, ...range, fileOffset: extent.fileOffset + skip };
  if (extent.kind === 'memory') return { ...extent, ...range, bytes: extent.bytes.subarray(skip, skip + end - start) };
  return { ...extent, ...range };
}

/** Collects one window after the other. */
class WindowBuilder {
  from: number;
  next: number;
  data: DataChunk[] = [];
  empty: ChunkRun[] = [];

  constructor(from: number) {
    this.from = from;
    this.next = from;
  }

  addEmpty(to: number): void {
    if (to > this.next) this.empty.push({ from: this.next, to });
    this.next = Math.max(this.next, to);
  }

  addData(chunk: number, extents: readonly Extent[]): void {
    this.addEmpty(chunk);
    this.data.push({ chunk, extents });
    this.next = chunk + 1;
  }

  take(): PlanWindow {
    const window = { from: this.from, to: this.next, data: this.data, empty: this.empty };
    this.from = this.next;
    this.data = [];
    this.empty = [];
    return window;
  }
}

/**
 * Windows of at most `dataChunksMax` data chunks (and at most as many empty spans) over chunks [firstChunk, end of
 * disk). They follow one another without gaps.
 */
export async function* planWindows(
  disk: VirtualDisk,
  chunkBytes: number,
  firstChunk: number,
  dataChunksMax: number,
): AsyncGenerator<PlanWindow> {
  const sizeBytes = disk.info.virtualSizeBytes;
  const start = Math.min(firstChunk * chunkBytes, sizeBytes);
  const builder = new WindowBuilder(firstChunk);
  let openChunk = -1;
  let openExtents: Extent[] = [];
  for await (const extent of disk.extents(start, sizeBytes - start)) {
    if (extent.kind === 'absent' || extent.kind === 'zero') continue;
    const end = extent.offset + extent.lengthBytes;
    for (let at = extent.offset; at < end; ) {
      const chunk = Math.floor(at / chunkBytes);
      const to = Math.min(end, (chunk + 1) * chunkBytes);
      if (chunk !== openChunk) {
        if (openChunk >= 0) {
          builder.addData(openChunk, openExtents);
          if (builder.data.length >= dataChunksMax) yield builder.take();
        }
        openChunk = chunk;
        openExtents = [];
      }
      openExtents.push(sliceExtent(extent, at, to));
      at = to;
    }
  }
  if (openChunk >= 0) builder.addData(openChunk, openExtents);
  builder.addEmpty(Math.ceil(sizeBytes / chunkBytes));
  if (builder.next > builder.from) yield builder.take();
}

/** Bytes of the disk that its files hold: what a first sync has to read. Costs the block tables, no data. */
export async function dataBytes(disk: VirtualDisk, firstChunk: number, chunkBytes: number): Promise<number> {
  const sizeBytes = disk.info.virtualSizeBytes;
  const start = Math.min(firstChunk * chunkBytes, sizeBytes);
  let total = 0;
  for await (const extent of disk.extents(start, sizeBytes - start)) {
    if (extent.kind === 'data' || extent.kind === 'memory') total += extent.lengthBytes;
  }
  return total;
}
