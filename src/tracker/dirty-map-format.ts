/**
 * The file of a dirty map (docs/formats/dirty-map.md). All numbers are little-endian.
 *
 *   header, 4096 bytes, of which the first 512 are in use        page n at 4096 · (n + 1): 8 records of 512 bytes
 *      0 (8) `bfrydmap`                                             0 (168) active   ┐ one bit a chunk, the lowest
 *      8 (4) version, 1                                           168 (168) current  │ bit of the first byte first:
 *     12 (4) chunkBytes                                           336 (168) closed   ┘ 1,344 chunks a record
 *     16 (8) size of the disk                                     504   (4) reserved, 0
 *     24 (16) which disk                                          508   (4) CRC-32 over 508 bytes, begun with the
 *     40 (4) flags: bit 0, every chunk is changed                           CRC-32 of header 8 … 39 plus the record's
 *     44 (464) reserved, 0                                                  number; an empty record is all zeros
 *    508 (4) CRC-32 over 508 bytes
 *
 * All that is known of a chunk lies in one sector, so whichever version of that sector a crash leaves, it is one that was
 * true of the chunk as a whole. A record that breaks its checksum counts as written: all its chunks are in every set.
 */
import { crc32 } from 'node:zlib';
import { asBuffer, ByteReader, bytesEqual, divCeil, isPowerOfTwo } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, DISK_BYTES_MAX } from '../limits.ts';
import { CHUNKS_PER_PAGE, DirtyPage, PAGE_BYTES, RECORD_BYTES, RECORDS_PER_PAGE } from './dirty-page.ts';

const MAGIC = 'bfrydmap';
const VERSION = 1;
const HEADER_BYTES = 4096;
const IDENTITY_OFFSET = 8;
const FLAGS_OFFSET = 40;
const RESERVED_OFFSET = 44;
const CHECKSUM_OFFSET: number = RECORD_BYTES - 4;
const FLAG_EVERYTHING = 1;
const DISK_GUID_BYTES = 16;

/** Which disk a map is of. */
export interface MapIdentity {
  readonly sizeBytes: number;
  readonly chunkBytes: number;
  /** 16 bytes. */
  readonly diskGuid: Uint8Array;
}

/** @throws RangeError for a disk that cannot be */
export function checkIdentity({ sizeBytes, chunkBytes, diskGuid }: MapIdentity): void {
  const isChunk = isPowerOfTwo(chunkBytes) && chunkBytes >= CHUNK_BYTES_MIN && chunkBytes <= CHUNK_BYTES_MAX;
  const isSize = Number.isSafeInteger(sizeBytes) && sizeBytes >= 0 && sizeBytes <= DISK_BYTES_MAX;
  if (isChunk && isSize && diskGuid.byteLength === DISK_GUID_BYTES) return;
  throw new RangeError(`no dirty map is of ${sizeBytes} bytes in chunks of ${chunkBytes}`);
}

/** Chunks of the disk, the last of which may be cut short. */
export function chunkCountOf({ sizeBytes, chunkBytes }: MapIdentity): number {
  return divCeil(sizeBytes, chunkBytes);
}

export function pageCountOf(identity: MapIdentity): number {
  return divCeil(chunkCountOf(identity), CHUNKS_PER_PAGE);
}

/** Where a page stands; that behind the last one is the end of the file. */
export function pageOffset(pageNumber: number): number {
  return HEADER_BYTES + pageNumber * PAGE_BYTES;
}

/** The part of the header that is in use: one sector. */
export function encodeHeader({ sizeBytes, chunkBytes, diskGuid }: MapIdentity, isEverything: boolean): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES);
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(chunkBytes, 12);
  bytes.writeBigUInt64LE(BigInt(sizeBytes), 16);
  bytes.set(diskGuid, 24);
  bytes.writeUInt32LE(isEverything ? FLAG_EVERYTHING : 0, FLAGS_OFFSET);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, CHECKSUM_OFFSET)), CHECKSUM_OFFSET);
  return bytes;
}

