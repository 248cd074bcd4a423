/**
 * TableCache: pages of block tables in memory, least recently used out first. The table of a 64 TiB disk is 513 MiB;
 * a chain of many disks shares one cache, so memory is bounded by the cache alone.
 */

/** Tables are read in pages of this size (the last one may be shorter): large enough to scan fast, small enough to keep many. */
export const TABLE_PAGE_BYTES: number = 256 * 1024;

/** Pages by owner (a layer) and number. */
export class TableCache {
  readonly #maxBytes: number;
  readonly #owners = new WeakMap<object, number>();
  /** In order of use, oldest first. */
  readonly #pages = new Map<string, { readonly page: Promise<Uint8Array>; readonly lengthBytes: number }>();
  #bytes = 0;
  #nextOwner = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Page `index` of `owner`, loaded by `load` unless it is here. `lengthBytes` is what the page occupies. A load that
   * fails is not kept. The page is shared: do not write to it.
   */
  page(owner: object, index: number, lengthBytes: number, load: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const key = `${this.#ownerNumber(owner)}:${index}`;
    const known = this.#pages.get(key);
    if (known !== undefined) {
      this.#pages.delete(key);
      this.#pages.set(key, known);
      return known.page;
    }
    const entry = { page: load(), lengthBytes };
    this.#pages.set(key, entry);
    this.#bytes += lengthBytes;
    entry.page.catch(() => this.#drop(key, entry));
    for (const [oldest, oldEntry] of this.#pages) {
      if (this.#bytes <= this.#maxBytes || oldEntry === entry) break;
      this.#drop(oldest, oldEntry);
    }
    return entry.page;
  }

  #drop(key: string, entry: { readonly lengthBytes: number }): void {
    if (this.#pages.get(key) !== entry) return;
    this.#pages.delete(key);
    this.#bytes -= entry.lengthBytes;
  }

  #ownerNumber(owner: object): number {
    const known = this.#owners.get(owner);
    if (known !== undefined) return known;
    const number = this.#nextOwner;
    this.#nextOwner += 1;
    this.#owners.set(owner, number);
    return number;
  }
}
