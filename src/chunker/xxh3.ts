/** XXH3 with 128 bits in WebAssembly (xxh3.as.ts), three times as fast as a library without vectors (`npm run bench -- --only kernel`). */

import { instantiate } from '../wasm.ts';
import { type ChunkMemory, chunkMemory } from './chunk-memory.ts';
import { XXH3_CODE } from './xxh3-code.ts';

const DIGEST_BYTES = 16;

interface Xxh3Exports {
  digest(input: number, inputBytes: number, seed: bigint, output: number): void;
}

export class Xxh3 {
  readonly #memory: ChunkMemory;
  readonly #exports: Xxh3Exports;

  constructor(memory: ChunkMemory) {
    this.#memory = memory;
    this.#exports = instantiate<Xxh3Exports>(XXH3_CODE, memory.memory);
  }

  /** The digest under a seed (64 bits) in the order that `xxhsum` prints: a view, good until the next call. */
  digest(bytes: Uint8Array, seed: bigint): Uint8Array {
    const { digest } = this.#memory;
    this.#exports.digest(this.#memory.place(bytes), bytes.byteLength, seed, digest);
    return this.#memory.bytes.subarray(digest, digest + DIGEST_BYTES);
  }
}

let xxh3: Xxh3 | undefined;

/** That of this thread: code that has run for a while is faster than new code. */
export function threadXxh3(): Xxh3 {
  xxh3 ??= new Xxh3(chunkMemory());
  return xxh3;
}