/** Whether every chunk is changed. @throws LOCAL_STATE if it is damaged or another disk's */
export function parseHeader(bytes: Buffer, identity: MapIdentity, source: string): boolean {
  const header = new ByteReader(bytes, { source, offset: 0, code: 'LOCAL_STATE' });
  const refuse = (offset: number, rule: string): never => {
    throw mapError(source, offset, rule);
  };
  if (asBuffer(header.bytes(8)).toString('latin1') !== MAGIC) refuse(0, `a dirty map begins with "${MAGIC}"`);
  if (header.u32LE() !== VERSION) refuse(8, `the version of a dirty map is ${VERSION}`);
  const body = bytes.subarray(0, CHECKSUM_OFFSET);
  if (header.seek(CHECKSUM_OFFSET).u32LE() !== crc32(body)) refuse(CHECKSUM_OFFSET, 'the checksum of the header holds');
  const isThisDisk =
    header.seek(12).u32LE() === identity.chunkBytes &&
    header.u64LE() === BigInt(identity.sizeBytes) &&
    bytesEqual(header.bytes(DISK_GUID_BYTES), identity.diskGuid);
  if (!isThisDisk) refuse(IDENTITY_OFFSET, 'a dirty map is of the disk that it is opened for, its size and its chunks');
  const flags = header.u32LE();
  const isReservedZero = body.subarray(RESERVED_OFFSET).every((byte) => byte === 0);
  if (flags > FLAG_EVERYTHING || !isReservedZero) refuse(FLAGS_OFFSET, 'what this version does not use is 0');
  return flags === FLAG_EVERYTHING;
}

/** Puts pages into their form in the file, and takes them out of it. */
export class PageCodec {
  readonly #chunkCount: number;
  readonly #seed: number;

  constructor(identity: MapIdentity) {
    this.#chunkCount = chunkCountOf(identity);
    this.#seed = crc32(encodeHeader(identity, false).subarray(IDENTITY_OFFSET, FLAGS_OFFSET));
  }

  /** Fills in the checksums of a copy of a page. */
  seal(image: Buffer, pageNumber: number): void {
    for (let r = 0; r < RECORDS_PER_PAGE; r += 1) {
      const record = image.subarray(r * RECORD_BYTES, (r + 1) * RECORD_BYTES);
      if (record.equals(EMPTY_RECORD)) continue;
      record.writeUInt32LE(this.#checksum(record, pageNumber * RECORDS_PER_PAGE + r), CHECKSUM_OFFSET);
    }
  }

  /** The page, or undefined if nothing is in it. */
  open(image: Buffer, pageNumber: number): DirtyPage | undefined {
    if (image.equals(EMPTY_PAGE)) return undefined;
    const page = new DirtyPage();
    for (let r = 0; r < RECORDS_PER_PAGE; r += 1) {
      const record = image.subarray(r * RECORD_BYTES, (r + 1) * RECORD_BYTES);
      if (record.equals(EMPTY_RECORD)) continue;
      const isSound =
        record.readUInt32LE(CHECKSUM_OFFSET) === this.#checksum(record, pageNumber * RECORDS_PER_PAGE + r);
      page.load(r, isSound ? record : undefined);
    }
    page.cutBehind(this.#chunkCount - pageNumber * CHUNKS_PER_PAGE);
    return page;
  }

  #checksum(record: Buffer, recordNumber: number): number {
    return crc32(record.subarray(0, CHECKSUM_OFFSET), (this.#seed + recordNumber) >>> 0);
  }
}

/** A map that cannot be used. */
export function mapError(source: string, offset: number, rule: string, cause?: unknown): BlockferryError {
  return new BlockferryError('LOCAL_STATE', `${source}: offset ${offset}: broken rule: ${rule}`, {
    facts: { source, offset, rule },
    hint: 'the disk has to be compared as a whole: run a resync',
    ...(cause === undefined ? {} : { cause }),
  });
}

const EMPTY_RECORD: Buffer = Buffer.alloc(RECORD_BYTES);
const EMPTY_PAGE: Buffer = Buffer.alloc(PAGE_BYTES);
