/**
 * From granule number to a u32, for millions of entries: an open-addressed table of 8 bytes an entry at half load,
 * where a Map would take about 100. Entries are never changed or removed.
 */

const EMPTY = 0;

export class GranuleIndex {
  /** Granule + 1, so that 0 is free. */
  #keys = new Uint32Array(64);
  #values = new Uint32Array(64);
  #count = 0;

  get size(): number {
    return this.#count;
  }

  get(granule: number): number | undefined {
    const slot = this.#slot(granule + 1);
    return this.#keys[slot] === EMPTY ? undefined : this.#values[slot];
  }

  has(granule: number): boolean {
    return this.#keys[this.#slot(granule + 1)] !== EMPTY;
  }

  /** Keeps the value that is there already: the first one counts. */
  add(granule: number, value: number): void {
    if (this.#count * 2 >= this.#keys.length) this.#grow();
    const slot = this.#slot(granule + 1);
    if (this.#keys[slot] !== EMPTY) return;
    this.#keys[slot] = granule + 1;
    this.#values[slot] = value;
    this.#count += 1;
  }

  *granules(): Generator<number> {
    for (const key of this.#keys) {
      if (key !== EMPTY) yield key - 1;
    }
  }

  /** Where `key` stands or would stand. */
  #slot(key: number): number {
    const mask = this.#keys.length - 1;
    let slot = Math.imul(key, 0x9e3779b1) >>> (32 - Math.log2(this.#keys.length));
    while (this.#keys[slot] !== EMPTY && this.#keys[slot] !== key) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    this.#keys = new Uint32Array(keys.length * 2);
    this.#values = new Uint32Array(keys.length * 2);
    for (let i = 0; i < keys.length; i += 1) {
      const key = keys[i] as number;
      if (key === EMPTY) continue;
      const slot = this.#slot(key);
      this.#keys[slot] = key;
      this.#values[slot] = values[i] as number;
    }
  }
}
