/**
 * Creating a disk of any format: checks the request, learns about the parent, and hands over to the format's writer.
 */
import * as hostPaths from 'node:path';
import { alignUp, MIB, SECTOR_BYTES } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import type { FileSystem, Ports } from '../ports.ts';
import { openSource } from './chain.ts';
import type { CreateSpec, ParentFacts } from './create-spec.ts';
import { layerContext, openByContent } from './open-disk.ts';
import { createRaw } from './raw-disk.ts';
import { createVhd } from './vhd-writer.ts';
import { createVhdx } from './vhdx-writer.ts';
import type { DiskFormat, DiskSubformat, DiskWriter } from './virtual-disk.ts';

/** What to create. */
export interface CreateDiskOptions {
  readonly format: DiskFormat;
  /** Raw disks are fixed. */
  readonly subformat: DiskSubformat;
  readonly virtualSizeBytes: number;
  /** Default: that of the format (VHD 2 MiB). */
  readonly blockSizeBytes?: number;
  readonly logicalSectorBytes?: 512 | 4096;
  readonly physicalSectorBytes?: 512 | 4096;
  /** Path of the parent of a differencing disk. It has the format of its child, or is raw under a VHD. */
  readonly parent?: string;
  /**
   * VHD only: round the virtual size up to a multiple of 1 MiB, which Azure demands; what is added reads as zeros.
   * Default true. A differencing disk always has the size of its parent.
   */
  readonly azureSize?: boolean;
  readonly ports: Pick<Ports, 'files' | 'clock' | 'random'>;
}

const CREATORS: Readonly<Record<DiskFormat, (spec: CreateSpec) => Promise<DiskWriter>>> = {
  raw: createRaw,
  vhd: createVhd,
  vhdx: createVhdx,
};

/**
 * Starts a new disk image. It grows as `<path>.partial` and appears under `path` when `finish` returns.
 * @throws OUTPUT_EXISTS if either name is taken, UNSUPPORTED for what the format cannot hold, OUTPUT_FAILED
 * @throws {RangeError} for a size that is no positive multiple of the sector
 * @example
 * const writer = await createDisk('copy.vhd', { format: 'vhd', subformat: 'dynamic', virtualSizeBytes: 2 ** 30, ports });
 * await writer.write(sector, 0);
 * await writer.finish();
 */
export async function createDisk(path: string, options: CreateDiskOptions): Promise<DiskWriter> {
  const { format, subformat, virtualSizeBytes, ports } = options;
  const sectorBytes = options.logicalSectorBytes ?? SECTOR_BYTES;
  if (!Number.isSafeInteger(virtualSizeBytes) || virtualSizeBytes <= 0 || virtualSizeBytes % sectorBytes !== 0) {
    throw new RangeError(`a disk has a positive multiple of ${sectorBytes} bytes, not ${virtualSizeBytes}`);
  }
  if (format === 'raw' && subformat !== 'fixed') throw unsupported(path, `a raw disk cannot be ${subformat}`);
  if ((subformat === 'differencing') !== (options.parent !== undefined)) {
    throw unsupported(path, 'a differencing disk has a parent, any other has none');
  }
  const parent = options.parent === undefined ? undefined : await parentFacts(path, options.parent, options);
  const rounds = format === 'vhd' && parent === undefined && (options.azureSize ?? true);
  return CREATORS[format]({
    path,
    subformat,
    virtualSizeBytes: rounds ? alignUp(virtualSizeBytes, MIB) : virtualSizeBytes,
    blockSizeBytes: options.blockSizeBytes,
    logicalSectorBytes: options.logicalSectorBytes,
    physicalSectorBytes: options.physicalSectorBytes,
    parent,
    ports,
  });
}

async function parentFacts(path: string, parentPath: string, options: CreateDiskOptions): Promise<ParentFacts> {
  const { format, virtualSizeBytes, logicalSectorBytes, ports } = options;
  const { files } = ports;
  const file = await openSource(parentPath, files);
  try {
    const layer = await openByContent(file, layerContext(files));
    if (layer.format !== format && !(layer.format === 'raw' && format === 'vhd')) {
      throw unsupported(path, `the parent of a ${format} cannot be a ${layer.format}`);
    }
    if (format === 'vhd' && layer.virtualSizeBytes !== virtualSizeBytes) {
      throw unsupported(path, `a VHD has the size of its parent, ${layer.virtualSizeBytes}, not ${virtualSizeBytes}`);
    }
    if (layer.logicalSectorBytes !== (logicalSectorBytes ?? layer.logicalSectorBytes)) {
      throw unsupported(path, `a child has the sectors of its parent, ${layer.logicalSectorBytes} bytes`);
    }
    const absolutePath = await files.realPath(parentPath);
    const { modifiedNs } = await file.stamp();
    return {
      absolutePath,
      relativePath: hostPaths.relative(await realDirectory(path, files), absolutePath),
      linkId: layer.linkId,
      virtualSizeBytes: layer.virtualSizeBytes,
      logicalSectorBytes: layer.logicalSectorBytes,
      physicalSectorBytes: layer.physicalSectorBytes,
      modifiedMs: Number(modifiedNs / 1_000_000n),
    };
  } finally {
    await file.close();
  }
}

async function realDirectory(path: string, files: FileSystem): Promise<string> {
  const directory = hostPaths.dirname(hostPaths.resolve(path));
  try {
    return await files.realPath(directory);
  } catch (cause) {
    throw new BlockferryError('OUTPUT_FAILED', `${directory}: there is no such directory`, { cause });
  }
}

function unsupported(path: string, rule: string): BlockferryError {
  return new BlockferryError('UNSUPPORTED', `${path}: ${rule}`, { facts: { source: path, rule } });
}
