/** The content of layers, read straight from their extents: the slow, obvious way, for comparison. */
import { createHash } from 'node:crypto';
import { BAT_CACHE_BYTES_MAX } from '../../src/limits.ts';
import type { FileSystem, RandomAccessFile } from '../../src/ports.ts';
import type { Layer, LayerContext } from '../../src/vhd/layer.ts';
import { TableCache } from '../../src/vhd/table-cache.ts';

/** A context for one chain over `files`. */
export function layerContext(files: FileSystem): LayerContext {
  return { files, tables: new TableCache(BAT_CACHE_BYTES_MAX) };
}

/** The bytes as an open file, not copied. It cannot be written: nothing that reads a disk may. */
export function fileOf(bytes: Uint8Array, path = '/disk.vhdx'): RandomAccessFile {
  const refuse = (): Promise<never> => Promise.reject(new Error('a source is never written'));
  return {
    path,
    descriptor: undefined,
    stamp: refuse,
    sizeBytes: async () => bytes.byteLength,
    read: async (into, position) => {
      const piece = bytes.subarray(position, position + into.byteLength);
      into.set(piece);
      return piece.byteLength;
    },
    write: refuse,
    truncate: refuse,
    sync: refuse,
    close: async () => {},
  };
}

/** Bytes [offset, offset + lengthBytes) of a chain of layers, the child first. Checks that extents have no gaps. */
export async function readLayers(layers: readonly Layer[], offset: number, lengthBytes: number): Promise<Buffer> {
  const [layer, ...parents] = layers;
  const content = Buffer.alloc(lengthBytes);
  const known = Math.max(0, Math.min(lengthBytes, (layer?.virtualSizeBytes ?? 0) - offset));
  if (layer === undefined || known === 0) return content;
  let at = offset;
  for await (const extent of layer.extents(offset, known)) {
    if (extent.offset !== at || extent.lengthBytes <= 0) throw new Error(`extent at ${extent.offset}, expected ${at}`);
    const into = content.subarray(at - offset, at - offset + extent.lengthBytes);
    if (extent.kind === 'data') await layer.file.read(into, extent.fileOffset);
    else if (extent.kind === 'memory') into.set(extent.bytes);
    else if (extent.kind === 'parent') into.set(await readLayers(parents, at, extent.lengthBytes));
    at += extent.lengthBytes;
  }
  if (at !== offset + known) throw new Error(`extents end at ${at}, expected ${offset + known}`);
  return content;
}

/** sha256 of a whole disk, read in windows. */
export async function sha256OfLayers(layers: readonly Layer[]): Promise<string> {
  const hash = createHash('sha256');
  const sizeBytes = layers[0]?.virtualSizeBytes ?? 0;
  const windowBytes = 8 * 1024 * 1024;
  for (let offset = 0; offset < sizeBytes; offset += windowBytes) {
    hash.update(await readLayers(layers, offset, Math.min(windowBytes, sizeBytes - offset)));
  }
  return hash.digest('hex');
}

/** Extents of a layer as short texts: `data 0+1048576@4194304`. */
export async function describeExtents(
  layer: Layer,
  offset = 0,
  lengthBytes = layer.virtualSizeBytes,
): Promise<string[]> {
  const lines: string[] = [];
  for await (const extent of layer.extents(offset, lengthBytes)) {
    const place = extent.kind === 'data' ? `@${extent.fileOffset}` : '';
    lines.push(`${extent.kind} ${extent.offset}+${extent.lengthBytes}${place}`);
  }
  return lines;
}
