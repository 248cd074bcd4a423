/**
 * The file header of a log ([MS-HRL] 2.2), 4096 bytes, little-endian, without gaps:
 *
 *     0  (8) Cookie `msctlog` and a blank             60 (16) UniqueId
 *     8  (4) LogFormatVersion, 0x00020000             76 (16) PreviousUniqueId: the log before this one
 *    12  (4) TimeStamp of creation                    92  (4) LastModifiedTimeStamp
 *    16  (4) CreatorApplication, text                 96  (8) TotalMetadataEntries, over all blocks
 *    20  (4) CreatorVersion                          104  (4) FileType, 0
 *    24  (8) OriginalSize, 0                         108  (2) Flags, 0
 *    32  (8) CurrentSize: of the file                110 (16) Vhd2DataWriteGuid (version 2; reserved in version 1)
 *    40  (4) Checksum over all 4096 bytes            126      reserved, 0
 *    44  (8) EOLLocation: 0 while the log is open
 *    52  (4) ErrorCode, 0
 *    56  (4) MetadataSize: of one block
 *
 * Times are seconds since 2000-01-01T00:00:00Z. Every field lies in the first 512 bytes, so a torn write of the header
 * leaves the old one or the new one. Versions 1 and 2 are read, version 2 is written.
 */
import { asBuffer, ByteReader, SECTOR_BYTES } from '../bytes.ts';
import { formatGuid, GUID_BYTES, guidBytes } from '../guid.ts';
import { HRL_METADATA_BYTES_MAX } from '../limits.ts';
import { checksumAround } from './checksum.ts';
import { type LogFault, logError } from './fault.ts';

export const HEADER_BYTES = 4096;
/** MetadataSize of every log that we write, and of Hyper-V's. */
export const METADATA_BYTES_DEFAULT = 4096;

const COOKIE = 'msctlog';
const VERSION_1 = 0x0001_0000;
const VERSION_2 = 0x0002_0000;
const CHECKSUM_OFFSET = 40;
const CREATOR_APPLICATION = 'bfry';
const CREATOR_VERSION = 0x0001_0000;

/** 2000-01-01T00:00:00Z. */
const EPOCH_MS = 946_684_800_000;
const TIME_MAX = 0xffff_ffff;

/** The fields of a header that mean something. */
export interface LogHeader {
  readonly version: 1 | 2;
  /** Creation, in log time. */
  readonly timeStamp: number;
  readonly lastModified: number;
  /** EOLLocation: where the last block ends, 0 in a log that is open or was not closed. */
  readonly endOffset: number;
  /** MetadataSize: bytes of one metadata block. */
  readonly metadataBytes: number;
  readonly uniqueId: string;
  readonly previousUniqueId: string;
  readonly entryCount: number;
  /** DataWriteGuid that the VHDX had; undefined in version 1. */
  readonly dataWriteGuid: string | undefined;
}

/** Unix milliseconds → log time; held at the ends of its u32. */
export function toLogTime(unixMs: number): number {
  return Math.min(TIME_MAX, Math.max(0, Math.floor((unixMs - EPOCH_MS) / 1000)));
}

/** Log time → Unix milliseconds. */
export function fromLogTime(seconds: number): number {
  return EPOCH_MS + seconds * 1000;
}

