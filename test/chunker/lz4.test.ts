import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { compressSync, uncompressSync } from 'lz4-napi';
import { describe, expect, it } from 'vitest';
import { ChunkMemory } from '../../src/chunker/chunk-memory.ts';
import { Lz4Compressor } from '../../src/chunker/lz4.ts';
import { noise, prose } from './support.ts';

const memory = new ChunkMemory();
const compressor = new Lz4Compressor(memory);

/** What the native library makes of a block. */
function opened(content: Buffer, plaintextBytes: number): Buffer {
  expect(content.readUInt32LE(0)).toBe(content.byteLength - 4);
  const framed = Buffer.from(content);
  framed.writeUInt32LE(plaintextBytes, 0);
  return uncompressSync(framed);
}

function expectGoodBlock(bytes: Uint8Array): void {
  const content = compressor.compress(bytes);
  if (content === undefined) return;
  expect(content.byteLength).toBeLessThan(bytes.byteLength);
  expect(opened(content, bytes.byteLength).equals(bytes)).toBe(true);
  expectTail(content.subarray(4));
}

/** Walks the sequences: at least five literals at the end, and no match that begins in the last twelve bytes. */
function expectTail(block: Buffer): void {
  let at = 0;
  let made = 0;
  let lastMatch = Number.NEGATIVE_INFINITY;
  const more = (length: number): number => {
    let total = length;
    for (let byte = 255; length === 15 && byte === 255; ) {
      byte = block[at++]!;
      total += byte;
    }
    return total;
  };
  for (;;) {
    const token = block[at++]!;
    const literals = more(token >> 4);
    at += literals;
    made += literals;
    if (at === block.length) {
      if (lastMatch >= 0) expect(literals).toBeGreaterThanOrEqual(5);
      expect(made - lastMatch).toBeGreaterThanOrEqual(12);
      return;
    }
    at += 2;
    lastMatch = made;
    made += 4 + more(token & 15);
  }
}

describe('LZ4 in WebAssembly', () => {
  it('makes blocks that the native library opens, whatever stands in them', () => {
    const run = fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 400 }));
    const pieces = fc.array(run, { maxLength: 60 });
    fc.assert(
      fc.property(pieces, fc.integer(), (runs, seed) => {
        const parts = runs.flatMap(([bytes, times]) => Array<Uint8Array>(times).fill(bytes));
        expectGoodBlock(Buffer.concat([...parts, noise(20, seed), ...parts.slice(0, 50)]));
      }),
      { numRuns: 300 },
    );
  });

  it('of every length up to 600, of zeros, of a period of 1 … 20, and of prose', () => {
    for (let length = 0; length <= 600; length += 1) {
      expectGoodBlock(Buffer.alloc(length));
      expectGoodBlock(Buffer.from(Array.from({ length }, (_, i) => i % (1 + (length % 20)))));
      expectGoodBlock(prose(600, length).subarray(0, length));
    }
  });

  it('with matches at the farthest distance, and none beyond', () => {
    const word = noise(64, 1);
    for (const distance of [65_534, 65_535, 65_536, 65_537]) {
      // The zeros are one match; whether the second word is one too shows in 64 literals more or less.
      const bytes = Buffer.concat([word, Buffer.alloc(distance - 64), word, Buffer.alloc(32)]);
      expectGoodBlock(bytes);
      const lengthBytes = Math.ceil(distance / 255);
      expect(compressor.compress(bytes)!.byteLength < 64 + lengthBytes + 40).toBe(distance <= 65_535);
    }
  });

  it('gives up as soon as a block would not be shorter, and never writes behind its room', () => {
    for (let seed = 0; seed < 200; seed += 1) {
      const bytes = Buffer.concat([noise(3000, seed), Buffer.alloc(seed)]);
      expectGoodBlock(bytes);
    }
    expect(compressor.compress(noise(262_144, 7))).toBeUndefined();
  });

  it('remembers nothing of the input before', () => {
    const one = prose(262_144, 1);
    const first = Buffer.from(compressor.compress(one)!);
    for (const other of [noise(65_536, 3), Buffer.alloc(4 << 20), prose(100_000, 9)]) compressor.compress(other);
    expect(compressor.compress(one)?.equals(first)).toBe(true);
    expect(new Lz4Compressor(new ChunkMemory()).compress(one)?.equals(first)).toBe(true);
  });

  it('of what lies in its memory is the same as of what lies elsewhere', () => {
    const chunk = prose(262_144, 4);
    const expected = Buffer.from(compressor.compress(chunk)!);
    const input = memory.input(chunk.byteLength);
    input.set(chunk);
    expect(compressor.compress(input)?.equals(expected)).toBe(true);
    expect(input.equals(chunk)).toBe(true);
  });

  it('takes no more bytes than the native library would need for the machine code of this Node', () => {
    const code = readFileSync(process.execPath).subarray(40_000_000, 44_194_304);
    let [ours, theirs] = [0, 0];
    for (let at = 0; at < code.byteLength; at += 262_144) {
      const chunk = code.subarray(at, at + 262_144);
      ours += compressor.compress(chunk)!.byteLength;
      theirs += compressSync(chunk).byteLength;
    }
    expect(ours).toBeLessThan(theirs);
  });
});
