/**
 * CRC-64/NVME in AssemblyScript, sixteen bytes a step: polynomial 0x9A6C9329AC4BC9B5 (reflected), begun with and ended by all
 * ones inverted. It is the checksum of Azure's `x-ms-content-crc64`.
 *
 *     memory    16 tables of 256 u64: what a byte makes of the remainder that 0 … 15 bytes follow | input
 *
 * `scripts/build-wasm.mjs` makes `crc64-code.ts` of this file.
 */
const POLYNOMIAL: u64 = 0x9a6c9329ac4bc9b5;
const TABLE_BYTES: usize = 2048;
const STEP_BYTES: usize = 16;

let remainder: u64 = 0;

/** Makes the tables. */
export function prepare(): void {
  for (let byte: usize = 0; byte < 256; byte++) {
    let value: u64 = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >> 1) ^ POLYNOMIAL : value >> 1;
    store<u64>(byte << 3, value);
  }
  for (let table: usize = TABLE_BYTES; table < STEP_BYTES * TABLE_BYTES; table += TABLE_BYTES) {
    for (let at: usize = 0; at < TABLE_BYTES; at += 8) {
      const before = load<u64>(table - TABLE_BYTES + at);
      store<u64>(table + at, (before >> 8) ^ part(before, 0, 0));
    }
  }
}

export function begin(): void {
  remainder = ~(<u64>0);
}

/** Goes on with `bytes` bytes from `input`. */
export function update(input: usize, bytes: usize): void {
  const end = input + bytes;
  let value = remainder;
  let at = input;
  for (; at + STEP_BYTES <= end; at += STEP_BYTES) {
    const a = load<u64>(at) ^ value;
    const b = load<u64>(at, 8);
    value =
      part(a, 0, 15) ^ part(a, 8, 14) ^ part(a, 16, 13) ^ part(a, 24, 12) ^ part(a, 32, 11) ^ part(a, 40, 10) ^ part(a, 48, 9) ^ part(a, 56, 8) ^
      part(b, 0, 7) ^ part(b, 8, 6) ^ part(b, 16, 5) ^ part(b, 24, 4) ^ part(b, 32, 3) ^ part(b, 40, 2) ^ part(b, 48, 1) ^ part(b, 56, 0);
  }
  for (; at < end; at++) value = (value >> 8) ^ part(value ^ load<u8>(at), 0, 0);
  remainder = value;
}

/**
 * Puts the checksum of two runs of bytes, one behind the other, in the place of that of the first: the second is `bytes` long. What
 * follows multiplies the remainder of what is before by x to the eighth for each byte.
 */
export function join(first: usize, second: usize, bytes: usize): void {
  let power: u64 = 1 << 55;
  let value = load<u64>(first);
  for (let left = bytes; left > 0; left >>= 1) {
    if (left & 1) value = product(value, power);
    power = product(power, power);
  }
  store<u64>(first, value ^ load<u64>(second));
}

/** Of two polynomials, modulo the polynomial; the highest bit is that of x to the zeroth. */
function product(a: u64, b: u64): u64 {
  let sum: u64 = 0;
  for (let rest = a; rest !== 0; rest <<= 1) {
    if (rest >> 63) sum ^= b;
    b = b & 1 ? (b >> 1) ^ POLYNOMIAL : b >> 1;
  }
  return sum;
}

/** Writes the checksum, little-endian. */
export function end(output: usize): void {
  store<u64>(output, ~remainder);
}

/** What table `table` has for the byte of `value` above `shift`. */
// @ts-ignore: a decorator of AssemblyScript
@inline function part(value: u64, shift: u64, table: usize): u64 {
  return load<u64>(table * TABLE_BYTES + (<usize>((value >> shift) & 255) << 3));
}
