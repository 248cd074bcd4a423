/**
 * Bytes: units, rounding, and a bounds-checked cursor over untrusted bytes.
 *
 * `ByteReader` never reads outside its bytes and never wraps: a short structure is the typed error its caller names,
 * with the absolute offset in the file. It hands out views, not copies; whoever owns the buffer owns the views.
 */
import { BlockferryError, type ErrorCode } from './errors.ts';

export const KIB = 1024;
export const MIB: number = 1024 * KIB;
export const GIB: number = 1024 * MIB;
export const TIB: number = 1024 * GIB;
/** The smallest unit of a disk and of a page blob. */
export const SECTOR_BYTES = 512;

/** a / b rounded up, for non-negative safe integers. */
export function divCeil(a: number, b: number): number {
  return Math.floor((a + b - 1) / b);
}

/** The smallest multiple of `unit` that is not below `value`. */
export function alignUp(value: number, unit: number): number {
  return divCeil(value, unit) * unit;
}

/** The greatest multiple of `unit` that is not above `value`. */
export function alignDown(value: number, unit: number): number {
  return value - (value % unit);
}

/** Whether `value` is a power of two (1, 2, 4 …). Right above 2^32 as well. */
export function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}

/** A view of the same memory as a Buffer, without a copy. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Whether both hold the same bytes. Not constant time: never for secrets. */
export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.byteLength === b.byteLength && asBuffer(a).equals(b);
}

/** Where bytes come from and what it means when they are too short. */
export interface ByteOrigin {
  /** Path or key of the thing, for messages. */
  readonly source: string;
  /** Absolute offset of the first byte in that thing. */
  readonly offset: number;
  /** Code of the error for a structure that ends early or holds a number out of range. */
  readonly code: ErrorCode;
}

/** A bounds-checked cursor. Little-endian methods end in LE, big-endian ones in BE. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #origin: ByteOrigin;
  #position = 0;

  constructor(bytes: Uint8Array, origin: ByteOrigin) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#origin = origin;
  }

  get position(): number {
    return this.#position;
  }

  get remaining(): number {
    return this.#bytes.byteLength - this.#position;
  }

  /** Moves to `position` (0 … length). */
  seek(position: number): this {
    if (!Number.isSafeInteger(position) || position < 0 || position > this.#bytes.byteLength) {
      throw this.#short(0, position);
    }
    this.#position = position;
    return this;
  }

  skip(lengthBytes: number): this {
    this.#take(lengthBytes);
    return this;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16LE(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  u16BE(): number {
    return this.#view.getUint16(this.#take(2), false);
  }

  u32LE(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u32BE(): number {
    return this.#view.getUint32(this.#take(4), false);
  }

  u64LE(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  u64BE(): bigint {
    return this.#view.getBigUint64(this.#take(8), false);
  }

  /** A u64 that must not exceed `max` (a safe integer), as a number. */
  sizeLE(field: string, max: number): number {
    return this.#bounded(field, this.u64LE(), max);
  }

  /** A big-endian u64 that must not exceed `max` (a safe integer), as a number. */
  sizeBE(field: string, max: number): number {
    return this.#bounded(field, this.u64BE(), max);
  }

  /** A view of the next `lengthBytes` bytes; no copy. */
  bytes(lengthBytes: number): Uint8Array {
    const start = this.#take(lengthBytes);
    return this.#bytes.subarray(start, start + lengthBytes);
  }

  #bounded(field: string, value: bigint, max: number): number {
    if (value <= BigInt(max)) return Number(value);
    const at = this.#origin.offset + this.#position - 8;
    throw new BlockferryError(
      this.#origin.code,
      `${this.#origin.source}: ${field} at offset ${at} is ${value}, above the limit of ${max}`,
      { facts: { source: this.#origin.source, offset: at, rule: `${field} is at most ${max}`, value } },
    );
  }

  #take(lengthBytes: number): number {
    const start = this.#position;
    if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 0 || lengthBytes > this.remaining) {
      throw this.#short(lengthBytes, start);
    }
    this.#position = start + lengthBytes;
    return start;
  }

  #short(lengthBytes: number, position: number): BlockferryError {
    const at = this.#origin.offset + position;
    return new BlockferryError(
      this.#origin.code,
      `${this.#origin.source}: ${lengthBytes} bytes needed at offset ${at}, ${Math.max(0, this.#bytes.byteLength - position)} are there`,
      { facts: { source: this.#origin.source, offset: at, rule: 'structure ends inside its bounds' } },
    );
  }
}

const SIZE_UNITS: Readonly<Record<string, number>> = { '': 1, b: 1, k: KIB, m: MIB, g: GIB, t: TIB };

/** `64KiB`, `4M`, `1.5G`, `512` → bytes. Units are powers of 1024. @throws {RangeError} if it is no size. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  const bytes = match ? Number(match[1]) * (SIZE_UNITS[(match[2] ?? '').toLowerCase()] ?? Number.NaN) : Number.NaN;
  if (!Number.isSafeInteger(bytes)) throw new RangeError(`"${text}" is not a size; write for example 64KiB or 4M`);
  return bytes;
}

/** 1536 → `1.5 KiB`. */
export function formatSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}
