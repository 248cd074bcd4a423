/**
 * Dice: seeded randomness for tests (mulberry32). A case is thrown from the seed of its run and its own number, so one
 * case can be played again without those before it.
 */

export class Dice {
  #state: number;

  constructor(seed: number, caseNumber = 0) {
    this.#state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(caseNumber + 1, 0xc2b2ae35);
  }

  /** A u32. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let bits = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), bits | 61)) ^ bits;
    return (bits ^ (bits >>> 14)) >>> 0;
  }

  /** A whole number from 0 to `end` - 1. */
  below(end: number): number {
    return end <= 0x1_0000_0000
      ? Math.floor((this.next() / 0x1_0000_0000) * end)
      : Math.floor(((this.next() * 0x20_0000 + (this.next() >>> 11)) / 2 ** 53) * end);
  }

  /** A whole number from `first` to `last`. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** True once in `n` throws. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  bytes(lengthBytes: number): Buffer {
    const bytes = Buffer.allocUnsafe(lengthBytes);
    let at = 0;
    for (; at + 4 <= lengthBytes; at += 4) bytes.writeUInt32LE(this.next(), at);
    for (; at < lengthBytes; at += 1) bytes[at] = this.next();
    return bytes;
  }
}

/** A whole number from the environment, for runs by hand: another seed, more cases. */
export function numberFromEnvironment(name: string, otherwise: number): number {
  const text = process.env[name];
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${name} is a whole number, not "${text}"`);
  return value;
}
