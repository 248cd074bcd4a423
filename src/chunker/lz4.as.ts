/**
 * LZ4 compression of one block, in AssemblyScript: matches are found through a table of hashes.
 *
 *     block     sequence …              the last one ends behind its literals
 *     sequence  token u8 | more of the literals' length u8 … | literals | distance u16 | more of the match's length u8 …
 *     token     length of the literals (15: more) << 4 | length of the match - 4 (15: more)
 *
 * A block ends with at least five literals, and no match begins in its last twelve bytes: other readers rely on both.
 *
 * `scripts/build-wasm.mjs` makes `lz4-code.ts` of this file. Nothing here allocates. The caller says where in the memory
 * input and output lie, behind the table, and leaves 64 bytes behind each: bytes are compared and copied sixteen at a time.
 */

/** Positions of what was seen, u32 each, by hash, at the front of the memory: 64 KiB stay in a core's own caches. */
const HASH_BITS = 14;
const TABLE_BYTES: usize = 4 << HASH_BITS;
/** Hashes are of six bytes: fewer find places where the match ends at once. */
const UNHASHED_BITS = 16;
const HASH_FACTOR: u64 = 227_718_039_650_203;

const MATCH_BYTES_MIN: usize = 4;
const DISTANCE_MAX: usize = 65_535;
/** No match begins later than so far from the end, or ends later than so. */
const SEARCH_END_BYTES: usize = 12;
const MATCH_END_BYTES: usize = 5;
/** In a token: the length goes on in bytes, of which the last is less than 255. */
const MORE: usize = 15;
const LITERALS_SHIFT = 4;
/** A step grows by a byte after each 32 misses in a row, so what does not compress is passed by ever faster. */
const MISSES_SHIFT = 5;
/** Most that a sequence takes beside its literals and the bytes of its lengths. */
const SEQUENCE_BYTES: usize = 16;

/** @returns Bytes of the block; 0 if they would be more than `outBytesMax` */
export function compress(input: usize, inputBytes: usize, output: usize, outBytesMax: usize): usize {
  const end = input + inputBytes;
  const outEnd = output + outBytesMax;
  let out = output;
  let literals = input;
  if (inputBytes <= SEARCH_END_BYTES) return lastLiterals(output, out, outEnd, literals, end);
  memory.fill(0, 0, TABLE_BYTES);
  const searchEnd = end - SEARCH_END_BYTES;
  const matchEnd = end - MATCH_END_BYTES;
  // The first byte is what an empty table points at.
  let at = input + 1;
  let bytes = load<u64>(at);
  let slot = slotOf(bytes);
  while (true) {
    let match: usize;
    let here: u32;
    let next = at;
    let misses: usize = 1 << MISSES_SHIFT;
    do {
      at = next;
      here = <u32>bytes;
      next += misses++ >> MISSES_SHIFT;
      if (next > searchEnd) return lastLiterals(output, out, outEnd, literals, end);
      match = input + load<u32>(slot);
      store<u32>(slot, <u32>(at - input));
      bytes = load<u64>(next);
      slot = slotOf(bytes);
    } while (load<u32>(match) != here || match + DISTANCE_MAX < at);
    // Eight bytes back at once, without a branch that nobody can predict; the table lies before the input, so they may be read.
    const back = min<usize>(min<usize>(at - literals, match - input), <usize>(clz(load<u64>(at - 8) ^ load<u64>(match - 8)) >> 3));
    at -= back;
    match -= back;
    const literalBytes = at - literals;
    if (out + SEQUENCE_BYTES + literalBytes + literalBytes / 255 > outEnd) return 0;
    let token = out;
    out = putLiterals(out, literals, literalBytes);
    while (true) {
      const matchBytes = MATCH_BYTES_MIN + equalBytes(at + MATCH_BYTES_MIN, match + MATCH_BYTES_MIN, matchEnd);
      if (out + SEQUENCE_BYTES + matchBytes / 255 > outEnd) return 0;
      out = putMatch(out, token, at - match, matchBytes);
      at += matchBytes;
      literals = at;
      if (at > searchEnd) return lastLiterals(output, out, outEnd, literals, end);
      store<u32>(slotOf(load<u64>(at - 2)), <u32>(at - 2 - input));
      bytes = load<u64>(at);
      slot = slotOf(bytes);
      match = input + load<u32>(slot);
      store<u32>(slot, <u32>(at - input));
      if (load<u32>(match) != <u32>bytes || match + DISTANCE_MAX < at) break;
      // Another match at once: a sequence without literals.
      token = out++;
      store<u8>(token, 0);
    }
    at++;
    bytes = load<u64>(at);
    slot = slotOf(bytes);
  }
}

