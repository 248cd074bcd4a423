/**
 * A VHD file as a layer: fixed, dynamic or differencing.
 *
 *   fixed          data · footer
 *   dynamic        footer copy · dynamic header · block table · blocks (bitmap · data) · footer
 *   differencing   the same with parent paths before or behind the block table
 *
 * The footer at the end counts; the copy at 0 is its spare. A fixed disk has no copy, and its guest data may well begin
 * like one: so the copy is asked only if the end holds no footer, or a damaged one that does not claim to be fixed.
 *
 * Sector bitmaps: a differencing disk obeys them sector by sector. A dynamic disk has no one else to ask and reads the
 * block whole: Windows and qemu set all bits, Xen Orchestra none.
 */
import { SECTOR_BYTES } from '../bytes.ts';
import type { RandomAccessFile } from '../ports.ts';
import { type Findings, StrictFindings } from './findings.ts';
import type { Layer, LayerContext, LayerExtent, ParentLink, ParentPath } from './layer.ts';
import { BlockTable } from './vhd-bat.ts';
import { endOfRun, sectorBit } from './vhd-bitmap.ts';
import { SectorBitmaps } from './vhd-bitmaps.ts';
import { claimedSubformat, hasFooterCookie, parseFooter, VHD_FOOTER_BYTES, type VhdFooter } from './vhd-footer.ts';
import { geometryBytes } from './vhd-geometry.ts';
import { checkTable, parseHeader, VHD_HEADER_BYTES, type VhdHeader } from './vhd-header.ts';
import { locatorPlaces, readParentPaths } from './vhd-locators.ts';
import { checkPlacement, reservedRanges } from './vhd-placement.ts';

/** Unique id of "the parent is a raw file" (XenServer). */
const NO_ID = '0'.repeat(32);

/** What leads to the blocks of a disk that is not fixed. */
export interface VhdTables {
  readonly header: VhdHeader;
  readonly table: BlockTable;
  readonly bitmaps: SectorBitmaps;
  readonly paths: readonly ParentPath[];
}

/** Everything a VHD says of itself besides its blocks. */
export interface VhdStructure {
  readonly footer: VhdFooter;
  /** The footer that counts, as it stands; 512 bytes, also where the file has one less. */
  readonly footerBytes: Uint8Array;
  /** Guest bytes end before this: the footer at the end, or the end of a file that lost it. */
  readonly endOffset: number;
  /** Present unless the disk is fixed. */
  readonly tables?: VhdTables;
}

/** Opens a VHD. @throws VHD_FOOTER, VHD_HEADER, VHD_BAT, VHD_LOCATOR, DISK_TRUNCATED */
export async function openVhd(file: RandomAccessFile, context: LayerContext): Promise<Layer> {
  const findings = new StrictFindings(file.path);
  const structure = await readStructure(file, context, findings);
  // StrictFindings throws at every fault, so the structure is there.
  return new VhdLayer(file, structure!, findings.notes);
}

/** Whether the file is a VHD by its content: a footer, whole or damaged, at its end or at its beginning. */
export async function isVhd(file: RandomAccessFile): Promise<boolean> {
  const end = await readEnd(file, await file.sizeBytes());
  return hasFooterCookie(end.bytes) || hasFooterCookie(await readStart(file));
}

/** Reads and checks footer, header, block table and parent paths. undefined after a fault that ends the reading. */
export async function readStructure(
  file: RandomAccessFile,
  context: LayerContext,
  findings: Findings,
): Promise<VhdStructure | undefined> {
  const fileBytes = await file.sizeBytes();
  const found = await readFooter(file, fileBytes, findings);
  if (found === undefined) return undefined;
  const { footer, footerBytes, endOffset } = found;
  noteFooter(footer, findings);
  if (footer.subformat === 'fixed') {
    if (footer.virtualSizeBytes > endOffset) {
      const facts = { currentSize: footer.virtualSizeBytes, footerOffset: endOffset };
      findings.fault('DISK_TRUNCATED', endOffset, 'the data of a fixed disk lies before its footer', facts);
      return undefined;
    }
    return { footer, footerBytes, endOffset };
  }
  const header = await readHeader(file, footer, fileBytes, findings);
  if (header === undefined || !checkTable(header, footer.virtualSizeBytes, fileBytes, findings)) return undefined;
  const table = new BlockTable(file, header, footer.virtualSizeBytes, context.tables);
  const differencing = footer.subformat === 'differencing';
  const places = differencing ? locatorPlaces(header, fileBytes, findings) : [];
  const paths = differencing ? await readParentPaths(file, header, places, findings) : [];
  await checkPlacement(table, await reservedRanges(file, header, places, fileBytes), endOffset, findings);
  const bitmaps = new SectorBitmaps(file, table, context.tables);
  return { footer, footerBytes, endOffset, tables: { header, table, bitmaps, paths } };
}

