/**
 * One request of the transmission phase, and why it may be refused. Pure: 28 bytes in, values out.
 *
 *     0 u32 magic   4 u16 flags   6 u16 type   8 u64 cookie   16 u64 offset   24 u32 length
 */
import { NBD_REQUEST_BYTES_MAX } from '../../limits.ts';
import * as nbd from './protocol.ts';
import { violation } from './violation.ts';

/** An error of the protocol, and what the client is told beside it. */
export interface Refusal {
  readonly error: number;
  readonly reason: string;
}

/** What a connection agreed on, as far as it decides about requests. */
export interface Terms {
  readonly sizeBytes: number;
  /** Offset and length are multiples of it. */
  readonly alignmentBytes: number;
  readonly zeroIsFast: boolean;
  readonly isStructured: boolean;
  readonly hasContexts: boolean;
}

export const DISK_FAILED: Refusal = { error: nbd.NBD_EIO, reason: 'the disk reports an error' };
export const DISK_FULL: Refusal = { error: nbd.NBD_ENOSPC, reason: 'there is no space left for the disk' };
export const WRITES_STOPPED: Refusal = { error: nbd.NBD_EPERM, reason: 'changes of the disk were stopped' };
export const SHUTTING_DOWN: Refusal = { error: nbd.NBD_ESHUTDOWN, reason: 'the server shuts down' };
const UNKNOWN_TYPE: Refusal = { error: nbd.NBD_EINVAL, reason: 'the type of the request is not known here' };
const WRONG_FLAGS: Refusal = { error: nbd.NBD_EINVAL, reason: 'a flag does not belong to the request' };
const WRONG_FLUSH: Refusal = { error: nbd.NBD_EINVAL, reason: 'a flush has neither offset nor length' };
const EMPTY: Refusal = { error: nbd.NBD_EINVAL, reason: 'the length is zero' };
const OUTSIDE: Refusal = { error: nbd.NBD_EINVAL, reason: 'the range ends beyond the disk' };
const CHANGE_OUTSIDE: Refusal = { error: nbd.NBD_ENOSPC, reason: OUTSIDE.reason };
const UNALIGNED: Refusal = { error: nbd.NBD_EINVAL, reason: 'the range is no multiple of the smallest block' };
const TOO_LONG: Refusal = { error: nbd.NBD_EINVAL, reason: 'the length is above the limit for one request' };
const READ_TOO_LONG: Refusal = { error: nbd.NBD_EOVERFLOW, reason: TOO_LONG.reason };
const NO_CONTEXT: Refusal = { error: nbd.NBD_EINVAL, reason: 'no metadata context was chosen' };
const NOT_FAST: Refusal = { error: nbd.NBD_ENOTSUP, reason: 'zeros are no quicker than a write' };

/** Flags that each type may have, by type; FUA is allowed everywhere. -1: there is no such type. */
const FLAGS: readonly number[] = [
  nbd.FLAG_FUA | nbd.FLAG_DF,
  nbd.FLAG_FUA,
  -1,
  nbd.FLAG_FUA,
  nbd.FLAG_FUA,
  -1,
  nbd.FLAG_FUA | nbd.FLAG_NO_HOLE | nbd.FLAG_FAST_ZERO,
  nbd.FLAG_FUA | nbd.FLAG_REQ_ONE,
];

/** Memory that one or more requests use; whoever lets go last frees it. */
export interface Lease {
  users: number;
  /** What is held for it. */
  lengthBytes: number;
  /** Memory that can be used again; undefined where somebody may look at it for longer, or it is Node's. */
  buffer: Buffer | undefined;
}

export class Request {
  readonly flags: number;
  readonly type: number;
  /** The client's name for the request, in two halves: it is only given back. */
  readonly cookieHigh: number;
  readonly cookieLow: number;
  /** Exact as far as disks reach; what lies beyond is rounded, and still beyond. */
  readonly offset: number;
  readonly lengthBytes: number;
  refusal: Refusal | undefined = undefined;
  /** The data of a WRITE, and the memory it lies in. */
  payload: Buffer | undefined = undefined;
  lease: Lease | undefined = undefined;

  /** Reads the 28 bytes from `at`. @throws NBD_PROTOCOL without the magic number */
  constructor(bytes: Buffer, at: number) {
    const magic = bytes.readUInt32BE(at);
    if (magic !== nbd.REQUEST_MAGIC) {
      throw violation(`a request begins with 0x${magic.toString(16)}, not with its magic number`);
    }
    this.flags = bytes.readUInt16BE(at + 4);
    this.type = bytes.readUInt16BE(at + 6);
    this.cookieHigh = bytes.readUInt32BE(at + 8);
    this.cookieLow = bytes.readUInt32BE(at + 12);
    this.offset = bytes.readUInt32BE(at + 16) * 0x1_0000_0000 + bytes.readUInt32BE(at + 20);
    this.lengthBytes = bytes.readUInt32BE(at + 24);
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }
}

/** Why the request cannot be served; undefined if it can. DISCONNECT is no matter of this. */
export function refusalOf(request: Request, terms: Terms): Refusal | undefined {
  const { type, flags, offset, lengthBytes } = request;
  const allowed = FLAGS[type] ?? -1;
  if (allowed === -1) return UNKNOWN_TYPE;
  if ((flags & ~allowed) !== 0) return WRONG_FLAGS;
  if (type === nbd.FLUSH) return offset === 0 && lengthBytes === 0 ? undefined : WRONG_FLUSH;
  if (lengthBytes === 0) return EMPTY;
  if (offset + lengthBytes > terms.sizeBytes) {
    return type === nbd.WRITE || type === nbd.WRITE_ZEROES ? CHANGE_OUTSIDE : OUTSIDE;
  }
  if (offset % terms.alignmentBytes !== 0 || lengthBytes % terms.alignmentBytes !== 0) return UNALIGNED;
  if (type === nbd.READ) return refusalOfRead(request, terms);
  if (type === nbd.BLOCK_STATUS && !terms.hasContexts) return NO_CONTEXT;
  if ((flags & nbd.FLAG_FAST_ZERO) !== 0 && !terms.zeroIsFast) return NOT_FAST;
  return undefined;
}

function refusalOfRead(request: Request, { isStructured }: Terms): Refusal | undefined {
  if (request.has(nbd.FLAG_DF) && !isStructured) return WRONG_FLAGS;
  if (request.lengthBytes <= NBD_REQUEST_BYTES_MAX) return undefined;
  return isStructured ? READ_TOO_LONG : TOO_LONG;
}
