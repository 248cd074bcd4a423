/**
 * ChainDisk: layers composed into one VirtualDisk. A range that a layer knows nothing about is asked of the layer
 * below; below the last layer, and beyond the end of a shorter parent, it is absent. Memory is that of the layers'
 * table cache; the walk keeps one extent back, to merge it with the next.
 */
import type { RandomAccessFile } from '../ports.ts';
import { asUnreadable } from './chain.ts';
import type { Layer } from './layer.ts';
import type { DiskInfo, Extent, VirtualDisk } from './virtual-disk.ts';

export class ChainDisk implements VirtualDisk {
  readonly info: DiskInfo;
  readonly identity: string;
  readonly contentId: string;
  readonly files: readonly RandomAccessFile[];
  readonly #layers: readonly Layer[];

  /** Takes over the layers' files: `close` closes them. */
  constructor(layers: readonly [Layer, ...Layer[]]) {
    const [first, ...parents] = layers;
    this.#layers = layers;
    this.files = layers.map(({ file }) => file);
    this.identity = first.identity;
    this.contentId = first.contentId;
    const parentNotes = parents.flatMap(({ file, notes }) => notes.map((note) => `${file.path}: ${note}`));
    this.info = {
      format: first.format,
      subformat: first.subformat,
      virtualSizeBytes: first.virtualSizeBytes,
      blockSizeBytes: first.blockSizeBytes,
      logicalSectorBytes: first.logicalSectorBytes,
      physicalSectorBytes: first.physicalSectorBytes,
      chain: this.files.map(({ path }) => path),
      log: layers.some(({ log }) => log === 'replayed') ? 'replayed' : first.log,
      notes: [...first.notes, ...parentNotes],
    };
  }

  async *extents(offset: number, lengthBytes: number): AsyncGenerator<Extent> {
    this.#checkRange(offset, lengthBytes);
    let pending: Extent | undefined;
    for await (const extent of this.#compose(0, offset, lengthBytes)) {
      const merged = pending && merge(pending, extent);
      if (pending !== undefined && merged === undefined) yield pending;
      pending = merged ?? extent;
    }
    if (pending !== undefined) yield pending;
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    for await (const extent of this.extents(offset, into.byteLength)) {
      const target = into.subarray(extent.offset - offset, extent.offset - offset + extent.lengthBytes);
      if (extent.kind === 'memory') target.set(extent.bytes);
      else if (extent.kind === 'data') target.fill(0, await readSource(extent.file, target, extent.fileOffset));
      else target.fill(0);
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.files.map((file) => file.close()));
  }

  async *#compose(depth: number, offset: number, lengthBytes: number): AsyncGenerator<Extent> {
    const layer = this.#layers[depth];
    const inside = layer === undefined ? 0 : Math.max(0, Math.min(lengthBytes, layer.virtualSizeBytes - offset));
    if (layer !== undefined && inside > 0) {
      try {
        for await (const extent of layer.extents(offset, inside)) {
          if (extent.kind === 'parent') yield* this.#compose(depth + 1, extent.offset, extent.lengthBytes);
          else if (extent.kind === 'data') yield { ...extent, depth, file: layer.file };
          else if (extent.kind === 'memory') yield { ...extent, depth };
          else yield { kind: 'zero', offset: extent.offset, lengthBytes: extent.lengthBytes, depth };
        }
      } catch (error) {
        throw asUnreadable(layer.file.path, error);
      }
    }
    if (inside < lengthBytes) {
      const last = this.#layers.length - 1;
      yield { kind: 'absent', offset: offset + inside, lengthBytes: lengthBytes - inside, depth: last };
    }
  }

  #checkRange(offset: number, lengthBytes: number): void {
    const { virtualSizeBytes } = this.info;
    if (offset >= 0 && lengthBytes >= 0 && offset + lengthBytes <= virtualSizeBytes) return;
    throw new RangeError(`${lengthBytes} bytes at ${offset} are outside a disk of ${virtualSizeBytes} bytes`);
  }
}

/** Both as one extent, if `next` continues `previous` in kind, layer and place. */
function merge(previous: Extent, next: Extent): Extent | undefined {
  if (previous.kind !== next.kind || previous.depth !== next.depth || previous.kind === 'memory') return undefined;
  const lengthBytes = previous.lengthBytes + next.lengthBytes;
  if (previous.kind !== 'data') return { ...previous, lengthBytes };
  if (next.kind !== 'data' || previous.fileOffset + previous.lengthBytes !== next.fileOffset) return undefined;
  return { ...previous, lengthBytes };
}

async function readSource(file: RandomAccessFile, into: Uint8Array, position: number): Promise<number> {
  try {
    return await file.read(into, position);
  } catch (error) {
    throw asUnreadable(file.path, error);
  }
}
