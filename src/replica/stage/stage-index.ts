/**
 * stage.index: which chunks are staged, and where. A table with a record for each chunk of the disk, in pages that are read
 * when they are asked for and held while they are changed. Memory: as many changed pages as the caller lets come together, and
 * a bounded number of clean ones, whatever the size of the disk.
 */
import { isZero } from '../../chunker/index.ts';
import type { RandomAccessFile } from '../../ports.ts';
import { RECORD_BYTES, type RecordCodec, type StagedChunk } from './stage-record.ts';

const PAGE_RECORDS = 2048;
const PAGE_BYTES: number = PAGE_RECORDS * RECORD_BYTES;
const CLEAN_PAGES_MAX = 32;

interface Page {
  readonly bytes: Uint8Array;
  /** Grows with each change; the page is clean where it equals `written`. */
  version: number;
  written: number;
}

export class StageIndex {
  readonly #file: RandomAccessFile;
  readonly #codec: RecordCodec;
  readonly #chunks: number;
  readonly #pages: Map<number, Page> = new Map();
  readonly #loading: Map<number, Promise<Page>> = new Map();

  constructor(file: RandomAccessFile, codec: RecordCodec, chunks: number) {
    this.#file = file;
    this.#codec = codec;
    this.#chunks = chunks;
  }

  /** Pages that a save would write. */
  get changedPages(): number {
    let changed = 0;
    for (const { version, written } of this.#pages.values()) if (version !== written) changed += 1;
    return changed;
  }

  async get(chunk: number): Promise<StagedChunk | undefined> {
    const { bytes } = await this.#page(Math.floor(chunk / PAGE_RECORDS));
    return this.#codec.read(recordAt(bytes, chunk % PAGE_RECORDS), chunk);
  }

  async set(chunk: number, staged: StagedChunk): Promise<void> {
    const number = Math.floor(chunk / PAGE_RECORDS);
    // The page may be dropped between its loading and the end of our wait: change only one that is held now.
    let page = await this.#page(number);
    while (this.#pages.get(number) !== page) page = await this.#page(number);
    this.#codec.write(recordAt(page.bytes, chunk % PAGE_RECORDS), chunk, staged);
    page.version += 1;
  }

  /** All that is staged, in the order of the disk. What is set meanwhile may or may not be among it. */
  async *staged(): AsyncGenerator<readonly [chunk: number, staged: StagedChunk]> {
    for (let first = 0; first < this.#chunks; first += PAGE_RECORDS) {
      const { bytes } = await this.#page(first / PAGE_RECORDS);
      if (isZero(bytes)) continue;
      const end = Math.min(PAGE_RECORDS, this.#chunks - first);
      for (let i = 0; i < end; i += 1) {
        const staged = this.#codec.read(recordAt(bytes, i), first + i);
        if (staged) yield [first + i, staged];
      }
    }
  }

  /**
   * Takes what is set by now, and gives what makes it durable: so that the caller can first sync the bytes that these
   * records lead to, while others are set.
   */
  freeze(): () => Promise<void> {
    const changed = [...this.#pages].filter(([, { version, written }]) => version !== written);
    const copies = changed.map(([number, page]) => ({
      number,
      page,
      version: page.version,
      bytes: page.bytes.slice(),
    }));
    return async () => {
      for (const { number, page, version, bytes } of copies) {
        await this.#file.write(bytes.subarray(0, this.#pageBytes(number)), number * PAGE_BYTES);
        page.written = version;
      }
      await this.#file.sync();
    };
  }

  async #page(number: number): Promise<Page> {
    const held = this.#pages.get(number);
    if (held) return held;
    const loading = this.#loading.get(number) ?? this.#load(number).finally(() => this.#loading.delete(number));
    this.#loading.set(number, loading);
    return loading;
  }

  async #load(number: number): Promise<Page> {
    const page = { bytes: new Uint8Array(PAGE_BYTES), version: 0, written: 0 };
    await this.#file.read(page.bytes.subarray(0, this.#pageBytes(number)), number * PAGE_BYTES);
    this.#dropCleanPages();
    this.#pages.set(number, page);
    return page;
  }

  #pageBytes(number: number): number {
    return Math.min(PAGE_BYTES, this.#chunks * RECORD_BYTES - number * PAGE_BYTES);
  }

  #dropCleanPages(): void {
    for (const [number, { version, written }] of this.#pages) {
      if (this.#pages.size < CLEAN_PAGES_MAX) return;
      if (version === written) this.#pages.delete(number);
    }
  }
}

function recordAt(page: Uint8Array, index: number): Uint8Array {
  return page.subarray(index * RECORD_BYTES, (index + 1) * RECORD_BYTES);
}
