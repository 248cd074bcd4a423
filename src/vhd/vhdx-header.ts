/**
 * The two headers of a VHDX ([MS-VHDX] 2.2.2), at 64 and 128 KiB.
 *
 *   0  (4) `head`                    48 (16) LogGuid; nil: no log to replay
 *   4  (4) CRC-32C over 4096 bytes   64  (2) LogVersion, 0
 *   8  (8) SequenceNumber            66  (2) Version, 1
 *  16 (16) FileWriteGuid             68  (4) LogLength, whole MiB
 *  32 (16) DataWriteGuid             72  (8) LogOffset, whole MiB
 *
 * A writer updates the older of the two, so that a torn update leaves the other one. Valid means signature and CRC;
 * the valid one with the higher sequence number is the current one, and only that one counts.
 */
import { asBuffer, ByteReader, bytesEqual } from '../bytes.ts';
import { type BlockferryError, isBlockferryError } from '../errors.ts';
import { formatGuid, GUID_BYTES, guidBytes, NIL_GUID } from '../guid.ts';
import { VHDX_LOG_BYTES_MAX } from '../limits.ts';
import { crc32cWithoutField } from './crc32c.ts';
import { ALLOCATION_BYTES, HEADER_BYTES, HEADER_OFFSETS, HEADER_SECTION_BYTES, vhdxFault } from './vhdx-layout.ts';

const SIGNATURE = 'head';
const CRC_OFFSET = 4;

/** One header, as it stands. Log fields are unchecked until `logPlacement`. */
export interface VhdxHeader {
  /** Where in the file this copy lies. */
  readonly offset: number;
  readonly sequenceNumber: bigint;
  readonly fileWriteGuid: string;
  /** Changes before the guest's data change; a child names its parent by it. */
  readonly dataWriteGuid: string;
  readonly logGuid: string;
  readonly logVersion: number;
  readonly version: number;
  readonly logLengthBytes: number;
  readonly logOffset: bigint;
}

/** Where the log lies. `isActive`: it has a GUID, so it must be replayed. */
export interface LogPlacement {
  readonly guid: string;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly isActive: boolean;
}

/** Header bytes → fields. @throws VHDX_HEADER unless signature and CRC are right. */
export function parseHeader(bytes: Uint8Array, source: string, offset: number): VhdxHeader {
  const reader = new ByteReader(bytes, { source, offset, code: 'VHDX_HEADER' });
  const header = bytes.subarray(0, HEADER_BYTES);
  const signature = asBuffer(reader.bytes(4)).toString('latin1');
  if (signature !== SIGNATURE) {
    throw vhdxFault('VHDX_HEADER', source, offset, 'a header begins with "head"', 'header without signature');
  }
  const stored = reader.u32LE();
  reader.skip(HEADER_BYTES - 8).seek(8);
  const computed = crc32cWithoutField(header, CRC_OFFSET);
  if (stored !== computed) {
    const problem = `header has checksum ${hex(stored)} but its bytes give ${hex(computed)}`;
    throw vhdxFault('VHDX_HEADER', source, offset, 'the checksum of a header is its CRC-32C', problem);
  }
  return {
    offset,
    sequenceNumber: reader.u64LE(),
    fileWriteGuid: formatGuid(reader.bytes(GUID_BYTES)),
    dataWriteGuid: formatGuid(reader.bytes(GUID_BYTES)),
    logGuid: formatGuid(reader.bytes(GUID_BYTES)),
    logVersion: reader.u16LE(),
    version: reader.u16LE(),
    logLengthBytes: reader.u32LE(),
    logOffset: reader.u64LE(),
  };
}

/** Both header copies as they were read. */
export type HeaderCopies = readonly [Uint8Array, Uint8Array];

/** The current header, and what is wrong with the copy that is not used (not fatal). */
export interface ChosenHeader {
  readonly header: VhdxHeader;
  readonly spareFault: BlockferryError | undefined;
}

