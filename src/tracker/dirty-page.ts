/**
 * DirtyPage: the sets of 10,752 chunks in memory, laid out as in the file but for the checksums, and which of these chunks
 * were written lately. Knows bits, and nothing of files or disks. Chunks are counted from the first of the page.
 */

export const RECORD_BYTES = 512;
export const RECORDS_PER_PAGE = 8;
export const PAGE_BYTES: number = RECORD_BYTES * RECORDS_PER_PAGE;
/** One set in one record. */
const SET_BYTES = 168;
const CHUNKS_PER_RECORD: number = SET_BYTES * 8;
export const CHUNKS_PER_PAGE: number = CHUNKS_PER_RECORD * RECORDS_PER_PAGE;
/** Bytes that hold one set of a page, if they stood together. */
export const SET_BYTES_PER_PAGE: number = SET_BYTES * RECORDS_PER_PAGE;

const SET_WORDS: number = SET_BYTES / 4;
const RECORD_WORDS: number = RECORD_BYTES / 4;
/** Where the sets stand in a record. */
const CURRENT_OFFSET: number = SET_BYTES;
const CLOSED_OFFSET: number = SET_BYTES * 2;
const SETS_BYTES: number = SET_BYTES * 3;
const [CURRENT_WORD, CLOSED_WORD] = [SET_WORDS, SET_WORDS * 2];

/** Sets to unite: the sum of any of these. */
export const ACTIVE = 1;
export const CURRENT = 2;
export const CLOSED = 4;

export class DirtyPage {
  readonly #bytes = new Uint8Array(PAGE_BYTES);
  /** The same memory, for what is done to all chunks: bits do not see the order of bytes. */
  readonly #words = new Uint32Array(this.#bytes.buffer);
  /** Written since the last sweep began, and between the two before; a set each. */
  #touched: Uint8Array | undefined;
  #touchedBefore: Uint8Array | undefined;
  /** False: no chunk is active. */
  #mayBeActive = false;
  /** The file may say something that is not so any more. (That a chunk is current can wait: it is active there.) */
  isStale = false;

