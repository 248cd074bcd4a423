/**
 * What a staging knows of its parts. Every store checks with it what its caller asks for, so that all answer alike: a
 * service finds out late, or never, that a part is missing or short.
 */
import { STAGED_PART_BYTES_MAX, STAGED_PARTS_MAX } from '../limits.ts';

export class StagedParts {
  readonly #key: string;
  readonly #partBytes: number;
  /** Length of each part that was stored. */
  readonly #lengths: Map<number, number> = new Map();
  #isOver = false;

  constructor(key: string, partBytes: number) {
    if (!Number.isSafeInteger(partBytes) || partBytes < 1 || partBytes > STAGED_PART_BYTES_MAX) {
      throw new RangeError(`${key}: parts have 1 … ${STAGED_PART_BYTES_MAX} bytes, not ${partBytes}`);
    }
    this.#key = key;
    this.#partBytes = partBytes;
  }

  /** @throws {RangeError} unless it may be a part; {TypeError} after commit or abort. */
  check(index: number, lengthBytes: number): void {
    if (this.#isOver) throw new TypeError(`${this.#key}: this staging was committed or aborted`);
    if (!Number.isSafeInteger(index) || index < 0 || index >= STAGED_PARTS_MAX) {
      throw new RangeError(`${this.#key}: parts are numbered 0 … ${STAGED_PARTS_MAX - 1}, not ${index}`);
    }
    if (lengthBytes < 1 || lengthBytes > this.#partBytes) {
      throw new RangeError(`${this.#key}: part ${index} has ${lengthBytes} bytes, a part has 1 … ${this.#partBytes}`);
    }
  }

  /** The part was stored. */
  stored(index: number, lengthBytes: number): void {
    this.#lengths.set(index, lengthBytes);
  }

  /** Length of the object that parts 0 … parts - 1 make. @throws {RangeError} if one is missing, or short and not the last. */
  checkWhole(parts: number): number {
    if (!Number.isSafeInteger(parts) || parts < 1) throw new RangeError(`${this.#key}: ${parts} parts are no object`);
    for (let index = 0; index < parts; index += 1) {
      const lengthBytes = this.#lengths.get(index);
      if (lengthBytes === undefined) throw new RangeError(`${this.#key}: part ${index} of ${parts} was not put`);
      if (index < parts - 1 && lengthBytes !== this.#partBytes) {
        throw new RangeError(`${this.#key}: part ${index} of ${parts} has ${lengthBytes} of ${this.#partBytes} bytes`);
      }
    }
    return (parts - 1) * this.#partBytes + this.#lengths.get(parts - 1)!;
  }

  /** No part may follow: it is being committed. */
  end(): void {
    this.#isOver = true;
  }

  /** It will not be committed either. */
  abandon(): void {
    this.#isOver = true;
    this.#lengths.clear();
  }
}
