/**
 * BlockMarks: places of the blocks of a log, noted while its links are followed back. At most `marksMax` are kept: when
 * there are more, every second is dropped, and from then on only every second, every fourth … block is noted.
 */
export class BlockMarks {
  readonly #marksMax: number;
  #offsets: number[] = [];
  #stride = 1;
  #count = 0;

  constructor(marksMax: number) {
    this.#marksMax = marksMax;
  }

  /** Newest first, the first always among them, the same number of blocks apart. */
  get offsets(): readonly number[] {
    return this.#offsets;
  }

  /** The block at `offset`, older than all before. */
  note(offset: number): void {
    const index = this.#count;
    this.#count += 1;
    if (index % this.#stride !== 0) return;
    this.#offsets.push(offset);
    if (this.#offsets.length <= this.#marksMax) return;
    this.#offsets = this.#offsets.filter((_, i) => i % 2 === 0);
    this.#stride *= 2;
  }
}
