/**
 * The VHD footer: 512 bytes, big-endian, at the end of every VHD and again at offset 0 of a dynamic or differencing one.
 *
 *   0 (8)  `conectix`                    48 (8)  current size: the size of the disk
 *   8 (4)  features: bit 1 always set    56 (2)  cylinders   58 (1) heads   59 (1) sectors per track
 *  12 (4)  version 0x00010000            60 (4)  type: 2 fixed, 3 dynamic, 4 differencing
 *  16 (8)  offset of the dynamic header, 64 (4)  checksum
 *          all ones for a fixed disk     68 (16) unique id
 *  24 (4)  seconds since 2000 UTC        84 (1)  saved state
 *  28 (4)  creator  32 (4) its version   85 (427) reserved, zeros
 *  36 (4)  creator's system              40 (8)  original size
 *
 * The checksum is the one's complement of the sum of all bytes, itself taken as zeros. Old Virtual PC wrote the footer
 * one byte short (511); the missing byte is a reserved zero.
 */
import { ByteReader, GIB, SECTOR_BYTES } from '../bytes.ts';
import { VHD_BYTES_MAX } from '../limits.ts';
import type { Findings } from './findings.ts';
import { type Geometry, geometryOf } from './vhd-geometry.ts';
import type { DiskSubformat } from './virtual-disk.ts';

export const VHD_FOOTER_BYTES = 512;
/** A fixed VHD has no 32-bit table: Azure takes managed disks of up to 32767 GiB. */
const VHD_FIXED_BYTES_MAX: number = 32767 * GIB;

const COOKIE = Buffer.from('conectix', 'latin1');
const VERSION = 0x00010000;
const FEATURES_RESERVED = 2;
const NO_OFFSET = 0xffff_ffff_ffff_ffffn;
const CHECKSUM_OFFSET = 64;
/** 2000-01-01 UTC in Unix seconds. */
const EPOCH_2000 = 946684800;
const TYPES: Readonly<Record<number, DiskSubformat>> = { 2: 'fixed', 3: 'dynamic', 4: 'differencing' };
const TYPE_NUMBERS: Readonly<Record<DiskSubformat, number>> = { fixed: 2, dynamic: 3, differencing: 4 };
const CREATOR = Buffer.from('win ', 'latin1');
const CREATOR_VERSION = 0x000a0000;
const CREATOR_SYSTEM = Buffer.from('Wi2k', 'latin1');

/** What a footer says. */
export interface VhdFooter {
  readonly subformat: DiskSubformat;
  readonly virtualSizeBytes: number;
  /** Of the dynamic header; 0 for a fixed disk. */
  readonly headerOffset: number;
  /** Raw bytes in hex. */
  readonly uniqueId: string;
  /** Seconds since 2000. */
  readonly timestamp: number;
  readonly creator: string;
  readonly geometry: Geometry;
  readonly savedState: boolean;
}

/** What a new footer holds. */
export interface FooterFields {
  readonly subformat: DiskSubformat;
  readonly virtualSizeBytes: number;
  /** Of the dynamic header; ignored for a fixed disk. */
  readonly headerOffset: number;
  readonly uniqueId: Uint8Array;
  /** Unix time in milliseconds. */
  readonly createdMs: number;
}

/** The checksum of a footer or dynamic header, whose own field begins at `fieldOffset`. */
export function vhdChecksum(bytes: Uint8Array, fieldOffset: number): number {
  let sum = 0;
  for (let i = 0; i < bytes.byteLength; i += 1) sum += bytes[i]!;
  for (let i = fieldOffset; i < fieldOffset + 4; i += 1) sum -= bytes[i]!;
  return ~sum >>> 0;
}

/** Whether `bytes` begin like a footer. */
export function hasFooterCookie(bytes: Uint8Array): boolean {
  return COOKIE.compare(bytes, 0, Math.min(COOKIE.length, bytes.byteLength)) === 0;
}

/** The type that 512 bytes claim, whatever else is wrong with them. */
export function claimedSubformat(bytes: Uint8Array): DiskSubformat | undefined {
  return TYPES[new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(60)];
}

/**
 * Reads the footer that stands at `offset` of the file. Why it is no valid footer goes to `refuse`, which may throw;
 * if it does not, the result is undefined.
 */
