/**
 * The metadata region of a VHDX ([MS-VHDX] 2.6): a table of 64 KiB, and items anywhere behind it.
 *
 *   0  (8) `metadata`                   entry k at 32 + 32 k:
 *   8  (2) reserved                       0 (16) GUID
 *  10  (2) entry count, at most 2047     16  (4) item offset in the region, at least 64 KiB
 *  12 (20) reserved                      20  (4) item length, at most 1 MiB; 0: no bytes, offset 0
 *                                        24  (4) bit 0 user, 1 virtual disk, 2 required
 *                                        28  (4) reserved
 *
 * Order and alignment of items are free: Windows and qemu differ. A system item that is not known is refused if
 * required, else left alone. The table has no checksum.
 */
import { asBuffer, ByteReader } from '../bytes.ts';
import { formatGuid, GUID_BYTES, guidBytes } from '../guid.ts';
import { VHDX_METADATA_ITEM_BYTES_MAX, VHDX_TABLE_ENTRIES_MAX } from '../limits.ts';
import {
  ITEM_FILE_PARAMETERS,
  ITEM_GEOMETRY,
  ITEM_INCOMPLETE_FILE,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PARENT_LOCATOR,
  ITEM_PHYSICAL_SECTOR_SIZE,
  ITEM_PMEM_LABEL_AREA,
  ITEM_VIRTUAL_DISK_ID,
  ITEM_VIRTUAL_DISK_SIZE,
  METADATA_TABLE_BYTES,
  vhdxFault,
} from './vhdx-layout.ts';
import type { Region } from './vhdx-region.ts';

const SIGNATURE = 'metadata';
const ENTRIES_OFFSET = 32;
const ENTRY_BYTES = 32;
const FLAG_USER = 1;
const FLAG_VIRTUAL_DISK = 2;
const FLAG_REQUIRED = 4;
/** [MS-VHDX] 2.6.1.1: at most 1024 items may be the user's. */
const USER_ITEMS_MAX = 1024;

const KNOWN_ITEMS: ReadonlySet<string> = new Set([
  ITEM_FILE_PARAMETERS,
  ITEM_VIRTUAL_DISK_SIZE,
  ITEM_VIRTUAL_DISK_ID,
  ITEM_LOGICAL_SECTOR_SIZE,
  ITEM_PHYSICAL_SECTOR_SIZE,
  ITEM_PARENT_LOCATOR,
  ITEM_GEOMETRY,
  ITEM_PMEM_LABEL_AREA,
]);

