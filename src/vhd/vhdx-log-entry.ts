/**
 * One entry of a VHDX log ([MS-VHDX] 2.3): 4 KiB sectors, of which the first four bytes tell the role.
 *
 *   entry header, 64 bytes                        descriptor, 32 bytes
 *    0  (4) `loge`                                 0  (4) `zero`            `desc`
 *    4  (4) CRC-32C over EntryLength               4  (4) reserved          last 4 bytes of the page
 *    8  (4) EntryLength, whole sectors             8  (8) length            first 8 bytes of the page
 *   12  (4) Tail: where the oldest entry that     16  (8) file offset       file offset
 *           is still needed begins                24  (8) sequence number   sequence number
 *   16  (8) SequenceNumber
 *   24  (4) DescriptorCount                       data sector, 4096 bytes
 *   32 (16) LogGuid                                0    (4) `data`
 *   48  (8) FlushedFileOffset                      4    (4) high half of the sequence number
 *   56  (8) LastFileOffset                         8 (4084) bytes 8 … 4091 of the page
 *                                               4092    (4) low half of the sequence number
 *
 * 126 descriptors follow the header in its sector and 128 fill each further one; then comes one data sector per `desc`.
 * So a sector that begins with `loge` is never inside a valid entry, and valid entries never overlap.
 */
import { divCeil } from '../bytes.ts';
import { formatGuid, GUID_BYTES, guidBytes } from '../guid.ts';
import { crc32cWithoutField } from './crc32c.ts';
import { REGION_TABLE_OFFSETS } from './vhdx-layout.ts';

export const LOG_SECTOR_BYTES = 4096;
export const DESCRIPTOR_BYTES = 32;
const ENTRY_HEADER_BYTES = 64;
/** Descriptors in the header sector. */
const HEADER_DESCRIPTORS: number = (LOG_SECTOR_BYTES - ENTRY_HEADER_BYTES) / DESCRIPTOR_BYTES;
/** Pages of an entry that is written: one header sector, and less than half of the smallest log (1 MiB) in all. */
export const ENTRY_PAGES_MAX: number = HEADER_DESCRIPTORS;
/** Bytes of a page that its descriptor carries: 8 leading, 4 trailing. */
export const PAGE_LEADING_BYTES = 8;
export const PAGE_TRAILING_BYTES = 4;
export const ENTRY_CRC_OFFSET = 4;

const LOGE = 0x65676f6c;
const ZERO = 0x6f72657a;
const DESC = 0x63736564;
const DATA = 0x61746164;

/** Fields of an entry header that are right by themselves; the rest of the entry is still to be verified. */
export interface LogEntryHeader {
  /** From the start of the log. */
  readonly offset: number;
  readonly checksum: number;
  readonly lengthBytes: number;
  readonly tailOffset: number;
  readonly sequenceNumber: bigint;
  readonly descriptorCount: number;
  /** Header and descriptors; data sectors follow. */
  readonly descriptorSectors: number;
  readonly flushedFileOffset: bigint;
  readonly lastFileOffset: bigint;
}

/** Where logged pages must not go: below the region tables, nor into the log. */
export interface LogRange {
  readonly offset: number;
  readonly lengthBytes: number;
}

/** What one descriptor says. A data descriptor is about one 4 KiB page. */
export interface LogDescriptor {
  readonly kind: 'zero' | 'data';
  readonly fileOffset: number;
  readonly lengthBytes: number;
}

/** Whether an entry may begin with this sector. */
export function beginsEntry(sector: DataView): boolean {
  return sector.getUint32(0, true) === LOGE;
}

/** The header in an entry's first sector, or the rule it breaks. */
export function parseEntryHeader(
  sector: DataView,
  offset: number,
  logGuid: string,
  logLengthBytes: number,
): LogEntryHeader | string {
  if (!beginsEntry(sector)) return 'an entry begins with "loge"';
  if (formatGuid(new Uint8Array(sector.buffer, sector.byteOffset + 32, GUID_BYTES)) !== logGuid) {
    return "an entry has the log's GUID";
  }
  const lengthBytes = sector.getUint32(8, true);
  const tailOffset = sector.getUint32(12, true);
  const sequenceNumber = sector.getBigUint64(16, true);
  const descriptorCount = sector.getUint32(24, true);
  if (lengthBytes === 0 || lengthBytes % LOG_SECTOR_BYTES !== 0 || lengthBytes > logLengthBytes) {
    return 'an entry has 1 or more whole sectors and fits into the log';
  }
  if (tailOffset % LOG_SECTOR_BYTES !== 0 || tailOffset >= logLengthBytes) {
    return 'the tail is a sector of the log';
  }
  if (sequenceNumber === 0n) return 'the sequence number is above 0';
  const descriptorSectors = divCeil(ENTRY_HEADER_BYTES + descriptorCount * DESCRIPTOR_BYTES, LOG_SECTOR_BYTES);
  if (descriptorSectors * LOG_SECTOR_BYTES > lengthBytes) return 'the descriptors fit into the entry';
  return {
    offset,
    checksum: sector.getUint32(ENTRY_CRC_OFFSET, true),
    lengthBytes,
    tailOffset,
    sequenceNumber,
    descriptorCount,
    descriptorSectors,
    flushedFileOffset: sector.getBigUint64(48, true),
    lastFileOffset: sector.getBigUint64(56, true),
  };
}

