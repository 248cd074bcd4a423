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
import { asOutputError } from './image-file.ts';
import type { Layer, LayerContext, OpenLayer } from './layer.ts';
import type { OpenLayerWriter } from './layer-writer.ts';
import { LockedDisk } from './locked-disk.ts';
import { openRaw, openRawForWriting } from './raw-disk.ts';
import { TableCache } from './table-cache.ts';
import { openVhdForWriting } from './vhd-edit.ts';
import { isVhd, openVhd } from './vhd-layer.ts';
import { openVhdxForWriting } from './vhdx-edit.ts';
import { openVhdx } from './vhdx-layer.ts';
import { FILE_SIGNATURE, isVhdx } from './vhdx-layout.ts';
import type { DiskFormat, VirtualDisk, WritableDisk } from './virtual-disk.ts';

const OPENERS: Readonly<Record<DiskFormat, OpenLayer>> = { raw: openRaw, vhd: openVhd, vhdx: openVhdx };
const WRITERS: Readonly<Record<DiskFormat, OpenLayerWriter>> = {
  raw: openRawForWriting,
  vhd: openVhdForWriting,
  vhdx: openVhdxForWriting,
};

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
    mode: 'read',
    openFirst: format === 'auto' ? openByContent : OPENERS[format],
    openParent: openByContent,
    allowedRoots,
  });
  return new ChainDisk(layers);
}

/** How to open a disk for writing. */
export interface OpenForWritingOptions extends Omit<OpenDiskOptions, 'ports'> {
  readonly ports: Pick<Ports, 'files' | 'random'>;
}

/**
 * Opens an image that exists to change it in place; its parents are only read. A VHDX with a log to replay gets it
 * replayed into the file. Nothing is written before the whole chain was found sound.
 * @throws what openDisk throws; UNSUPPORTED, VHDX_LOG for what cannot be written; OUTPUT_FAILED
 * @example
 * const disk = await openDiskForWriting('vm.vhdx', { ports });
 * await disk.write(sector, 0);
 * await disk.close();
 */
export async function openDiskForWriting(path: string, options: OpenForWritingOptions): Promise<WritableDisk> {
  const { format = 'auto', allowedRoots, ports } = options;
  const context = layerContext(ports.files);
  const [first, ...parents] = await openChain(path, context, {
    mode: 'modify',
    openFirst: format === 'auto' ? openByContent : OPENERS[format],
    openParent: openByContent,
    allowedRoots,
  });
  try {
    return new LockedDisk(await WRITERS[first.format](first.file, context, ports), parents);
  } catch (error) {
    await Promise.allSettled([first, ...parents].map(({ file }) => file.close()));
    throw asOutputError(path, error);
  }
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