/** The last 512 bytes of the file, or the last 511 with the reserved zero that old Virtual PC left out. */
async function readEnd(
  file: RandomAccessFile,
  fileBytes: number,
): Promise<{ readonly bytes: Uint8Array; readonly offset: number }> {
  const bytes = new Uint8Array(VHD_FOOTER_BYTES);
  const offset = Math.max(0, fileBytes - VHD_FOOTER_BYTES);
  await file.read(bytes, offset);
  if (hasFooterCookie(bytes) || fileBytes % SECTOR_BYTES !== VHD_FOOTER_BYTES - 1) return { bytes, offset };
  const shortened = new Uint8Array(VHD_FOOTER_BYTES);
  await file.read(shortened.subarray(0, VHD_FOOTER_BYTES - 1), fileBytes - VHD_FOOTER_BYTES + 1);
  return { bytes: shortened, offset: fileBytes - VHD_FOOTER_BYTES + 1 };
}

/** The first 512 bytes of the file: where the copy of the footer stands. */
export async function readStart(file: RandomAccessFile): Promise<Uint8Array> {
  const bytes = new Uint8Array(VHD_FOOTER_BYTES);
  await file.read(bytes, 0);
  return bytes;
}

async function readFooter(
  file: RandomAccessFile,
  fileBytes: number,
  findings: Findings,
): Promise<Pick<VhdStructure, 'footer' | 'footerBytes' | 'endOffset'> | undefined> {
  const { source } = findings;
  const end = await readEnd(file, fileBytes);
  const ignore = (): void => {};
  const footer = parseFooter(end.bytes, end.offset, ignore, source);
  if (footer !== undefined) {
    if (footer.subformat !== 'fixed' && !sameFooter(await readStart(file), end.bytes)) {
      findings.blemish('VHD_FOOTER', 0, 'the copy of the footer at the beginning equals the footer');
    }
    return { footer, footerBytes: end.bytes, endOffset: end.offset };
  }
  const isFooter = hasFooterCookie(end.bytes);
  const start = await readStart(file);
  const spare = parseFooter(start, 0, ignore, source);
  if (spare === undefined || spare.subformat === 'fixed' || (isFooter && claimedSubformat(end.bytes) === 'fixed')) {
    parseFooter(end.bytes, end.offset, findings.fault.bind(findings), source);
    return undefined;
  }
  const rule = isFooter ? 'the footer at the end of the file is whole' : 'a VHD ends with its footer';
  findings.blemish('VHD_FOOTER', end.offset, rule);
  return { footer: spare, footerBytes: start, endOffset: isFooter ? end.offset : fileBytes };
}

function sameFooter(copy: Uint8Array, footer: Uint8Array): boolean {
  return Buffer.compare(copy, footer) === 0;
}

function noteFooter(footer: VhdFooter, findings: Findings): void {
  const { cylinders, heads, sectorsPerTrack } = footer.geometry;
  const addressed = geometryBytes(footer.geometry);
  if (addressed !== footer.virtualSizeBytes) {
    const chs = `${cylinders}x${heads}x${sectorsPerTrack}`;
    findings.note(`the geometry ${chs} addresses ${addressed} bytes, the disk has ${footer.virtualSizeBytes}`);
  }
  if (footer.savedState) findings.note('the footer says that the machine is in saved state');
}

