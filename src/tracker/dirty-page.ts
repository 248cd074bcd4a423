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
/** What holds one set of a page, if it stood together: in bytes, and in words of 32 chunks. */
const SET_BYTES_PER_PAGE: number = SET_BYTES * RECORDS_PER_PAGE;
const SET_WORDS: number = SET_BYTES / 4;
export const SET_WORDS_PER_PAGE: number = SET_WORDS * RECORDS_PER_PAGE;
const RECORD_WORDS: number = RECORD_BYTES / 4;
/** Where the sets stand in a record. */
const CURRENT_OFFSET: number = SET_BYTES;
const CLOSED_OFFSET: number = SET_BYTES * 2;
const SETS_BYTES: number = SET_BYTES * 3;
const PAGE_WORDS: number = PAGE_BYTES / 4;
const [ACTIVE_WORD, CURRENT_WORD, CLOSED_WORD] = [0, SET_WORDS, SET_WORDS * 2];

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

  /** The file has the chunk as active, durably. */
  activate(chunk: number): void {
    this.#mayBeActive = true;
    activateIn(this.#bytes, chunk);
  }

  /** 32 chunks of the union of sets, from chunk 32 · `index` on: to see whether it is none (0), all (2^32 - 1) or some. */
  unionWord(sets: number, index: number): number {
    const record = Math.floor(index / SET_WORDS);
    const at = record * RECORD_WORDS + index - record * SET_WORDS;
    const words = this.#words;
    return (
      (((sets & ACTIVE) === 0 ? 0 : words[at]!) |
        ((sets & CURRENT) === 0 ? 0 : words[at + CURRENT_WORD]!) |
        ((sets & CLOSED) === 0 ? 0 : words[at + CLOSED_WORD]!)) >>>
      0
    );
  }

  /** Whether the chunk is in any of the sets. */
  has(sets: number, chunk: number): boolean {
    const at = byteOf(chunk);
    const bits =
      ((sets & ACTIVE) === 0 ? 0 : this.#bytes[at]!) |
      ((sets & CURRENT) === 0 ? 0 : this.#bytes[at + CURRENT_OFFSET]!) |
      ((sets & CLOSED) === 0 ? 0 : this.#bytes[at + CLOSED_OFFSET]!);
    return (bits & (1 << (chunk & 7))) !== 0;
  }

  /** closed |= current; current = ∅ */
  rotate(): void {
    this.#move(CURRENT_WORD, CLOSED_WORD);
  }

  /** closed = ∅ */
  forgetClosed(): void {
    this.#clear(CLOSED_WORD);
  }

  /** current |= active */
  adoptActive(): void {
    const words = this.#words;
    for (let record = 0; record < PAGE_WORDS; record += RECORD_WORDS) {
      for (let at = record; at < record + SET_WORDS; at += 1) words[at + CURRENT_WORD]! |= words[at]!;
    }
  }

  /** A sweep begins. Whether a chunk is active that was not touched since the one before. */
  beginSweep(): boolean {
    const resting = this.#touchedBefore;
    this.#touchedBefore = this.#touched;
    this.#touched = resting?.fill(0);
    if (!this.#mayBeActive) return false;
    let isAnyResting = false;
    this.#forEachActive((at, index) => {
      if ((this.#bytes[at]! & ~(this.#touchedBefore?.[index] ?? 0)) !== 0) isAnyResting = true;
    });
    return isAnyResting;
  }

  /** Of the active chunks those stay that were touched since the sweep before, or since this one began. */
  rest(): void {
    if (!this.#mayBeActive) return;
    let activeLeft = 0;
    this.#forEachActive((at, index) => {
      const active = this.#bytes[at]!;
      const left = active & ((this.#touched?.[index] ?? 0) | (this.#touchedBefore?.[index] ?? 0));
      activeLeft |= left;
      if (left === active) return;
      this.#bytes[at] = left;
      this.isStale = true;
    });
    if (activeLeft !== 0) return;
    this.#mayBeActive = false;
    // A chunk that is about to become active was touched too: that must not be forgotten.
    if (this.#touched?.some((bits) => bits !== 0)) return;
    this.#touched = undefined;
    this.#touchedBefore = undefined;
  }

  /** active = ∅ */
  deactivate(): void {
    this.#mayBeActive = false;
    this.#clear(ACTIVE_WORD);
  }

  get isEmpty(): boolean {
    for (let at = 0; at < PAGE_WORDS; at += 1) if (this.#words[at] !== 0) return false;
    return true;
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

  /** Bytes that have active chunks: where they stand, and which of the set they are. */
  #forEachActive(visit: (at: number, index: number) => void): void {
    for (let index = 0; index < SET_BYTES_PER_PAGE; index += 4) {
      if (this.unionWord(ACTIVE, index / 4) === 0) continue;
      const at = byteOf(index * 8);
      for (let n = 0; n < 4; n += 1) visit(at + n, index + n);
    }
  }

  /** One set into another, as words for speed: the barrier waits for it. */
  #move(fromSet: number, toSet: number): void {
    const words = this.#words;
    for (let record = 0; record < PAGE_WORDS; record += RECORD_WORDS) {
      for (let at = record; at < record + SET_WORDS; at += 1) {
        const bits = words[at + fromSet]!;
        if (bits === 0) continue;
        words[at + toSet]! |= bits;
        words[at + fromSet] = 0;
        this.isStale = true;
      }
    }
  }

  #clear(set: number): void {
    const words = this.#words;
    for (let record = 0; record < PAGE_WORDS; record += RECORD_WORDS) {
      for (let at = record + set; at < record + set + SET_WORDS; at += 1) {
        if (words[at] === 0) continue;
        words[at] = 0;
        this.isStale = true;
      }
    }
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
