/**
 * Sealed records: the shape that slots, manifest pages and frames of shipped logs share.
 *
 *     header 64 (clear, authenticated) | ciphertext clen | tag 16 | zeros
 *
 *     0 magic 4 | 4 version 1 | 5 suite 1 | 6 compression 1 | 7 flags 1 | 8 epoch u32 | 12 clen u32
 *     16 generation u64 | 24 nonce 24 | 48 plaintext length u32 | 52 reserved 12
 *
 *     AAD = label 8 | replica id 16 | disk id 16 | number u64 (chunk or page) | header 64
 *
 * The nonce is hedged: HMAC-SHA256(K_nonce, random 32 | AAD without nonce | what identifies the plaintext), cut to 24.
 * With sound randomness it is random; with a broken one it repeats only for the same content at the same place and
 * generation, which then leaks that equality and nothing else. No state is kept, so no state can be rolled back.
 *
 * What opens is authentic: sealed by a holder of the key for this replica, disk, number and generation. Whether it is
 * the *newest* such record, only the expected entry tells; a record of a kind that is ever replaced is therefore never
 * opened without one. A frame of a shipped log is never replaced: the log's random id, in the place of the disk id, is its entry.
 */
import assert from 'node:assert/strict';
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';
import type { BlockferryError } from '../errors.ts';
import { HEADER_BYTES, TAG_BYTES } from './geometry.ts';
import type { EpochKeys } from './keys.ts';
import { NONCE_BYTES, XaesKey } from './xaes.ts';
import { isZero } from './zero.ts';

/** Length of a replica id and of a disk id. */
export const ID_BYTES = 16;
const RANDOM_BYTES = 32;
const NO_PADDING: Uint8Array = new Uint8Array(0);
const VERSION = 1;
const SUITE_XAES_256_GCM = 1;

/** Offsets of the header fields. */
export const HEADER = {
  magic: 0,
  version: 4,
  suite: 5,
  compression: 6,
  flags: 7,
  epoch: 8,
  clen: 12,
  generation: 16,
  nonce: 24,
  plaintextLength: 48,
  reserved: 52,
} as const;

const AAD = { label: 0, replicaId: 8, diskId: 24, number: 40, header: 48, total: 112 } as const;
const AAD_NONCE = AAD.header + HEADER.nonce;

/** Who seals and opens: one disk (or shipped log) of one replica, with the keys of its epochs. */
export interface SealingContext {
  readonly replicaId: Uint8Array;
  readonly diskId: Uint8Array;
  readonly epochs: ReadonlyMap<number, EpochKeys>;
  /** The epoch new records are sealed under; must be among `epochs`. */
  readonly currentEpoch: number;
  readonly randomBytes: (lengthBytes: number) => Uint8Array;
}

/** What distinguishes the kinds of record. */
export interface RecordKind {
  /** First 8 bytes of the AAD. */
  readonly label: 'rslot1\0\0' | 'rpage1\0\0' | 'rlogf1\0\0';
  readonly purpose: 'data' | 'page';
  /** The error for a record that breaks a rule. */
  readonly fault: (number: number, rule: string) => BlockferryError;
}

/** What to seal. The content is `head` followed by `tail`, which may be empty. */
export interface RecordToSeal {
  readonly magic: number;
  /** Number of the chunk or page. */
  readonly number: number;
  readonly generation: number;
  readonly compression: number;
  readonly plaintextLength: number;
  readonly head: Uint8Array;
  readonly tail: Uint8Array;
  /** What identifies the plaintext (its fingerprint, or itself); it only goes into the nonce. */
  readonly identity: Uint8Array;
}

/** What a record must be, by its place and by the authenticated entry or reference that names it. */
export interface ExpectedRecord {
  readonly magic: number;
  readonly number: number;
  readonly compressionMax: number;
  readonly plaintextLength: number;
  readonly generation: number;
  readonly epoch: number;
  readonly clen: number;
  readonly tag: Uint8Array;
}

/** What a record must be that no entry names. Its lengths and its epoch are its own, authenticated with it. */
export interface ExpectedSelf {
  readonly magic: number;
  readonly number: number;
  readonly generation: number;
  readonly compressionMax: number;
  readonly plaintextMin: number;
  readonly plaintextMax: number;
  /** A compressed content is at least so long. */
  readonly packedMin: number;
}

/** A record that was opened by what it says of itself. */
export interface OpenedRecord {
  /** In a new buffer. */
  readonly content: Buffer;
  readonly compression: number;
  readonly plaintextLength: number;
}

interface EpochSealer {
  readonly content: XaesKey;
  readonly nonce: KeyObject;
}

