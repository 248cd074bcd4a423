import { describe, expect, it } from 'vitest';
import { byteSum, checksum, checksumAround } from '../../src/hrl/checksum.ts';
import { Dice } from '../support/dice.ts';
import { logChecksum } from '../support/hrl-builder.ts';

describe('the checksum', () => {
  it('is the plain sum, at any length and any place in memory', () => {
    const memory = new Dice(5).bytes(70_000);
    for (let length = 0; length < 1200; length += length < 300 ? 1 : 37) {
      for (let from = 0; from < 5; from += 1) {
        const bytes = memory.subarray(from, from + length);
        expect(checksum(bytes)).toBe(logChecksum(bytes));
      }
    }
    expect(checksum(memory)).toBe(logChecksum(memory));
    expect(checksum(new Uint8Array(70_001).fill(255))).toBe(logChecksum(new Uint8Array(70_001).fill(255)));
  });

  it('wraps at 2^32, where alone data has checksum 0', () => {
    expect(checksum(new Uint8Array(16_843_009).fill(255))).toBe(0);
    expect(byteSum(new Uint8Array(16_843_010).fill(255))).toBe(254);
    expect(checksum(new Uint8Array(4096))).toBe(0xffff_ffff);
  });

  it('leaves its own field out', () => {
    const bytes = new Dice(6).bytes(4096);
    const before = checksumAround(bytes, 40);
    expect(before).toBe(logChecksum(bytes, 40));
    bytes.fill(0xff, 40, 44);
    expect(checksumAround(bytes, 40)).toBe(before);
  });
});
