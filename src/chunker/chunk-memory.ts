/**
 * The memory in which a thread works on chunks: that of our WebAssembly. What is read into `input` is looked through, fingerprinted
 * and compressed where it lies; what lies elsewhere is copied to `copy` first.
 *
 *     0           table of LZ4                       64 KiB
 *     64 KiB      what XXH3 keeps                     1 KiB
 *     65 KiB      patterns of LZ4, digest of XXH3     3 KiB
 *     68 KiB      input   4 MiB | slack 64
 *     …           copy    4 MiB | slack 64
 *     …           output  4 MiB | slack 64
 *
 * Each room takes the largest chunk there is, so the memory never grows, and no view of it ever comes loose. What of it is not
 * used takes no memory of the machine. Nothing here writes to `input` but who asked for it.
 */
import { KIB } from '../bytes.ts';
import { CHUNK_BYTES_MAX } from '../limits.ts';
import { newMemory, type WasmMemory } from '../wasm.ts';

/** LZ4 compares and copies in sixteens, over what it was given. */
const SLACK_BYTES = 64;
const ROOM_BYTES: number = CHUNK_BYTES_MAX + SLACK_BYTES;
const INPUT: number = 68 * KIB;
const COPY: number = INPUT + ROOM_BYTES;
const OUTPUT: number = COPY + ROOM_BYTES;
const TOTAL_BYTES: number = OUTPUT + ROOM_BYTES;
/** The last bytes before the rooms. */
const DIGEST: number = INPUT - 16;

export class ChunkMemory {
  readonly memory: WasmMemory = newMemory(TOTAL_BYTES);
  readonly bytes: Buffer = Buffer.from(this.memory.buffer);
  readonly digest: number = DIGEST;
  readonly output: number = OUTPUT;

  /** Room for a chunk, to read it into. There is one. */
  input(lengthBytes: number): Buffer {
    return this.#room(INPUT, lengthBytes);
  }

  /** Room for what is made of a chunk. There is one. */
  outputRoom(lengthBytes: number): Buffer {
    return this.#room(OUTPUT, lengthBytes);
  }

  /** The address of bytes: where they lie, or of a copy. */
  place(bytes: Uint8Array): number {
    if (bytes.buffer === this.memory.buffer) return bytes.byteOffset;
    this.#room(COPY, bytes.byteLength).set(bytes);
    return COPY;
  }

  #room(start: number, lengthBytes: number): Buffer {
    if (lengthBytes > CHUNK_BYTES_MAX) {
      throw new RangeError(`a chunk has ${CHUNK_BYTES_MAX} bytes at most, not ${lengthBytes}`);
    }
    return this.bytes.subarray(start, start + lengthBytes);
  }
}

let memory: ChunkMemory | undefined;

/** That of this thread. */
export function chunkMemory(): ChunkMemory {
  memory ??= new ChunkMemory();
  return memory;
}
