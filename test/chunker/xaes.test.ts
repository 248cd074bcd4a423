import { createDecipheriv, createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { XaesKey } from '../../src/chunker/xaes.ts';

const NONCE = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWX');
const PLAINTEXT = Buffer.from('XAES-256-GCM');
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('XAES-256-GCM', () => {
  it.each([
    [0x01, '', 'ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271'],
    [0x03, 'c2sp.org/XAES-256-GCM', '986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d'],
  ])('gives the published bytes for a key of %d', (fill, aad, sealed) => {
    const key = new XaesKey(new Uint8Array(32).fill(fill));
    expect(hex(key.seal(NONCE, Buffer.from(aad), PLAINTEXT))).toBe(sealed);
    expect(key.open(NONCE, Buffer.from(aad), Buffer.from(sealed, 'hex'))).toEqual(PLAINTEXT);
  });

  it('gives the published hash over 10,000 messages of random key, nonce, plaintext and AAD', () => {
    const stream = createHash('shake128', { outputLength: 4_000_000 }).digest();
    const total = createHash('shake128', { outputLength: 32 });
    let position = 0;
    const read = (lengthBytes: number): Buffer => {
      position += lengthBytes;
      return stream.subarray(position - lengthBytes, position);
    };
    for (let i = 0; i < 10_000; i += 1) {
      const [key, nonce] = [new XaesKey(read(32)), read(24)];
      const plaintext = read(read(1)[0]!);
      const aad = read(read(1)[0]!);
      const sealed = key.seal(nonce, aad, plaintext);
      total.update(sealed);
      expect(key.open(nonce, aad, sealed)?.equals(plaintext)).toBe(true);
    }
    expect(position).toBeLessThan(stream.length);
    expect(total.digest('hex')).toBe('e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939');
  });

  it('gives the same bytes for every message, whatever was sealed before', () => {
    const key = new XaesKey(new Uint8Array(32).fill(1));
    const first = hex(key.seal(NONCE, new Uint8Array(0), PLAINTEXT));
    key.seal(Buffer.alloc(24, 7), new Uint8Array(3), new Uint8Array(1000));
    expect(hex(key.seal(NONCE, new Uint8Array(0), PLAINTEXT))).toBe(first);
  });

  it('gives the same ciphertext whether content comes in one part or two', () => {
    const key = new XaesKey(new Uint8Array(32).fill(9));
    const content = Buffer.from(Array.from({ length: 300 }, (_, i) => i & 0xff));
    const whole = key.seal(NONCE, new Uint8Array(5), content);
    for (const cut of [0, 1, 15, 16, 17, 299, 300]) {
      const into = Buffer.alloc(content.length + 16 + 3);
      key.sealInto(NONCE, new Uint8Array(5), content.subarray(0, cut), content.subarray(cut), into, 3);
      expect(into.subarray(3).equals(whole)).toBe(true);
    }
  });

  it('refuses a changed key, nonce, AAD, ciphertext or tag, and what is shorter than a tag', () => {
    const key = new XaesKey(new Uint8Array(32).fill(1));
    const aad = Buffer.from('aad');
    const sealed = Buffer.from(key.seal(NONCE, aad, PLAINTEXT));
    for (let bit = 0; bit < sealed.length * 8; bit += 1) {
      const changed = Buffer.from(sealed);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      expect(key.open(NONCE, aad, changed)).toBeUndefined();
    }
    for (let i = 0; i < 24; i += 1) {
      const nonce = Buffer.from(NONCE);
      nonce[i]! ^= 1;
      expect(key.open(nonce, aad, sealed)).toBeUndefined();
    }
    for (let length = 0; length < sealed.length; length += 1) {
      expect(key.open(NONCE, aad, sealed.subarray(0, length))).toBeUndefined();
    }
    expect(key.open(NONCE, Buffer.from('aae'), sealed)).toBeUndefined();
    expect(new XaesKey(new Uint8Array(32).fill(2)).open(NONCE, aad, sealed)).toBeUndefined();
  });

  it('control: a decipher whose tag length is not pinned accepts a tag cut to four bytes', () => {
    const key = Buffer.alloc(32, 5);
    const decipher = createDecipheriv('aes-256-gcm', key, NONCE.subarray(0, 12));
    expect(() => decipher.setAuthTag(Buffer.alloc(4))).not.toThrow();
  });

  it('refuses keys and nonces of another length', () => {
    expect(() => new XaesKey(new Uint8Array(16))).toThrow(RangeError);
    const key = new XaesKey(new Uint8Array(32));
    expect(() => key.seal(new Uint8Array(12), new Uint8Array(0), PLAINTEXT)).toThrow(RangeError);
    expect(() => key.sealInto(NONCE, NONCE, PLAINTEXT, NONCE, Buffer.alloc(51), 0)).toThrow(RangeError);
  });
});
