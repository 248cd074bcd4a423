import { createHmac } from 'node:crypto';
import { xxhash64, xxhash128 } from 'hash-wasm';
import { describe, expect, it } from 'vitest';
import {
  createFingerprinter,
  FINGERPRINT_ALGORITHMS,
  type FingerprintAlgorithm,
} from '../../src/chunker/fingerprint.ts';
import { noise } from './support.ts';

const KEY = noise(32, 4);

async function hexOf(algorithm: FingerprintAlgorithm, bytes: Uint8Array, key: Uint8Array = KEY): Promise<string> {
  const into = Buffer.alloc(16, 0xee);
  (await createFingerprinter(algorithm, key)).digest(bytes, into, 0);
  return into.toString('hex');
}

/** The buffer of xxHash's own sanity check. */
function sanityBuffer(lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  let state = 2_654_435_761n;
  for (let i = 0; i < lengthBytes; i += 1) {
    bytes[i] = Number(state >> 56n);
    state = (state * 11_400_714_785_074_694_797n) & 0xffff_ffff_ffff_ffffn;
  }
  return bytes;
}

describe('the xxHash library', () => {
  it.each([
    [0, 0, 'ef46db3751d8e999'],
    [0, 0x9e3779b1, 'ac75fda2929b17ef'],
    [1, 0, 'e934a84adb052768'],
    [1, 0x9e3779b1, '5014607643a9b4c3'],
    [222, 0, 'b641ae8cb691c174'],
    [222, 0x9e3779b1, '20cb8ab7ae10c14a'],
  ])('gives the published xxh64 of %d bytes under seed %d', async (length, seed, expected) => {
    expect(await xxhash64(sanityBuffer(length), seed, 0)).toBe(expected);
  });

  it.each([
    [0, 0, '99aa06d3014798d86001c324468d497f'],
    [0, 0x9e3779b1, '92220ae55e14ab505444f7869c671ab0'],
    [1, 0, 'a6cd5e9392000f6ac44bdff4074eecdb'],
    [1, 0x9e3779b1, '89b99554ba22467cb53d5557e7f76f8d'],
  ])('gives the published xxh128 of %d bytes under seed %d', async (length, seed, expected) => {
    expect(await xxhash128(sanityBuffer(length), seed, 0)).toBe(expected);
  });
});

describe('fingerprints', () => {
  it('are xxHash under a seed that hangs on the key, in the order xxhsum prints', async () => {
    const seed = createHmac('sha256', KEY).update('xxh seed').digest();
    const [low, high] = [seed.readUInt32LE(0), seed.readUInt32LE(4)];
    for (const length of [1, 512, 16_384, 16_385, 65_536, 300_000]) {
      const bytes = noise(length, length);
      expect(await hexOf('xxh64', bytes)).toBe((await xxhash64(bytes, low, high)) + '00'.repeat(8));
      expect(await hexOf('xxh128', bytes)).toBe(await xxhash128(bytes, low, high));
    }
  });

  it('are HMAC-SHA256 under the key, cut to 16 bytes', async () => {
    const bytes = noise(65_536, 3);
    expect(await hexOf('sha256', bytes)).toBe(createHmac('sha256', KEY).update(bytes).digest('hex').slice(0, 32));
  });

  it.each(FINGERPRINT_ALGORITHMS)('%s differs for another key, and for one changed bit anywhere', async (algorithm) => {
    const bytes = noise(4096, 8);
    const print = await hexOf(algorithm, bytes);
    expect(await hexOf(algorithm, bytes, noise(32, 5))).not.toBe(print);
    const fingerprinter = await createFingerprinter(algorithm, KEY);
    const into = Buffer.alloc(16);
    for (let bit = 0; bit < bytes.length * 8; bit += 7) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      fingerprinter.digest(bytes, into, 0);
      expect(into.toString('hex')).not.toBe(print);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
    }
  });

  it.each(FINGERPRINT_ALGORITHMS)(
    '%s writes exactly 16 bytes, at any place, from bytes at any alignment',
    async (algorithm) => {
      const fingerprinter = await createFingerprinter(algorithm, KEY);
      const bytes = noise(40_000, 8);
      const expected = Buffer.alloc(16);
      fingerprinter.digest(bytes, expected, 0);
      for (let shift = 0; shift < 9; shift += 1) {
        const shifted = Buffer.alloc(bytes.length + shift);
        bytes.copy(shifted, shift);
        const into = Buffer.alloc(64, 0xee);
        fingerprinter.digest(shifted.subarray(shift), into, 5 + shift);
        expect(into.subarray(5 + shift, 21 + shift).equals(expected)).toBe(true);
        into.fill(0xee, 5 + shift, 21 + shift);
        expect(into.equals(Buffer.alloc(64, 0xee))).toBe(true);
      }
    },
  );

  it.each(FINGERPRINT_ALGORITHMS)('%s depends on nothing that was digested before', async (algorithm) => {
    const fingerprinter = await createFingerprinter(algorithm, KEY);
    const [first, again] = [Buffer.alloc(16), Buffer.alloc(16)];
    fingerprinter.digest(noise(1000, 1), first, 0);
    fingerprinter.digest(noise(70_000, 2), again, 0);
    fingerprinter.digest(noise(1000, 1), again, 0);
    expect(again.equals(first)).toBe(true);
  });

  it('need a key of 32 bytes', async () => {
    await expect(createFingerprinter('xxh128', new Uint8Array(31))).rejects.toThrow(RangeError);
  });
});
