import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COMPRESSION_CODES, createCodec, decompress, looksIncompressible } from '../../src/chunker/codec.ts';
import { noise, prose } from './support.ts';

const LZ4 = COMPRESSION_CODES.lz4;

describe('LZ4', () => {
  it('stores the payload length and a bare LZ4 block', () => {
    const compressed = Buffer.from(createCodec('lz4').compress(Buffer.alloc(64, 'a'))!);
    expect(compressed.readUInt32LE(0)).toBe(compressed.length - 4);
    expect(decompress(LZ4, compressed, 64)).toEqual(Buffer.alloc(64, 'a'));
    // By hand: one literal, a match of 58 bytes at distance 1, five literals. The first four bytes are not looked at.
    const block = Buffer.from('ffffffff1f61010027506161616161', 'hex');
    expect(decompress(LZ4, block, 64)).toEqual(Buffer.alloc(64, 'a'));
  });

  it('brings back whatever it compresses, and only takes what gets shorter', () => {
    const codec = createCodec('lz4');
    const piece = fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 300 }));
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        const chunk = Buffer.concat(pieces.flatMap(([bytes, times]) => Array<Uint8Array>(times).fill(bytes)));
        const content = codec.compress(chunk);
        if (content === undefined) return;
        expect(content.byteLength).toBeLessThan(chunk.byteLength);
        expect(decompress(LZ4, Buffer.from(content), chunk.byteLength)?.equals(chunk)).toBe(true);
      }),
    );
  });

  it('passes by what is random or compressed already, without compressing it', () => {
    const zipped = gzipSync(prose(2_000_000, 1)).subarray(1000, 1000 + 262_144);
    for (const chunk of [noise(65_536, 1), noise(262_144, 2), noise(4_194_304, 3), zipped]) {
      expect(looksIncompressible(chunk)).toBe(true);
      expect(createCodec('lz4').compress(chunk)).toBeUndefined();
    }
  });

  it('does not pass by text, sparse noise, text around noise, or bytes that are spread evenly but repeat', () => {
    const sparse = Buffer.concat([noise(16_384, 1), Buffer.alloc(49_152)]);
    const around = prose(65_536, 1);
    noise(8192, 1).copy(around, 30_000);
    const repeating = Buffer.from(Array.from({ length: 65_536 }, (_, i) => i & 0xff));
    for (const chunk of [prose(65_536, 1), sparse, around, repeating]) {
      expect(looksIncompressible(chunk)).toBe(false);
      expect(createCodec('lz4').compress(chunk)?.byteLength).toBeLessThan(50_000);
    }
  });

  it('returns nothing unless the output has exactly the length of the chunk', () => {
    const chunk = prose(65_536, 2);
    const content = Buffer.from(createCodec('lz4').compress(chunk)!);
    for (const plaintextBytes of [0, 1, 512, 65_535, 65_537, 4_194_304]) {
      expect(decompress(LZ4, Buffer.from(content), plaintextBytes)).toBeUndefined();
    }
    expect(decompress(LZ4, Buffer.from(content), 65_536)?.equals(chunk)).toBe(true);
  });

  it('bounds the output of a block that claims more than the chunk holds', () => {
    // A literal, then a match of some 4 GiB worth of length bytes.
    const bomb = Buffer.concat([Buffer.alloc(4), Buffer.from('1f610100', 'hex'), Buffer.alloc(100_000, 0xff)]);
    expect(decompress(LZ4, bomb, 65_536)).toBeUndefined();
  });

  it('survives hostile blocks', () => {
    const good = Buffer.from(createCodec('lz4').compress(prose(4096, 3))!);
    for (let seed = 0; seed < 20_000; seed += 1) {
      const bytes = Buffer.from(good);
      const change = noise(8, seed);
      for (let i = 0; i < 4; i += 1) bytes[4 + (change.readUInt16LE(i) % (bytes.length - 4))] = change[i + 4]!;
      const plaintext = decompress(LZ4, bytes.subarray(0, 5 + (change.readUInt16LE(5) % bytes.length)), 4096);
      if (plaintext !== undefined) expect(plaintext.byteLength).toBe(4096);
    }
  });
});

describe('no compression', () => {
  it('takes nothing', () => {
    expect(createCodec('none').compress(Buffer.alloc(65_536))).toBeUndefined();
  });
});
