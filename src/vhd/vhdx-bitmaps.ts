/**
 * SectorBitmaps: the sector bitmaps of a differencing VHDX, one for each chunk of blocks, through the table cache. Changes
 * are staged like those of the block table.
 */
import { TABLE_PAGE_BYTES, type TableCache } from './table-cache.ts';
import type { BlockTable } from './vhdx-bat.ts';
import { setSectorBits } from './vhdx-bitmap.ts';
import type { VhdxBytes } from './vhdx-bytes.ts';
import { vhdxFault } from './vhdx-layout.ts';

/** The bits of one block, and where in the file they stand. */
interface BlockBits {
  readonly bits: Uint8Array;
  readonly fileOffset: number;
}

export class SectorBitmaps {
  readonly #bytes: VhdxBytes;
  readonly #table: BlockTable;
  readonly #cache: TableCache;

  constructor(bytes: VhdxBytes, table: BlockTable, cache: TableCache) {
    this.#bytes = bytes;
    this.#table = table;
    this.#cache = cache;
  }

  /** The bits of a partially present block. Shared: do not write to them. */
  async of(block: number): Promise<Uint8Array> {
    return (await this.#locate(block)).bits;
  }

  /** Sets the bits of sectors [from, end) of a block in memory; the bits of the block. Nobody else reads meanwhile. */
  async mark(block: number, from: number, end: number): Promise<Uint8Array> {
    const { bits, fileOffset } = await this.#locate(block);
    setSectorBits(bits, from, end);
    const firstByte = from >>> 3;
    await this.#bytes.stage(fileOffset + firstByte, bits.subarray(firstByte, (end + 7) >>> 3));
    return bits;
  }

  /** Clears all bits of a block in memory. */
  async clear(block: number): Promise<void> {
    const { bits, fileOffset } = await this.#locate(block);
    if (bits.every((byte) => byte === 0)) return;
    bits.fill(0);
    await this.#bytes.stage(fileOffset, bits);
  }

  /** A page of the cache holds the bits of several blocks: both sizes are powers of two. */
  async #locate(block: number): Promise<BlockBits> {
    const { chunkRatio, blockSizeBytes, logicalSectorBytes } = this.#table.geometry;
    const chunk = Math.floor(block / chunkRatio);
    const blockBitmapBytes = blockSizeBytes / logicalSectorBytes / 8;
    const inBitmap = (block % chunkRatio) * blockBitmapBytes;
    const inPage = inBitmap % TABLE_PAGE_BYTES;
    const bitmapOffset = await this.#table.bitmapOffset(chunk);
    if (bitmapOffset === undefined) {
      const { path } = this.#bytes.file;
      const rule = 'the file does not change while it is read';
      throw vhdxFault('SOURCE_CHANGED', path, this.#table.bitmapEntryOffset(chunk), rule, 'bitmap is gone');
    }
    const pageOffset = bitmapOffset + inBitmap - inPage;
    const page = await this.#cache.page(this, pageOffset, TABLE_PAGE_BYTES, () =>
      this.#bytes.read(pageOffset, TABLE_PAGE_BYTES),
    );
    return { bits: page.subarray(inPage, inPage + blockBitmapBytes), fileOffset: pageOffset + inPage };
  }
}
