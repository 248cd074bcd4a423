/**
 * What the metadata items of a VHDX say about the disk ([MS-VHDX] 2.6.2), and the arithmetic of its block table.
 *
 *   sectors per bitmap block = 2^23
 *   chunkRatio  = 2^23 * logicalSectorBytes / blockSizeBytes      payload blocks per chunk (per bitmap block)
 *   dataBlocks  = ceil(virtualSizeBytes / blockSizeBytes)
 *   entries     = dataBlocks + floor((dataBlocks - 1) / chunkRatio)        without a parent
 *               = ceil(dataBlocks / chunkRatio) * (chunkRatio + 1)         with a parent
 *   payload block i is entry i + floor(i / chunkRatio); the bitmap of chunk c is entry (c + 1) * chunkRatio + c
 */
import { divCeil, isPowerOfTwo } from '../bytes.ts';
import { formatGuid, GUID_BYTES } from '../guid.ts';
import { DISK_BYTES_MAX } from '../limits.ts';
import {
  BLOCK_BYTES_MAX,
  BLOCK_BYTES_MIN,
  ITEM_FILE_PARAMETERS,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PHYSICAL_SECTOR_SIZE,
  ITEM_VIRTUAL_DISK_ID,
  ITEM_VIRTUAL_DISK_SIZE,
  SECTORS_PER_BITMAP,
  vhdxFault,
} from './vhdx-layout.ts';

const FLAG_LEAVE_BLOCKS_ALLOCATED = 1;
const FLAG_HAS_PARENT = 2;

/** The disk as its metadata describes it. */
export interface DiskParameters {
  readonly blockSizeBytes: number;
  readonly leavesBlocksAllocated: boolean;
  readonly hasParent: boolean;
  readonly virtualSizeBytes: number;
  readonly virtualDiskId: string;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
}

/** Bytes of one metadata item and where in the file they lie. */
export interface ItemBytes {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

/** The five items that every VHDX has, with the length that each must have. */
export const PARAMETER_ITEM_BYTES: Readonly<Record<string, number>> = {
  [ITEM_FILE_PARAMETERS]: 8,
  [ITEM_VIRTUAL_DISK_SIZE]: 8,
  [ITEM_VIRTUAL_DISK_ID]: GUID_BYTES,
  [ITEM_LOGICAL_SECTOR_SIZE]: 4,
  [ITEM_PHYSICAL_SECTOR_SIZE]: 4,
};

/** Items → parameters. `item` returns the item with exactly the length above. @throws VHDX_METADATA */
export function parseParameters(item: (guid: string) => ItemBytes, source: string): DiskParameters {
  const refuse = (at: number, rule: string, problem: string) => vhdxFault('VHDX_METADATA', source, at, rule, problem);

  const file = item(ITEM_FILE_PARAMETERS);
  const blockSizeBytes = viewOf(file).getUint32(0, true);
  const flags = viewOf(file).getUint32(4, true);
  if (!isPowerOfTwo(blockSizeBytes) || blockSizeBytes < BLOCK_BYTES_MIN || blockSizeBytes > BLOCK_BYTES_MAX) {
    throw refuse(file.offset, 'the block size is a power of two, 1 to 256 MiB', `block size is ${blockSizeBytes}`);
  }
  if ((flags & ~(FLAG_LEAVE_BLOCKS_ALLOCATED | FLAG_HAS_PARENT)) !== 0) {
    throw refuse(file.offset + 4, 'reserved file flags are zero', `file flags are 0x${flags.toString(16)}`);
  }

  const logical = item(ITEM_LOGICAL_SECTOR_SIZE);
  const logicalSectorBytes = viewOf(logical).getUint32(0, true);
  if (logicalSectorBytes !== 512 && logicalSectorBytes !== 4096) {
    throw refuse(logical.offset, 'the logical sector is 512 or 4096', `logical sector size is ${logicalSectorBytes}`);
  }
  const physical = item(ITEM_PHYSICAL_SECTOR_SIZE);
  const physicalSectorBytes = viewOf(physical).getUint32(0, true);
  if (physicalSectorBytes !== 512 && physicalSectorBytes !== 4096) {
    const problem = `physical sector size is ${physicalSectorBytes}`;
    throw refuse(physical.offset, 'the physical sector is 512 or 4096', problem);
  }

  const size = item(ITEM_VIRTUAL_DISK_SIZE);
  const virtualSize = viewOf(size).getBigUint64(0, true);
  if (virtualSize === 0n || virtualSize > BigInt(DISK_BYTES_MAX) || virtualSize % BigInt(logicalSectorBytes) !== 0n) {
    const rule = 'the disk is 1 sector to 64 TiB, in whole logical sectors';
    throw refuse(size.offset, rule, `virtual disk size is ${virtualSize}, logical sector ${logicalSectorBytes}`);
  }
  return {
    blockSizeBytes,
    leavesBlocksAllocated: (flags & FLAG_LEAVE_BLOCKS_ALLOCATED) !== 0,
    hasParent: (flags & FLAG_HAS_PARENT) !== 0,
    virtualSizeBytes: Number(virtualSize),
    virtualDiskId: formatGuid(item(ITEM_VIRTUAL_DISK_ID).bytes),
    logicalSectorBytes,
    physicalSectorBytes,
  };
}

/** Parameters → bytes of the file parameters item. */
export function encodeFileParameters(
  parameters: Pick<DiskParameters, 'blockSizeBytes' | 'leavesBlocksAllocated' | 'hasParent'>,
): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(parameters.blockSizeBytes, 0);
  const flags =
    (parameters.leavesBlocksAllocated ? FLAG_LEAVE_BLOCKS_ALLOCATED : 0) | (parameters.hasParent ? FLAG_HAS_PARENT : 0);
  bytes.writeUInt32LE(flags, 4);
  return bytes;
}

