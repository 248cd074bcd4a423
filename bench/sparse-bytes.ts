/** A large array of bytes that costs memory only where something was written, by granules of 64 KiB. */

const GRANULE_BYTES = 64 * 1024;

export class SparseBytes {
  readonly #granules: Map<number, Buffer>;

  constructor(granules: Map<number, Buffer> = new Map()) {
    this.#granules = granules;
  }

  /** What is here now, on its own. */
  copy(): SparseBytes {
    return new SparseBytes(new Map([...this.#granules].map(([index, bytes]) => [index, Buffer.from(bytes)])));
  }

  write(offset: number, bytes: Buffer): void {
    for (const { index, from, to, at } of pieces(offset, bytes.byteLength)) {
      const granule = this.#granules.get(index) ?? Buffer.alloc(GRANULE_BYTES);
      bytes.copy(granule, from, at, at + to - from);
      this.#granules.set(index, granule);
    }
  }

  clear(offset: number, lengthBytes: number): void {
    const end = offset + lengthBytes;
    // By what is held, not by what is cleared: a clear may span the whole of an array of terabytes.
    for (const [index, granule] of this.#granules) {
      const start = index * GRANULE_BYTES;
      const [from, to] = [Math.max(offset, start), Math.min(end, start + GRANULE_BYTES)];
      if (from < to) granule.fill(0, from - start, to - start);
      if (to - from === GRANULE_BYTES) this.#granules.delete(index);
    }
  }

  read(offset: number, lengthBytes: number): Buffer {
    const into = Buffer.alloc(lengthBytes);
    for (const { index, from, to, at } of pieces(offset, lengthBytes)) {
      this.#granules.get(index)?.copy(into, at, from, to);
    }
    return into;
  }

  /** Ranges that may hold data, ascending, cut at `sizeBytes`. */
  ranges(sizeBytes: number): readonly { readonly start: number; readonly end: number }[] {
    return [...this.#granules.keys()]
      .sort((a, b) => a - b)
      .map((index) => ({ start: index * GRANULE_BYTES, end: Math.min(sizeBytes, (index + 1) * GRANULE_BYTES) - 1 }));
  }
}

/** A range by granules: which one, from where to where in it, and where that is in the range. */
function* pieces(offset: number, lengthBytes: number) {
  for (let at = 0; at < lengthBytes; ) {
    const index = Math.floor((offset + at) / GRANULE_BYTES);
    const from = offset + at - index * GRANULE_BYTES;
    const to = Math.min(GRANULE_BYTES, from + lengthBytes - at);
    yield { index, from, to, at };
    at += to - from;
  }
}
