import { createHmac } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { deriveEpochKeys, deriveKey, deriveReplicaKeys } from '../../src/chunker/keys.ts';
import { noise } from './support.ts';

/** HKDF-SHA256 of RFC 5869 without salt, for one block of output. */
function hkdf(key: Uint8Array, info: string): string {
  const extracted = createHmac('sha256', Buffer.alloc(32)).update(key).digest();
  return createHmac('sha256', extracted).update(info).update(Uint8Array.of(1)).digest('hex');
}
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const KEY = noise(32, 77);

describe('subkeys', () => {
  it('are HKDF-SHA256 with the info strings of the format page', () => {
    const epoch = deriveEpochKeys(KEY, 4_294_967_295);
    const replica = deriveReplicaKeys(KEY);
    expect(hex(epoch.data)).toBe(hkdf(KEY, 'rslot1/data/4294967295'));
    expect(hex(epoch.nonce)).toBe(hkdf(KEY, 'rslot1/nonce/4294967295'));
    expect(hex(epoch.page)).toBe(hkdf(KEY, 'rslot1/page/4294967295'));
    expect(hex(replica.fingerprint)).toBe(hkdf(KEY, 'rslot1/fingerprint'));
    expect(hex(replica.root)).toBe(hkdf(KEY, 'rslot1/root'));
    expect(hex(replica.keyring)).toBe(hkdf(KEY, 'rslot1/keyring'));
  });

  it('differ for each purpose, epoch and key', () => {
    const bundles = [deriveEpochKeys(KEY, 1), deriveEpochKeys(KEY, 2), deriveEpochKeys(noise(32, 78), 1)];
    const all = bundles.flatMap((keys) => [keys.data, keys.nonce, keys.page]);
    all.push(...Object.values(deriveReplicaKeys(KEY)));
    expect(new Set(all.map(hex)).size).toBe(12);
  });

  it('need a key of 32 bytes and an epoch that fits a u32', () => {
    expect(() => deriveKey(new Uint8Array(16), 'root')).toThrow(RangeError);
    for (const epoch of [-1, 1.5, 2 ** 32]) expect(() => deriveEpochKeys(KEY, epoch)).toThrow(RangeError);
  });
});
