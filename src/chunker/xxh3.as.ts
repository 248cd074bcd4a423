/**
 * XXH3 with 128 bits under a seed, in AssemblyScript, from the xxHash specification: long inputs two products at a time.
 *
 * `scripts/build-wasm.mjs` makes `xxh3-code.ts` of this file. Nothing here allocates, and nothing is kept between calls. The
 * caller says where in the memory the input lies and where the digest goes: high u64, low u64, both big-endian as `xxhsum`
 * prints them. The secrets lie where the build puts what is static.
 */

const PRIME32_1: u64 = 0x9e3779b1;
const PRIME32_2: u64 = 0x85ebca77;
const PRIME32_3: u64 = 0xc2b2ae3d;
const PRIME64_1: u64 = 0x9e3779b185ebca87;
const PRIME64_2: u64 = 0xc2b2ae3d27d4eb4f;
const PRIME64_3: u64 = 0x165667b19e3779f9;
const PRIME64_4: u64 = 0x85ebca77c2b2ae63;
const PRIME64_5: u64 = 0x27d4eb2f165667c5;
const PRIME_MX1: u64 = 0x165667919e3779f9;
const PRIME_MX2: u64 = 0x9fb21c651e98df25;

const SECRET_BYTES: usize = 192;
const SECRET: usize = memory.data<u8>([
  0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
  0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
  0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
  0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
  0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
  0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
  0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
  0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
  0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
  0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
  0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
  0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
]);
/** The secret under the seed of the call. */
const SEEDED: usize = memory.data(192, 16);
/** Eight sums, u64 each. */
const SUMS: usize = memory.data(64, 16);

const STRIPE_BYTES: usize = 64;
/** Stripes of a block: with each, the place in the secret moves on by eight bytes. */
const BLOCK_STRIPES: usize = 16;
const BLOCK_BYTES: usize = 1024;
const SECRET_STEP: usize = 8;
const LAST_STRIPE_SECRET: usize = 121;
const LOW_SECRET: usize = 11;
const HIGH_SECRET: usize = 117;

/** Writes the digest of `bytes` bytes from `input` on. */
export function digest(input: usize, bytes: usize, seed: u64, output: usize): void {
  if (bytes > 240) long(input, bytes, seed, output);
  else if (bytes > 128) upTo240(input, bytes, seed, output);
  else if (bytes > 16) upTo128(input, bytes, seed, output);
  else if (bytes > 8) upTo16(input, bytes, seed, output);
  else if (bytes > 3) upTo8(input, bytes, seed, output);
  else if (bytes > 0) upTo3(input, bytes, seed, output);
  else {
    const low = seed ^ load<u64>(SECRET, 64) ^ load<u64>(SECRET, 72);
    const high = seed ^ load<u64>(SECRET, 80) ^ load<u64>(SECRET, 88);
    put(output, avalanche64(low), avalanche64(high));
  }
}

function long(input: usize, bytes: usize, seed: u64, output: usize): void {
  for (let at: usize = 0; at < SECRET_BYTES; at += 16) {
    store<u64>(SEEDED + at, load<u64>(SECRET + at) + seed);
    store<u64>(SEEDED + at, load<u64>(SECRET + at, 8) - seed, 8);
  }
  store<u64>(SUMS, PRIME32_3, 0);
  store<u64>(SUMS, PRIME64_1, 8);
  store<u64>(SUMS, PRIME64_2, 16);
  store<u64>(SUMS, PRIME64_3, 24);
  store<u64>(SUMS, PRIME64_4, 32);
  store<u64>(SUMS, PRIME32_2, 40);
  store<u64>(SUMS, PRIME64_5, 48);
  store<u64>(SUMS, PRIME32_1, 56);
  // The last block, however long, is never scrambled.
  const last = input + bytes - 1;
  let at = input;
  for (; at + BLOCK_BYTES <= last; at += BLOCK_BYTES) {
    addStripes(at, SEEDED, BLOCK_STRIPES);
    scramble();
  }
  addStripes(at, SEEDED, (last - at) / STRIPE_BYTES);
  addStripes(input + bytes - STRIPE_BYTES, SEEDED + LAST_STRIPE_SECRET, 1);
  const low = merged(SEEDED + LOW_SECRET, <u64>bytes * PRIME64_1);
  const high = merged(SEEDED + HIGH_SECRET, ~(<u64>bytes * PRIME64_2));
  put(output, low, high);
}

/**
 * Adds stripes to the sums: to each the product of the halves of its word under the secret, and to its neighbour the word. The
 * words are summed by themselves and change places with their neighbours once, at the end.
 */
