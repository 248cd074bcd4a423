import { expect, test } from 'vitest';
import { buildFooter, fixedVhdFooter, parseFooter, vhdChecksum } from '../../src/vhd/vhd-footer.ts';

const uniqueId = Uint8Array.from({ length: 16 }, (_, i) => i);
const createdMs = Date.UTC(2000, 0, 1, 0, 1);
const refuse = (): never => {
  throw new Error('refused');
};

test('a fixed footer has these bytes', () => {
  const footer = Buffer.from(fixedVhdFooter({ virtualSizeBytes: 4 * 2 ** 20, uniqueId, createdMs }));
  expect(footer.length).toBe(512);
  expect(footer.toString('hex', 0, 85)).toBe(
    [
      '636f6e6563746978', // conectix
      '00000002', // features
      '00010000', // version
      'ffffffffffffffff', // no dynamic header
      '0000003c', // one minute after 2000
      '77696e20', // "win "
      '000a0000',
      '5769326b', // Wi2k
      '0000000000400000', // original size
      '0000000000400000', // current size
      '00780411', // 120 x 4 x 17
      '00000002', // fixed
      'fffff00f', // checksum
      '000102030405060708090a0b0c0d0e0f',
      '00',
    ].join(''),
  );
  expect(footer.subarray(85).every((byte) => byte === 0)).toBe(true);
});

test('a checksum is the complement of the sum without its own field', () => {
  const bytes = new Uint8Array(512).fill(1);
  expect(vhdChecksum(bytes, 64)).toBe(~508 >>> 0);
});

test('a footer reads back as it was built', () => {
  const fields = {
    subformat: 'differencing',
    virtualSizeBytes: 2 ** 40,
    headerOffset: 512,
    uniqueId,
    createdMs,
  } as const;
  expect(parseFooter(buildFooter(fields), 0, refuse, 'x')).toMatchObject({
    subformat: 'differencing',
    virtualSizeBytes: 2 ** 40,
    headerOffset: 512,
    uniqueId: '000102030405060708090a0b0c0d0e0f',
    timestamp: 60,
    creator: 'win ',
    savedState: false,
  });
});

test.for([0, 511, -512, 2 ** 60])('a fixed VHD of %d bytes is a wrong argument', (virtualSizeBytes) => {
  expect(() => fixedVhdFooter({ virtualSizeBytes, uniqueId, createdMs })).toThrow(RangeError);
});

test('a unique id has 16 bytes', () => {
  expect(() => fixedVhdFooter({ virtualSizeBytes: 512, uniqueId: new Uint8Array(15), createdMs })).toThrow(RangeError);
});
