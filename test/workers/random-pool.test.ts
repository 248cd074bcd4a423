/** Random bytes from a pool: each is given out once, whatever the lengths that are asked for. */
import { expect, it } from 'vitest';
import { RandomPool } from '../../src/workers/random-pool.ts';

/** Bytes that count on from draw to draw, four to a number. */
function counting(): { readonly pool: RandomPool; readonly draws: () => number } {
  let numbers = 0;
  let draws = 0;
  const fill = (into: Uint8Array): void => {
    draws += 1;
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    for (let at = 0; at < into.byteLength; at += 4) view.setUint32(at, numbers++);
  };
  return { pool: new RandomPool(fill), draws: () => draws };
}

it('gives no byte twice, and draws once for 128 records', () => {
  const { pool, draws } = counting();
  const seen = new Set<string>();
  for (let i = 0; i < 1000; i += 1) seen.add(Buffer.from(pool.bytes(32)).toString('hex'));
  expect(seen.size).toBe(1000);
  expect(draws()).toBe(8);
});

it('gives whole pieces of any length that it has, and refuses longer ones', () => {
  const { pool } = counting();
  let last = -1;
  for (const lengthBytes of [4, 4096, 4092, 8, 2048, 2052, 4]) {
    const bytes = Buffer.from(pool.bytes(lengthBytes));
    expect(bytes.byteLength).toBe(lengthBytes);
    for (let at = 0; at < lengthBytes; at += 4) {
      expect(bytes.readUInt32BE(at)).toBeGreaterThan(last);
      last = bytes.readUInt32BE(at);
    }
  }
  expect(() => pool.bytes(4097)).toThrow(RangeError);
});
