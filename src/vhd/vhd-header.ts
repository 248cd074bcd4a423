/**
 * The dynamic header of a dynamic or differencing VHD: 1024 bytes, big-endian, where the footer says (usually at 512).
 *
 *   0 (8)  `cxsparse`                    40 (16) unique id of the parent; zeros: the parent is a raw file
 *   8 (8)  all ones                      56 (4)  time stamp of the parent (0 in Windows files; never compared)
 *  16 (8)  offset of the block table     60 (4)  reserved
 *  24 (4)  version 0x00010000            64 (512) name of the parent, UTF-16BE
 *  28 (4)  entries of the block table   576 (192) 8 parent locators of 24 bytes, see vhd-locators.ts
 *  32 (4)  block size, a power of two   768 (256) reserved
 *  36 (4)  checksum, as in the footer
 */
import { alignUp, ByteReader, divCeil, isPowerOfTwo, SECTOR_BYTES } from '../bytes.ts';
import { VHD_BAT_BYTES_MAX, VHD_BLOCK_BYTES_MAX } from '../limits.ts';
import type { Findings } from './findings.ts';
import { vhdChecksum } from './vhd-footer.ts';

export const VHD_HEADER_BYTES = 1024;
export const LOCATORS_OFFSET = 576;

const COOKIE = Buffer.from('cxsparse', 'latin1');
const VERSION = 0x00010000;
const CHECKSUM_OFFSET = 36;
const PARENT_NAME_OFFSET = 64;
const PARENT_NAME_BYTES = 512;

/** What a dynamic header says. */
export interface VhdHeader {
  readonly offset: number;
  readonly batOffset: number;
  /** As the file has it; may be more than the disk needs. */
  readonly maxTableEntries: number;
  readonly blockSizeBytes: number;
  /** Raw bytes in hex. */
  readonly parentUniqueId: string;
  readonly parentName: string;
  /** The 8 locator entries. */
  readonly locators: Uint8Array;
}

/** What a new header holds. */
export interface HeaderFields {
  readonly batOffset: number;
  readonly maxTableEntries: number;
  readonly blockSizeBytes: number;
  readonly parent?: {
    readonly uniqueId: Uint8Array;
    readonly timestamp: number;
    readonly name: string;
    readonly locators: Uint8Array;
  };
}

/** Reads the header that stands at `offset`. undefined after a fault that leaves nothing to go on with. */
export function parseHeader(bytes: Uint8Array, offset: number, findings: Findings): VhdHeader | undefined {
  const code = 'VHD_HEADER';
  const reader = new ByteReader(bytes, { source: findings.source, offset, code });
  if (COOKIE.compare(reader.bytes(8)) !== 0) {
    findings.fault(code, offset, 'the dynamic header begins with "cxsparse"');
    return undefined;
  }
  const checksum = reader.seek(CHECKSUM_OFFSET).u32BE();
  const computed = vhdChecksum(bytes, CHECKSUM_OFFSET);
  if (checksum !== computed) {
    findings.fault(code, offset + CHECKSUM_OFFSET, 'the header checksum matches', { stored: checksum, computed });
  }
  const version = reader.seek(24).u32BE();
  if (version >>> 16 !== VERSION >>> 16) {
    findings.fault(code, offset + 24, 'the header version is 1.x', { version });
    return undefined;
  }
  const maxTableEntries = reader.u32BE();
  const blockSizeBytes = reader.u32BE();
  if (!isPowerOfTwo(blockSizeBytes) || blockSizeBytes < SECTOR_BYTES || blockSizeBytes > VHD_BLOCK_BYTES_MAX) {
    const rule = `the block size is a power of two from ${SECTOR_BYTES} to ${VHD_BLOCK_BYTES_MAX}`;
    findings.fault(code, offset + 32, rule, { blockSizeBytes });
    return undefined;
  }
  const batOffset = reader.seek(16).u64BE();
  if (batOffset > BigInt(Number.MAX_SAFE_INTEGER)) {
    findings.fault(code, offset + 16, 'the block table lies inside the file', { batOffset });
    return undefined;
  }
  return {
    offset,
    batOffset: Number(batOffset),
    maxTableEntries,
    blockSizeBytes,
    parentUniqueId: Buffer.from(reader.seek(40).bytes(16)).toString('hex'),
    parentName: readParentName(reader.seek(PARENT_NAME_OFFSET).bytes(PARENT_NAME_BYTES)),
    locators: reader.seek(LOCATORS_OFFSET).bytes(192),
  };
}

/** Blocks of a disk of `virtualSizeBytes`. */
export function blockCount(virtualSizeBytes: number, blockSizeBytes: number): number {
  return divCeil(virtualSizeBytes, blockSizeBytes);
}

/** Bytes of the sector bitmap in front of each block: whole sectors, one bit per sector of the block. */
export function bitmapBytes(blockSizeBytes: number): number {
  return alignUp(divCeil(blockSizeBytes, SECTOR_BYTES * 8), SECTOR_BYTES);
}

/** The cross-field rules: the block table covers the disk and lies inside the file. Whether it can be read at all. */
export function checkTable(
  header: VhdHeader,
  virtualSizeBytes: number,
  fileBytes: number,
  findings: Findings,
): boolean {
  const { offset, batOffset, maxTableEntries, blockSizeBytes } = header;
  const needed = blockCount(virtualSizeBytes, blockSizeBytes);
  if (needed * 4 > VHD_BAT_BYTES_MAX) {
    const facts = { tableBytes: needed * 4 };
    findings.fault(
      'VHD_HEADER',
      offset + 32,
      `the block table of the disk has at most ${VHD_BAT_BYTES_MAX} bytes`,
      facts,
    );
    return false;
  }
  if (maxTableEntries < needed) {
    const facts = { entries: maxTableEntries, needed };
    findings.fault('VHD_HEADER', offset + 28, 'the block table has an entry for every block of the disk', facts);
    return false;
  }
  if (batOffset % SECTOR_BYTES !== 0 || batOffset + maxTableEntries * 4 > fileBytes) {
    const facts = { batOffset, entries: maxTableEntries, fileBytes };
    findings.fault('VHD_HEADER', offset + 16, 'the block table begins on a sector and lies inside the file', facts);
    return false;
  }
  return true;
}

/** The 1024 bytes of a header. */
export function buildHeader(fields: HeaderFields): Uint8Array {
  const bytes = Buffer.alloc(VHD_HEADER_BYTES);
  COOKIE.copy(bytes);
  bytes.fill(0xff, 8, 16);
  bytes.writeBigUInt64BE(BigInt(fields.batOffset), 16);
  bytes.writeUInt32BE(VERSION, 24);
  bytes.writeUInt32BE(fields.maxTableEntries, 28);
  bytes.writeUInt32BE(fields.blockSizeBytes, 32);
  if (fields.parent !== undefined) {
    bytes.set(fields.parent.uniqueId, 40);
    bytes.writeUInt32BE(fields.parent.timestamp, 56);
    bytes.set(encodeParentName(fields.parent.name), PARENT_NAME_OFFSET);
    bytes.set(fields.parent.locators, LOCATORS_OFFSET);
  }
  bytes.writeUInt32BE(vhdChecksum(bytes, CHECKSUM_OFFSET), CHECKSUM_OFFSET);
  return bytes;
}

function readParentName(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).swap16().toString('utf16le');
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}

/** A name that does not fit is cut: the locators hold the whole path. One NUL stays behind it. */
function encodeParentName(name: string): Uint8Array {
  return Buffer.from(name.slice(0, PARENT_NAME_BYTES / 2 - 1), 'utf16le').swap16();
}
