/**
 * A metadata block ([MS-HRL] 2.3): a header of 32 bytes, then slots of 32 bytes, little-endian, without gaps. It stands
 * *behind* the data that it describes; the data of its entries is packed, in the order of the entries.
 *
 *   header                                              entry
 *     0  (8) PreviousMetadataLocation: the distance       0 (8) ByteOffset: where on the disk the data belongs
 *            back to the block before, 0 in the first     8 (4) Checksum over these 32 bytes
 *     8  (4) ValidMetadataEntries                        12 (4) DataLength
 *    12  (4) Checksum over these 32 bytes                16 (4) TimeStamp of the write
 *    16 (16) reserved, 0                                 20 (1) MetaOperation, 1: write
 *                                                        21 (4) DataChecksum over the data; 0: not filled
 *                                                        25 (1) Location, 0
 *                                                        26 (6) reserved, 0
 *
 *   slots = (MetadataSize - 32) / 32, 127 in a block of 4096
 *
 * Entries stand in slots 0, 1, 2 … Microsoft's example can also be read as filled from the last slot towards the first:
 * a block whose slot 0 is all zero while its last slot is not is walked from the end.
 */
import { SECTOR_BYTES } from '../bytes.ts';
import { DISK_BYTES_MAX } from '../limits.ts';
import { checksumAround } from './checksum.ts';
import type { LogFault } from './fault.ts';
import { HEADER_BYTES } from './log-header.ts';

const BLOCK_HEADER_BYTES = 32;
const ENTRY_BYTES = 32;
const BLOCK_CHECKSUM_OFFSET = 12;
const ENTRY_CHECKSUM_OFFSET = 8;
const META_OPERATION_WRITE = 1;
/** One's complement of a sum of 0. */
export const ZEROS_CHECKSUM = 0xffff_ffff;
/** Data as long as this can have the sum 2^32, which is 0 as well: 2^32 / 255, rounded up. */
const ZEROS_PROVEN_BELOW_BYTES = 16_843_010;

/** One write of the guest. */
export interface LogEntry {
  /** Where on the disk. */
  readonly byteOffset: number;
  readonly dataLength: number;
  /** In log time: seconds since 2000. */
  readonly timeStamp: number;
  /** 0: the writer did not fill it. */
  readonly dataChecksum: number;
  /** Where in the log the data stands. */
  readonly fileOffset: number;
}

/** A block whose structure is right. */
export interface LogBlock {
  readonly offset: number;
  /** Where the block before begins; undefined for the first. */
  readonly previousOffset: number | undefined;
  /** Where the data of the first entry stands: behind the block before, or behind the file header. */
  readonly dataOffset: number;
  /** Oldest first. */
  readonly entries: readonly LogEntry[];
}

/** How many entries a block of this size holds. */
export function slotsOf(metadataBytes: number): number {
  return (metadataBytes - BLOCK_HEADER_BYTES) / ENTRY_BYTES;
}

/**
 * Where the block before the one at `offset` begins, undefined if this is the first; from the first bytes of the block
 * and without its checksum.
 */
export function previousOffsetOf(bytes: Buffer, offset: number, metadataBytes: number): number | undefined | LogFault {
  const distance = bytes.readBigUInt64LE(0);
  if (distance === 0n) return undefined;
  const sane =
    distance >= BigInt(metadataBytes) &&
    distance <= BigInt(offset - HEADER_BYTES) &&
    distance % BigInt(SECTOR_BYTES) === 0n;
  if (sane) return offset - Number(distance);
  return fault('HRL_BLOCK', offset, 'the block before lies between the file header and this one', { distance });
}

/** The block at `offset` of the file, all checks made that need no data; or the rule it breaks. */
export function parseBlock(bytes: Buffer, offset: number): LogBlock | LogFault {
  const metadataBytes = bytes.byteLength;
  const previousOffset = previousOffsetOf(bytes, offset, metadataBytes);
  if (isFault(previousOffset)) return previousOffset;
  const stored = bytes.readUInt32LE(BLOCK_CHECKSUM_OFFSET);
  const computed = checksumAround(bytes.subarray(0, BLOCK_HEADER_BYTES), BLOCK_CHECKSUM_OFFSET);
  if (stored !== computed) {
    return fault('HRL_BLOCK', offset, 'the checksum of a block holds', { stored, computed });
  }
  if (!isZero(bytes, 16, BLOCK_HEADER_BYTES)) {
    return fault('HRL_BLOCK', offset + 16, 'the reserved bytes of a block are 0', {});
  }
  const entryCount = bytes.readUInt32LE(8);
  const slots = slotsOf(metadataBytes);
  if (entryCount > slots) return fault('HRL_BLOCK', offset + 8, 'a block has a slot for each entry', { entryCount });
  const dataOffset = previousOffset === undefined ? HEADER_BYTES : previousOffset + metadataBytes;
  const isTailFilled = isZero(bytes, slotAt(0), slotAt(1)) && !isZero(bytes, slotAt(slots - 1), slotAt(slots));
  const entries: LogEntry[] = [];
  let fileOffset = dataOffset;
  for (let i = 0; i < entryCount; i += 1) {
    const entry = parseEntry(bytes, slotAt(isTailFilled ? slots - 1 - i : i), offset, fileOffset);
    if (isFault(entry)) return entry;
    entries.push(entry);
    fileOffset += entry.dataLength;
  }
  if (fileOffset !== offset) {
    const facts = { describedBytes: fileOffset - dataOffset, storedBytes: offset - dataOffset };
    return fault('HRL_BLOCK', offset, 'the entries of a block describe all data before it', facts);
  }
  return { offset, previousOffset, dataOffset, entries };
}

