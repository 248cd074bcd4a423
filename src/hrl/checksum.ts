/**
 * The checksum of [MS-HRL] section 2: one's complement of the u32 sum of all bytes, the checksum's own field left out.
 *
 * A sum does not see order: swapped bytes, exchanged sectors, a +1/-1 pair and zeros put in or lost all pass. It
 * finds single damaged bytes and torn data; it is no proof of integrity.
 */

import { KIB } from '../bytes.ts';
import { instantiate, type WasmExports } from '../wasm.ts';
import { SUM_CODE } from './sum-code.ts';

/** Below this a call costs more than it saves. */
const CALL_FROM_BYTES = 256;
/** The memory of the module, which fits into a core's own cache. */
const PIECE_BYTES: number = 64 * KIB;
/** Two bytes of at most 255 are added to each 16-bit half per word: 128 words stay below 2^16. */
const WORDS_PER_FOLD = 128;

interface SumExports extends WasmExports {
  sum(bytes: number): number;
}

let loaded: { readonly exports: SumExports; readonly memory: Uint8Array } | undefined;

/** The sum of all bytes, modulo 2^32. */
export function byteSum(bytes: Uint8Array): number {
  const { byteLength } = bytes;
  if (byteLength < CALL_FROM_BYTES) return sumOfBytes(bytes, 0, byteLength);
  loaded ??= load();
  const { exports, memory } = loaded;
  let sum = 0;
  for (let at = 0; at < byteLength; at += PIECE_BYTES) {
    const piece = byteLength <= PIECE_BYTES ? bytes : bytes.subarray(at, at + PIECE_BYTES);
    memory.set(piece);
    sum += exports.sum(piece.byteLength);
  }
  return sum >>> 0;
}

/** The sum of the bytes of words `first` … `end` - 1, modulo 2^32. */
export function wordSum(words: Uint32Array, first: number, end: number): number {
  let sum = 0;
  for (let from = first; from < end; from += WORDS_PER_FOLD) {
    const to = Math.min(from + WORDS_PER_FOLD, end);
    let halves = 0;
    for (let i = from; i < to; i += 1) {
      const word = words[i]!;
      halves = (halves + (word & 0x00ff00ff) + ((word >>> 8) & 0x00ff00ff)) | 0;
    }
    sum = (sum + (halves & 0xffff) + (halves >>> 16)) >>> 0;
  }
  return sum;
}

/** The checksum of whole bytes; of no bytes, and of zeros, 0xFFFFFFFF. */
export function checksum(bytes: Uint8Array): number {
  return ~byteSum(bytes) >>> 0;
}

/** The checksum of a structure that holds its own checksum as a u32 at `fieldOffset`. */
export function checksumAround(structure: Uint8Array, fieldOffset: number): number {
  return ~(byteSum(structure) - sumOfBytes(structure, fieldOffset, fieldOffset + 4)) >>> 0;
}

function sumOfBytes(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0;
  for (let i = from; i < to; i += 1) sum += bytes[i]!;
  return sum;
}

function load(): NonNullable<typeof loaded> {
  const exports = instantiate<SumExports>(SUM_CODE);
  return { exports, memory: new Uint8Array(exports.memory.buffer) };
}
