/**
 * The zero test: whether a run of bytes is all zeros, at the speed of memory.
 *
 * The bytes are compared with themselves shifted by one probe: if the first 64 bytes are zero and every byte equals the
 * one 64 before it, all are zero. That is one native memcmp over bytes read once, without a second buffer of zeros to
 * pull through the cache, and it stops at the first difference. Any length, any alignment, no allocation.
 */

const PROBE_BYTES = 64;

/** Whether all bytes are zero. True for no bytes at all. */
export function isZero(bytes: Uint8Array): boolean {
  const length = bytes.byteLength;
  const probe = Math.min(length, PROBE_BYTES);
  for (let i = 0; i < probe; i += 1) if (bytes[i] !== 0) return false;
  if (length <= PROBE_BYTES) return true;
  return Buffer.prototype.compare.call(bytes, bytes, PROBE_BYTES, length, 0, length - PROBE_BYTES) === 0;
}