/** Whether the data of an entry that verifies is all zeros, told from its metadata alone. */
export function isZeroEntry({ dataLength, dataChecksum }: Pick<LogEntry, 'dataLength' | 'dataChecksum'>): boolean {
  return dataChecksum === ZEROS_CHECKSUM && dataLength < ZEROS_PROVEN_BELOW_BYTES;
}

/** The block that describes these entries; `distance` leads back to the block before, 0 in the first. */
export function encodeBlock(entries: readonly LogEntry[], distance: number, metadataBytes: number): Buffer {
  const bytes = Buffer.alloc(metadataBytes);
  bytes.writeBigUInt64LE(BigInt(distance), 0);
  bytes.writeUInt32LE(entries.length, 8);
  bytes.writeUInt32LE(
    checksumAround(bytes.subarray(0, BLOCK_HEADER_BYTES), BLOCK_CHECKSUM_OFFSET),
    BLOCK_CHECKSUM_OFFSET,
  );
  for (const [i, { byteOffset, dataLength, timeStamp, dataChecksum }] of entries.entries()) {
    const entry = bytes.subarray(slotAt(i), slotAt(i + 1));
    entry.writeBigUInt64LE(BigInt(byteOffset), 0);
    entry.writeUInt32LE(dataLength, 12);
    entry.writeUInt32LE(timeStamp, 16);
    entry.writeUInt8(META_OPERATION_WRITE, 20);
    entry.writeUInt32LE(dataChecksum, 21);
    entry.writeUInt32LE(checksumAround(entry, ENTRY_CHECKSUM_OFFSET), ENTRY_CHECKSUM_OFFSET);
  }
  return bytes;
}

/** Whether this is a broken rule rather than what was asked for. */
export function isFault<T>(value: T | LogFault): value is LogFault {
  return typeof value === 'object' && value !== null && 'rule' in value;
}

function parseEntry(block: Buffer, at: number, blockOffset: number, fileOffset: number): LogEntry | LogFault {
  const entry = block.subarray(at, at + ENTRY_BYTES);
  const offset = blockOffset + at;
  const stored = entry.readUInt32LE(ENTRY_CHECKSUM_OFFSET);
  const computed = checksumAround(entry, ENTRY_CHECKSUM_OFFSET);
  if (stored !== computed) return fault('HRL_ENTRY', offset, 'the checksum of an entry holds', { stored, computed });
  const operation = entry.readUInt8(20);
  if (operation !== META_OPERATION_WRITE) {
    return fault('HRL_ENTRY', offset + 20, 'the operation of an entry is 1, a write', { operation });
  }
  const byteOffset = entry.readBigUInt64LE(0);
  const dataLength = entry.readUInt32LE(12);
  if (byteOffset % BigInt(SECTOR_BYTES) !== 0n || dataLength === 0 || dataLength % SECTOR_BYTES !== 0) {
    return fault('HRL_ENTRY', offset, 'an entry is about one or more whole sectors', { byteOffset, dataLength });
  }
  if (byteOffset + BigInt(dataLength) > BigInt(DISK_BYTES_MAX)) {
    return fault('HRL_ENTRY', offset, `a disk has at most ${DISK_BYTES_MAX} bytes`, { byteOffset, dataLength });
  }
  return {
    byteOffset: Number(byteOffset),
    dataLength,
    timeStamp: entry.readUInt32LE(16),
    dataChecksum: entry.readUInt32LE(21),
    fileOffset,
  };
}

function slotAt(index: number): number {
  return BLOCK_HEADER_BYTES + index * ENTRY_BYTES;
}

function isZero(bytes: Buffer, from: number, to: number): boolean {
  for (let i = from; i < to; i += 1) if (bytes[i] !== 0) return false;
  return true;
}

function fault(code: LogFault['code'], offset: number, rule: string, facts: LogFault['facts']): LogFault {
  return { code, offset, rule, facts };
}