/** @throws HRL_HEADER */
export function parseLogHeader(bytes: Uint8Array, source: string): LogHeader {
  const refuse = (offset: number, rule: string, facts: LogFault['facts'] = {}): never => {
    throw logError(source, { code: 'HRL_HEADER', offset, rule, facts });
  };
  if (bytes.byteLength < HEADER_BYTES) {
    refuse(0, `a log begins with a header of ${HEADER_BYTES} bytes`, { lengthBytes: bytes.byteLength });
  }
  const header = new ByteReader(bytes, { source, offset: 0, code: 'HRL_HEADER' });
  const cookie = asBuffer(header.bytes(8)).toString('latin1');
  if (cookie !== `${COOKIE} ` && cookie !== `${COOKIE}\0`) refuse(0, `a log begins with "${COOKIE}"`);
  const version = header.u32LE();
  if (version !== VERSION_1 && version !== VERSION_2) {
    refuse(8, 'the version of the log format is 1.0 or 2.0', { version: `0x${version.toString(16)}` });
  }
  const timeStamp = header.u32LE();
  const stored = header.seek(CHECKSUM_OFFSET).u32LE();
  const computed = checksumAround(bytes.subarray(0, HEADER_BYTES), CHECKSUM_OFFSET);
  if (stored !== computed) refuse(CHECKSUM_OFFSET, 'the checksum of the header holds', { stored, computed });
  const endOffset = header.sizeLE('EOLLocation', Number.MAX_SAFE_INTEGER);
  const metadataBytes = header.skip(4).u32LE();
  if (metadataBytes === 0 || metadataBytes % SECTOR_BYTES !== 0 || metadataBytes > HRL_METADATA_BYTES_MAX) {
    const rule = `MetadataSize is a multiple of ${SECTOR_BYTES}, at most ${HRL_METADATA_BYTES_MAX}`;
    refuse(56, rule, { metadataBytes });
  }
  const uniqueId = formatGuid(header.bytes(GUID_BYTES));
  const previousUniqueId = formatGuid(header.bytes(GUID_BYTES));
  const lastModified = header.u32LE();
  const entryCount = header.sizeLE('TotalMetadataEntries', Number.MAX_SAFE_INTEGER);
  const fileType = header.u32LE();
  if (fileType !== 0) refuse(104, 'FileType is 0, a log of changes', { fileType });
  const dataWriteGuid = version === VERSION_2 ? formatGuid(header.skip(2).bytes(GUID_BYTES)) : undefined;
  return {
    ...{ version: version === VERSION_2 ? 2 : 1, timeStamp, lastModified, endOffset, metadataBytes },
    ...{ uniqueId, previousUniqueId, entryCount, dataWriteGuid },
  };
}

/** The header of a log that we write; `sizeBytes` is that of the file. */
export function encodeLogHeader(header: LogHeader & { readonly dataWriteGuid: string }, sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(`${COOKIE} `, 0, 'latin1');
  bytes.writeUInt32LE(VERSION_2, 8);
  bytes.writeUInt32LE(header.timeStamp, 12);
  bytes.write(CREATOR_APPLICATION, 16, 'latin1');
  bytes.writeUInt32LE(CREATOR_VERSION, 20);
  bytes.writeBigUInt64LE(BigInt(sizeBytes), 32);
  bytes.writeBigUInt64LE(BigInt(header.endOffset), 44);
  bytes.writeUInt32LE(header.metadataBytes, 56);
  bytes.set(guidBytes(header.uniqueId), 60);
  bytes.set(guidBytes(header.previousUniqueId), 76);
  bytes.writeUInt32LE(header.lastModified, 92);
  bytes.writeBigUInt64LE(BigInt(header.entryCount), 96);
  bytes.set(guidBytes(header.dataWriteGuid), 110);
  bytes.writeUInt32LE(checksumAround(bytes, CHECKSUM_OFFSET), CHECKSUM_OFFSET);
  return bytes;
}

/** The header of an unclosed log as the one that closes it; all that another program put there stays. */
export function closeLogHeader(
  header: Uint8Array,
  { endOffset, entryCount, lastModified }: Pick<LogHeader, 'endOffset' | 'entryCount' | 'lastModified'>,
): Buffer {
  const bytes = Buffer.from(header);
  bytes.writeBigUInt64LE(BigInt(endOffset), 32);
  bytes.writeBigUInt64LE(BigInt(endOffset), 44);
  bytes.writeUInt32LE(lastModified, 92);
  bytes.writeBigUInt64LE(BigInt(entryCount), 96);
  bytes.writeUInt32LE(checksumAround(bytes, CHECKSUM_OFFSET), CHECKSUM_OFFSET);
  return bytes;
}
