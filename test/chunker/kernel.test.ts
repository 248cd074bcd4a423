import { beforeAll, describe, expect, it } from 'vitest';
import { createCodec } from '../../src/chunker/codec.ts';
import { createFingerprinter, type Fingerprinter } from '../../src/chunker/fingerprint.ts';
import { slotSizeBytes } from '../../src/chunker/geometry.ts';
import { ChunkKernel, type Scanned } from '../../src/chunker/kernel.ts';
import { isZeroEntry, readEntry } from '../../src/chunker/manifest-entry.ts';
import { SlotCipher } from '../../src/chunker/slot.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { context, noise, prose } from './support.ts';

const CHUNK = 65_536;
const UNTOUCHED = Buffer.alloc(slotSizeBytes(CHUNK), 0xee);
const NO_ENTRY = new Uint8Array(48);

/** Counts calls, to show what was not done. */
class CountingFingerprinter implements Fingerprinter {
  readonly algorithm = 'xxh128';
  readonly #inner: Fingerprinter;
  calls = 0;

  constructor(inner: Fingerprinter) {
    this.#inner = inner;
  }

  digest(bytes: Uint8Array, into: Uint8Array, intoOffset: number): void {
    this.calls += 1;
    this.#inner.digest(bytes, into, intoOffset);
  }
}

let fingerprinter: CountingFingerprinter;
beforeAll(async () => {
  fingerprinter = new CountingFingerprinter(await createFingerprinter('xxh128', noise(32, 9)));
});

function kernelOf(layout: 'sealed' | 'raw'): ChunkKernel {
  if (layout === 'raw') return new ChunkKernel({ fingerprinter });
  return new ChunkKernel({ fingerprinter, sealing: { cipher: new SlotCipher(context()), codec: createCodec('lz4') } });
}

interface Outcome extends Scanned {
  readonly entry: Buffer;
  readonly slots: Buffer;
}

function scan(kernel: ChunkKernel, plaintext: Buffer, entry: Uint8Array, forced = false, generation = 5): Outcome {
  const [newEntry, slots] = [Buffer.alloc(48, 0xee), Buffer.from(UNTOUCHED)];
  return { ...kernel.scan(plaintext, 7, generation, entry, forced, newEntry, slots, 0), entry: newEntry, slots };
}

describe.each(['sealed', 'raw'] as const)('the kernel, layout %s', (layout) => {
  it('says changed for new content, and what it wrote opens to that content', () => {
    const kernel = kernelOf(layout);
    for (const plaintext of [prose(CHUNK, 1), noise(CHUNK, 2), noise(512, 3)]) {
      const changed = scan(kernel, plaintext, NO_ENTRY);
      expect(changed.verdict).toBe('changed');
      expect(readEntry(changed.entry)?.generation).toBe(5);
      const stored = layout === 'sealed' ? changed.slots.subarray(0, changed.slotBytes) : plaintext;
      expect(Buffer.from(kernel.open(stored, 7, changed.entry, plaintext.length)).equals(plaintext)).toBe(true);
    }
  });

  it('says same for what the entry describes, and writes nothing', () => {
    const kernel = kernelOf(layout);
    const { entry } = scan(kernel, prose(CHUNK, 1), NO_ENTRY);
    const again = scan(kernel, prose(CHUNK, 1), entry);
    expect(again).toMatchObject({ verdict: 'same', slotBytes: 0 });
    expect(again.entry.equals(Buffer.alloc(48, 0xee))).toBe(true);
    expect(again.slots.equals(UNTOUCHED)).toBe(true);
    expect(kernel.compare(prose(CHUNK, 1), entry)).toBe('same');
    expect(kernel.compare(prose(CHUNK, 2), entry)).toBe('changed');
  });

  it('says zero for zeros over content, with an entry of zeros, and same for zeros over zeros', () => {
    const kernel = kernelOf(layout);
    const { entry } = scan(kernel, prose(CHUNK, 1), NO_ENTRY);
    const calls = fingerprinter.calls;
    const zero = scan(kernel, Buffer.alloc(CHUNK), entry);
    expect(zero).toMatchObject({ verdict: 'zero', slotBytes: 0 });
    expect(isZeroEntry(zero.entry)).toBe(true);
    expect(scan(kernel, Buffer.alloc(CHUNK), NO_ENTRY).verdict).toBe('same');
    expect(kernel.compare(Buffer.alloc(CHUNK), entry)).toBe('zero');
    expect(fingerprinter.calls).toBe(calls);
  });

  it('prepares a forced chunk although it is the same, zeros included', () => {
    const kernel = kernelOf(layout);
    const { entry } = scan(kernel, prose(CHUNK, 1), NO_ENTRY);
    const forced = scan(kernel, prose(CHUNK, 1), entry, true, 6);
    expect(forced.verdict).toBe('changed');
    expect(readEntry(forced.entry)?.generation).toBe(6);
    const zero = scan(kernel, Buffer.alloc(CHUNK), NO_ENTRY, true);
    expect(zero.verdict).toBe('zero');
    expect(isZeroEntry(zero.entry)).toBe(true);
  });

  it('opens nothing that the entry does not describe', () => {
    const kernel = kernelOf(layout);
    const plaintext = noise(CHUNK, 1);
    const { entry, slots, slotBytes } = scan(kernel, plaintext, NO_ENTRY);
    const stored = layout === 'sealed' ? slots.subarray(0, slotBytes) : plaintext;
    const other = scan(kernel, noise(CHUNK, 2), NO_ENTRY).entry;
    const damaged = Buffer.from(stored);
    damaged[30_000]! ^= 1;
    const attempts = [
      () => kernel.open(damaged, 7, entry, CHUNK),
      () => kernel.open(stored.subarray(0, stored.length - 512), 7, entry, CHUNK),
      () => kernel.open(stored, 7, entry, CHUNK - 512),
      () => kernel.open(stored, 7, other, CHUNK),
      () => kernel.open(stored, 7, NO_ENTRY, CHUNK),
    ];
    for (const attempt of attempts) {
      try {
        attempt();
        expect.unreachable();
      } catch (error) {
        expect(isBlockferryError(error, 'REPLICA_SLOT') && error.facts['chunk']).toBe(7);
      }
    }
  });
});

describe('layout raw', () => {
  it('has entries with the plaintext length and neither epoch nor tag', () => {
    const entry = readEntry(scan(kernelOf('raw'), noise(512, 1), NO_ENTRY).entry)!;
    expect(entry).toMatchObject({ generation: 5, epoch: 0, clen: 512 });
    expect([...entry.tag]).toEqual(Array(16).fill(0));
  });
});
