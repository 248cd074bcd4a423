/**
 * Where the blocks of a VHD may lie: inside the file before its footer, apart from the file's own structures, apart
 * from each other. Opening a disk demands it of the whole table, once: what is read later can then be neither metadata
 * nor another block's data. The table has at most 64 MiB, so the walk with its sort takes well under a second.
 */
import { alignUp, SECTOR_BYTES } from '../bytes.ts';
import { FAULTS_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import type { Findings } from './findings.ts';
import { type BlockTable, nextUsed } from './vhd-bat.ts';
import { VHD_FOOTER_BYTES } from './vhd-footer.ts';
import { VHD_HEADER_BYTES, type VhdHeader } from './vhd-header.ts';
import type { LocatorPlace } from './vhd-locators.ts';

/** Windows calls a disk misaligned, and slow, unless the data of its blocks begins on this. */
const DATA_ALIGNMENT_BYTES = 4096;

/** Where the data of a new block begins that lies behind `endOffset`; its bitmap is right before it. */
export function nextDataOffset(endOffset: number, bitmapBytes: number): number {
  return alignUp(endOffset + bitmapBytes, DATA_ALIGNMENT_BYTES);
}

/** A part of the file that no block may touch. */
export interface ReservedRange {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly what: string;
}

/** The file's own structures. XenServer keeps a map of blocks ("tdbatmap") right behind the padded block table. */
export async function reservedRanges(
  file: RandomAccessFile,
  header: VhdHeader,
  locators: readonly LocatorPlace[],
  fileBytes: number,
): Promise<readonly ReservedRange[]> {
  const batBytes = alignUp(header.maxTableEntries * 4, SECTOR_BYTES);
  return [
    { offset: 0, lengthBytes: VHD_FOOTER_BYTES, what: 'the spare footer' },
    { offset: header.offset, lengthBytes: VHD_HEADER_BYTES, what: 'the dynamic header' },
    { offset: header.batOffset, lengthBytes: header.maxTableEntries * 4, what: 'the block table' },
    ...locators.map(({ offset, lengthBytes }) => ({ offset, lengthBytes, what: 'a parent path' })),
    ...(await batmapRanges(file, header.batOffset + batBytes, fileBytes)),
  ];
}

/**
 * Checks the place of every used block. `endOffset` is where the footer begins, or the end of a file without one.
 * A block needs its bitmap and the guest's part of its data; the rest of a last block may be missing.
 */
export async function checkPlacement(
  table: BlockTable,
  reserved: readonly ReservedRange[],
  endOffset: number,
  findings: Findings,
): Promise<void> {
  const { sectors, lastSector } = await placedSectors(table, endOffset, findings);
  sectors.sort();
  const endOf = (sector: number): number =>
    sector * SECTOR_BYTES + table.bitmapBytes + table.dataBytes(sector === lastSector ? table.blocks - 1 : 0);

  const broken = new Map<number, string>();
  const breaks = (sector: number, rule: string): void => {
    if (broken.size < FAULTS_MAX && !broken.has(sector)) broken.set(sector, rule);
  };
  const spanSectors = (table.bitmapBytes + table.blockSizeBytes) / SECTOR_BYTES;
  for (const { offset, lengthBytes, what } of reserved) {
    let i = lowerBound(sectors, Math.floor(offset / SECTOR_BYTES) - spanSectors);
    for (; i < sectors.length && sectors[i]! * SECTOR_BYTES < offset + lengthBytes; i += 1) {
      if (endOf(sectors[i]!) > offset) breaks(sectors[i]!, `no block lies over ${what}`);
    }
  }
  for (let i = 1; i < sectors.length; i += 1) {
    if (endOf(sectors[i - 1]!) > sectors[i]! * SECTOR_BYTES) breaks(sectors[i]!, 'no two blocks share a byte');
  }
  if (broken.size > 0) await reportBroken(table, broken, findings);
}

/** The sectors of all blocks that end inside the file, unsorted, and that of the disk's last block. */
async function placedSectors(
  table: BlockTable,
  endOffset: number,
  findings: Findings,
): Promise<{ readonly sectors: Uint32Array; readonly lastSector: number | undefined }> {
  const sectors = new Uint32Array(table.blocks);
  let count = 0;
  let lastSector: number | undefined;
  for await (const { firstBlock, entries } of table.pages()) {
    for (
      let i = nextUsed(entries, 0, entries.length);
      i < entries.length;
      i = nextUsed(entries, i + 1, entries.length)
    ) {
      const block = firstBlock + i;
      const sector = entries[i]!;
      const end = sector * SECTOR_BYTES + table.bitmapBytes + table.dataBytes(block);
      if (end > endOffset) {
        const facts = { block, sector, blockEnd: end, endOffset };
        findings.fault(
          'VHD_BAT',
          table.entryOffset(block),
          'every block ends inside the file, before the footer',
          facts,
        );
        continue;
      }
      if (block === table.blocks - 1) lastSector = sector;
      sectors[count] = sector;
      count += 1;
    }
  }
  return { sectors: sectors.subarray(0, count), lastSector };
}

/** Sorting lost which block has which sector; one more walk finds it. */
async function reportBroken(table: BlockTable, broken: ReadonlyMap<number, string>, findings: Findings): Promise<void> {
  for await (const { firstBlock, entries } of table.pages()) {
    for (
      let i = nextUsed(entries, 0, entries.length);
      i < entries.length;
      i = nextUsed(entries, i + 1, entries.length)
    ) {
      const sector = entries[i]!;
      const rule = broken.get(sector);
      if (rule === undefined) continue;
      findings.fault('VHD_BAT', table.entryOffset(firstBlock + i), rule, { block: firstBlock + i, sector });
    }
  }
}

/** Header of the map: cookie (8), offset of the map (8), its sectors (4). A map outside the file reserves nothing. */
async function batmapRanges(
  file: RandomAccessFile,
  offset: number,
  fileBytes: number,
): Promise<readonly ReservedRange[]> {
  const bytes = Buffer.alloc(SECTOR_BYTES);
  await file.read(bytes, offset);
  if (bytes.toString('latin1', 0, 8) !== 'tdbatmap') return [];
  const header = { offset, lengthBytes: SECTOR_BYTES, what: 'the header of the block map' };
  const mapOffset = bytes.readBigUInt64BE(8);
  const lengthBytes = bytes.readUInt32BE(16) * SECTOR_BYTES;
  if (mapOffset + BigInt(lengthBytes) > BigInt(fileBytes)) return [header];
  return [header, { offset: Number(mapOffset), lengthBytes, what: 'the block map' }];
}

/** The first index whose value is not below `value`, in ascending numbers. */
function lowerBound(ascending: Uint32Array, value: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
