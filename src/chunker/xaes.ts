/**
 * XAES-256-GCM (C2SP): AES-256-GCM under a key derived from the first half of a 24-byte nonce. A random nonce is then
 * safe for 2^80 messages a key, so nothing has to be counted, persisted or agreed between writers.
 *
 *     L  = AES-256-ECB(K, 0^16)          K1 = L doubled in GF(2^128)
 *     Kx = AES-256-ECB(K, M1 ^ K1) || AES-256-ECB(K, M2 ^ K1)      Mi = 00 0i 58 00 || N[0..12)
 *     out = AES-256-GCM(Kx, N[12..24), AAD, plaintext) || tag 16
 *
 * The length of the tag is pinned wherever a cipher is made: without `authTagLength` OpenSSL accepts tags cut to 4
 * bytes. Plaintext leaves this file only after its tag was verified.
 */
import { type Cipher, createCipheriv, createDecipheriv } from 'node:crypto';
import { TAG_BYTES } from './geometry.ts';
import { KEY_BYTES } from './keys.ts';

export const NONCE_BYTES = 24;
const BLOCK_BYTES = 16;
const PREFIX_BYTES = 12;
const GCM = { authTagLength: TAG_BYTES } as const;

/** One key with its schedule; one instance serves any number of messages, on one thread. */
export class XaesKey {
  /** ECB without padding keeps nothing between blocks, so one cipher object serves every derivation. */
  readonly #ecb: Cipher;
  readonly #k1: Uint8Array;
  readonly #blocks: Uint8Array = new Uint8Array(2 * BLOCK_BYTES);

  constructor(key: Uint8Array) {
    if (key.byteLength !== KEY_BYTES) throw new RangeError(`a key has ${KEY_BYTES} bytes, not ${key.byteLength}`);
    this.#ecb = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false);
    this.#k1 = doubled(this.#ecb.update(new Uint8Array(BLOCK_BYTES)));
  }

  /**
   * Encrypts `head` followed by `tail` (which may be empty) into `into` from `offset`: ciphertext, then tag. Two parts
   * spare the caller a copy where content is padded. OpenSSL's binding returns new buffers, hence the copy here.
   */
  sealInto(nonce: Uint8Array, aad: Uint8Array, head: Uint8Array, tail: Uint8Array, into: Buffer, offset: number): void {
    const end = offset + head.byteLength + tail.byteLength;
    if (end + TAG_BYTES > into.byteLength) {
      throw new RangeError(`${end + TAG_BYTES} bytes do not fit into ${into.byteLength}`);
    }
    const cipher = createCipheriv('aes-256-gcm', this.#messageKey(nonce), nonce.subarray(PREFIX_BYTES), GCM);
    cipher.setAAD(aad);
    into.set(cipher.update(head), offset);
    if (tail.byteLength > 0) into.set(cipher.update(tail), offset + head.byteLength);
    cipher.final();
    into.set(cipher.getAuthTag(), end);
  }

  /** Ciphertext and tag in a new buffer; for small things such as wrapped keys. */
  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array {
    const sealed = Buffer.alloc(plaintext.byteLength + TAG_BYTES);
    this.sealInto(nonce, aad, plaintext, new Uint8Array(0), sealed, 0);
    return sealed;
  }

  /** The plaintext in a new buffer that the caller owns; undefined if it does not verify. */
  open(nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Buffer | undefined {
    const end = sealed.byteLength - TAG_BYTES;
    if (end < 0) return undefined;
    const decipher = createDecipheriv('aes-256-gcm', this.#messageKey(nonce), nonce.subarray(PREFIX_BYTES), GCM);
    decipher.setAAD(aad);
    decipher.setAuthTag(sealed.subarray(end));
    const plaintext = decipher.update(sealed.subarray(0, end));
    try {
      decipher.final();
    } catch {
      return undefined;
    }
    return plaintext;
  }

  #messageKey(nonce: Uint8Array): Buffer {
    if (nonce.byteLength !== NONCE_BYTES) throw new RangeError(`a nonce has 24 bytes, not ${nonce.byteLength}`);
    const blocks = this.#blocks;
    blocks.set(this.#k1, 0);
    blocks.set(this.#k1, BLOCK_BYTES);
    for (let half = 0; half < 2; half += 1) {
      const at = half * BLOCK_BYTES;
      blocks[at + 1]! ^= half + 1;
      blocks[at + 2]! ^= 0x58;
      for (let i = 0; i < PREFIX_BYTES; i += 1) blocks[at + 4 + i]! ^= nonce[i]!;
    }
    return this.#ecb.update(blocks);
  }
}

/** Multiplication by x in GF(2^128): shift left by one bit; a bit that falls out comes back as 0x87. */
function doubled(block: Uint8Array): Uint8Array {
  const result = new Uint8Array(BLOCK_BYTES);
  let carry = 0;
  for (let i = BLOCK_BYTES - 1; i >= 0; i -= 1) {
    result[i] = ((block[i]! << 1) & 0xff) | carry;
    carry = block[i]! >> 7;
  }
  result[BLOCK_BYTES - 1]! ^= carry * 0x87;
  return result;
}
