/** XXH3 of our own against the library that others use, and against what its author has published. */
import { createXXHash128 } from 'hash-wasm';
import { expect, it } from 'vitest';
import { ChunkMemory } from '../../src/chunker/chunk-memory.ts';
import { Xxh3 } from '../../src/chunker/xxh3.ts';
import { noise } from './support.ts';

const memory = new ChunkMemory();
const xxh3 = new Xxh3(memory);
const SEEDS = [0n, 1n, 0x9e37_79b1n, 0x0123_4567_89ab_cdefn, 0x8000_0000_0000_0000n, 0xffff_ffff_ffff_ffffn];

function hexOf(bytes: Uint8Array, seed: bigint): string {
  return Buffer.from(xxh3.digest(bytes, seed)).toString('hex');
}

/** What the library makes of bytes, one after the other under one seed. */
async function oracle(seed: bigint): Promise<(bytes: Uint8Array) => string> {
  const hasher = await createXXHash128(Number(seed & 0xffff_ffffn), Number(seed >> 32n));
  return (bytes) => hasher.init().update(bytes).digest('hex');
}

it.each(SEEDS)('under seed %d gives the same digest of every length up to 1100, wherever it lies', async (seed) => {
  const expected = await oracle(seed);
  const bytes = noise(1100, 5);
  for (let length = 0; length <= 1100; length += 1) {
    const part = bytes.subarray(0, length);
    const own = memory.input(2048).subarray(length % 33, (length % 33) + length);
    own.set(part);
    const digest = expected(part);
    expect(hexOf(part, seed), `${length} bytes elsewhere`).toBe(digest);
    expect(hexOf(own, seed), `${length} bytes in the memory`).toBe(digest);
  }
});

it.each(SEEDS)(
  'under seed %d gives the same digest of long inputs: around whole blocks, and up to a chunk of 4 MiB',
  async (seed) => {
    const expected = await oracle(seed);
    const bytes = Buffer.concat([noise(3 << 20, 6), Buffer.alloc(1 << 20)]);
    const lengths = [2, 3, 16, 64, 255, 256, 1024, 4095, 4096].flatMap((blocks) =>
      [-65, -64, -63, -1, 0, 1, 63, 64, 65, 512].map((more) => blocks * 1024 + more),
    );
    for (const length of lengths.filter((each) => each <= bytes.byteLength)) {
      const part = bytes.subarray(0, length);
      expect(hexOf(part, seed), `${length} bytes`).toBe(expected(part));
    }
  },
);

it('gives what the author of xxHash has published', () => {
  const bytes = Buffer.alloc(1);
  expect(hexOf(bytes.subarray(1), 0n)).toBe('99aa06d3014798d86001c324468d497f');
  expect(hexOf(bytes.subarray(1), 0x9e37_79b1n)).toBe('92220ae55e14ab505444f7869c671ab0');
  expect(hexOf(bytes, 0n)).toBe('a6cd5e9392000f6ac44bdff4074eecdb');
  expect(hexOf(bytes, 0x9e37_79b1n)).toBe('89b99554ba22467cb53d5557e7f76f8d');
});

it('leaves what it reads as it was, and what lies behind it', () => {
  const input = memory.input(4096);
  input.set(noise(4096, 1));
  const before = Buffer.from(input);
  hexOf(input.subarray(0, 3000), 7n);
  hexOf(noise(4096, 2), 7n);
  expect(input.equals(before)).toBe(true);
});
