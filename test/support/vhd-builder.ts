/**
 * Builds VHD files byte by byte for tests, from the specification and not from src: what the reader misreads, this does
 * not miswrite in the same way. Blocks lie where the caller wants them, packed or with gaps, in any order.
 */

const SECTOR_BYTES = 512;

export interface VhdOptions {
  readonly virtualSize: number;
  /** A power of two. */
  readonly blockSize: number;
  /** Of the dynamic header; a multiple of 512, at least 512. */
  readonly headerOffset?: number;
  /** Table entries beyond those that the disk needs. */
  readonly spareEntries?: number;
  readonly uniqueId: Buffer;
  /** Makes a differencing disk. */
  readonly parent?: { readonly uniqueId: Buffer; readonly fileName: string };
  /** Blocks in the order in which they lie in the file. */
  readonly blocks: readonly VhdBlock[];
  /** Leaves the last byte of the footer away, as old Virtual PC did. */
  readonly shortFooter?: boolean;
}

export interface VhdBlock {
  readonly index: number;
  /** Sectors left free in front of it. */
  readonly gapSectors: number;
  /** A whole block. */
  readonly data: Buffer;
  /** Which sectors the block holds; undefined: all. */
  readonly sectors?: readonly boolean[];
}

/** The bytes of a dynamic or differencing disk. */
export function buildVhd(options: VhdOptions): Buffer {
  const { virtualSize, blockSize, headerOffset = 512, spareEntries = 0, parent, blocks } = options;
  const entries = Math.ceil(virtualSize / blockSize) + spareEntries;
  const locatorOffset = headerOffset + 1024;
  const tableOffset = locatorOffset + (parent === undefined ? 0 : SECTOR_BYTES);
  const table = Buffer.alloc(Math.ceil((entries * 4) / SECTOR_BYTES) * SECTOR_BYTES, 0xff);
  const bitmapBytes = Math.ceil(blockSize / SECTOR_BYTES / 8 / SECTOR_BYTES) * SECTOR_BYTES;
  const parts: Buffer[] = [];
  let sector = (tableOffset + table.length) / SECTOR_BYTES;
  for (const { index, gapSectors, data, sectors } of blocks) {
    sector += gapSectors;
    table.writeUInt32BE(sector, index * 4);
    parts.push(Buffer.alloc(gapSectors * SECTOR_BYTES, 0xdd), bitmapOf(sectors, blockSize, bitmapBytes), data);
    sector += (bitmapBytes + blockSize) / SECTOR_BYTES;
  }
  const footer = footerOf(options);
  const head = Buffer.alloc(tableOffset);
  footer.copy(head);
  headerOf(options, tableOffset, entries, locatorOffset).copy(head, headerOffset);
  if (parent !== undefined) head.write(`.\\${parent.fileName}`, locatorOffset, 'utf16le');
  const end = options.shortFooter === true ? footer.subarray(0, 511) : footer;
  return Buffer.concat([head, table, ...parts, end]);
}

function bitmapOf(sectors: readonly boolean[] | undefined, blockSize: number, bitmapBytes: number): Buffer {
  const bitmap = Buffer.alloc(bitmapBytes);
  for (let s = 0; s < blockSize / SECTOR_BYTES; s += 1) {
    if (sectors === undefined || sectors[s] === true) bitmap[Math.floor(s / 8)]! += 128 / 2 ** (s % 8);
  }
  return bitmap;
}

function footerOf({ virtualSize, headerOffset = 512, uniqueId, parent }: VhdOptions): Buffer {
  const footer = Buffer.alloc(512);
  footer.write('conectix', 0, 'latin1');
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(0x10000, 12);
  footer.writeBigUInt64BE(BigInt(headerOffset), 16);
  footer.write('win ', 28, 'latin1');
  footer.write('Wi2k', 36, 'latin1');
  footer.writeBigUInt64BE(BigInt(virtualSize), 40);
  footer.writeBigUInt64BE(BigInt(virtualSize), 48);
  footer.writeUInt32BE(parent === undefined ? 3 : 4, 60);
  uniqueId.copy(footer, 68, 0, 16);
  return sealed(footer, 64);
}

function headerOf(
  { blockSize, parent }: VhdOptions,
  tableOffset: number,
  entries: number,
  locatorOffset: number,
): Buffer {
  const header = Buffer.alloc(1024);
  header.write('cxsparse', 0, 'latin1');
  header.fill(0xff, 8, 16);
  header.writeBigUInt64BE(BigInt(tableOffset), 16);
  header.writeUInt32BE(0x10000, 24);
  header.writeUInt32BE(entries, 28);
  header.writeUInt32BE(blockSize, 32);
  if (parent !== undefined) {
    parent.uniqueId.copy(header, 40, 0, 16);
    Buffer.from(parent.fileName, 'utf16le').swap16().copy(header, 64);
    header.write('W2ru', 576, 'latin1');
    header.writeUInt32BE(SECTOR_BYTES, 580);
    header.writeUInt32BE((parent.fileName.length + 2) * 2, 584);
    header.writeBigUInt64BE(BigInt(locatorOffset), 592);
  }
  return sealed(header, 36);
}

/** With its checksum: the complement of the sum of its bytes, the field still being zeros. */
function sealed(structure: Buffer, fieldOffset: number): Buffer {
  const sum = structure.reduce((total, byte) => total + byte, 0);
  structure.writeUInt32BE(0xffffffff - sum, fieldOffset);
  return structure;
}
