/**
 * LZ4 decompression of one block, in AssemblyScript. The format stands in lz4.as.ts.
 *
 * `scripts/build-wasm.mjs` makes `unlz4-code.ts` of this file. Nothing here allocates. Bytes are copied sixteen at a time, over
 * what there is to copy: the caller leaves 64 bytes behind input and output. A length is compared with what is left of the
 * input and of the output before a byte of it is copied, and a distance with what was made, so whatever stands in the block,
 * nothing else is read or written.
 */

const MATCH_BYTES_MIN: usize = 4;
/** In a token: the length goes on in bytes, of which the last is less than 255. */
const MORE: usize = 15;
const LITERALS_SHIFT = 4;
const WIDE: usize = 16;

/** For each distance below sixteen, which of the bytes that far back stand in the next sixteen. */
const PATTERNS: usize = memory.data(16 * 16, 16);
for (let distance: usize = 1; distance < WIDE; distance += 1) {
  for (let i: usize = 0; i < WIDE; i += 1) store<u8>(PATTERNS + distance * WIDE + i, <u8>(i % distance));
}

/** @returns Whether the block is one of exactly `outputBytes` bytes, which then stand at `output` */
export function decompress(input: usize, inputBytes: usize, output: usize, outputBytes: usize): bool {
  const end = input + inputBytes;
  const outEnd = output + outputBytes;
  let at = input;
  let out = output;
  while (at < end) {
    const token: usize = load<u8>(at++);
    let literals = token >> LITERALS_SHIFT;
    if (literals == MORE) {
      let more: usize;
      do {
        if (at >= end) return false;
        more = load<u8>(at++);
        literals += more;
      } while (more == 255);
    }
    if (literals > end - at || literals > outEnd - out) return false;
    v128.store(out, v128.load(at));
    for (let done = WIDE; done < literals; done += WIDE) v128.store(out + done, v128.load(at + done));
    at += literals;
    out += literals;
    // The last sequence has no match.
    if (at == end) return out == outEnd;
    if (end - at < 2) return false;
    const distance: usize = load<u16>(at);
    at += 2;
    let length = token & MORE;
    if (length == MORE) {
      let more: usize;
      do {
        if (at >= end) return false;
        more = load<u8>(at++);
        length += more;
      } while (more == 255);
    }
    length += MATCH_BYTES_MIN;
    if (distance == 0 || distance > out - output || length > outEnd - out) return false;
    const matchEnd = out + length;
    if (distance >= WIDE) {
      v128.store(out, v128.load(out - distance));
      for (out += WIDE; out < matchEnd; out += WIDE) v128.store(out, v128.load(out - distance));
    } else {
      const pattern = i8x16.swizzle(v128.load(out - distance), v128.load(PATTERNS + distance * WIDE));
      const step = WIDE - (WIDE % distance);
      for (; out < matchEnd; out += step) v128.store(out, pattern);
    }
    out = matchEnd;
  }
  return false;
}