async function readHeader(
  file: RandomAccessFile,
  footer: VhdFooter,
  fileBytes: number,
  findings: Findings,
): Promise<VhdHeader | undefined> {
  const { headerOffset } = footer;
  if (
    headerOffset < VHD_FOOTER_BYTES ||
    headerOffset % SECTOR_BYTES !== 0 ||
    headerOffset + VHD_HEADER_BYTES > fileBytes
  ) {
    const rule = 'the dynamic header begins on a sector behind the footer copy and lies inside the file';
    findings.fault('VHD_HEADER', headerOffset, rule, { headerOffset, fileBytes });
    return undefined;
  }
  const bytes = new Uint8Array(VHD_HEADER_BYTES);
  await file.read(bytes, headerOffset);
  return parseHeader(bytes, headerOffset, findings);
}

/** Reading of one VHD. */
export class VhdLayer implements Layer {
  readonly file: RandomAccessFile;
  readonly format = 'vhd';
  readonly subformat: Layer['subformat'];
  readonly virtualSizeBytes: number;
  readonly blockSizeBytes: number;
  readonly logicalSectorBytes: number = SECTOR_BYTES;
  readonly physicalSectorBytes: number = SECTOR_BYTES;
  readonly identity: string;
  readonly contentId: string;
  readonly linkId: string;
  readonly parent: ParentLink | undefined;
  readonly log = 'none';
  readonly notes: readonly string[];
  readonly #tables: VhdTables | undefined;

  constructor(file: RandomAccessFile, structure: VhdStructure, notes: readonly string[]) {
    const { footer, tables } = structure;
    this.file = file;
    this.subformat = footer.subformat;
    this.virtualSizeBytes = footer.virtualSizeBytes;
    this.blockSizeBytes = tables?.table.blockSizeBytes ?? 0;
    this.identity = footer.uniqueId;
    this.contentId = `${footer.uniqueId}-${footer.timestamp.toString(16).padStart(8, '0')}`;
    this.linkId = `vhd:${footer.uniqueId}`;
    this.notes = notes;
    this.#tables = tables;
    if (footer.subformat === 'differencing' && tables !== undefined) {
      const id = tables.header.parentUniqueId;
      this.parent = { paths: tables.paths, linkIds: id === NO_ID ? [] : [`vhd:${id}`], sameSize: true };
    }
  }

  async *extents(offset: number, lengthBytes: number): AsyncGenerator<LayerExtent> {
    const tables = this.#tables;
    if (tables === undefined) {
      yield { kind: 'data', offset, lengthBytes, fileOffset: offset };
      return;
    }
    const { table } = tables;
    const end = offset + lengthBytes;
    let at = offset;
    while (at < end) {
      const { blockSizeBytes } = table;
      const run = await table.run(Math.floor(at / blockSizeBytes), Math.ceil(end / blockSizeBytes));
      const { sector } = run;
      const runEnd = Math.min(end, run.endBlock * blockSizeBytes);
      if (sector === undefined) yield { kind: 'parent', offset: at, lengthBytes: runEnd - at };
      else yield* this.#block(tables, sector, at, runEnd);
      at = runEnd;
    }
  }

  /** The part [at, end) of one block that begins at `sector` of the file. */
  async *#block({ table, bitmaps }: VhdTables, sector: number, at: number, end: number): AsyncGenerator<LayerExtent> {
    const block = Math.floor(at / table.blockSizeBytes);
    const start = block * table.blockSizeBytes;
    const dataOffset = sector * SECTOR_BYTES + table.bitmapBytes;
    if (this.parent === undefined) {
      yield { kind: 'data', offset: at, lengthBytes: end - at, fileOffset: dataOffset + at - start };
      return;
    }
    const bitmap = await bitmaps.of(block, sector);
    const endSector = Math.ceil((end - start) / SECTOR_BYTES);
    let offset = at;
    while (offset < end) {
      const first = Math.floor((offset - start) / SECTOR_BYTES);
      const present = sectorBit(bitmap, first);
      const lengthBytes = Math.min(end, start + endOfRun(bitmap, first, endSector, present) * SECTOR_BYTES) - offset;
      if (present) yield { kind: 'data', offset, lengthBytes, fileOffset: dataOffset + offset - start };
      else yield { kind: 'parent', offset, lengthBytes };
      offset += lengthBytes;
    }
  }
}
