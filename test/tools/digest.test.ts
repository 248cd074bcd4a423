import { createHash } from 'node:crypto';
import { xxhash64, xxhash128 } from 'hash-wasm';
import { describe, expect, test } from 'vitest';
import { KIB, MIB } from '../../src/bytes.ts';
import { type ChunkDigest, type DigestOptions, type DiskDigest, digestDisk } from '../../src/tools/index.ts';
import type { VirtualDisk } from '../../src/vhd/index.ts';
import { fakeDisk, patterned } from './fake-disk.ts';

async function digest(
  disk: VirtualDisk,
  options?: DigestOptions,
): Promise<{ chunks: ChunkDigest[]; disk: DiskDigest }> {
  const chunks: ChunkDigest[] = [];
  let last: DiskDigest | undefined;
  for await (const record of digestDisk(disk, options)) {
    expect(last, 'the digest of the disk is the last record').toBeUndefined();
    if (record.type === 'chunk') chunks.push(record);
    else last = record;
  }
  if (!last) throw new Error('no digest of the disk');
  return { chunks, disk: last };
}

const PLAIN: Readonly<Record<string, (bytes: Uint8Array) => Promise<string>>> = {
  xxh64: (bytes) => xxhash64(bytes),
  xxh128: (bytes) => xxhash128(bytes),
  sha256: async (bytes) => createHash('sha256').update(bytes).digest('hex'),
};

describe('digestDisk', () => {
  for (const algorithm of ['xxh64', 'xxh128', 'sha256'] as const) {
    for (const chunkBytes of [64 * KIB, 256 * KIB, 4 * MIB]) {
      test(`${algorithm} in chunks of ${chunkBytes} is the plain hash of each chunk, whatever the extents`, async () => {
        const disk = await fakeDisk([
          { kind: 'data', bytes: patterned(100 * KIB, 1) },
          { kind: 'absent', lengthBytes: 700 * KIB },
          { kind: 'memory', bytes: patterned(4096, 2) },
          { kind: 'zero', lengthBytes: 9 * MIB },
          { kind: 'data', bytes: patterned(3 * MIB + 512, 3) },
          { kind: 'absent', lengthBytes: 300 * KIB },
        ]);
        const content = disk.content();
        const got = await digest(disk, { algorithm, chunkBytes });
        const expected: ChunkDigest[] = [];
        for (let offset = 0; offset < content.byteLength; offset += chunkBytes) {
          const bytes = content.subarray(offset, offset + chunkBytes);
          const fingerprint = (await PLAIN[algorithm]?.(bytes)) ?? '';
          expected.push({ type: 'chunk', index: expected.length, offset, length: bytes.byteLength, fingerprint });
        }
        expect(got.chunks).toEqual(expected);
        expect(got.disk).toEqual({
          type: 'digest',
          sha256: createHash('sha256').update(content).digest('hex'),
          algorithm,
          chunkSizeBytes: chunkBytes,
          virtualSizeBytes: content.byteLength,
        });
      });
    }
  }

  test('the seed is zero: known values of xxHash', async () => {
    const disk = await fakeDisk([{ kind: 'absent', lengthBytes: 64 * KIB }]);
    const got = await digest(disk, { algorithm: 'xxh64', chunkBytes: 64 * KIB });
    expect(got.chunks[0]?.fingerprint).toBe(await xxhash64(new Uint8Array(64 * KIB), 0, 0));
  });

  test('a disk without bytes has no chunks and the hash of nothing', async () => {
    const got = await digest(await fakeDisk([]));
    expect(got.chunks).toEqual([]);
    expect(got.disk.sha256).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  });

  test('holes cost no read', async () => {
    const disk = await fakeDisk([{ kind: 'absent', lengthBytes: 256 * MIB }]);
    await digest(disk);
    expect(disk.reads()).toEqual([]);
  });

  test('a chunk size that no replica can have is refused', async () => {
    await expect(digest(await fakeDisk([]), { chunkBytes: 100_000 })).rejects.toThrow(RangeError);
  });
});
