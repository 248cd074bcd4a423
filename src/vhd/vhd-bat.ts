/**
 * The block table (BAT) of a VHD, paged.
 *
 * Entry i, a u32 big-endian, is the sector at which block i begins: its sector bitmap, then its data. 0xFFFFFFFF means
 * that the file does not hold the block. The table is padded with ones to a whole sector and may be longer than the
 * disk needs. Blocks are never computed, only looked up: Windows places them 4104 sectors apart, others 4097.
 */
import type { RandomAccessFile } from '../ports.ts';
import { TABLE_PAGE_BYTES, type TableCache } from './table-cache.ts';
import { bitmapBytes, blockCount, type VhdHeader } from './vhd-header.ts';

/** The table entry of a block that the file does not hold. */
export const UNUSED_ENTRY = 0xffffffff;

const ENTRIES_PER_PAGE = TABLE_PAGE_BYTES / 4;

/** The entries of some neighbouring blocks. */
export interface TablePage {
  readonly firstBlock: number;
  /** Sectors, in the byte order of this machine. Shared: do not write to it. */
  readonly entries: Uint32Array;
}

/** Reads entries of one open disk; for a disk that is written, keeps changed ones until they may be in the file. */
export class BlockTable {
  readonly blockSizeBytes: number;
  /** Bytes of the sector bitmap in front of each block's data. */
  readonly bitmapBytes: number;
  readonly blocks: number;
  readonly #batOffset: number;
  readonly #virtualSizeBytes: number;
  readonly #file: RandomAccessFile;
  readonly #tables: TableCache;
  /** Entries that the file does not have yet: block and sector. */
  readonly #changes = new Map<number, number>();

  constructor(file: RandomAccessFile, header: VhdHeader, virtualSizeBytes: number, tables: TableCache) {
    this.blockSizeBytes = header.blockSizeBytes;
    this.bitmapBytes = bitmapBytes(header.blockSizeBytes);
    this.blocks = blockCount(virtualSizeBytes, header.blockSizeBytes);
    this.#batOffset = header.batOffset;
    this.#virtualSizeBytes = virtualSizeBytes;
    this.#file = file;
    this.#tables = tables;
  }

  /** Offset in the file of the entry of `block`, for messages. */
  entryOffset(block: number): number {
    return this.#batOffset + block * 4;
  }

  /** Guest bytes of `block`: the last block of a disk may hold fewer, though the file has it whole. */
  dataBytes(block: number): number {
    return Math.min(this.blockSizeBytes, this.#virtualSizeBytes - block * this.blockSizeBytes);
  }

  /** The page that holds the entry of `block`. */
  async page(block: number): Promise<TablePage> {
    const index = Math.floor(block / ENTRIES_PER_PAGE);
    const firstBlock = index * ENTRIES_PER_PAGE;
    const lengthBytes = Math.min(ENTRIES_PER_PAGE, this.blocks - firstBlock) * 4;
    const page = await this.#tables.page(this, index, lengthBytes, () => this.#load(firstBlock, lengthBytes));
    return { firstBlock, entries: new Uint32Array(page.buffer, page.byteOffset, page.byteLength / 4) };
  }

  /** The entry of `block`, and where the run of unused blocks ends that begins there; no further than `endBlock`. */
  async run(
    block: number,
    endBlock: number,
  ): Promise<{ readonly sector: number | undefined; readonly endBlock: number }> {
    let next = block;
    while (next < endBlock) {
      const { firstBlock, entries } = await this.page(next);
      next = firstBlock + nextUsed(entries, next - firstBlock, entries.length);
      if (next === block) return { sector: entries[block - firstBlock], endBlock: block + 1 };
      if (next < firstBlock + entries.length) break;
    }
    return { sector: undefined, endBlock: Math.min(next, endBlock) };
  }

  /** How many entries were changed and not written. */
  get changes(): number {
    return this.#changes.size;
  }

  /** Changes an entry in memory. Nobody else reads meanwhile. */
  async set(block: number, sector: number): Promise<void> {
    const { firstBlock, entries } = await this.page(block);
    entries[block - firstBlock] = sector;
    this.#changes.set(block, sector);
  }

  /** Writes the changed entries, neighbours together. */
  async writeChanges(): Promise<void> {
    const blocks = [...this.#changes.keys()].sort((a, b) => a - b);
    for (let i = 0; i < blocks.length; ) {
      let end = i + 1;
      while (end < blocks.length && blocks[end] === blocks[end - 1]! + 1) end += 1;
      const bytes = Buffer.alloc((end - i) * 4);
      for (let k = i; k < end; k += 1) bytes.writeUInt32BE(this.#changes.get(blocks[k]!)!, (k - i) * 4);
      await this.#file.write(bytes, this.entryOffset(blocks[i]!));
      i = end;
    }
    this.#changes.clear();
  }

  /** All pages in order. */
  async *pages(): AsyncGenerator<TablePage> {
    for (let block = 0; block < this.blocks; block += ENTRIES_PER_PAGE) yield await this.page(block);
  }

  async #load(firstBlock: number, lengthBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes).fill(0xff);
    await this.#file.read(bytes, this.entryOffset(firstBlock));
    const view = new DataView(bytes.buffer);
    const entries = new Uint32Array(bytes.buffer);
    for (let i = 0; i < entries.length; i += 1) entries[i] = view.getUint32(i * 4);
    for (const [block, sector] of this.#changes) {
      if (block >= firstBlock && block < firstBlock + entries.length) entries[block - firstBlock] = sector;
    }
    return bytes;
  }
}

/** The first index from `from` below `end` whose entry is not unused; `end` if there is none. */
export function nextUsed(entries: Uint32Array, from: number, end: number): number {
  let i = from;
  while (i < end && entries[i] === UNUSED_ENTRY) i += 1;
  return i;
}
