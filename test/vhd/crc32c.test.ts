import { describe, expect, it } from 'vitest';
import { crc32c, crc32cWithoutField } from '../../src/vhd/crc32c.ts';

/** Bit by bit, straight from the definition. */
function slowCrc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

function pattern(lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (i * 131 + (i >>> 3)) & 0xff);
}

describe('CRC-32C', () => {
  it.each([
    ['the check value of the catalogue', Buffer.from('123456789'), 0xe3069283],
    ['RFC 3720: 32 zeros', Buffer.alloc(32), 0x8a9136aa],
    ['RFC 3720: 32 bytes of ones', Buffer.alloc(32, 0xff), 0x62a8ab43],
    ['RFC 3720: 32 ascending bytes', pattern32((i) => i), 0x46dd794e],
    ['RFC 3720: 32 descending bytes', pattern32((i) => 31 - i), 0x113fdb5c],
    ['nothing', Buffer.alloc(0), 0],
  ])('of %s', (_, bytes, expected) => {
    expect(crc32c(bytes)).toBe(expected);
  });

  it('agrees with the definition at every length and alignment up to 70', () => {
    const bytes = pattern(160);
    for (let from = 0; from < 9; from += 1) {
      for (let lengthBytes = 0; lengthBytes <= 70; lengthBytes += 1) {
        const piece = bytes.subarray(from, from + lengthBytes);
        expect(crc32c(piece)).toBe(slowCrc32c(piece));
      }
    }
  });

  it('goes on from a previous value at every split', () => {
    const bytes = pattern(50);
    for (let split = 0; split <= 50; split += 1) {
      expect(crc32c(bytes.subarray(split), crc32c(bytes.subarray(0, split)))).toBe(slowCrc32c(bytes));
    }
  });

  it('takes the checksum field itself as zeros', () => {
    const bytes = pattern(64);
    const blanked = Uint8Array.from(bytes).fill(0, 4, 8);
    expect(crc32cWithoutField(bytes, 4)).toBe(slowCrc32c(blanked));
  });
});

function pattern32(value: (i: number) => number): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, i) => value(i));
}
