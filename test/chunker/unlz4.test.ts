/** LZ4 decompression in WebAssembly: what it opens, and that whatever stands in a block it touches nothing but its room. */
import fc from 'fast-check';
import { compressSync, uncompressSync } from 'lz4-napi';
import { describe, expect, it } from 'vitest';
import { ChunkMemory } from '../../src/chunker/chunk-memory.ts';
import { Lz4Compressor } from '../../src/chunker/lz4.ts';
import { Lz4Decompressor } from '../../src/chunker/unlz4.ts';
import { CHUNK_BYTES_MAX } from '../../src/limits.ts';
import { noise, prose } from './support.ts';

const memory = new ChunkMemory();
const compressor = new Lz4Compressor(memory);
const decompressor = new Lz4Decompressor(memory);
/** Bytes are copied sixteen at a time. */
const SLACK_BYTES = 64;

/** What the native library makes of a block; undefined if it refuses. */
function native(block: Uint8Array, plaintextBytes: number): Buffer | undefined {
  const framed = Buffer.concat([Buffer.alloc(4), block]);
  framed.writeUInt32LE(plaintextBytes, 0);
  try {
    const plaintext = uncompressSync(framed);
    return plaintext.byteLength === plaintextBytes ? plaintext : undefined;
  } catch {
    return undefined;
  }
}

/** Runs of a few bytes: matches at small distances, which overlap what they make. */
const repetitive = fc
  .array(fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 400 })), { maxLength: 60 })
  .map((runs) => Buffer.concat(runs.flatMap(([bytes, times]) => Array<Uint8Array>(times).fill(bytes))));

describe('LZ4 decompression in WebAssembly', () => {
  it('opens what the native library and our compressor make, whatever stands in it', () => {
    fc.assert(
      fc.property(repetitive, (bytes) => {
        if (bytes.byteLength === 0) return;
        expect(decompressor.decompress(compressSync(bytes).subarray(4), bytes.byteLength)?.equals(bytes)).toBe(true);
        const ours = compressor.compress(bytes);
        if (!ours) return;
        expect(decompressor.decompress(Buffer.from(ours.subarray(4)), bytes.byteLength)?.equals(bytes)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('opens matches at every distance up to 40 and of every length up to 80', () => {
    for (let distance = 1; distance <= 40; distance += 1) {
      for (let length = 4; length <= 80; length += 1) {
        const seen = noise(distance, distance);
        const plaintext = Buffer.concat([seen, Buffer.alloc(length, seen), Buffer.from('the end')]);
        const block = Buffer.concat([
          Buffer.from([0xf0 | Math.min(15, length - 4), ...(distance < 15 ? [] : [distance - 15])]),
          seen,
          Buffer.from([distance, 0, ...(length < 19 ? [] : [length - 19])]),
          Buffer.from([7 << 4]),
          Buffer.from('the end'),
        ]);
        if (distance < 15) block[0] = (distance << 4) | (block[0]! & 15);
        expect(decompressor.decompress(block, plaintext.byteLength)?.equals(plaintext)).toBe(true);
      }
    }
  });

  it('opens the largest chunk, to its last byte', () => {
    for (const bytes of [Buffer.alloc(CHUNK_BYTES_MAX, 'abc'), prose(CHUNK_BYTES_MAX, 4)]) {
      const block = Buffer.from(compressor.compress(bytes)!.subarray(4));
      expect(decompressor.decompress(block, CHUNK_BYTES_MAX)?.equals(bytes)).toBe(true);
    }
  });

  it('refuses a block that is cut, is longer or shorter than it should be, or looks back before its beginning', () => {
    const bytes = prose(4096, 1);
    const block = Buffer.from(compressor.compress(bytes)!.subarray(4));
    expect(decompressor.decompress(block, 4096)?.equals(bytes)).toBe(true);
    for (let end = 0; end < block.byteLength; end += 1) {
      expect(decompressor.decompress(block.subarray(0, end), 4096)).toBeUndefined();
    }
    for (const length of [0, 1, 4095, 4097, CHUNK_BYTES_MAX]) {
      expect(decompressor.decompress(block, length)).toBeUndefined();
    }
    const lookingBack = (distance: number): Buffer => Buffer.from([0x10, 97, distance, 0, 0x50, 1, 2, 3, 4, 5]);
    expect(decompressor.decompress(lookingBack(1), 10)?.toString('latin1')).toBe('aaaaa\x01\x02\x03\x04\x05');
    for (const distance of [0, 2, 16, 255]) expect(decompressor.decompress(lookingBack(distance), 10)).toBeUndefined();
  });

  it('makes of damaged blocks what the native library makes of them, and touches nothing behind its room', () => {
    const LENGTH = 3000;
    const guarded = memory.bytes.subarray(memory.output + LENGTH + SLACK_BYTES, memory.output + 4 * LENGTH);
    const untouched = Buffer.from(guarded.fill(0xa5));
    const sources = [
      prose(LENGTH, 3),
      Buffer.alloc(LENGTH, 'abcde'),
      Buffer.concat([noise(1000, 1), Buffer.alloc(2000)]),
    ];
    const blocks = sources.map((bytes) => Buffer.from(compressor.compress(bytes)!.subarray(4)));
    let opened = 0;
    for (let seed = 0; seed < 30_000; seed += 1) {
      const change = noise(12, seed);
      const block = Buffer.from(blocks[seed % blocks.length]!);
      for (let i = 0; i < 1 + (seed % 4); i += 1) block[change.readUInt16LE(i) % block.length] = change[i + 6]!;
      const part = seed % 5 === 0 ? block.subarray(0, change.readUInt16LE(10) % block.length) : block;
      const plaintext = decompressor.decompress(part, LENGTH);
      if (!guarded.equals(untouched)) throw new Error(`seed ${seed} wrote behind its room`);
      const expected = native(part, LENGTH);
      if (plaintext) opened += 1;
      if (plaintext === undefined ? expected !== undefined : !expected?.equals(plaintext)) {
        throw new Error(`seed ${seed}: ${plaintext === undefined ? 'refused' : 'opened'} what the library has not`);
      }
    }
    // Damage to a literal is none to LZ4.
    expect(opened).toBeGreaterThan(1000);
  });
});
