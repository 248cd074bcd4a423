/**
 * Slots: one chunk of a sealed base, compressed and sealed by itself (docs/formats/replica.md, "Slot").
 *
 *     header 64 | ciphertext clen | tag 16 | zeros up to a multiple of 512
 *
 * Content under compression 0 is the chunk; else `payload length u32 | payload | zeros up to a multiple of 4 KiB`, so the
 * clear clen tells the compressed length only to the bucket.
 *
 * `open` returns the bytes that were sealed for exactly this replica, disk, chunk and manifest entry, or throws
 * REPLICA_SLOT. The AAD alone would accept an older slot of the same chunk: the entry is what stops a rollback.
 */
import { alignUp, bytesEqual, KIB } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { COMPRESSION_CODE_MAX, COMPRESSION_CODES, type Codec, decompress, PAYLOAD_LENGTH_BYTES } from './codec.ts';
import { FINGERPRINT_BYTES, type Fingerprinter } from './fingerprint.ts';
import { HEADER_BYTES, paddedSlotBytes, TAG_BYTES } from './geometry.ts';
import type { ManifestEntry } from './manifest-entry.ts';
import { HEADER, RecordCipher, type RecordKind, type SealingContext } from './record.ts';
import { isZero } from './zero.ts';

/** Compressed content is padded to a multiple of this. */
export const PADDING_BUCKET_BYTES: number = 4 * KIB;
/** `RSL1` as a little-endian u32. */
const MAGIC_SLOT = 0x314c_5352;
const NO_BYTES: Uint8Array = new Uint8Array(0);
const BUCKET_ZEROS: Uint8Array = new Uint8Array(PADDING_BUCKET_BYTES);

const SLOT_KIND: RecordKind = { label: 'rslot1\0\0', purpose: 'data', fault: slotFault };

/** What `seal` wrote. */
export interface SealedSlot {
  /** Bytes to store: a multiple of 512. */
  readonly paddedBytes: number;
  /** Bytes of ciphertext. */
  readonly clen: number;
}

/** Seals and opens the slots of one disk. Not to be shared between threads. */
export class SlotCipher {
  readonly #record: RecordCipher;
  readonly #fingerprint: Uint8Array = new Uint8Array(FINGERPRINT_BYTES);

  constructor(context: SealingContext) {
    this.#record = new RecordCipher(SLOT_KIND, context);
  }

  /** The epoch that `seal` uses. */
  get currentEpoch(): number {
    return this.#record.currentEpoch;
  }

  /**
   * Compresses with `codec` where that pays, seals, and writes the padded slot into `into` from `intoOffset`, where
   * slotSizeBytes of room is always enough. The tag then stands at `slotTag`.
   */
  seal(
    plaintext: Uint8Array,
    chunk: number,
    generation: number,
    fingerprint: Uint8Array,
    codec: Codec,
    into: Buffer,
    intoOffset: number,
  ): SealedSlot {
    const length = plaintext.byteLength;
    const packed = codec.compress(plaintext);
    const packedClen = packed === undefined ? length : alignUp(packed.byteLength, PADDING_BUCKET_BYTES);
    const shorter = packed !== undefined && packedClen < length;
    const clen = shorter ? packedClen : length;
    const paddedBytes = paddedSlotBytes(clen);
    const record = {
      magic: MAGIC_SLOT,
      number: chunk,
      generation,
      compression: shorter ? codec.code : COMPRESSION_CODES.none,
      plaintextLength: length,
      head: shorter ? packed : plaintext,
      tail: shorter ? BUCKET_ZEROS.subarray(0, clen - packed.byteLength) : NO_BYTES,
      identity: fingerprint,
    };
    this.#record.seal(record, into, intoOffset, paddedBytes);
    return { paddedBytes, clen };
  }

  /**
   * The plaintext of the chunk, good until another is opened or sealed on this thread. `slot` is exactly
   * paddedSlotBytes(entry.clen) long.
   * @throws REPLICA_SLOT for anything but what `entry` describes.
   */
  open(
    slot: Uint8Array,
    chunk: number,
    entry: ManifestEntry,
    plaintextBytes: number,
    fingerprinter: Fingerprinter,
  ): Buffer {
    if (entry.clen < 1 || entry.clen > plaintextBytes) throw slotFault(chunk, 'clen is at most that of the chunk');
    if (slot.byteLength !== paddedSlotBytes(entry.clen)) throw slotFault(chunk, 'length is exactly the padded one');
    const code = slot[HEADER.compression]!;
    if ((code === COMPRESSION_CODES.none) !== (entry.clen === plaintextBytes)) {
      throw slotFault(chunk, 'clen fits the compression');
    }
    const { generation, epoch, clen, tag } = entry;
    const content = this.#record.open(slot, {
      magic: MAGIC_SLOT,
      number: chunk,
      compressionMax: COMPRESSION_CODE_MAX,
      plaintextLength: plaintextBytes,
      generation,
      epoch,
      clen,
      tag,
    });
    const plaintext = code === COMPRESSION_CODES.none ? content : unpack(code, content, chunk, plaintextBytes);
    fingerprinter.digest(plaintext, this.#fingerprint, 0);
    if (!bytesEqual(this.#fingerprint, entry.fingerprint))
      throw slotFault(chunk, 'fingerprint is that of the manifest');
    return plaintext;
  }
}

/** A view of the tag of a slot that stands in `bytes` at `offset`. */
export function slotTag(bytes: Uint8Array, offset: number, clen: number): Uint8Array {
  const start = offset + HEADER_BYTES + clen;
  return bytes.subarray(start, start + TAG_BYTES);
}

function unpack(code: number, content: Buffer, chunk: number, plaintextBytes: number): Buffer {
  const end = content.byteLength < PAYLOAD_LENGTH_BYTES ? 0 : PAYLOAD_LENGTH_BYTES + content.readUInt32LE(0);
  if (end === 0 || alignUp(end, PADDING_BUCKET_BYTES) !== content.byteLength || !isZero(content.subarray(end))) {
    throw slotFault(chunk, 'payload ends in the last padding bucket');
  }
  const plaintext = decompress(code, content.subarray(0, end), plaintextBytes);
  if (plaintext === undefined) throw slotFault(chunk, 'payload decompresses to the length of the chunk');
  return plaintext;
}

/** The error for stored bytes of a chunk that are not what its entry describes. */
export function slotFault(chunk: number, rule: string): BlockferryError {
  return new BlockferryError('REPLICA_SLOT', `slot of chunk ${chunk} breaks the rule: ${rule}`, {
    facts: { chunk, rule },
  });
}
