/** The memory of a thread: what is read into it stays where it is, whatever is done with other bytes meanwhile. */
import { expect, it } from 'vitest';
import { ChunkMemory } from '../../src/chunker/chunk-memory.ts';
import { Lz4Compressor } from '../../src/chunker/lz4.ts';
import { Xxh3 } from '../../src/chunker/xxh3.ts';
import { CHUNK_BYTES_MAX } from '../../src/limits.ts';
import { noise, prose } from './support.ts';

it('takes bytes where they lie if they are its own, else a copy of them', () => {
  const memory = new ChunkMemory();
  const input = memory.input(65_536);
  expect(memory.place(input.subarray(512))).toBe(input.byteOffset + 512);
  const elsewhere = noise(1000, 1);
  const at = memory.place(elsewhere);
  expect(memory.bytes.subarray(at, at + 1000).equals(elsewhere)).toBe(true);
});

it('of the largest chunks keeps input, copy and output apart, from the first byte to the last', () => {
  const memory = new ChunkMemory();
  const [xxh3, lz4] = [new Xxh3(memory), new Lz4Compressor(memory)];
  const input = memory.input(CHUNK_BYTES_MAX);
  const content = Buffer.concat([noise(CHUNK_BYTES_MAX / 2, 1), prose(CHUNK_BYTES_MAX / 2, 2)]);
  input.set(content);
  const digest = Buffer.from(xxh3.digest(input, 3n));
  const packed = Buffer.from(lz4.compress(input)!);
  // Others' bytes of the same length, and blocks as long as they get.
  lz4.compress(noise(CHUNK_BYTES_MAX, 9));
  expect(lz4.compress(content)!.equals(packed)).toBe(true);
  xxh3.digest(noise(CHUNK_BYTES_MAX, 8), 3n);
  expect(input.equals(content)).toBe(true);
  expect(digest.equals(xxh3.digest(input, 3n))).toBe(true);
  expect(digest.equals(xxh3.digest(content, 3n))).toBe(true);
});

it('never grows: a view of it is good for ever', () => {
  const memory = new ChunkMemory();
  const input = memory.input(16);
  const lz4 = new Lz4Compressor(memory);
  lz4.compress(Buffer.alloc(CHUNK_BYTES_MAX, 'bytes'));
  input.fill(7);
  expect(memory.input(16)[15]).toBe(7);
});

it('refuses more than the largest chunk', () => {
  const memory = new ChunkMemory();
  expect(() => memory.input(CHUNK_BYTES_MAX + 1)).toThrow(RangeError);
  expect(() => memory.outputRoom(CHUNK_BYTES_MAX + 1)).toThrow(RangeError);
  expect(() => memory.place(Buffer.alloc(CHUNK_BYTES_MAX + 1))).toThrow(RangeError);
});