/** The block table's arithmetic for one disk. */
export interface BatGeometry {
  readonly blockSizeBytes: number;
  readonly virtualSizeBytes: number;
  readonly hasParent: boolean;
  readonly logicalSectorBytes: number;
  /** Payload blocks that one sector bitmap block covers. */
  readonly chunkRatio: number;
  readonly dataBlocks: number;
  readonly chunks: number;
  /** Entries that the table must have; the region may have room for more. */
  readonly entries: number;
}

export function batGeometry(
  disk: Pick<DiskParameters, 'blockSizeBytes' | 'virtualSizeBytes' | 'hasParent' | 'logicalSectorBytes'>,
): BatGeometry {
  const { blockSizeBytes, virtualSizeBytes, hasParent, logicalSectorBytes } = disk;
  const chunkRatio = (SECTORS_PER_BITMAP * logicalSectorBytes) / blockSizeBytes;
  const dataBlocks = divCeil(virtualSizeBytes, blockSizeBytes);
  const chunks = divCeil(dataBlocks, chunkRatio);
  const entries = hasParent ? chunks * (chunkRatio + 1) : dataBlocks + Math.floor((dataBlocks - 1) / chunkRatio);
  return { blockSizeBytes, virtualSizeBytes, hasParent, logicalSectorBytes, chunkRatio, dataBlocks, chunks, entries };
}

/** The entry of payload block `block`. */
export function payloadEntryIndex(geometry: BatGeometry, block: number): number {
  return block + Math.floor(block / geometry.chunkRatio);
}

/** How many payload blocks have an entry before entry `index`; so, the first block whose entry is not. */
export function payloadEntriesBefore(geometry: BatGeometry, index: number): number {
  return index - Math.floor(index / (geometry.chunkRatio + 1));
}

/** The entry of the sector bitmap block of chunk `chunk`. */
export function bitmapEntryIndex(geometry: BatGeometry, chunk: number): number {
  return (chunk + 1) * geometry.chunkRatio + chunk;
}

/** Bytes of block `block` that belong to the disk: less than a block for a last one that the disk ends in. */
export function guestBytesOfBlock(geometry: BatGeometry, block: number): number {
  return Math.min(geometry.blockSizeBytes, geometry.virtualSizeBytes - block * geometry.blockSizeBytes);
}

function viewOf(item: ItemBytes): DataView {
  return new DataView(item.bytes.buffer, item.bytes.byteOffset, item.bytes.byteLength);
}