// @ts-ignore: a decorator of AssemblyScript
@inline function slotOf(bytes: u64): usize {
  return <usize>(((bytes << UNHASHED_BITS) * HASH_FACTOR) >> (64 - HASH_BITS)) << 2;
}

/** Token and literals. @returns where the match goes on */
// @ts-ignore: a decorator of AssemblyScript
@inline function putLiterals(token: usize, literals: usize, literalBytes: usize): usize {
  let out = token + 1;
  if (literalBytes >= MORE) {
    store<u8>(token, MORE << LITERALS_SHIFT);
    out = putMore(out, literalBytes - MORE);
  } else {
    store<u8>(token, <u8>(literalBytes << LITERALS_SHIFT));
  }
  copySixteens(out, literals, literalBytes);
  return out + literalBytes;
}

// @ts-ignore: a decorator of AssemblyScript
@inline function putMatch(start: usize, token: usize, distance: usize, matchBytes: usize): usize {
  store<u16>(start, <u16>distance);
  const length = matchBytes - MATCH_BYTES_MIN;
  if (length < MORE) {
    store<u8>(token, load<u8>(token) + <u8>length);
    return start + 2;
  }
  store<u8>(token, load<u8>(token) + <u8>MORE);
  return putMore(start + 2, length - MORE);
}

/** What a length is beyond its token. */
// @ts-ignore: a decorator of AssemblyScript
@inline function putMore(start: usize, length: usize): usize {
  let out = start;
  let rest = length;
  while (rest >= 255) {
    store<u8>(out++, 255);
    rest -= 255;
  }
  store<u8>(out++, <u8>rest);
  return out;
}

/** Ends a block. @returns bytes of it; 0 if they are too many */
function lastLiterals(output: usize, out: usize, outEnd: usize, literals: usize, end: usize): usize {
  const literalBytes = end - literals;
  if (out + SEQUENCE_BYTES + literalBytes + literalBytes / 255 > outEnd) return 0;
  return putLiterals(out, literals, literalBytes) - output;
}

/** How many bytes from `a` on are those from `b` on, before `end`. */
// @ts-ignore: a decorator of AssemblyScript
@inline function equalBytes(a: usize, b: usize, end: usize): usize {
  const difference = load<u64>(a) ^ load<u64>(b);
  if (difference != 0) return min<usize>(<usize>(ctz(difference) >> 3), end - a);
  let at = a + 8;
  let other = b + 8;
  while (at < end) {
    const equal = i8x16.bitmask(i8x16.eq(v128.load(at), v128.load(other)));
    if (equal != 0xffff) {
      at += <usize>ctz(~equal);
      break;
    }
    at += 16;
    other += 16;
  }
  return min<usize>(at, end) - a;
}

/** Copies in sixteens: up to sixteen bytes more than asked for. */
// @ts-ignore: a decorator of AssemblyScript
@inline function copySixteens(to: usize, from: usize, bytes: usize): void {
  const end = to + bytes;
  let target = to;
  let source = from;
  do {
    v128.store(target, v128.load(source));
    target += 16;
    source += 16;
  } while (target < end);
}
