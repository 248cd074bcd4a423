/**
 * SectorBitmaps: the sector bitmaps of a VHD's blocks, through the table cache; for a disk that is written, changed ones
 * stay in memory until they may be in the file.
 */
import { SECTOR_BYTES } from '../bytes.ts';
import type { RandomAccessFile } from '../ports.ts';
import type { TableCache } from './table-cache.ts';
import type { BlockTable } from './vhd-bat.ts';
import { setSectorBits } from './vhd-bitmap.ts';

export class SectorBitmaps {
  readonly #file: RandomAccessFile;
  readonly #table: BlockTable;
  readonly #cache: TableCache;
  /** By block. */
  readonly #changes = new Map<number, { readonly bitmap: Uint8Array; readonly sector: number }>();

  constructor(file: RandomAccessFile, table: BlockTable, cache: TableCache) {
    this.#file = file;
    this.#table = table;
    this.#cache = cache;
  }

  /** The bitmap of `block`, which begins at `sector` of the file. Shared: do not write to it. */
  async of(block: number, sector: number): Promise<Uint8Array> {
    const { bitmapBytes } = this.#table;
    const changed = this.#changes.get(block);
    if (changed !== undefined) return changed.bitmap;
    return await this.#cache.page(this, block, bitmapBytes, async () => {
      const bytes = new Uint8Array(bitmapBytes);
      await this.#file.read(bytes, sector * SECTOR_BYTES);
      return bytes;
    });
  }

  /** Bytes of bitmaps that were changed and not written. */
  get changedBytes(): number {
    return this.#changes.size * this.#table.bitmapBytes;
  }

  /** Sets the bits of sectors [from, end) of a block in memory. Nobody else reads meanwhile. */
  async mark(block: number, sector: number, from: number, end: number): Promise<void> {
    // The cache may drop its page; this one stays until it is written.
    const bitmap = await this.of(block, sector);
    setSectorBits(bitmap, from, end);
    this.#changes.set(block, { bitmap, sector });
  }

  /** Writes the changed bitmaps. */
  async writeChanges(): Promise<void> {
    for (const { bitmap, sector } of this.#changes.values()) await this.#file.write(bitmap, sector * SECTOR_BYTES);
    this.#changes.clear();
  }
}
