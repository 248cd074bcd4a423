/**
 * Opening a disk of any format, with its parents.
 *
 * The format is decided by content: a VHDX begins with its identifier, a VHD ends with a footer (or begins with the
 * copy), everything else is raw. A guest can write any content into a raw disk, so whoever knows that a disk is raw
 * says so: `format: 'raw'`.
 */
import { BAT_CACHE_BYTES_MAX } from '../limits.ts';
import type { FileSystem, Ports, RandomAccessFile } from '../ports.ts';
import { openChain } from './chain.ts';
import { ChainDisk } from './chain-disk.ts';
import type { Layer, LayerContext, OpenLayer } from './layer.ts';
import { openRaw } from './raw-disk.ts';
import { TableCache } from './table-cache.ts';
import { isVhd, openVhd } from './vhd-layer.ts';
import { openVhdx } from './vhdx-layer.ts';
import { FILE_SIGNATURE, isVhdx } from './vhdx-layout.ts';
import type { DiskFormat, VirtualDisk } from './virtual-disk.ts';

const OPENERS: Readonly<Record<DiskFormat, OpenLayer>> = { raw: openRaw, vhd: openVhd, vhdx: openVhdx };

/** How to open a disk. */
export interface OpenDiskOptions {
  readonly ports: Pick<Ports, 'files'>;
  /** What the file must be; `auto` (the default) decides by content. */
  readonly format?: 'auto' | DiskFormat;
  /** Directories under which parents may lie. Default: the directory of the disk itself. */
  readonly allowedRoots?: readonly string[];
}

/**
 * Opens a disk and its parents for reading; the files stay open until `close`.
 * @throws DISK_NOT_FOUND, DISK_UNREADABLE, DISK_TRUNCATED, the format's codes (VHD_…, VHDX_…) and CHAIN_…
 * @example
 * const disk = await openDisk('vm.vhdx', { ports });
 * for await (const extent of disk.extents(0, disk.info.virtualSizeBytes)) console.log(extent.kind, extent.offset);
 * await disk.close();
 */
export async function openDisk(path: string, options: OpenDiskOptions): Promise<VirtualDisk> {
  const { format = 'auto', allowedRoots } = options;
  const layers = await openChain(path, layerContext(options.ports.files), {
    openFirst: format === 'auto' ? openByContent : OPENERS[format],
    openParent: openByContent,
    allowedRoots,
  });
  return new ChainDisk(layers);
}

/** The format of a file by its content. */
export async function detectFormat(file: RandomAccessFile): Promise<DiskFormat> {
  const start = new Uint8Array(FILE_SIGNATURE.length);
  await file.read(start, 0);
  if (isVhdx(start)) return 'vhdx';
  return (await isVhd(file)) ? 'vhd' : 'raw';
}

/** A fresh context with its own table cache. */
export function layerContext(files: FileSystem): LayerContext {
  return { files, tables: new TableCache(BAT_CACHE_BYTES_MAX) };
}

/** Opens one file by its content. */
export async function openByContent(file: RandomAccessFile, context: LayerContext): Promise<Layer> {
  return await OPENERS[await detectFormat(file)](file, context);
}
