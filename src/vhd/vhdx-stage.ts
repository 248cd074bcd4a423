/**
 * StagedPages: pages of tables and bitmaps that were changed in memory. Metadata of a VHDX changes only through its log,
 * which takes whole 4 KiB pages; here they gather until the next flush.
 */
import { alignDown } from '../bytes.ts';
import { LOG_SECTOR_BYTES, type LoggedPage } from './vhdx-log-entry.ts';

export class StagedPages {
  /** By offset in the file. */
  readonly #pages = new Map<number, Uint8Array>();
  #epoch = 0;

  get count(): number {
    return this.#pages.size;
  }

  /** Changes when the pages have reached the file. */
  get epoch(): number {
    return this.#epoch;
  }

  /** The page itself, not a copy. */
  page(offset: number): Uint8Array | undefined {
    return this.#pages.get(offset);
  }

  put(offset: number, page: Uint8Array): void {
    this.#pages.set(offset, page);
  }

  /** All pages, ascending. */
  inOrder(): readonly LoggedPage[] {
    return [...this.#pages].map(([offset, bytes]) => ({ offset, bytes })).sort((a, b) => a.offset - b.offset);
  }

  /** The pages are in the file now. */
  clear(): void {
    this.#pages.clear();
    this.#epoch += 1;
  }

  /** Makes of bytes read from `fileOffset` what they are under the staged pages. */
  patch(into: Uint8Array, fileOffset: number): void {
    if (this.#pages.size === 0) return;
    const end = fileOffset + into.byteLength;
    for (let at = alignDown(fileOffset, LOG_SECTOR_BYTES); at < end; at += LOG_SECTOR_BYTES) {
      const page = this.#pages.get(at);
      if (page === undefined) continue;
      const from = Math.max(at, fileOffset);
      into.set(page.subarray(from - at, Math.min(end, at + LOG_SECTOR_BYTES) - at), from - fileOffset);
    }
  }
}
