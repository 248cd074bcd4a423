/** zstd through a stand-in binding, since not every supported runtime has the real one. */

import { afterEach, describe, expect, it, vi } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { prose } from './support.ts';

const CODE = 2;

interface Binding {
  zstdCompressSync?: (bytes: Uint8Array) => Buffer;
  zstdDecompressSync?: (bytes: Uint8Array, options: { maxOutputLength: number }) => Buffer;
}

/** The codec with `node:zlib` as it is, except that zstd is what `binding` says. */
async function codecWith(binding: Binding): Promise<typeof import('../../src/chunker/codec.ts')> {
  vi.resetModules();
  vi.doMock('node:zlib', async (original) => {
    const { zstdCompressSync, zstdDecompressSync, ...zlib } = await original<Binding & Record<string, unknown>>();
    return { default: { ...zlib, ...binding } };
  });
  return import('../../src/chunker/codec.ts');
}

afterEach(() => {
  vi.doUnmock('node:zlib');
  vi.resetModules();
});

describe('zstd', () => {
  it('is UNSUPPORTED with a hint, to write and to read, where the runtime lacks it', async () => {
    const { createCodec, decompress } = await codecWith({});
    for (const attempt of [() => createCodec('zstd'), () => decompress(CODE, Buffer.alloc(100), 512)]) {
      try {
        attempt();
        expect.unreachable();
      } catch (error) {
        expect(isBlockferryError(error, 'UNSUPPORTED') && error.hint).toMatch(/lz4/);
      }
    }
  });

  it('frames the payload, asks for no more output than the chunk, and comes back', async () => {
    const { deflateRawSync, inflateRawSync } = await import('node:zlib');
    const limits: number[] = [];
    const { createCodec, decompress } = await codecWith({
      zstdCompressSync: (bytes) => deflateRawSync(bytes),
      zstdDecompressSync: (bytes, options) => {
        limits.push(options.maxOutputLength);
        return inflateRawSync(bytes, options);
      },
    });
    const chunk = prose(65_536, 1);
    const content = Buffer.from(createCodec('zstd').compress(chunk)!);
    expect(content.readUInt32LE(0)).toBe(content.length - 4);
    expect(decompress(CODE, content, 65_536)?.equals(chunk)).toBe(true);
    expect(decompress(CODE, content, 65_535)).toBeUndefined();
    expect(decompress(CODE, content, 65_537)).toBeUndefined();
    expect(decompress(CODE, Buffer.alloc(50, 0xff), 65_536)).toBeUndefined();
    expect(limits).toEqual([65_536, 65_535, 65_537, 65_536]);
  });
});