  /** Whether the chunk is active and current. If so it was touched. */
  touchIfReady(chunk: number): boolean {
    const at = byteOf(chunk);
    const mask = 1 << (chunk & 7);
    if ((this.#bytes[at]! & this.#bytes[at + CURRENT_OFFSET]! & mask) === 0) return false;
    this.#touch(chunk >>> 3, mask);
    return true;
  }

  /** A write of the chunk begins: it is current, and touched. Whether it is active. */
  begin(chunk: number): boolean {
    const at = byteOf(chunk);
    const mask = 1 << (chunk & 7);
    this.#touch(chunk >>> 3, mask);
    this.#bytes[at + CURRENT_OFFSET]! |= mask;
    return (this.#bytes[at]! & mask) !== 0;
  }

  isActive(chunk: number): boolean {
    return isActiveIn(this.#bytes, chunk);
  }

  /** The file has the chunk as active, durably. */
  activate(chunk: number): void {
    this.#mayBeActive = true;
    activateIn(this.#bytes, chunk);
  }

  /** Eight chunks of the union of sets, from chunk 8 · `index` on. */
  union(sets: number, index: number): number {
    const at = byteOf(index * 8);
    return (
      ((sets & ACTIVE) === 0 ? 0 : this.#bytes[at]!) |
      ((sets & CURRENT) === 0 ? 0 : this.#bytes[at + CURRENT_OFFSET]!) |
      ((sets & CLOSED) === 0 ? 0 : this.#bytes[at + CLOSED_OFFSET]!)
    );
  }

  /** closed |= current; current = ∅ */
  rotate(): void {
    this.#forEachWord((active, current, closed, at) => {
      this.#replace(at, active, 0, closed | current);
    });
  }

  /** closed = ∅ */
  forgetClosed(): void {
    this.#forEachWord((active, current, _, at) => this.#replace(at, active, current, 0));
  }

  /** current |= active */
  adoptActive(): void {
    this.#forEachWord((active, current, closed, at) => this.#replace(at, active, current | active, closed));
  }

  /** A sweep begins. Whether a chunk is active that was not touched since the one before. */
  beginSweep(): boolean {
    const resting = this.#touchedBefore;
    this.#touchedBefore = this.#touched;
    this.#touched = resting?.fill(0);
    if (!this.#mayBeActive) return false;
    for (let index = 0; index < SET_BYTES_PER_PAGE; index += 1) {
      if ((this.union(ACTIVE, index) & ~(this.#touchedBefore?.[index] ?? 0)) !== 0) return true;
    }
    return false;
  }

  /** Of the active chunks those stay that were touched since the sweep before, or since this one began. */
  rest(): void {
    if (!this.#mayBeActive) return;
    let activeLeft = 0;
    for (let index = 0; index < SET_BYTES_PER_PAGE; index += 1) {
      const at = byteOf(index * 8);
      const active = this.#bytes[at]!;
      const left = active & ((this.#touched?.[index] ?? 0) | (this.#touchedBefore?.[index] ?? 0));
      activeLeft |= left;
      if (left === active) continue;
      this.#bytes[at] = left;
      this.isStale = true;
    }
    if (activeLeft !== 0) return;
    this.#mayBeActive = false;
    this.#touched = undefined;
    this.#touchedBefore = undefined;
  }

  /** active = ∅ */
  deactivate(): void {
    this.#mayBeActive = false;
    this.#forEachWord((_, current, closed, at) => this.#replace(at, 0, current, closed));
  }

  get isEmpty(): boolean {
    return this.#words.every((word) => word === 0);
  }

  /** Takes over a record of the file; without one all its chunks are in every set. */
  load(recordNumber: number, record: Uint8Array | undefined): void {
    const target = this.#bytes.subarray(recordNumber * RECORD_BYTES, recordNumber * RECORD_BYTES + SETS_BYTES);
    if (record) target.set(record.subarray(0, SETS_BYTES));
    else target.fill(0xff);
    this.#mayBeActive = true;
  }

  /** Takes chunks out that the disk does not have. */
  cutBehind(chunkCount: number): void {
    for (let chunk = Math.max(0, chunkCount); chunk < CHUNKS_PER_PAGE; chunk += 1) {
      const at = byteOf(chunk);
      const keep = ~(1 << (chunk & 7));
      for (let set = at; set < at + SETS_BYTES; set += SET_BYTES) this.#bytes[set]! &= keep;
    }
  }

  /** A copy, as it is now. */
  copy(): Buffer {
    return Buffer.from(this.#bytes);
  }

  #touch(index: number, mask: number): void {
    this.#touched ??= new Uint8Array(SET_BYTES_PER_PAGE);
    this.#touched[index]! |= mask;
  }

  #forEachWord(visit: (active: number, current: number, closed: number, at: number) => void): void {
    const words = this.#words;
    for (let record = 0; record < words.length; record += RECORD_WORDS) {
      for (let at = record; at < record + SET_WORDS; at += 1) {
        const [active, current, closed] = [words[at]!, words[at + CURRENT_WORD]!, words[at + CLOSED_WORD]!];
        if ((active | current | closed) !== 0) visit(active, current, closed, at);
      }
    }
  }

  #replace(at: number, active: number, current: number, closed: number): void {
    const words = this.#words;
    const changes = (words[at]! ^ active) | (words[at + CURRENT_WORD]! ^ current) | (words[at + CLOSED_WORD]! ^ closed);
    if (changes === 0) return;
    words[at] = active;
    words[at + CURRENT_WORD] = current;
    words[at + CLOSED_WORD] = closed;
    this.isStale = true;
  }
}

/** Whether a page, or a copy of one, has the chunk as active. */
export function isActiveIn(page: Uint8Array, chunk: number): boolean {
  return (page[byteOf(chunk)]! & (1 << (chunk & 7))) !== 0;
}

/** Makes the chunk active in a page, or in a copy of one. */
export function activateIn(page: Uint8Array, chunk: number): void {
  page[byteOf(chunk)]! |= 1 << (chunk & 7);
}

/** Where the bit of a chunk stands in the first set of its record. A record has whole bytes of chunks. */
function byteOf(chunk: number): number {
  const index = chunk >>> 3;
  const record = Math.floor(index / SET_BYTES);
  return record * RECORD_BYTES + index - record * SET_BYTES;
}