/** Throws a RangeError unless `value` can stand in a u64 and be held as a number. */
export function checkGeneration(value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`${value} is no generation (1 … 2^53 - 1)`);
}

/** Seals and opens records of one kind, of one disk. Not to be shared between threads. */
export class RecordCipher {
  readonly #kind: RecordKind;
  readonly #sealers: Map<number, EpochSealer> = new Map();
  readonly #context: SealingContext;
  /** Label and ids stand in it for good; number and header are written per record. */
  readonly #aad: Buffer = Buffer.alloc(AAD.total);
  readonly #header: Buffer = this.#aad.subarray(AAD.header);
  readonly #nonce: Buffer = this.#header.subarray(HEADER.nonce, HEADER.nonce + NONCE_BYTES);

  constructor(kind: RecordKind, context: SealingContext) {
    checkId('replica', context.replicaId);
    checkId('disk', context.diskId);
    if (!context.epochs.has(context.currentEpoch)) throw new RangeError(`no keys of epoch ${context.currentEpoch}`);
    this.#kind = kind;
    this.#context = context;
    this.#aad.write(kind.label, AAD.label, 'latin1');
    this.#aad.set(context.replicaId, AAD.replicaId);
    this.#aad.set(context.diskId, AAD.diskId);
  }

  /** The epoch that `seal` uses. */
  get currentEpoch(): number {
    return this.#context.currentEpoch;
  }

