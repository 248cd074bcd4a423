/**
 * The manifest of one disk as a tree of sealed pages: root → table pages → manifest pages (docs/formats/replica.md).
 *
 * `ManifestTree` reads pages when they are asked for, keeps a bounded number of clean ones, and holds changed ones until
 * `flush` seals them over the copy that the committed tree does not use. Invariants:
 * - a page that the last committed root can reach is never overwritten;
 * - a page that was never written does not exist, and neither does one whose entries are all zeros again;
 * - `flush` is called again only after the root that names its result was committed.
 * The caller decides where pages live (`PageAccess`: the live blob, or a snapshot).
 */
import { bytesEqual } from '../bytes.ts';
import {
  chunkCount,
  type DiskGeometry,
  ENTRIES_PER_PAGE,
  ENTRY_BYTES,
  entriesOfPage,
  entryAt,
  isZero,
  isZeroEntry,
  manifestPageCount,
  PAGE_BYTES,
  PAGE_PLAINTEXT_BYTES,
  type PageCipher,
  type PageKind,
  type PageReference,
  pagePlace,
  REFERENCE_BYTES,
  REFERENCES_PER_TABLE,
  readReference,
  writeReference,
} from '../chunker/index.ts';
import type { TableReference } from './root.ts';

/** Clean manifest pages kept in memory: 4 MiB cover 87,232 chunks, 21 GiB of disk at 256 KiB. */
const CLEAN_PAGES_MAX = 64;

/** Where sealed pages are read and written. */
export interface PageAccess {
  read(offset: number): Promise<Uint8Array>;
  /** Absent for a tree that is only read. */
  readonly write?: (bytes: Uint8Array, offset: number) => Promise<void>;
}

interface LoadedPage {
  readonly entries: Uint8Array;
  /** Grows with each change; the page is clean where it equals `flushed`. */
  version: number;
  flushed: number;
}

interface LoadedTable {
  readonly references: Uint8Array;
  dirty: boolean;
}

export class ManifestTree {
  readonly geometry: DiskGeometry;
  readonly #cipher: PageCipher;
  readonly #access: PageAccess;
  readonly #chunks: number;
  readonly #tables: Map<number, LoadedTable> = new Map();
  readonly #pages: Map<number, LoadedPage> = new Map();
  readonly #loading: Map<number, Promise<LoadedPage>> = new Map();
  #tableReferences: ReadonlyMap<number, TableReference>;

  constructor(geometry: DiskGeometry, cipher: PageCipher, access: PageAccess, tables: readonly TableReference[]) {
    this.geometry = geometry;
    this.#cipher = cipher;
    this.#access = access;
    this.#chunks = chunkCount(geometry);
    this.#tableReferences = new Map(tables.map((table) => [table.page, table]));
  }

