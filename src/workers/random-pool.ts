/**
 * Random bytes in small pieces: one draw of the system fills a pool, and pieces of it are given out once each. A draw costs the
 * same, of few bytes or of many; a record that is sealed needs 32.
 */
const POOL_BYTES = 4096;

export class RandomPool {
  readonly #fill: (into: Uint8Array) => void;
  readonly #pool: Uint8Array = new Uint8Array(POOL_BYTES);
  #used = POOL_BYTES;

  constructor(fill: (into: Uint8Array) => void) {
    this.#fill = fill;
  }

  /** Bytes that nobody was given before: a view, good until the next call. */
  bytes(lengthBytes: number): Uint8Array {
    if (lengthBytes > POOL_BYTES) throw new RangeError(`a pool of ${POOL_BYTES} random bytes has no ${lengthBytes}`);
    if (this.#used + lengthBytes > POOL_BYTES) {
      this.#fill(this.#pool);
      this.#used = 0;
    }
    this.#used += lengthBytes;
    return this.#pool.subarray(this.#used - lengthBytes, this.#used);
  }
}
