/**
 * CRC-32C (Castagnoli): reflected polynomial 0x82F63B78, initial value and final XOR all ones.
 *
 * Node's `zlib.crc32` has the IEEE polynomial and does not fit. Slicing by 8: eight bytes a step by eight tables of 256
 * words, so that the log of a VHDX (up to 1 GiB of untrusted bytes) is checked at memory speed rather than bit by bit.
 */

const POLYNOMIAL = 0x82f63b78;
/** Table k at k * 256: the register after a byte and k zero bytes behind it. */
const TABLES = buildTables();

/** CRC-32C of `bytes`, or of what `previous` was the CRC of followed by `bytes`. */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wholeBytes = bytes.byteLength & ~7;
  const tables = TABLES;
  let crc = ~previous;
  let i = 0;
  for (; i < wholeBytes; i += 8) {
    const low = crc ^ view.getInt32(i, true);
    const high = view.getInt32(i + 4, true);
    crc =
      tables[1792 + (low & 0xff)]! ^
      tables[1536 + ((low >>> 8) & 0xff)]! ^
      tables[1280 + ((low >>> 16) & 0xff)]! ^
      tables[1024 + (low >>> 24)]! ^
      tables[768 + (high & 0xff)]! ^
      tables[512 + ((high >>> 8) & 0xff)]! ^
      tables[256 + ((high >>> 16) & 0xff)]! ^
      tables[high >>> 24]!;
  }
  for (; i < bytes.byteLength; i += 1) crc = (crc >>> 8) ^ tables[(crc ^ bytes[i]!) & 0xff]!;
  return ~crc >>> 0;
}

const ZERO_FIELD = new Uint8Array(4);

/** CRC-32C of a structure that holds its own checksum at `fieldOffset`: those four bytes count as zeros. */
export function crc32cWithoutField(bytes: Uint8Array, fieldOffset: number): number {
  const before = crc32c(bytes.subarray(0, fieldOffset));
  return crc32c(bytes.subarray(fieldOffset + 4), crc32c(ZERO_FIELD, before));
}

function buildTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
    tables[byte] = crc;
  }
  for (let i = 256; i < tables.length; i += 1) {
    const previous = tables[i - 256]!;
    tables[i] = (previous >>> 8) ^ tables[previous & 0xff]!;
  }
  return tables;
}