function addStripes(input: usize, secretStart: usize, stripes: usize): void {
  let a = v128.load(SUMS, 0);
  let b = v128.load(SUMS, 16);
  let c = v128.load(SUMS, 32);
  let d = v128.load(SUMS, 48);
  let wordsA = i64x2.splat(0);
  let wordsB = i64x2.splat(0);
  let wordsC = i64x2.splat(0);
  let wordsD = i64x2.splat(0);
  let secret = secretStart;
  const end = input + stripes * STRIPE_BYTES;
  for (let at = input; at < end; at += STRIPE_BYTES) {
    const wordA = v128.load(at, 0);
    const wordB = v128.load(at, 16);
    const keyA = v128.xor(wordA, v128.load(secret, 0));
    const keyB = v128.xor(wordB, v128.load(secret, 16));
    const lowAB = i8x16.shuffle(keyA, keyB, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    const highAB = i8x16.shuffle(keyA, keyB, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    a = i64x2.add(a, i64x2.extmul_low_i32x4_u(lowAB, highAB));
    b = i64x2.add(b, i64x2.extmul_high_i32x4_u(lowAB, highAB));
    wordsA = i64x2.add(wordsA, wordA);
    wordsB = i64x2.add(wordsB, wordB);
    const wordC = v128.load(at, 32);
    const wordD = v128.load(at, 48);
    const keyC = v128.xor(wordC, v128.load(secret, 32));
    const keyD = v128.xor(wordD, v128.load(secret, 48));
    const lowCD = i8x16.shuffle(keyC, keyD, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    const highCD = i8x16.shuffle(keyC, keyD, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    c = i64x2.add(c, i64x2.extmul_low_i32x4_u(lowCD, highCD));
    d = i64x2.add(d, i64x2.extmul_high_i32x4_u(lowCD, highCD));
    wordsC = i64x2.add(wordsC, wordC);
    wordsD = i64x2.add(wordsD, wordD);
    secret += SECRET_STEP;
  }
  v128.store(SUMS, i64x2.add(a, v128.shuffle<u64>(wordsA, wordsA, 1, 0)), 0);
  v128.store(SUMS, i64x2.add(b, v128.shuffle<u64>(wordsB, wordsB, 1, 0)), 16);
  v128.store(SUMS, i64x2.add(c, v128.shuffle<u64>(wordsC, wordsC, 1, 0)), 32);
  v128.store(SUMS, i64x2.add(d, v128.shuffle<u64>(wordsD, wordsD, 1, 0)), 48);
}

function scramble(): void {
  const prime = i64x2.splat(PRIME32_1);
  for (let at: usize = 0; at < STRIPE_BYTES; at += 16) {
    const sum = v128.load(SUMS + at);
    const key = v128.load(SEEDED + at, SECRET_BYTES - STRIPE_BYTES);
    v128.store(SUMS + at, i64x2.mul(v128.xor(v128.xor(sum, i64x2.shr_u(sum, 47)), key), prime));
  }
}

function merged(secret: usize, start: u64): u64 {
  let sum = start;
  for (let at: usize = 0; at < STRIPE_BYTES; at += 16) {
    sum += folded(load<u64>(SUMS + at) ^ load<u64>(secret + at), load<u64>(SUMS + at, 8) ^ load<u64>(secret + at, 8));
  }
  return avalanche(sum);
}

/** Sums of the middle lengths. */
let low: u64 = 0;
let high: u64 = 0;

function upTo240(input: usize, bytes: usize, seed: u64, output: usize): void {
  low = <u64>bytes * PRIME64_1;
  high = 0;
  for (let at: usize = 0; at < 128; at += 32) mix(input + at, input + at + 16, SECRET + at, seed);
  low = avalanche(low);
  high = avalanche(high);
  for (let at: usize = 128; at + 32 <= bytes; at += 32) mix(input + at, input + at + 16, SECRET + at - 125, seed);
  mix(input + bytes - 16, input + bytes - 32, SECRET + 103, 0 - seed);
  putMixed(bytes, seed, output);
}

function upTo128(input: usize, bytes: usize, seed: u64, output: usize): void {
  const end = input + bytes;
  low = <u64>bytes * PRIME64_1;
  high = 0;
  if (bytes > 96) mix(input + 48, end - 64, SECRET + 96, seed);
  if (bytes > 64) mix(input + 32, end - 48, SECRET + 64, seed);
  if (bytes > 32) mix(input + 16, end - 32, SECRET + 32, seed);
  mix(input, end - 16, SECRET, seed);
  putMixed(bytes, seed, output);
}

function mix(a: usize, b: usize, secret: usize, seed: u64): void {
  low = (low + mixed(a, secret, seed)) ^ (load<u64>(b) + load<u64>(b, 8));
  high = (high + mixed(b, secret + 16, seed)) ^ (load<u64>(a) + load<u64>(a, 8));
}

function mixed(input: usize, secret: usize, seed: u64): u64 {
  return folded(load<u64>(input) ^ (load<u64>(secret) + seed), load<u64>(input, 8) ^ (load<u64>(secret, 8) - seed));
}

function putMixed(bytes: usize, seed: u64, output: usize): void {
  const other = low * PRIME64_1 + high * PRIME64_4 + (<u64>bytes - seed) * PRIME64_2;
  put(output, avalanche(low + high), 0 - avalanche(other));
}

function upTo16(input: usize, bytes: usize, seed: u64, output: usize): void {
  const first = load<u64>(input);
  const last = load<u64>(input + bytes - 8);
  const key = first ^ last ^ ((load<u64>(SECRET, 32) ^ load<u64>(SECRET, 40)) - seed);
  const lastKey = last ^ ((load<u64>(SECRET, 48) ^ load<u64>(SECRET, 56)) + seed);
  const sum = key * PRIME64_1 + (<u64>(bytes - 1) << 54);
  const top = productHigh(key, PRIME64_1) + lastKey + (lastKey & 0xffff_ffff) * (PRIME32_2 - 1);
  const mixedSum = sum ^ bswap<u64>(top);
  put(output, avalanche(mixedSum * PRIME64_2), avalanche(productHigh(mixedSum, PRIME64_2) + top * PRIME64_2));
}

function upTo8(input: usize, bytes: usize, seed: u64, output: usize): void {
  const word = <u64>load<u32>(input) | (<u64>load<u32>(input + bytes - 4) << 32);
  const turned = seed ^ (<u64>bswap<u32>(<u32>seed) << 32);
  const key = word ^ ((load<u64>(SECRET, 16) ^ load<u64>(SECRET, 24)) + turned);
  const factor = PRIME64_1 + (<u64>bytes << 2);
  const product = key * factor;
  const top = productHigh(key, factor) + (product << 1);
  let sum = product ^ (top >> 3);
  sum = (sum ^ (sum >> 35)) * PRIME_MX2;
  put(output, sum ^ (sum >> 28), avalanche(top));
}

function upTo3(input: usize, bytes: usize, seed: u64, output: usize): void {
  const first = <u32>load<u8>(input);
  const middle = <u32>load<u8>(input + (bytes >> 1));
  const last = <u32>load<u8>(input + bytes - 1);
  const word = (first << 16) | (middle << 24) | last | (<u32>bytes << 8);
  const turned = rotl<u32>(bswap<u32>(word), 13);
  const keyLow = <u64>(load<u32>(SECRET) ^ load<u32>(SECRET, 4)) + seed;
  const keyHigh = <u64>(load<u32>(SECRET, 8) ^ load<u32>(SECRET, 12)) - seed;
  put(output, avalanche64(<u64>word ^ keyLow), avalanche64(<u64>turned ^ keyHigh));
}

function put(output: usize, lowHalf: u64, highHalf: u64): void {
  store<u64>(output, bswap<u64>(highHalf));
  store<u64>(output, bswap<u64>(lowHalf), 8);
}

function avalanche(start: u64): u64 {
  const hash = (start ^ (start >> 37)) * PRIME_MX1;
  return hash ^ (hash >> 32);
}

/** That of XXH64. */
function avalanche64(start: u64): u64 {
  let hash = (start ^ (start >> 33)) * PRIME64_2;
  hash = (hash ^ (hash >> 29)) * PRIME64_3;
  return hash ^ (hash >> 32);
}

/** Both halves of the product of 128 bits, one over the other. */
function folded(a: u64, b: u64): u64 {
  return (a * b) ^ productHigh(a, b);
}

function productHigh(a: u64, b: u64): u64 {
  const aLow = a & 0xffff_ffff;
  const bLow = b & 0xffff_ffff;
  const aHigh = a >> 32;
  const bHigh = b >> 32;
  const cross = ((aLow * bLow) >> 32) + aHigh * bLow;
  return aHigh * bHigh + (cross >> 32) + (((cross & 0xffff_ffff) + aLow * bHigh) >> 32);
}