/** The current one of two headers. @throws VHDX_HEADER if none is valid, or both claim to be current. */
export function chooseHeader(copies: HeaderCopies, source: string): ChosenHeader {
  const first = tryParse(copies[0], source, HEADER_OFFSETS[0]);
  const second = tryParse(copies[1], source, HEADER_OFFSETS[1]);
  if (isBlockferryError(first)) {
    if (isBlockferryError(second)) throw first;
    return { header: second, spareFault: first };
  }
  if (isBlockferryError(second)) return { header: first, spareFault: second };
  if (first.sequenceNumber === second.sequenceNumber && !bytesEqual(copies[0], copies[1])) {
    const rule = 'two different headers have different sequence numbers';
    const problem = `both headers have sequence number ${first.sequenceNumber} but differ`;
    throw vhdxFault('VHDX_HEADER', source, second.offset, rule, problem);
  }
  return { header: second.sequenceNumber > first.sequenceNumber ? second : first, spareFault: undefined };
}

/** Checks the version and the log fields of the current header. @throws VHDX_HEADER, VHDX_LOG */
export function logPlacement(header: VhdxHeader, fileSizeBytes: number, source: string): LogPlacement {
  const { offset, logGuid, logLengthBytes, logOffset } = header;
  if (header.version !== 1) {
    const problem = `version is ${header.version}`;
    throw vhdxFault('VHDX_HEADER', source, offset + 66, 'the version of a VHDX is 1', problem);
  }
  const isActive = logGuid !== NIL_GUID;
  if (isActive && header.logVersion !== 0) {
    const problem = `log version is ${header.logVersion}`;
    throw vhdxFault('VHDX_LOG', source, offset + 64, 'a log that is to be replayed has version 0', problem);
  }
  if (isActive && logLengthBytes === 0) {
    throw vhdxFault('VHDX_LOG', source, offset + 68, 'a log with a GUID is not empty', 'log length is 0');
  }
  if (logLengthBytes % ALLOCATION_BYTES !== 0 || logLengthBytes > VHDX_LOG_BYTES_MAX) {
    const rule = `the log is whole MiB, at most ${VHDX_LOG_BYTES_MAX} bytes`;
    throw vhdxFault('VHDX_LOG', source, offset + 68, rule, `log length is ${logLengthBytes}`);
  }
  if (logLengthBytes === 0) return { guid: logGuid, offset: 0, lengthBytes: 0, isActive };
  const isPlaced =
    logOffset >= BigInt(HEADER_SECTION_BYTES) &&
    logOffset % BigInt(ALLOCATION_BYTES) === 0n &&
    logOffset + BigInt(logLengthBytes) <= BigInt(fileSizeBytes);
  if (!isPlaced) {
    const rule = 'the log begins at a whole MiB behind the header section and ends inside the file';
    const problem = `log of ${logLengthBytes} bytes at ${logOffset} in a file of ${fileSizeBytes} bytes`;
    throw vhdxFault('VHDX_LOG', source, offset + 72, rule, problem);
  }
  return { guid: logGuid, offset: Number(logOffset), lengthBytes: logLengthBytes, isActive };
}

/** What a header says that is written. */
export type HeaderFields = Pick<VhdxHeader, 'sequenceNumber' | 'fileWriteGuid' | 'dataWriteGuid' | 'logGuid'> & {
  readonly logOffset: number;
  readonly logLengthBytes: number;
};

/** Fields → 4096 header bytes. */
export function encodeHeader(fields: HeaderFields): Uint8Array {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(SIGNATURE, 0, 'latin1');
  bytes.writeBigUInt64LE(fields.sequenceNumber, 8);
  bytes.set(guidBytes(fields.fileWriteGuid), 16);
  bytes.set(guidBytes(fields.dataWriteGuid), 32);
  bytes.set(guidBytes(fields.logGuid), 48);
  bytes.writeUInt16LE(1, 66);
  bytes.writeUInt32LE(fields.logLengthBytes, 68);
  bytes.writeBigUInt64LE(BigInt(fields.logOffset), 72);
  bytes.writeUInt32LE(crc32cWithoutField(bytes, CRC_OFFSET), CRC_OFFSET);
  return bytes;
}

function tryParse(bytes: Uint8Array, source: string, offset: number): VhdxHeader | BlockferryError {
  try {
    return parseHeader(bytes, source, offset);
  } catch (error) {
    if (isBlockferryError(error)) return error;
    throw error;
  }
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}
