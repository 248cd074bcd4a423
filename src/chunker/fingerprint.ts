/**
 * Fingerprints: 16 bytes that tell whether two chunks hold the same content. They are seeded with a secret of the
 * replica and stand only inside sealed pages.
 *
 * | algorithm | bytes | for |
 * |---|---|---|
 * | xxh128 | 16 | the default; accidents |
 * | xxh64 | 8, then 8 zeros | accidents |
 * | sha256 | HMAC-SHA256 cut to 16 | guests that may forge collisions |
 *
 * xxHash takes a 64-bit seed, the first 8 bytes of HMAC-SHA256(key, "xxh seed"), so the key itself never enters a
 * function that is not one-way. The digest is written in the canonical order that `xxhsum` prints.
 */
import { createHmac, createSecretKey } from 'node:crypto';
import { KEY_BYTES } from './keys.ts';
import { threadXxh3 } from './xxh3.ts';

export const FINGERPRINT_BYTES = 16;

/** The algorithms a replica can have, by their names in replica.json. */
export type FingerprintAlgorithm = 'xxh64' | 'xxh128' | 'sha256';
/** All of them. */
export const FINGERPRINT_ALGORITHMS: readonly FingerprintAlgorithm[] = ['xxh64', 'xxh128', 'sha256'];

/** Computes fingerprints; one instance per thread. */
export interface Fingerprinter {
  readonly algorithm: FingerprintAlgorithm;
  /** Writes the 16 bytes of the fingerprint of `bytes` into `into` from `intoOffset`. */
  digest(bytes: Uint8Array, into: Uint8Array, intoOffset: number): void;
}

/** A fingerprinter under a replica's fingerprint key (32 bytes). */
export async function createFingerprinter(algorithm: FingerprintAlgorithm, key: Uint8Array): Promise<Fingerprinter> {
  if (key.byteLength !== KEY_BYTES) throw new RangeError(`a key has ${KEY_BYTES} bytes, not ${key.byteLength}`);
  if (algorithm === 'sha256') return hmacFingerprinter(key);
  const seed = createHmac('sha256', key).update('xxh seed').digest();
  return algorithm === 'xxh128' ? xxh128Fingerprinter(seed) : xxh64Fingerprinter(seed);
}

function xxh128Fingerprinter(seedBytes: Buffer): Fingerprinter {
  const seed = seedBytes.readBigUInt64LE();
  const xxh3 = threadXxh3();
  return {
    algorithm: 'xxh128',
    digest(bytes, into, intoOffset): void {
      into.set(xxh3.digest(bytes, seed), intoOffset);
    },
  };
}

async function xxh64Fingerprinter(seed: Buffer): Promise<Fingerprinter> {
  // Loaded when needed: who does not ask for it does not wait for it.
  const { createXXHash64 } = await import('hash-wasm');
  const hasher = await createXXHash64(seed.readUInt32LE(0), seed.readUInt32LE(4));
  return {
    algorithm: 'xxh64',
    digest(bytes, into, intoOffset): void {
      const digest = hasher.init().update(bytes).digest('binary');
      into.set(digest, intoOffset);
      into.fill(0, intoOffset + digest.byteLength, intoOffset + FINGERPRINT_BYTES);
    },
  };
}

function hmacFingerprinter(key: Uint8Array): Fingerprinter {
  const secret = createSecretKey(key);
  return {
    algorithm: 'sha256',
    digest(bytes, into, intoOffset): void {
      into.set(createHmac('sha256', secret).update(bytes).digest().subarray(0, FINGERPRINT_BYTES), intoOffset);
    },
  };
}
