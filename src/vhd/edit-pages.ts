/**
 * EditPages: bytes of a file that is being made, edited in place through a bounded number of pages. The block table of
 * a 64 TiB disk is 513 MiB, yet only pages that are touched are ever held or written, and no more than the bound at
 * once. What the file does not have yet is zeros.
 */
import type { RandomAccessFile } from '../ports.ts';

const PAGE_BYTES: number = 64 * 1024;

interface Page {
  readonly bytes: Uint8Array;
  isDirty: boolean;
}

export class EditPages {
  readonly #file: RandomAccessFile;
  readonly #pagesMax: number;
  /** By page number, in order of use, oldest first. */
  readonly #pages = new Map<number, Page>();

  constructor(file: RandomAccessFile, maxBytes: number) {
    this.#file = file;
    this.#pagesMax = Math.max(1, Math.floor(maxBytes / PAGE_BYTES));
  }

  /** A view of [offset, offset + lengthBytes), which lies in one page (64 KiB). Valid until the next call. */
  async view(offset: number, lengthBytes: number): Promise<Buffer> {
    return viewOf(await this.#page(Math.floor(offset / PAGE_BYTES)), offset, lengthBytes);
  }

  /** The same to be written to; the change reaches the file in `flush` at the latest. */
  async edit(offset: number, lengthBytes: number): Promise<Buffer> {
    const page = await this.#page(Math.floor(offset / PAGE_BYTES));
    page.isDirty = true;
    return viewOf(page, offset, lengthBytes);
  }

  /** Writes all changes that the file does not have yet. */
  async flush(): Promise<void> {
    for (const [number, page] of this.#pages) await this.#write(number, page);
  }

  async #page(number: number): Promise<Page> {
    const known = this.#pages.get(number);
    if (known !== undefined) {
      this.#pages.delete(number);
      this.#pages.set(number, known);
      return known;
    }
    for (const [oldest, page] of this.#pages) {
      if (this.#pages.size < this.#pagesMax) break;
      await this.#write(oldest, page);
      this.#pages.delete(oldest);
    }
    const page: Page = { bytes: new Uint8Array(PAGE_BYTES), isDirty: false };
    await this.#file.read(page.bytes, number * PAGE_BYTES);
    this.#pages.set(number, page);
    return page;
  }

  async #write(number: number, page: Page): Promise<void> {
    if (!page.isDirty) return;
    await this.#file.write(page.bytes, number * PAGE_BYTES);
    page.isDirty = false;
  }
}

function viewOf(page: Page, offset: number, lengthBytes: number): Buffer {
  const from = offset % PAGE_BYTES;
  if (from + lengthBytes > PAGE_BYTES) throw new RangeError(`${lengthBytes} bytes at ${offset} cross a page`);
  return Buffer.from(page.bytes.buffer, page.bytes.byteOffset + from, lengthBytes);
}
