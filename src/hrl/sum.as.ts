/**
 * The sum of bytes in AssemblyScript, sixteen a step. They stand at the front of the memory.
 *
 * `scripts/build-wasm.mjs` makes `sum-code.ts` of this file.
 */
const STEP_BYTES: usize = 16;
/** Two bytes of at most 255 are added to each half of 16 bits in a step: 128 steps stay below 2^16. */
const FOLD_BYTES: usize = 128 * STEP_BYTES;

/** The sum of the first `bytes` bytes, modulo 2^32. */
export function sum(bytes: usize): u32 {
  const steps = bytes & ~(STEP_BYTES - 1);
  let sums = i32x4.splat(0);
  let at: usize = 0;
  while (at < steps) {
    const end = min(at + FOLD_BYTES, steps);
    let halves = i16x8.splat(0);
    for (; at < end; at += STEP_BYTES) {
      halves = i16x8.add(halves, i16x8.extadd_pairwise_i8x16_u(v128.load(at)));
    }
    sums = i32x4.add(sums, i32x4.extadd_pairwise_i16x8_u(halves));
  }
  let total =
    i32x4.extract_lane(sums, 0) +
    i32x4.extract_lane(sums, 1) +
    i32x4.extract_lane(sums, 2) +
    i32x4.extract_lane(sums, 3);
  for (; at < bytes; at++) total += load<u8>(at);
  return total;
}
