/**
 * Digest: fingerprints of the chunks of a disk, and the SHA-256 of its whole content.
 *
 * These fingerprints are for comparing disks with other tools, so they are the plain hashes: xxHash with seed 0 as
 * `xxhsum` prints it, and SHA-256 as `sha256sum` does. They are *not* those that a replica holds, which are seeded with
 * a secret of the replica and must not be computable without it.
 *
 * Nothing is read where the disk has a hole; its zeros are hashed from memory. A chunk of zeros is hashed once.
 */
import { createHash } from 'node:crypto';
import { asBuffer } from '../bytes.ts';
import { checkChunkBytes, type FingerprintAlgorithm } from '../chunker/index.ts';
import { CHUNK_BYTES_DEFAULT } from '../limits.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { HOLE_RUN_BYTES, readDisk, type ToolOptions, zeroBlocks } from './read-disk.ts';

/** One chunk; only the last may be shorter than the others. */
export interface ChunkDigest {
  readonly type: 'chunk';
  readonly index: number;
  readonly offset: number;
  readonly length: number;
  /** Lower-case hex: 16 digits for xxh64, 32 for xxh128, 64 for sha256. */
  readonly fingerprint: string;
}

/** The whole disk. */
export interface DiskDigest {
  readonly type: 'digest';
  /** Of the guest-visible content, as `sha256sum` gives it for the raw image. */
  readonly sha256: string;
  readonly algorithm: FingerprintAlgorithm;
  readonly chunkSizeBytes: number;
  readonly virtualSizeBytes: number;
}

export interface DigestOptions extends ToolOptions {
  /** Default xxh128. */
  readonly algorithm?: FingerprintAlgorithm;
  /** A power of two from 64 KiB to 4 MiB; default 256 KiB. */
  readonly chunkBytes?: number;
}

/** A hash that is fed piece by piece and can start again. */
interface ChunkHash {
  update(bytes: Uint8Array): void;
  /** Ends this chunk and begins the next. */
  finish(): string;
}

/**
 * The digests of all chunks in order, then that of the disk.
 * @throws RangeError for a chunk size out of range; DISK_UNREADABLE, ABORTED
 */
export async function* digestDisk(
  disk: VirtualDisk,
  options: DigestOptions = {},
): AsyncGenerator<ChunkDigest | DiskDigest, void, void> {
  const { algorithm = 'xxh128', chunkBytes = CHUNK_BYTES_DEFAULT } = options;
  checkChunkBytes(chunkBytes);
  const virtualSizeBytes = disk.info.virtualSizeBytes;
  const whole = createHash('sha256');
  const chunk = await createChunkHash(algorithm);
  const zeroFingerprint = hashOfZeros(chunk, chunkBytes);
  for await (const run of readDisk(disk, { ...options, holeBytesMax: HOLE_RUN_BYTES })) {
    if (run.kind === 'data') whole.update(run.bytes);
    else for (const zeros of zeroBlocks(run.lengthBytes)) whole.update(zeros);
    for (let from = 0; from < run.lengthBytes; ) {
      const at = run.offset + from;
      const offset = at - (at % chunkBytes);
      const length = Math.min(chunkBytes, virtualSizeBytes - offset);
      const take = Math.min(offset + length - at, run.lengthBytes - from);
      const last = at + take === offset + length;
      let fingerprint: string | undefined;
      if (run.kind === 'zero' && take === chunkBytes) {
        fingerprint = zeroFingerprint;
      } else {
        if (run.kind === 'data') chunk.update(run.bytes.subarray(from, from + take));
        else for (const zeros of zeroBlocks(take)) chunk.update(zeros);
        if (last) fingerprint = chunk.finish();
      }
      if (fingerprint !== undefined) yield { type: 'chunk', index: offset / chunkBytes, offset, length, fingerprint };
      from += take;
    }
    if (run.kind === 'data') run.release();
  }
  yield { type: 'digest', sha256: whole.digest('hex'), algorithm, chunkSizeBytes: chunkBytes, virtualSizeBytes };
}

function hashOfZeros(chunk: ChunkHash, chunkBytes: number): string {
  for (const zeros of zeroBlocks(chunkBytes)) chunk.update(zeros);
  return chunk.finish();
}

async function createChunkHash(algorithm: FingerprintAlgorithm): Promise<ChunkHash> {
  if (algorithm === 'sha256') {
    let hash = createHash('sha256');
    return {
      update: (bytes) => void hash.update(bytes),
      finish() {
        const digest = hash.digest('hex');
        hash = createHash('sha256');
        return digest;
      },
    };
  }
  const { createXXHash64, createXXHash128 } = await import('hash-wasm');
  const hasher = await (algorithm === 'xxh64' ? createXXHash64() : createXXHash128());
  hasher.init();
  return {
    update: (bytes) => void hasher.update(asBuffer(bytes)),
    finish() {
      const digest = hasher.digest('hex');
      hasher.init();
      return digest;
    },
  };
}