/** One item of the table; `offset` is absolute in the file, 0 for an item without bytes. */
export interface MetadataItem {
  readonly guid: string;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** Table bytes → system items by GUID; items of the user are checked and left out. @throws VHDX_METADATA */
export function parseMetadataTable(
  bytes: Uint8Array,
  region: Region,
  source: string,
): ReadonlyMap<string, MetadataItem> {
  const reader = new ByteReader(bytes, { source, offset: region.offset, code: 'VHDX_METADATA' });
  if (asBuffer(reader.bytes(8)).toString('latin1') !== SIGNATURE) {
    const rule = 'a metadata region begins with "metadata"';
    throw vhdxFault('VHDX_METADATA', source, region.offset, rule, 'metadata region without signature');
  }
  const count = reader.skip(2).u16LE();
  if (count > VHDX_TABLE_ENTRIES_MAX) {
    const rule = `a metadata table has at most ${VHDX_TABLE_ENTRIES_MAX} entries`;
    throw vhdxFault('VHDX_METADATA', source, region.offset + 10, rule, `metadata table claims ${count} entries`);
  }
  reader.seek(ENTRIES_OFFSET);
  const system = new Map<string, MetadataItem>();
  const user = new Set<string>();
  for (let i = 0; i < count; i += 1) {
    const at = region.offset + reader.position;
    const guid = formatGuid(reader.bytes(GUID_BYTES));
    const item = { guid, ...placeItem(reader.u32LE(), reader.u32LE(), region, source, at) };
    const flags = reader.u32LE();
    reader.skip(4);
    const isUser = (flags & FLAG_USER) !== 0;
    if (isUser ? user.has(guid) : system.has(guid)) {
      throw vhdxFault('VHDX_METADATA', source, at, 'a metadata item occurs once', `second entry for item ${guid}`);
    }
    if (isUser) user.add(guid);
    else system.set(guid, item);
    refuseUnknown(guid, isUser, (flags & FLAG_REQUIRED) !== 0, source, at);
  }
  if (user.size > USER_ITEMS_MAX) {
    const rule = `at most ${USER_ITEMS_MAX} items are the user's`;
    throw vhdxFault('VHDX_METADATA', source, region.offset + 10, rule, `${user.size} user items`);
  }
  return system;
}

/** One item for a new region. */
export interface NewItem {
  readonly guid: string;
  readonly bytes: Uint8Array;
  /** Whether it describes the virtual disk (else the file). */
  readonly isVirtualDisk: boolean;
}

/** Items, all required → the used part of a metadata region: the table and the items packed behind it. */
export function encodeMetadata(items: readonly NewItem[]): Uint8Array {
  const lengthBytes = items.reduce((sum, item) => sum + item.bytes.byteLength, METADATA_TABLE_BYTES);
  const bytes = Buffer.alloc(lengthBytes);
  bytes.write(SIGNATURE, 0, 'latin1');
  bytes.writeUInt16LE(items.length, 10);
  let itemOffset = METADATA_TABLE_BYTES;
  for (const [i, item] of items.entries()) {
    const at = ENTRIES_OFFSET + i * ENTRY_BYTES;
    bytes.set(guidBytes(item.guid), at);
    bytes.writeUInt32LE(itemOffset, at + 16);
    bytes.writeUInt32LE(item.bytes.byteLength, at + 20);
    bytes.writeUInt32LE(FLAG_REQUIRED | (item.isVirtualDisk ? FLAG_VIRTUAL_DISK : 0), at + 24);
    bytes.set(item.bytes, itemOffset);
    itemOffset += item.bytes.byteLength;
  }
  return bytes;
}

function placeItem(
  itemOffset: number,
  lengthBytes: number,
  region: Region,
  source: string,
  at: number,
): { readonly offset: number; readonly lengthBytes: number } {
  if (lengthBytes > VHDX_METADATA_ITEM_BYTES_MAX) {
    const rule = `a metadata item has at most ${VHDX_METADATA_ITEM_BYTES_MAX} bytes`;
    throw vhdxFault('VHDX_METADATA', source, at + 20, rule, `metadata item of ${lengthBytes} bytes`);
  }
  const isPlaced =
    lengthBytes === 0
      ? itemOffset === 0
      : itemOffset >= METADATA_TABLE_BYTES && itemOffset + lengthBytes <= region.lengthBytes;
  if (!isPlaced) {
    const rule = 'a metadata item lies behind the table and inside the region; an empty one has offset 0';
    const problem = `metadata item of ${lengthBytes} bytes at ${itemOffset} in a region of ${region.lengthBytes} bytes`;
    throw vhdxFault('VHDX_METADATA', source, at + 16, rule, problem);
  }
  return { offset: lengthBytes === 0 ? 0 : region.offset + itemOffset, lengthBytes };
}

function refuseUnknown(guid: string, isUser: boolean, isRequired: boolean, source: string, at: number): void {
  if (isUser && isRequired) {
    const problem = `user item ${guid} is marked required`;
    throw vhdxFault('VHDX_METADATA', source, at + 24, 'an item of the user is not required', problem);
  }
  if (!isUser && guid === ITEM_INCOMPLETE_FILE) {
    const problem = 'the file is marked incomplete: its creation was never finished';
    throw vhdxFault('VHDX_METADATA', source, at, 'a file is complete', problem);
  }
  if (isRequired && !KNOWN_ITEMS.has(guid)) {
    const problem = `metadata item ${guid} is required but not known`;
    throw vhdxFault('VHDX_METADATA', source, at, 'every required metadata item is known', problem);
  }
}
