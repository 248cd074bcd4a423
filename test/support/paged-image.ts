/**
 * PagedImage: the bytes of a disk image in shared 4 KiB pages. A copy costs a map of the pages that are not zeros, and a
 * change costs the page it falls into, so hundreds of thousands of damaged images can be made of one in seconds.
 */
export const PAGE_BYTES = 4096;
const ZEROS = new Uint8Array(PAGE_BYTES);

export class PagedImage {
  /** Pages that may hold something else than zeros, by number. */
  #pages: Map<number, Uint8Array>;
  /** Pages that no other image shares. */
  readonly #owned = new Set<Uint8Array>();
  #sizeBytes: number;

  private constructor(pages: Map<number, Uint8Array>, sizeBytes: number) {
    this.#pages = pages;
    this.#sizeBytes = sizeBytes;
  }

  static of(bytes: Uint8Array): PagedImage {
    const image = new PagedImage(new Map(), bytes.byteLength);
    for (let at = 0; at < bytes.byteLength; at += PAGE_BYTES) {
      const piece = bytes.subarray(at, at + PAGE_BYTES);
      if (piece.some((byte) => byte !== 0)) image.write(piece, at);
    }
    return image;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get pageCount(): number {
    return this.#pages.size;
  }

  /** Runs of pages that hold something. */
  filledRuns(): readonly { readonly offset: number; readonly lengthBytes: number }[] {
    const runs: { offset: number; lengthBytes: number }[] = [];
    for (const index of [...this.#pages.keys()].sort((a, b) => a - b)) {
      const offset = index * PAGE_BYTES;
      const last = runs.at(-1);
      if (last !== undefined && last.offset + last.lengthBytes === offset) last.lengthBytes += PAGE_BYTES;
      else runs.push({ offset, lengthBytes: PAGE_BYTES });
    }
    return runs;
  }

  copy(): PagedImage {
    return new PagedImage(new Map(this.#pages), this.#sizeBytes);
  }

  /** Whether a page of this range was written since the copy was made. */
  isTouched(offset: number, lengthBytes: number): boolean {
    if (this.#owned.size === 0) return false;
    for (let index = Math.floor(offset / PAGE_BYTES); index * PAGE_BYTES < offset + lengthBytes; index += 1) {
      const page = this.#pages.get(index);
      if (page !== undefined && this.#owned.has(page)) return true;
    }
    return false;
  }

  /** Fills `into` from `position`; less than asked for at the end of the image only. */
  read(into: Uint8Array, position: number): number {
    const lengthBytes = Math.max(0, Math.min(into.byteLength, this.#sizeBytes - position));
    for (let done = 0; done < lengthBytes; ) {
      const inPage = (position + done) % PAGE_BYTES;
      const n = Math.min(PAGE_BYTES - inPage, lengthBytes - done);
      const page = this.#pages.get((position + done - inPage) / PAGE_BYTES);
      if (page === undefined) into.set(ZEROS.subarray(0, n), done);
      else into.set(inPage === 0 && n === PAGE_BYTES ? page : page.subarray(inPage, inPage + n), done);
      done += n;
    }
    return lengthBytes;
  }

  /** A copy of [position, position + lengthBytes); zeros behind the end. */
  slice(position: number, lengthBytes: number): Buffer {
    const bytes = Buffer.alloc(lengthBytes);
    this.read(bytes, position);
    return bytes;
  }

  /** Writes inside the image and beyond; what was beyond makes it longer. */
  write(from: Uint8Array, position: number): void {
    for (let done = 0; done < from.byteLength; ) {
      const inPage = (position + done) % PAGE_BYTES;
      const n = Math.min(PAGE_BYTES - inPage, from.byteLength - done);
      this.#ownPage((position + done - inPage) / PAGE_BYTES).set(from.subarray(done, done + n), inPage);
      done += n;
    }
    this.#sizeBytes = Math.max(this.#sizeBytes, position + from.byteLength);
  }

  resize(sizeBytes: number): void {
    if (sizeBytes < this.#sizeBytes) {
      const lastPage = Math.floor(sizeBytes / PAGE_BYTES);
      for (const index of this.#pages.keys()) if (index > lastPage) this.#pages.delete(index);
      if (this.#pages.has(lastPage)) this.#ownPage(lastPage).fill(0, sizeBytes % PAGE_BYTES);
    }
    this.#sizeBytes = sizeBytes;
  }

  /** Moves everything from page `from` on by `count` pages: zeros come in, or (negative) pages are lost. */
  shiftPages(from: number, count: number): void {
    const pages = new Map<number, Uint8Array>();
    for (const [index, page] of this.#pages) {
      if (index < from) pages.set(index, page);
      else if (index + count >= from) pages.set(index + count, page);
    }
    this.#pages = pages;
    this.#sizeBytes = Math.max(from * PAGE_BYTES, this.#sizeBytes + count * PAGE_BYTES);
  }

  #ownPage(index: number): Uint8Array {
    const shared = this.#pages.get(index);
    if (shared !== undefined && this.#owned.has(shared)) return shared;
    const page = shared === undefined ? new Uint8Array(PAGE_BYTES) : Uint8Array.from(shared);
    this.#pages.set(index, page);
    this.#owned.add(page);
    return page;
  }
}
