/**
 * The plan of a VHDX that is being made: its parameters, and where its structures lie.
 *
 *   0      identifier, headers, region tables
 *   1 MiB  log, empty, 1 MiB
 *   2 MiB  metadata region, 1 MiB
 *   3 MiB  BAT region, whole MiB
 *   …      blocks
 */
import { alignUp, isPowerOfTwo, MIB, TIB } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { guidBytes, NIL_GUID, randomGuid } from '../guid.ts';
import { DISK_BYTES_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import type { CreateSpec, ParentFacts } from './create-spec.ts';
import { BAT_ENTRY_BYTES } from './vhdx-bat.ts';
import { type BatGeometry, batGeometry, encodeFileParameters } from './vhdx-geometry.ts';
import { encodeHeader } from './vhdx-header.ts';
import {
  BLOCK_BYTES_MAX,
  BLOCK_BYTES_MIN,
  CREATOR_BYTES,
  CREATOR_OFFSET,
  FILE_SIGNATURE,
  HEADER_OFFSETS,
  HEADER_SECTION_BYTES,
  ITEM_FILE_PARAMETERS,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PARENT_LOCATOR,
  ITEM_PHYSICAL_SECTOR_SIZE,
  ITEM_VIRTUAL_DISK_ID,
  ITEM_VIRTUAL_DISK_SIZE,
  REGION_BAT,
  REGION_METADATA,
  REGION_TABLE_OFFSETS,
} from './vhdx-layout.ts';
import { encodeParentLocator, LINK_ID_PREFIX } from './vhdx-locator.ts';
import { encodeMetadata, type NewItem } from './vhdx-metadata.ts';
import { encodeRegionTable } from './vhdx-region.ts';

const CREATOR = 'blockferry';
const LOG_OFFSET = HEADER_SECTION_BYTES;
const LOG_BYTES: number = 1 * MIB;
const METADATA_OFFSET: number = LOG_OFFSET + LOG_BYTES;
const METADATA_BYTES: number = 1 * MIB;
const BAT_OFFSET: number = METADATA_OFFSET + METADATA_BYTES;

/** Windows takes 32 MiB everywhere; 2 MiB keeps a small disk with scattered content small. */
const BLOCK_BYTES_DEFAULT: number = 2 * MIB;
const BLOCK_BYTES_DEFAULT_LARGE: number = 32 * MIB;
const LARGE_DISK_BYTES: number = 2 * TIB;

/** What a new VHDX will be, and where its parts lie. */
export interface VhdxPlan {
  readonly geometry: BatGeometry;
  readonly batOffset: number;
  /** The first byte behind all tables: where blocks begin. */
  readonly blocksOffset: number;
  readonly physicalSectorBytes: number;
  readonly leavesBlocksAllocated: boolean;
  readonly parent: ParentFacts | undefined;
  readonly virtualDiskId: string;
  readonly fileWriteGuid: string;
  readonly dataWriteGuid: string;
}

/** Settles what the spec leaves open. @throws UNSUPPORTED for what a VHDX cannot be */
export function planVhdx(spec: CreateSpec): VhdxPlan {
  const { parent, subformat, virtualSizeBytes } = spec;
  const isLarge = virtualSizeBytes > LARGE_DISK_BYTES;
  const blockSizeBytes = spec.blockSizeBytes ?? (isLarge ? BLOCK_BYTES_DEFAULT_LARGE : BLOCK_BYTES_DEFAULT);
  if (!isPowerOfTwo(blockSizeBytes) || blockSizeBytes < BLOCK_BYTES_MIN || blockSizeBytes > BLOCK_BYTES_MAX) {
    throw unsupported(spec, `blocks of ${blockSizeBytes} bytes: a power of two from 1 to 256 MiB is possible`);
  }
  const logicalSectorBytes = spec.logicalSectorBytes ?? parent?.logicalSectorBytes ?? 512;
  const physicalSectorBytes = spec.physicalSectorBytes ?? parent?.physicalSectorBytes ?? 4096;
  if (virtualSizeBytes <= 0 || virtualSizeBytes > DISK_BYTES_MAX || virtualSizeBytes % logicalSectorBytes !== 0) {
    throw unsupported(spec, `a disk of ${virtualSizeBytes} bytes: 64 TiB in sectors of ${logicalSectorBytes} at most`);
  }
  if (parent !== undefined && parent.logicalSectorBytes !== logicalSectorBytes) {
    throw unsupported(spec, `sectors of ${logicalSectorBytes} bytes over a parent with ${parent.logicalSectorBytes}`);
  }
  if (parent !== undefined && !parent.linkId.startsWith(LINK_ID_PREFIX)) {
    throw unsupported(spec, `a parent that is no VHDX (${parent.absolutePath})`);
  }
  const hasParent = subformat === 'differencing';
  const geometry = batGeometry({ blockSizeBytes, virtualSizeBytes, hasParent, logicalSectorBytes });
  const { random } = spec.ports;
  return {
    geometry,
    batOffset: BAT_OFFSET,
    blocksOffset: BAT_OFFSET + alignUp(geometry.entries * BAT_ENTRY_BYTES, MIB),
    physicalSectorBytes,
    leavesBlocksAllocated: subformat === 'fixed',
    parent,
    virtualDiskId: randomGuid(random.bytes(16)),
    fileWriteGuid: randomGuid(random.bytes(16)),
    dataWriteGuid: randomGuid(random.bytes(16)),
  };
}

/** Writes everything but the block table. The log is empty: zeros, and no GUID in the headers. */
export async function writeStructures(file: RandomAccessFile, plan: VhdxPlan): Promise<void> {
  await file.write(encodeMetadata(metadataItems(plan)), METADATA_OFFSET);
  const regions = encodeRegionTable([
    { guid: REGION_BAT, offset: plan.batOffset, lengthBytes: plan.blocksOffset - plan.batOffset, isRequired: true },
    { guid: REGION_METADATA, offset: METADATA_OFFSET, lengthBytes: METADATA_BYTES, isRequired: true },
  ]);
  for (const offset of REGION_TABLE_OFFSETS) await file.write(regions, offset);
  const { fileWriteGuid, dataWriteGuid } = plan;
  for (const [i, offset] of HEADER_OFFSETS.entries()) {
    const sequenceNumber = BigInt(i + 1);
    const log = { logGuid: NIL_GUID, logOffset: LOG_OFFSET, logLengthBytes: LOG_BYTES };
    await file.write(encodeHeader({ sequenceNumber, fileWriteGuid, dataWriteGuid, ...log }), offset);
  }
  const identifier = Buffer.alloc(CREATOR_OFFSET + CREATOR_BYTES);
  identifier.write(FILE_SIGNATURE, 0, 'latin1');
  identifier.write(CREATOR, CREATOR_OFFSET, 'utf16le');
  await file.write(identifier, 0);
}

function metadataItems(plan: VhdxPlan): readonly NewItem[] {
  const { geometry, parent } = plan;
  const parameters = { ...geometry, leavesBlocksAllocated: plan.leavesBlocksAllocated };
  const items: NewItem[] = [
    { guid: ITEM_FILE_PARAMETERS, bytes: encodeFileParameters(parameters), isVirtualDisk: false },
    { guid: ITEM_VIRTUAL_DISK_SIZE, bytes: u64(geometry.virtualSizeBytes), isVirtualDisk: true },
    { guid: ITEM_VIRTUAL_DISK_ID, bytes: guidBytes(plan.virtualDiskId), isVirtualDisk: true },
    { guid: ITEM_LOGICAL_SECTOR_SIZE, bytes: u32(geometry.logicalSectorBytes), isVirtualDisk: true },
    { guid: ITEM_PHYSICAL_SECTOR_SIZE, bytes: u32(plan.physicalSectorBytes), isVirtualDisk: true },
  ];
  if (parent !== undefined) {
    const bytes = encodeParentLocator({
      parentDataWriteGuid: parent.linkId.slice(LINK_ID_PREFIX.length),
      relativePath: windowsRelativePath(parent.relativePath),
      absolutePath: parent.absolutePath,
    });
    items.push({ guid: ITEM_PARENT_LOCATOR, bytes, isVirtualDisk: false });
  }
  return items;
}

/** `base/parent.vhdx` → `.\base\parent.vhdx`, as Windows writes it. */
function windowsRelativePath(path: string): string {
  const text = path.replaceAll('/', '\\');
  return text.startsWith('.\\') || text.startsWith('..\\') ? text : `.\\${text}`;
}

function unsupported(spec: CreateSpec, what: string): BlockferryError {
  return new BlockferryError('UNSUPPORTED', `${spec.path}: a VHDX cannot have ${what}`, {
    facts: { source: spec.path },
  });
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
