import { expect, test } from 'vitest';
import { geometryBytes, geometryOf } from '../../src/vhd/vhd-geometry.ts';

const MIB = 2 ** 20;

test.for([
  [4 * MIB, '120x4x17'],
  [40 * MIB, '963x5x17'],
  [1024 * MIB, '2080x16x63'],
  [127 * 1024 * MIB, '65278x16x255'],
  [2040 * 1024 * MIB, '65535x16x255'],
] as const)('a disk of %i bytes has the geometry %s', ([sizeBytes, expected]) => {
  const { cylinders, heads, sectorsPerTrack } = geometryOf(sizeBytes);
  expect(`${cylinders}x${heads}x${sectorsPerTrack}`).toBe(expected);
});

test('a geometry never addresses more than the disk has', () => {
  for (let sizeBytes = MIB; sizeBytes < 2 ** 41; sizeBytes = Math.floor(sizeBytes * 1.37)) {
    const geometry = geometryOf(sizeBytes);
    expect(geometryBytes(geometry)).toBeLessThanOrEqual(sizeBytes);
    expect(geometry.heads).toBeLessThanOrEqual(16);
    expect(geometry.cylinders).toBeLessThanOrEqual(65535);
  }
});
