/**
 * A file of a gateway's cache: one object that a client wrote and that waits for its store, or that was last seen there.
 *
 *     offset  bytes
 *     0       8     magic "BFSPOOL1"
 *     8       4     u32 kind: 1 object, 2 root
 *     12      4     u32 bytes of a piece, 1 … 4 MiB
 *     16      8     u64 bytes of the body
 *     24      8     u64 when it was accepted, Unix milliseconds
 *     32      32    SHA-256 of the root that this one follows; zeros for an object
 *     64      2     u16 length of the key
 *     66      512   key, ASCII, zeros behind it
 *     992     32    SHA-256 of bytes [0, 992) and of the table
 *     1024    …     body
 *     …       32 n  table: SHA-256 of each piece of the body
 *
 * Numbers are little-endian. Nothing of a file is believed before its checksum was compared; the body is compared piece by piece as
 * it is read, so that a file of any length needs the memory of one piece.
 */
import { createHash } from 'node:crypto';
import { ByteReader, bytesEqual, divCeil } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { STAGED_PART_BYTES_MAX, STAGED_PARTS_MAX, STORE_KEY_CHARACTERS_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import { isKey } from '../transport/index.ts';

const MAGIC = Buffer.from('BFSPOOL1', 'latin1');
export const SPOOL_HEADER_BYTES = 1024;
const CHECKSUM_OFFSET = 992;
export const DIGEST_BYTES = 32;
const KINDS = { object: 1, root: 2 } as const;

export interface SpoolHeader {
  readonly kind: keyof typeof KINDS;
  readonly key: string;
  readonly pieceBytes: number;
  readonly bodyBytes: number;
  readonly acceptedMs: number;
  /** SHA-256 of the root that this one follows. */
  readonly follows?: Uint8Array;
}

/** A header with the digests of the pieces. */
export interface SpoolEntry extends SpoolHeader {
  readonly table: Uint8Array;
}

export function sha256(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

/** Digests of all pieces of a body that is at hand. */
export function tableOf(body: Uint8Array, pieceBytes: number): Uint8Array {
  const table = Buffer.alloc(divCeil(body.byteLength, pieceBytes) * DIGEST_BYTES);
  for (let at = 0, i = 0; at < body.byteLength; at += pieceBytes, i += 1) {
    table.set(sha256(body.subarray(at, at + pieceBytes)), i * DIGEST_BYTES);
  }
  return table;
}

export function encodeHeader({ kind, key, pieceBytes, bodyBytes, acceptedMs, follows, table }: SpoolEntry): Uint8Array {
  const bytes = Buffer.alloc(SPOOL_HEADER_BYTES);
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(KINDS[kind], 8);
  bytes.writeUInt32LE(pieceBytes, 12);
  bytes.writeBigUInt64LE(BigInt(bodyBytes), 16);
  bytes.writeBigUInt64LE(BigInt(acceptedMs), 24);
  if (follows) bytes.set(follows, 32);
  bytes.writeUInt16LE(key.length, 64);
  bytes.write(key, 66, 'latin1');
  bytes.set(checksumOf(bytes, table), CHECKSUM_OFFSET);
  return bytes;
}

/** A whole file, for a body that is at hand. */
export function encodeFile(header: Omit<SpoolHeader, 'bodyBytes' | 'pieceBytes'>, body: Uint8Array): Uint8Array {
  const pieceBytes = STAGED_PART_BYTES_MAX;
  const table = tableOf(body, pieceBytes);
  const entry = { ...header, pieceBytes, bodyBytes: body.byteLength, table };
  return Buffer.concat([encodeHeader(entry), body, table]);
}

/** Reads and compares all but the body. @throws GATEWAY_CACHE */
export async function readEntry(file: RandomAccessFile): Promise<SpoolEntry> {
  const source = file.path;
  const bytes = Buffer.alloc(SPOOL_HEADER_BYTES);
  const got = await file.read(bytes, 0);
  const reader = new ByteReader(bytes.subarray(0, got), { source, offset: 0, code: 'GATEWAY_CACHE' });
  if (!bytesEqual(reader.bytes(MAGIC.byteLength), MAGIC)) throw damaged(source, 0, 'magic is BFSPOOL1');
  const kind = reader.u32LE();
  const pieceBytes = reader.u32LE();
  const bodyBytes = Number(reader.u64LE());
  const acceptedMs = Number(reader.u64LE());
  const follows = Buffer.from(reader.bytes(DIGEST_BYTES));
  const keyLength = reader.u16LE();
  if (pieceBytes < 1 || pieceBytes > STAGED_PART_BYTES_MAX) throw damaged(source, 12, 'a piece has 1 byte to 4 MiB');
  const pieces = divCeil(bodyBytes, pieceBytes);
  if (!Number.isSafeInteger(bodyBytes) || pieces > STAGED_PARTS_MAX)
    throw damaged(source, 16, 'a body has 50000 pieces');
  if (keyLength > STORE_KEY_CHARACTERS_MAX) throw damaged(source, 64, 'a key has at most 512 characters');
  const table = Buffer.alloc(pieces * DIGEST_BYTES);
  const tableOffset = SPOOL_HEADER_BYTES + bodyBytes;
  if ((await file.read(table, tableOffset)) < table.byteLength)
    throw damaged(source, tableOffset, 'the table is whole');
  if (!bytesEqual(checksumOf(bytes, table), bytes.subarray(CHECKSUM_OFFSET))) {
    throw damaged(source, CHECKSUM_OFFSET, 'the checksum of header and table holds');
  }
  const key = bytes.toString('latin1', 66, 66 + keyLength);
  if (!isKey(key) || (kind !== KINDS.object && kind !== KINDS.root)) throw damaged(source, 8, 'kind and key are known');
  const common = { key, pieceBytes, bodyBytes, acceptedMs, table };
  return kind === KINDS.root ? { ...common, kind: 'root', follows } : { ...common, kind: 'object' };
}

/** One piece of the body, compared. @throws GATEWAY_CACHE */
export async function readPiece(file: RandomAccessFile, entry: SpoolEntry, index: number): Promise<Uint8Array> {
  const at = index * entry.pieceBytes;
  const bytes = Buffer.allocUnsafeSlow(Math.min(entry.pieceBytes, entry.bodyBytes - at));
  const got = await file.read(bytes, SPOOL_HEADER_BYTES + at);
  const digest = entry.table.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES);
  if (got === bytes.byteLength && bytesEqual(sha256(bytes), digest)) return bytes;
  throw damaged(file.path, SPOOL_HEADER_BYTES + at, `the checksum of piece ${index} holds`);
}

function checksumOf(header: Uint8Array, table: Uint8Array): Uint8Array {
  return createHash('sha256').update(header.subarray(0, CHECKSUM_OFFSET)).update(table).digest();
}

function damaged(source: string, offset: number, rule: string): BlockferryError {
  return new BlockferryError('GATEWAY_CACHE', `${source}: offset ${offset} breaks the rule "${rule}"`, {
    facts: { source, offset, rule },
    hint: 'the volume of the cache lost or changed what was written; machines ship again what they still have',
  });
}