  /** Changed pages in memory; a flush writes them. */
  get changedPages(): number {
    let changed = 0;
    for (const { version, flushed } of this.#pages.values()) if (version !== flushed) changed += 1;
    return changed;
  }

  /** A view of the entry of a chunk, to be read at once: the page may be dropped at the next wait. */
  async entry(chunk: number): Promise<Uint8Array> {
    const { entries } = await this.#page(Math.floor(chunk / ENTRIES_PER_PAGE));
    return entryAt(entries, chunk % ENTRIES_PER_PAGE);
  }

  /** The same where its page is at hand. */
  entryAtHand(chunk: number): Uint8Array | undefined {
    const page = this.#pages.get(Math.floor(chunk / ENTRIES_PER_PAGE));
    return page && entryAt(page.entries, chunk % ENTRIES_PER_PAGE);
  }

  /** Copies of the entries of chunks, one after the other; those of a page cost one wait. */
  async entries(chunks: Float64Array): Promise<Uint8Array> {
    const copies = new Uint8Array(chunks.length * ENTRY_BYTES);
    for (let i = 0; i < chunks.length; ) {
      const number = Math.floor(chunks[i]! / ENTRIES_PER_PAGE);
      const { entries } = await this.#page(number);
      for (; i < chunks.length && Math.floor(chunks[i]! / ENTRIES_PER_PAGE) === number; i += 1) {
        copies.set(entryAt(entries, chunks[i]! % ENTRIES_PER_PAGE), i * ENTRY_BYTES);
      }
    }
    return copies;
  }

  /** Replaces the entry of a chunk (48 bytes; zeros for a chunk of zeros). */
  async setEntry(chunk: number, entry: Uint8Array): Promise<void> {
    const number = Math.floor(chunk / ENTRIES_PER_PAGE);
    // Others may have the page dropped between its loading and the end of our wait: change only one that is held now.
    let page = this.#pages.get(number);
    while (!page) {
      await this.#page(number);
      page = this.#pages.get(number);
    }
    entryAt(page.entries, chunk % ENTRIES_PER_PAGE).set(entry);
    page.version += 1;
  }

  /** Chunks of [from, to) with an entry that is not zeros, ascending. Pages that do not exist cost nothing. */
  async *usedChunks(from: number, to: number): AsyncGenerator<number> {
    for await (const { chunk, entries, first, last } of this.#existing(from, to)) {
      for (let i = first; i < last; i += 1) if (!isZeroEntry(entryAt(entries, i))) yield chunk + i;
    }
  }

  /** How many those are. */
  async countUsed(from: number, to: number): Promise<number> {
    let count = 0;
    for await (const { entries, first, last } of this.#existing(from, to)) {
      for (let i = first; i < last; i += 1) if (!isZeroEntry(entryAt(entries, i))) count += 1;
    }
    return count;
  }

  /** Entries of existing pages, of which those from `first` to before `last` are of [from, to); the entry 0 is that of `chunk`. */
  async *#existing(
    from: number,
    to: number,
  ): AsyncGenerator<{
    readonly chunk: number;
    readonly entries: Uint8Array;
    readonly first: number;
    readonly last: number;
  }> {
    const end = Math.min(to, this.#chunks);
    for (let at = from; at < end; ) {
      const page = await this.#nextExistingPage(Math.floor(at / ENTRIES_PER_PAGE));
      const chunk = page * ENTRIES_PER_PAGE;
      if (chunk >= end) return;
      const { entries } = await this.#page(page);
      const last = Math.min(end - chunk, entriesOfPage(page, this.#chunks));
      yield { chunk, entries, first: Math.max(0, at - chunk), last };
      at = chunk + ENTRIES_PER_PAGE;
    }
  }

  /** Manifest pages that are not the same in both trees, ascending; where the tables above them are, nothing is read. */
  async *differingPages(other: ManifestTree): AsyncGenerator<number> {
    const pages = manifestPageCount(this.geometry);
    for (let table = 0; table * REFERENCES_PER_TABLE < pages; table += 1) {
      const [mine, theirs] = [this.#tableReferences.get(table), other.#tableReferences.get(table)];
      if (mine === theirs || (mine && theirs && bytesEqual(mine.tag, theirs.tag))) continue;
      const [{ references: a }, { references: b }] = [await this.#table(table), await other.#table(table)];
      const first = table * REFERENCES_PER_TABLE;
      for (let i = 0; i < Math.min(REFERENCES_PER_TABLE, pages - first); i += 1) {
        const [from, to] = [i * REFERENCE_BYTES, (i + 1) * REFERENCE_BYTES];
        if (!bytesEqual(a.subarray(from, to), b.subarray(from, to))) yield first + i;
      }
    }
  }

  /**
   * Writes all changed pages and the table pages above them; what is changed meanwhile waits for the next flush.
   * Returns the references for the root.
   */
  async flush(generation: number): Promise<readonly TableReference[]> {
    const dirty = [...this.#pages].filter(([, page]) => page.version !== page.flushed);
    for (const [number, page] of dirty) {
      const table = await this.#table(Math.floor(number / REFERENCES_PER_TABLE));
      const index = number % REFERENCES_PER_TABLE;
      const { version } = page;
      const previous = readReference(table.references, index);
      // Sealed before the first wait, so what is written is this version; only then may the page count as clean.
      const reference = await this.#write('entries', number, generation, previous, page.entries);
      writeReference(table.references, index, reference);
      table.dirty = true;
      page.flushed = version;
    }
    const references = new Map(this.#tableReferences);
    for (const [number, table] of this.#tables) {
      if (!table.dirty) continue;
      table.dirty = false;
      const reference = await this.#write('table', number, generation, references.get(number), table.references);
      if (reference) references.set(number, { ...reference, page: number });
      else references.delete(number);
    }
    this.#tableReferences = references;
    return [...references.values()].sort((a, b) => a.page - b.page);
  }

  /** Seals and writes one page over its unused copy; all zeros means that it ceases to exist. */
  async #write(
    kind: PageKind,
    page: number,
    generation: number,
    previous: PageReference | undefined,
    plaintext: Uint8Array,
  ): Promise<PageReference | undefined> {
    if (isZero(plaintext)) return undefined;
    if (!this.#access.write) throw new TypeError('this manifest tree is read only');
    const copy = previous?.copy === 0 ? 1 : 0;
    const sealed = Buffer.alloc(PAGE_BYTES);
    const reference = this.#cipher.sealPage(kind, page, generation, copy, plaintext, sealed);
    await this.#access.write(sealed, pagePlace(this.geometry, kind, page, copy));
    return reference;
  }

  async #page(number: number): Promise<LoadedPage> {
    const cached = this.#pages.get(number);
    if (cached) return cached;
    // One read at a time: a second one could come back with what was there before a flush, when the page was dropped.
    const loading = this.#loading.get(number) ?? this.#load(number).finally(() => this.#loading.delete(number));
    this.#loading.set(number, loading);
    return loading;
  }

  async #load(number: number): Promise<LoadedPage> {
    const table = await this.#table(Math.floor(number / REFERENCES_PER_TABLE));
    const reference = readReference(table.references, number % REFERENCES_PER_TABLE);
    const entries = await this.#read('entries', number, reference);
    const loaded = { entries, version: 0, flushed: 0 };
    this.#pages.set(number, loaded);
    this.#dropCleanPages(number);
    return loaded;
  }

  async #table(number: number): Promise<LoadedTable> {
    const cached = this.#tables.get(number);
    if (cached) return cached;
    const references = await this.#read('table', number, this.#tableReferences.get(number));
    const loaded = this.#tables.get(number) ?? { references, dirty: false };
    this.#tables.set(number, loaded);
    return loaded;
  }

  async #read(kind: PageKind, page: number, reference: PageReference | undefined): Promise<Uint8Array> {
    if (!reference) return new Uint8Array(PAGE_PLAINTEXT_BYTES[kind]);
    const sealed = await this.#access.read(pagePlace(this.geometry, kind, page, reference.copy));
    return this.#cipher.openPage(kind, page, reference, sealed);
  }

  /** The first page from `page` on that exists or is held in memory; beyond the last page if there is none. */
  async #nextExistingPage(page: number): Promise<number> {
    const pages = manifestPageCount(this.geometry);
    for (let at = page; at < pages; ) {
      const table = Math.floor(at / REFERENCES_PER_TABLE);
      const end = Math.min(pages, (table + 1) * REFERENCES_PER_TABLE);
      const loaded = this.#tableReferences.has(table) || this.#tables.has(table);
      for (; at < end; at += 1) {
        if (this.#pages.has(at)) return at;
        if (loaded && readReference((await this.#table(table)).references, at % REFERENCES_PER_TABLE)) return at;
      }
    }
    return pages;
  }

  #dropCleanPages(keep: number): void {
    if (this.#pages.size <= CLEAN_PAGES_MAX) return;
    for (const [number, page] of this.#pages) {
      if (page.version !== page.flushed || number === keep) continue;
      this.#pages.delete(number);
      if (this.#pages.size <= CLEAN_PAGES_MAX) return;
    }
  }
}
