/**
 * LZ4 compression in WebAssembly (lz4.as.ts): nothing is allocated per chunk, and it is by content a little slower than the native
 * library to twice as fast (`npm run bench -- --only kernel` has both), for a twentieth fewer bytes, from a larger table. What lies in the memory of the thread is compressed where it is.
 */

import { instantiate } from '../wasm.ts';
import type { ChunkMemory } from './chunk-memory.ts';
import { LZ4_CODE } from './lz4-code.ts';

const LENGTH_BYTES = 4;

interface Lz4Exports {
  compress(input: number, inputBytes: number, output: number, outBytesMax: number): number;
}

export class Lz4Compressor {
  readonly #memory: ChunkMemory;
  readonly #exports: Lz4Exports;

  constructor(memory: ChunkMemory) {
    this.#memory = memory;
    this.#exports = instantiate<Lz4Exports>(LZ4_CODE, memory.memory);
  }

  /**
   * `payload length u32 | LZ4 block`, undefined if that would not be shorter than `bytes`. It stands in the memory, and is
   * good until something else is compressed there.
   */
  compress(bytes: Uint8Array): Buffer | undefined {
    const inputBytes = bytes.byteLength;
    const outBytesMax = inputBytes - LENGTH_BYTES - 1;
    if (outBytesMax < 1) return undefined;
    const { output } = this.#memory;
    const input = this.#memory.place(bytes);
    const blockBytes = this.#exports.compress(input, inputBytes, output + LENGTH_BYTES, outBytesMax);
    if (blockBytes === 0) return undefined;
    const content = this.#memory.bytes.subarray(output, output + LENGTH_BYTES + blockBytes);
    content.writeUInt32LE(blockBytes, 0);
    return content;
  }
}
