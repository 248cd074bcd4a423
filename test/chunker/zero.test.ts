import { describe, expect, it } from 'vitest';
import { isZero } from '../../src/chunker/zero.ts';

describe('the zero test', () => {
  it('is true for zeros of any length at any alignment, whatever stands around them', () => {
    const around = new Uint8Array(1000).fill(0xff);
    for (let start = 0; start < 9; start += 1) {
      for (let length = 0; length <= 300; length += 1) {
        around.fill(0xff).fill(0, start, start + length);
        expect(isZero(around.subarray(start, start + length))).toBe(true);
      }
    }
  });

  it('is false for a single set bit at any place', () => {
    for (const length of [1, 63, 64, 65, 127, 128, 129, 512, 1000]) {
      const bytes = new Uint8Array(length + 1).subarray(1);
      for (let bit = 0; bit < length * 8; bit += 1) {
        bytes[bit >> 3] = 1 << (bit & 7);
        expect(isZero(bytes)).toBe(false);
        bytes[bit >> 3] = 0;
      }
    }
  });

  it('is false for bytes that repeat every 64 bytes without being zero', () => {
    const bytes = new Uint8Array(65_536);
    for (let i = 5; i < bytes.length; i += 64) bytes[i] = 1;
    expect(isZero(bytes)).toBe(false);
  });
});