  /** Writes header, ciphertext, tag, and zeros up to `recordBytes` into `into` from `offset`. */
  seal(record: RecordToSeal, into: Buffer, offset: number, recordBytes: number): void {
    const { head, tail } = record;
    checkGeneration(record.generation);
    if (offset + recordBytes > into.byteLength) {
      throw new RangeError(`a record of ${recordBytes} bytes at ${offset} does not fit into ${into.byteLength}`);
    }
    const clen = head.byteLength + tail.byteLength;
    const sealer = this.#sealer(this.#context.currentEpoch);
    const header = this.#header.fill(0);
    header.writeUInt32LE(record.magic, HEADER.magic);
    header[HEADER.version] = VERSION;
    header[HEADER.suite] = SUITE_XAES_256_GCM;
    header[HEADER.compression] = record.compression;
    header.writeUInt32LE(this.#context.currentEpoch, HEADER.epoch);
    header.writeUInt32LE(clen, HEADER.clen);
    writeU64(header, HEADER.generation, record.generation);
    header.writeUInt32LE(record.plaintextLength, HEADER.plaintextLength);
    writeU64(this.#aad, AAD.number, record.number);
    this.#nonce.set(this.#hedgedNonce(sealer.nonce, record.identity));
    into.set(header, offset);
    sealer.content.sealInto(this.#nonce, this.#aad, head, tail, into, offset + HEADER_BYTES);
    into.fill(0, offset + HEADER_BYTES + clen + TAG_BYTES, offset + recordBytes);
  }

  /**
   * The plaintext, in a new buffer. `bytes` has its exact length already. The order of checks is that of the format
   * page; nothing is decrypted that the expectation does not name.
   */
  open(bytes: Uint8Array, expected: ExpectedRecord): Buffer {
    const { number } = expected;
    const header = this.#header;
    header.set(bytes.subarray(0, HEADER_BYTES));
    const end = HEADER_BYTES + expected.clen;
    const tag = bytes.subarray(end, end + TAG_BYTES);
    const padding = bytes.subarray(end + TAG_BYTES);
    const rule = headerFault(header, padding, expected) ?? entryFault(header, tag, expected);
    if (rule !== undefined) throw this.#kind.fault(number, rule);
    return this.#decrypt(bytes.subarray(HEADER_BYTES, end + TAG_BYTES), number, expected.epoch);
  }

  /** The content of a record of its exact length, without padding, that says itself how long it is. */
  openSelfDescribed(bytes: Uint8Array, expected: ExpectedSelf): OpenedRecord {
    const { number } = expected;
    if (bytes.byteLength < HEADER_BYTES) throw this.#kind.fault(number, 'the header is whole');
    const header = this.#header;
    header.set(bytes.subarray(0, HEADER_BYTES));
    const rule = headerFault(header, NO_PADDING, expected) ?? selfFault(header, bytes.byteLength, expected);
    if (rule !== undefined) throw this.#kind.fault(number, rule);
    const compression = header[HEADER.compression]!;
    const plaintextLength = header.readUInt32LE(HEADER.plaintextLength);
    const content = this.#decrypt(bytes.subarray(HEADER_BYTES), number, header.readUInt32LE(HEADER.epoch));
    return { content, compression, plaintextLength };
  }

  /** Opens ciphertext and tag under the header that stands in the AAD. */
  #decrypt(sealed: Uint8Array, number: number, epoch: number): Buffer {
    if (!this.#context.epochs.has(epoch)) throw this.#kind.fault(number, 'keys of its epoch are at hand');
    writeU64(this.#aad, AAD.number, number);
    const plaintext = this.#sealer(epoch).content.open(this.#nonce, this.#aad, sealed);
    if (plaintext === undefined) throw this.#kind.fault(number, 'authentication tag verifies');
    return plaintext;
  }

  #hedgedNonce(key: KeyObject, identity: Uint8Array): Buffer {
    const random = this.#context.randomBytes(RANDOM_BYTES);
    assert(random.byteLength === RANDOM_BYTES, 'the random port returns as many bytes as it was asked for');
    const hmac = createHmac('sha256', key).update(random);
    hmac.update(this.#aad.subarray(0, AAD_NONCE));
    hmac.update(this.#aad.subarray(AAD_NONCE + NONCE_BYTES));
    return hmac.update(identity).digest().subarray(0, NONCE_BYTES);
  }

  #sealer(epoch: number): EpochSealer {
    const known = this.#sealers.get(epoch);
    if (known !== undefined) return known;
    const keys = this.#context.epochs.get(epoch);
    if (keys === undefined) throw new RangeError(`no keys of epoch ${epoch}`);
    const made = { content: new XaesKey(keys[this.#kind.purpose]), nonce: createSecretKey(keys.nonce) };
    this.#sealers.set(epoch, made);
    return made;
  }
}

/** The rule that header or padding break by themselves. */
function headerFault(
  header: Buffer,
  padding: Uint8Array,
  expected: Pick<ExpectedRecord, 'magic' | 'compressionMax'>,
): string | undefined {
  if (header.readUInt32LE(HEADER.magic) !== expected.magic) return 'magic is right';
  if (header[HEADER.version] !== VERSION) return 'version is 1';
  if (header[HEADER.suite] !== SUITE_XAES_256_GCM) return 'cipher suite is 1';
  if (header[HEADER.compression]! > expected.compressionMax) return 'compression is known';
  if (header[HEADER.flags] !== 0) return 'flags are zero';
  if (!isZero(header.subarray(HEADER.reserved))) return 'reserved bytes are zero';
  if (!isZero(padding)) return 'padding is zero';
  return undefined;
}

/** The rule that header or tag break against what is expected of this record. */
function entryFault(header: Buffer, tag: Uint8Array, expected: ExpectedRecord): string | undefined {
  if (header.readUInt32LE(HEADER.plaintextLength) !== expected.plaintextLength) return 'plaintext length is right';
  if (header.readUInt32LE(HEADER.clen) !== expected.clen) return 'clen is that of the manifest';
  if (header.readBigUInt64LE(HEADER.generation) !== BigInt(expected.generation)) {
    return 'generation is that of the manifest';
  }
  if (header.readUInt32LE(HEADER.epoch) !== expected.epoch) return 'epoch is that of the manifest';
  if (!timingSafeEqual(tag, expected.tag)) return 'tag is that of the manifest';
  return undefined;
}

/** The rule that a header breaks that is taken at its word. */
function selfFault(header: Buffer, recordBytes: number, expected: ExpectedSelf): string | undefined {
  const clen = header.readUInt32LE(HEADER.clen);
  const plaintextLength = header.readUInt32LE(HEADER.plaintextLength);
  const { plaintextMin, plaintextMax, packedMin } = expected;
  if (header.readBigUInt64LE(HEADER.generation) !== BigInt(expected.generation)) return 'generation is right';
  if (plaintextLength < plaintextMin || plaintextLength > plaintextMax) {
    return `plaintext has ${plaintextMin} … ${plaintextMax} bytes`;
  }
  const fits =
    header[HEADER.compression] === 0 ? clen === plaintextLength : clen >= packedMin && clen < plaintextLength;
  if (!fits) return 'clen fits the compression';
  return recordBytes === HEADER_BYTES + clen + TAG_BYTES ? undefined : 'length is exactly that of the header';
}

/** Writes a safe integer as u64, without a bigint. */
export function writeU64(bytes: Uint8Array, offset: number, value: number): void {
  let rest = value;
  for (let i = 0; i < 8; i += 1) {
    bytes[offset + i] = rest % 256;
    rest = Math.floor(rest / 256);
  }
}

function checkId(what: string, id: Uint8Array): void {
  if (id.byteLength !== ID_BYTES) throw new RangeError(`a ${what} id has ${ID_BYTES} bytes, not ${id.byteLength}`);
}
