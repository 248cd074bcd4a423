/**
 * LZ4 decompression in WebAssembly (unlz4.as.ts): nothing is allocated per chunk, and it is about as fast as the native library, by
 * content from a little slower to a third faster (`npm run bench -- --only kernel` has both). What is made lies in the memory of the thread, where it is fingerprinted, and written from.
 */

import { instantiate } from '../wasm.ts';
import type { ChunkMemory } from './chunk-memory.ts';
import { UNLZ4_CODE } from './unlz4-code.ts';

interface Unlz4Exports {
  /** 1 or 0. */
  decompress(input: number, inputBytes: number, output: number, outputBytes: number): number;
}

export class Lz4Decompressor {
  readonly #memory: ChunkMemory;
  readonly #exports: Unlz4Exports;

  constructor(memory: ChunkMemory) {
    this.#memory = memory;
    this.#exports = instantiate<Unlz4Exports>(UNLZ4_CODE, memory.memory);
  }

  /**
   * The content of a block, undefined if that is not exactly `plaintextBytes` long, at most those of a chunk. It stands in
   * the memory, and is good until something else is compressed or decompressed there.
   */
  decompress(block: Uint8Array, plaintextBytes: number): Buffer | undefined {
    const output = this.#memory.outputRoom(plaintextBytes);
    const input = this.#memory.place(block);
    const isWhole = this.#exports.decompress(input, block.byteLength, this.#memory.output, plaintextBytes) === 1;
    return isWhole ? output : undefined;
  }
}
