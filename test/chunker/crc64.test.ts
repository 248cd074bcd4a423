/** The checksum against its published check value and against the definition, bit by bit. */
import { describe, expect, it } from 'vitest';
import { crc64, joinCrc64 } from '../../src/chunker/crc64.ts';

/** CRC-64/NVME as its definition says it. */
function slowly(bytes: Uint8Array): Buffer {
  const all = 0xffff_ffff_ffff_ffffn;
  let value = all;
  for (const byte of bytes) {
    value ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit += 1) value = value & 1n ? (value >> 1n) ^ 0x9a6c_9329_ac4b_c9b5n : value >> 1n;
  }
  const digest = Buffer.alloc(8);
  digest.writeBigUInt64LE(value ^ all);
  return digest;
}

function varied(lengthBytes: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (i * 31 + (i >> 8) * 7) & 0xff);
}

describe('crc64', () => {
  it('has the published check value', () => {
    expect(crc64(Buffer.from('123456789')).toString('hex')).toBe('8898790a86148bae');
    expect(crc64(new Uint8Array(0)).toString('hex')).toBe('0000000000000000');
  });

  it('is the definition at every length and place around its steps and pieces', () => {
    const bytes = varied(70_000);
    for (const at of [0, 1, 7]) {
      for (let length = 0; length <= 40; length += 1) {
        const part = bytes.subarray(at, at + length);
        expect(crc64(part).equals(slowly(part)), `${length} bytes from ${at}`).toBe(true);
      }
    }
    for (const length of [65_535, 65_536, 65_537, 65_552]) {
      expect(crc64(bytes.subarray(3, 3 + length)).equals(slowly(bytes.subarray(3, 3 + length))), `${length}`).toBe(
        true,
      );
    }
  });

  it('of two runs of bytes is made of theirs', () => {
    const bytes = varied(300_000);
    for (const [first, second] of [
      [0, 0],
      [0, 9],
      [9, 0],
      [1, 1],
      [512, 512],
      [262_144, 7],
      [3, 262_144],
      [131_072, 131_072],
    ] as const) {
      const whole = bytes.subarray(0, first + second);
      const joined = joinCrc64(crc64(whole.subarray(0, first)), crc64(whole.subarray(first)), second);
      expect(joined.equals(crc64(whole)), `${first} and ${second} bytes`).toBe(true);
    }
  });
});
