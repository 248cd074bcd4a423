/** Answers of the transmission phase as bytes; protocol.ts has the byte maps. */
import type { StatusExtent } from './block-device.ts';
import * as nbd from './protocol.ts';
import type { Refusal, Request } from './request.ts';

/** What stands before the data of a READ: a simple reply, or a chunk of data with its offset. */
export const SIMPLE_READ_HEADER_BYTES: number = nbd.SIMPLE_REPLY_BYTES;
export const CHUNK_READ_HEADER_BYTES: number = nbd.CHUNK_HEADER_BYTES + 8;

/** The halves of a cookie. */
export type Cookie = Pick<Request, 'cookieHigh' | 'cookieLow'>;

export function writeSimpleReply(into: Buffer, at: number, { cookieHigh, cookieLow }: Cookie, error: number): void {
  into.writeUInt32BE(nbd.SIMPLE_REPLY_MAGIC, at);
  into.writeUInt32BE(error, at + 4);
  into.writeUInt32BE(cookieHigh, at + 8);
  into.writeUInt32BE(cookieLow, at + 12);
}

/** The header of a chunk of data that ends with `into`. */
export function writeDataHeader(into: Buffer, cookie: Cookie, offset: number, isLast: boolean): void {
  writeChunkHeader(into, cookie, nbd.CHUNK_OFFSET_DATA, isLast);
  into.writeBigUInt64BE(BigInt(offset), nbd.CHUNK_HEADER_BYTES);
}

/** `lengthBytes` zeros from `offset`. */
export function holeChunk(cookie: Cookie, offset: number, lengthBytes: number, isLast: boolean): Buffer {
  const bytes = Buffer.allocUnsafe(nbd.CHUNK_HEADER_BYTES + 12);
  writeChunkHeader(bytes, cookie, nbd.CHUNK_OFFSET_HOLE, isLast);
  bytes.writeBigUInt64BE(BigInt(offset), nbd.CHUNK_HEADER_BYTES);
  bytes.writeUInt32BE(lengthBytes, nbd.CHUNK_HEADER_BYTES + 8);
  return bytes;
}

/** `extents`: at least one. */
export function statusChunk(
  cookie: Cookie,
  context: number,
  extents: readonly StatusExtent[],
  isLast: boolean,
): Buffer {
  const bytes = Buffer.allocUnsafe(nbd.CHUNK_HEADER_BYTES + 4 + 8 * extents.length);
  writeChunkHeader(bytes, cookie, nbd.CHUNK_BLOCK_STATUS, isLast);
  let at = bytes.writeUInt32BE(context, nbd.CHUNK_HEADER_BYTES);
  for (const { lengthBytes, flags } of extents) {
    at = bytes.writeUInt32BE(lengthBytes, at);
    at = bytes.writeUInt32BE(flags, at);
  }
  return bytes;
}

/** The only chunk of an answer that says no. */
export function errorChunk(cookie: Cookie, { error, reason }: Refusal): Buffer {
  const message = Buffer.from(reason);
  const bytes = Buffer.allocUnsafe(nbd.CHUNK_HEADER_BYTES + 6 + message.byteLength);
  writeChunkHeader(bytes, cookie, nbd.CHUNK_ERROR, true);
  bytes.writeUInt32BE(error, nbd.CHUNK_HEADER_BYTES);
  bytes.writeUInt16BE(message.byteLength, nbd.CHUNK_HEADER_BYTES + 4);
  message.copy(bytes, nbd.CHUNK_HEADER_BYTES + 6);
  return bytes;
}

/** The header of the chunk that `bytes` is. */
function writeChunkHeader(bytes: Buffer, { cookieHigh, cookieLow }: Cookie, type: number, isLast: boolean): void {
  bytes.writeUInt32BE(nbd.CHUNK_MAGIC, 0);
  bytes.writeUInt16BE(isLast ? nbd.CHUNK_DONE : 0, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeUInt32BE(cookieHigh, 8);
  bytes.writeUInt32BE(cookieLow, 12);
  bytes.writeUInt32BE(bytes.byteLength - nbd.CHUNK_HEADER_BYTES, 16);
}
