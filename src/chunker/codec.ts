/**
 * Compression of a chunk, each by itself.
 *
 * Compressed content is `payload length u32 | payload`; the padding behind it is the slot's business. LZ4 blocks are made and
 * opened by our own WebAssembly (lz4.ts, unlz4.ts), which works in the memory of the thread and allocates nothing.
 *
 * What compressed content claims is bounded before anything is allocated: the output is `plaintextBytes` long or it is
 * a fault. Faults are told by `undefined`; the caller knows the place and throws.
 */
import zlib from 'node:zlib';
import { BlockferryError } from '../errors.ts';
import { chunkMemory } from './chunk-memory.ts';
import { Lz4Compressor } from './lz4.ts';
import { Lz4Decompressor } from './unlz4.ts';

/** The ways a replica can compress, by their names in replica.json. */
export type Compression = 'none' | 'lz4' | 'zstd';

/** The code of each in a slot header. */
export const COMPRESSION_CODES: Readonly<Record<Compression, number>> = { none: 0, lz4: 1, zstd: 2 };
/** The highest code there is. */
export const COMPRESSION_CODE_MAX = 2;

/** Bytes of the payload length before a payload. */
export const PAYLOAD_LENGTH_BYTES = 4;

/** Compresses chunks in one way. */
export interface Codec {
  readonly compression: Compression;
  readonly code: number;
  /**
   * `payload length u32 | payload`, undefined if the chunk is not worth it (it looks incompressible, or what comes out is
   * no shorter). The bytes may be changed, and are good until something else is compressed on this thread.
   */
  compress(chunk: Uint8Array): Uint8Array | undefined;
}

interface ZstdBinding {
  zstdCompressSync(bytes: Uint8Array, options: { params: Record<number, number> }): Buffer;
  zstdDecompressSync(bytes: Uint8Array, options: { maxOutputLength: number }): Buffer;
}

/** Level 1 keeps pace with a fast network; higher levels cost far more time than they save bytes. */
const ZSTD_LEVEL = 1;
const ZSTD_C_COMPRESSION_LEVEL = 100;

const SAMPLE_RUNS = 32;
const SAMPLE_RUN_BYTES = 128;
/** Prime, so that samples fall on all places of a block. */
const SAMPLE_STEP = 977;
const SAMPLE_BYTES = SAMPLE_RUNS * SAMPLE_RUN_BYTES;
const EVEN_SQUARES_MAX = 1.08 * (SAMPLE_BYTES + (SAMPLE_BYTES * SAMPLE_BYTES) / 256);
const COUNTS: Uint32Array = new Uint32Array(256);
let compressor: Lz4Compressor | undefined;
let decompressor: Lz4Decompressor | undefined;

/** @throws UNSUPPORTED for zstd on a runtime that lacks it. */
export function createCodec(compression: Compression): Codec {
  if (compression === 'zstd') zstdBinding();
  return { compression, code: COMPRESSION_CODES[compression], compress: COMPRESSORS[compression] };
}

const COMPRESSORS: Readonly<Record<Compression, (chunk: Uint8Array) => Uint8Array | undefined>> = {
  none: () => undefined,
  lz4: compressLz4,
  zstd: compressZstd,
};

/**
 * The plaintext of `content` (exactly what `compress` returned); undefined if that is not `plaintextBytes` of plaintext. It is
 * good until something else is compressed or decompressed on this thread.
 * @throws UNSUPPORTED for zstd on a runtime that lacks it.
 */
export function decompress(code: number, content: Buffer, plaintextBytes: number): Buffer | undefined {
  const payload = content.subarray(PAYLOAD_LENGTH_BYTES);
  if (code !== COMPRESSION_CODES.zstd) {
    decompressor ??= new Lz4Decompressor(chunkMemory());
    return decompressor.decompress(payload, plaintextBytes);
  }
  const zstd = zstdBinding();
  try {
    const plaintext = zstd.zstdDecompressSync(payload, { maxOutputLength: plaintextBytes });
    return plaintext.byteLength === plaintextBytes ? plaintext : undefined;
  } catch {
    return undefined;
  }
}

function compressLz4(chunk: Uint8Array): Uint8Array | undefined {
  return looksIncompressible(chunk) ? undefined : lz4().compress(chunk);
}

/** The compressor of this thread. */
function lz4(): Lz4Compressor {
  compressor ??= new Lz4Compressor(chunkMemory());
  return compressor;
}

function compressZstd(chunk: Uint8Array): Uint8Array | undefined {
  if (looksIncompressible(chunk)) return undefined;
  const payload = zstdBinding().zstdCompressSync(chunk, { params: { [ZSTD_C_COMPRESSION_LEVEL]: ZSTD_LEVEL } });
  if (PAYLOAD_LENGTH_BYTES + payload.byteLength >= chunk.byteLength) return undefined;
  const content = Buffer.allocUnsafe(PAYLOAD_LENGTH_BYTES + payload.byteLength);
  content.writeUInt32LE(payload.byteLength, 0);
  payload.copy(content, PAYLOAD_LENGTH_BYTES);
  return content;
}

/**
 * A cheap look at samples: whether bytes are spread so evenly that they are encrypted or compressed already. The
 * sum of squared counts is n + n²/256 for random bytes and more for all else; 8 % above it is far outside chance. Bytes
 * can be spread evenly and still repeat, so the verdict is confirmed by compressing one sample.
 */
export function looksIncompressible(chunk: Uint8Array): boolean {
  const strideBytes = Math.floor(chunk.byteLength / SAMPLE_RUNS);
  if (strideBytes < SAMPLE_RUN_BYTES) return false;
  COUNTS.fill(0);
  for (let run = 0; run < SAMPLE_RUNS; run += 1) {
    // Not always at the head of a stride: blocks of a file system or database begin with headers.
    const start = run * strideBytes + ((run * SAMPLE_STEP) % (strideBytes - SAMPLE_RUN_BYTES + 1));
    for (let i = 0; i < SAMPLE_RUN_BYTES; i += 1) COUNTS[chunk[start + i]!]! += 1;
  }
  let squares = 0;
  for (let value = 0; value < 256; value += 1) squares += COUNTS[value]! * COUNTS[value]!;
  if (squares > EVEN_SQUARES_MAX) return false;
  const middle = chunk.subarray(chunk.byteLength >> 1, (chunk.byteLength >> 1) + SAMPLE_BYTES);
  return lz4().compress(middle) === undefined;
}

function zstdBinding(): ZstdBinding {
  if ('zstdCompressSync' in zlib) return zlib as unknown as ZstdBinding;
  throw new BlockferryError('UNSUPPORTED', 'zstd is not in this version of Node', {
    facts: { rule: 'the runtime has zstd' },
    hint: 'use Node 22.15 or later, or protect with --compression lz4',
  });
}
