/** Mutated slots, entries, pages and references: typed errors only, nothing accepted, no hang. Seeds are fixed. */
import { describe, expect, it } from 'vitest';
import { createCodec } from '../../src/chunker/codec.ts';
import { createFingerprinter } from '../../src/chunker/fingerprint.ts';
import { PAGE_BYTES, PAGE_PLAINTEXT_BYTES, REFERENCES_PER_TABLE } from '../../src/chunker/geometry.ts';
import { ChunkKernel } from '../../src/chunker/kernel.ts';
import { readReference, writeEntry } from '../../src/chunker/manifest-entry.ts';
import { PageCipher } from '../../src/chunker/manifest-page.ts';
import { SlotCipher } from '../../src/chunker/slot.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { context, noise, prose, sealChunk } from './support.ts';

const EDGES = [0, 1, 2, 0x7f, 0x80, 0xff];

/** Numbers from a seed, cheap enough for a hundred thousand inputs. */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 0x9e37_79b1) ^ 0x5bd1_e995) | 1;
  }

  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % limit;
  }
}

/** A copy with some bytes changed, more often among the first 64. Never equal to the original. */
function changed(original: Buffer, dice: Dice): Buffer {
  const bytes = Buffer.from(original);
  for (let times = 1 + dice.below(4); times > 0; times -= 1) {
    const at = dice.below(dice.below(2) ? Math.min(64, bytes.length) : bytes.length);
    const kind = dice.below(4);
    if (kind === 0) bytes[at]! ^= 1 << dice.below(8);
    else if (kind === 1) bytes[at] = EDGES[dice.below(EDGES.length)]!;
    else if (kind === 2) bytes.copy(bytes, at, dice.below(bytes.length));
    else bytes.fill(EDGES[dice.below(EDGES.length)]!, at, Math.min(bytes.length, at + 1 + dice.below(8)));
  }
  if (bytes.equals(original)) bytes[0]! ^= 1;
  return bytes;
}

/** The same, now and then cut or extended. */
function mutated(original: Buffer, dice: Dice): Buffer {
  const bytes = changed(original, dice);
  if (dice.below(20) === 0) return bytes.subarray(0, dice.below(bytes.length));
  if (dice.below(40) === 0) return Buffer.concat([bytes, Buffer.alloc(dice.below(2) ? 512 : 1 + dice.below(2000))]);
  return bytes;
}

/** Runs `attempt` and says how it ended; anything but a result or one of our two codes fails the test. */
function ending(attempt: () => unknown): string {
  try {
    attempt();
    return 'accepted';
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_SLOT', 'REPLICA_MANIFEST')) return error.code;
    throw error;
  }
}

describe('fuzzing', () => {
  it('accepts none of 60,000 mutated slots and none of 20,000 slots under mutated entries', async () => {
    const fingerprinter = await createFingerprinter('xxh64', noise(32, 9));
    const cipher = new SlotCipher(context());
    const kernel = new ChunkKernel({ fingerprinter, sealing: { cipher, codec: createCodec('lz4') } });
    const samples = [prose(1000, 1), prose(16_384, 2), noise(512, 3)].map((plaintext, chunk) => {
      const stored = sealChunk(cipher, fingerprinter, plaintext, chunk, 4, createCodec('lz4'));
      const entry = Buffer.alloc(48);
      writeEntry(entry, stored.entry);
      return { ...stored, row: entry };
    });
    const ends = new Map<string, number>();
    for (let seed = 0; seed < 80_000; seed += 1) {
      const { slot, row, chunk, plaintext } = samples[seed % samples.length]!;
      const dice = new Dice(seed);
      const end =
        seed < 60_000
          ? ending(() => kernel.open(mutated(slot, dice), chunk, row, plaintext.length))
          : ending(() => kernel.open(slot, chunk, changed(row, dice), plaintext.length));
      ends.set(end, (ends.get(end) ?? 0) + 1);
    }
    expect(ends.get('accepted')).toBeUndefined();
    expect([...ends.values()].reduce((a, b) => a + b)).toBe(80_000);
  });

  it('accepts none of 20,000 mutated pages, and reads 50,000 hostile references to typed errors or numbers', () => {
    const cipher = new PageCipher(context());
    const bytes = Buffer.alloc(PAGE_BYTES);
    const reference = cipher.sealPage('table', 2, 4, 0, noise(PAGE_PLAINTEXT_BYTES.table, 1), bytes);
    let accepted = 0;
    for (let seed = 0; seed < 20_000; seed += 1) {
      const page = mutated(bytes, new Dice(seed));
      if (ending(() => cipher.openPage('table', 2, reference, page)) === 'accepted') accepted += 1;
    }
    expect(accepted).toBe(0);
    for (let seed = 0; seed < 25; seed += 1) {
      const table = noise(PAGE_PLAINTEXT_BYTES.table, seed);
      for (let i = 0; i < REFERENCES_PER_TABLE; i += 1) ending(() => readReference(table, i));
    }
  });
});