/** Descriptors of one sector: the first lies at byte `from`, there are `count`. */
export function descriptorsIn(
  header: LogEntryHeader,
  sectorIndex: number,
): { readonly from: number; readonly count: number } {
  const perSector = LOG_SECTOR_BYTES / DESCRIPTOR_BYTES;
  const perHeader = ENTRY_HEADER_BYTES / DESCRIPTOR_BYTES;
  const before = sectorIndex === 0 ? 0 : sectorIndex * perSector - perHeader;
  const room = sectorIndex === 0 ? perSector - perHeader : perSector;
  return {
    from: sectorIndex === 0 ? ENTRY_HEADER_BYTES : 0,
    count: Math.min(room, header.descriptorCount - before),
  };
}

/** The descriptor at byte `at` of a sector, or the rule it breaks. */
export function parseDescriptor(
  sector: DataView,
  at: number,
  sequenceNumber: bigint,
  log: LogRange,
): LogDescriptor | string {
  const signature = sector.getUint32(at, true);
  if (signature !== ZERO && signature !== DESC) return 'a descriptor begins with "zero" or "desc"';
  if (sector.getBigUint64(at + 24, true) !== sequenceNumber) return 'a descriptor has the sequence number of its entry';
  const fileOffset = sector.getBigUint64(at + 16, true);
  const length = signature === ZERO ? sector.getBigUint64(at + 8, true) : BigInt(LOG_SECTOR_BYTES);
  const end = fileOffset + length;
  if (((fileOffset | length) & BigInt(LOG_SECTOR_BYTES - 1)) !== 0n) return 'a descriptor is about whole pages';
  if (fileOffset < BigInt(REGION_TABLE_OFFSETS[0])) return 'nothing below the region tables is logged';
  if (end > BigInt(Number.MAX_SAFE_INTEGER)) return 'a descriptor ends inside any file';
  if (fileOffset < BigInt(log.offset + log.lengthBytes) && end > BigInt(log.offset)) return 'the log is not logged';
  return {
    kind: signature === ZERO ? 'zero' : 'data',
    fileOffset: Number(fileOffset),
    lengthBytes: Number(length),
  };
}

/** Whether a sector is a data sector of the entry with this sequence number, written whole. */
export function isDataSector(sector: DataView, sequenceNumber: bigint): boolean {
  const high = sector.getUint32(4, true);
  const low = sector.getUint32(LOG_SECTOR_BYTES - PAGE_TRAILING_BYTES, true);
  return sector.getUint32(0, true) === DATA && ((BigInt(high) << 32n) | BigInt(low)) === sequenceNumber;
}

/** A page to be logged. */
export interface LoggedPage {
  readonly offset: number;
  /** LOG_SECTOR_BYTES of them. */
  readonly bytes: Uint8Array;
}

/** What an entry says that is written; it is its own tail. */
export interface NewLogEntry {
  /** From the start of the log. */
  readonly offset: number;
  readonly sequenceNumber: bigint;
  readonly logGuid: string;
  /** Length of the file, durable. */
  readonly fileSizeBytes: number;
  /** At most ENTRY_PAGES_MAX. */
  readonly pages: readonly LoggedPage[];
}

/** Entry → its bytes: a header sector and one data sector per page. */
export function encodeEntry(entry: NewLogEntry): Buffer {
  const { pages, sequenceNumber } = entry;
  const bytes = Buffer.alloc((1 + pages.length) * LOG_SECTOR_BYTES);
  bytes.writeUInt32LE(LOGE, 0);
  bytes.writeUInt32LE(bytes.length, 8);
  bytes.writeUInt32LE(entry.offset, 12);
  bytes.writeBigUInt64LE(sequenceNumber, 16);
  bytes.writeUInt32LE(pages.length, 24);
  bytes.set(guidBytes(entry.logGuid), 32);
  bytes.writeBigUInt64LE(BigInt(entry.fileSizeBytes), 48);
  bytes.writeBigUInt64LE(BigInt(entry.fileSizeBytes), 56);
  const tailStart = LOG_SECTOR_BYTES - PAGE_TRAILING_BYTES;
  for (const [i, page] of pages.entries()) {
    const at = ENTRY_HEADER_BYTES + i * DESCRIPTOR_BYTES;
    bytes.writeUInt32LE(DESC, at);
    bytes.set(page.bytes.subarray(tailStart), at + 4);
    bytes.set(page.bytes.subarray(0, PAGE_LEADING_BYTES), at + 8);
    bytes.writeBigUInt64LE(BigInt(page.offset), at + 16);
    bytes.writeBigUInt64LE(sequenceNumber, at + 24);
    const sector = (1 + i) * LOG_SECTOR_BYTES;
    bytes.writeUInt32LE(DATA, sector);
    bytes.writeUInt32LE(Number(sequenceNumber >> 32n), sector + 4);
    bytes.set(page.bytes.subarray(PAGE_LEADING_BYTES, tailStart), sector + PAGE_LEADING_BYTES);
    bytes.writeUInt32LE(Number(sequenceNumber & 0xffffffffn), sector + tailStart);
  }
  bytes.writeUInt32LE(crc32cWithoutField(bytes, ENTRY_CRC_OFFSET), ENTRY_CRC_OFFSET);
  return bytes;
}