export function parseFooter(
  bytes: Uint8Array,
  offset: number,
  refuse: Findings['fault'],
  source: string,
): VhdFooter | undefined {
  const code = 'VHD_FOOTER';
  const reader = new ByteReader(bytes, { source, offset, code });
  if (!hasFooterCookie(bytes)) {
    refuse(code, offset, 'a VHD footer begins with "conectix"');
    return undefined;
  }
  const checksum = reader.seek(CHECKSUM_OFFSET).u32BE();
  const computed = vhdChecksum(bytes, CHECKSUM_OFFSET);
  if (checksum !== computed) {
    refuse(code, offset + CHECKSUM_OFFSET, 'the footer checksum matches', { stored: checksum, computed });
    return undefined;
  }
  const version = reader.seek(12).u32BE();
  if (version >>> 16 !== VERSION >>> 16) {
    refuse(code, offset + 12, 'the footer version is 1.x', { version });
    return undefined;
  }
  const type = reader.seek(60).u32BE();
  const subformat = TYPES[type];
  if (subformat === undefined) {
    refuse(code, offset + 60, 'the disk type is 2 (fixed), 3 (dynamic) or 4 (differencing)', { type });
    return undefined;
  }
  const size = reader.seek(48).u64BE();
  const maxBytes = subformat === 'fixed' ? VHD_FIXED_BYTES_MAX : VHD_BYTES_MAX;
  if (size === 0n || size > BigInt(maxBytes) || size % BigInt(SECTOR_BYTES) !== 0n) {
    refuse(code, offset + 48, `the current size is a multiple of 512, above 0 and at most ${maxBytes}`, { size });
    return undefined;
  }
  const headerOffset = reader.seek(16).u64BE();
  if (subformat !== 'fixed' && headerOffset > BigInt(Number.MAX_SAFE_INTEGER)) {
    refuse(code, offset + 16, 'the footer of a dynamic disk names its header', { headerOffset });
    return undefined;
  }
  return {
    subformat,
    virtualSizeBytes: Number(size),
    headerOffset: subformat === 'fixed' ? 0 : Number(headerOffset),
    timestamp: reader.seek(24).u32BE(),
    creator: Buffer.from(reader.bytes(4)).toString('latin1'),
    geometry: { cylinders: reader.seek(56).u16BE(), heads: reader.u8(), sectorsPerTrack: reader.u8() },
    uniqueId: Buffer.from(reader.seek(68).bytes(16)).toString('hex'),
    savedState: reader.u8() !== 0,
  };
}

/** The 512 bytes of a footer. */
export function buildFooter(fields: FooterFields): Uint8Array {
  const { cylinders, heads, sectorsPerTrack } = geometryOf(fields.virtualSizeBytes);
  const bytes = Buffer.alloc(VHD_FOOTER_BYTES);
  COOKIE.copy(bytes);
  bytes.writeUInt32BE(FEATURES_RESERVED, 8);
  bytes.writeUInt32BE(VERSION, 12);
  bytes.writeBigUInt64BE(fields.subformat === 'fixed' ? NO_OFFSET : BigInt(fields.headerOffset), 16);
  bytes.writeUInt32BE(vhdTimestamp(fields.createdMs), 24);
  CREATOR.copy(bytes, 28);
  bytes.writeUInt32BE(CREATOR_VERSION, 32);
  CREATOR_SYSTEM.copy(bytes, 36);
  bytes.writeBigUInt64BE(BigInt(fields.virtualSizeBytes), 40);
  bytes.writeBigUInt64BE(BigInt(fields.virtualSizeBytes), 48);
  bytes.writeUInt16BE(cylinders, 56);
  bytes.writeUInt8(heads, 58);
  bytes.writeUInt8(sectorsPerTrack, 59);
  bytes.writeUInt32BE(TYPE_NUMBERS[fields.subformat], 60);
  bytes.set(fields.uniqueId.subarray(0, 16), 68);
  bytes.writeUInt32BE(vhdChecksum(bytes, CHECKSUM_OFFSET), CHECKSUM_OFFSET);
  return bytes;
}

/** What the footer of a page blob is made from. */
export interface FixedFooterFields {
  /** A multiple of 512; Azure wants a multiple of 1 MiB. */
  readonly virtualSizeBytes: number;
  /** 16 random bytes. */
  readonly uniqueId: Uint8Array;
  /** Unix time in milliseconds. */
  readonly createdMs: number;
}

/**
 * The footer that makes `virtualSizeBytes` of content a fixed VHD, to stand right behind it (so the page blob of a
 * bootable disk is `virtualSizeBytes + 512` long).
 * @throws {RangeError} if no VHD can have this size or the id has not 16 bytes.
 */
export function fixedVhdFooter(fields: FixedFooterFields): Uint8Array {
  const { virtualSizeBytes, uniqueId } = fields;
  if (virtualSizeBytes % SECTOR_BYTES !== 0 || virtualSizeBytes <= 0 || virtualSizeBytes > VHD_FIXED_BYTES_MAX) {
    throw new RangeError(`a fixed VHD cannot have ${virtualSizeBytes} bytes`);
  }
  if (uniqueId.byteLength !== 16) throw new RangeError(`a unique id has 16 bytes, not ${uniqueId.byteLength}`);
  return buildFooter({ ...fields, subformat: 'fixed', headerOffset: 0 });
}

/** Unix milliseconds → seconds since 2000, 0 before it. */
export function vhdTimestamp(unixMs: number): number {
  return Math.min(Math.max(Math.floor(unixMs / 1000) - EPOCH_2000, 0), 0xffffffff);
}
