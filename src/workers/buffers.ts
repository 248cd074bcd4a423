/**
 * A bounded pool of buffers of one size. free + in use ≤ `count`: whoever wants one more waits, and that is what bounds
 * the memory of a whole sync or restore, whatever the size of the disk.
 */
interface Waiting {
  readonly resolve: (buffer: ArrayBuffer) => void;
  readonly reject: (reason: unknown) => void;
}

export class BufferPool {
  readonly bufferBytes: number;
  readonly count: number;
  readonly #free: ArrayBuffer[] = [];
  readonly #waiting: Waiting[] = [];
  #made = 0;
  #failure: unknown;

  constructor(bufferBytes: number, count: number) {
    this.bufferBytes = bufferBytes;
    this.count = count;
  }

  /** Buffers that were acquired and not given back. */
  get inUse(): number {
    return this.#made - this.#free.length;
  }

  /**
   * Waits for a buffer; `next` is served before all who wait without it: what was begun ends before more is begun.
   * @throws the reason given to `fail`.
   */
  async acquire(next = false): Promise<ArrayBuffer> {
    if (this.#failure !== undefined) throw this.#failure;
    const free = this.#free.pop();
    if (free) return free;
    if (this.#made < this.count) {
      this.#made += 1;
      return new ArrayBuffer(this.bufferBytes);
    }
    return new Promise((resolve, reject) => {
      if (next) this.#waiting.unshift({ resolve, reject });
      else this.#waiting.push({ resolve, reject });
    });
  }

  /** Gives back a buffer, or the one that came back from a worker in its place. */
  release(buffer: ArrayBuffer): void {
    if (buffer.byteLength !== this.bufferBytes) {
      throw new RangeError(`a buffer of ${buffer.byteLength} bytes is none of this pool's (${this.bufferBytes})`);
    }
    const next = this.#waiting.shift();
    if (next) next.resolve(buffer);
    else this.#free.push(buffer);
  }

  /** Ends all waiting, now and later: buffers that a failed batch held will not come back. */
  fail(reason: unknown): void {
    this.#failure ??= reason;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}
