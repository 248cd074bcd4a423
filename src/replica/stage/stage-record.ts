/**
 * A record of stage.index (docs/formats/stage.md):
 *
 *     0 offset in stage.bin u64 | 8 fingerprint 16 | 24 kind u32 (1 bytes, 2 zeros) | 28 CRC-32 of 0 … 27        (32 bytes)
 *
 * The CRC-32 begins with that of replica id ‖ disk id ‖ chunk number, so a record counts in its own place only. All zeros:
 * the chunk is not staged; so is a record that breaks its checksum.
 */
import { crc32 } from 'node:zlib';
import { asBuffer } from '../../bytes.ts';
import { FINGERPRINT_BYTES, isZero } from '../../chunker/index.ts';

export const RECORD_BYTES = 32;

const FIELD = { offset: 0, fingerprint: 8, kind: 24, checksum: 28 } as const;
const KIND = { bytes: 1, zeros: 2 } as const;
const NUMBER_BYTES = 8;

/** What a chunk is to become. */
export type StagedChunk =
  | { readonly kind: 'zeros' }
  | { readonly kind: 'bytes'; readonly offset: number /** 16 bytes. */; readonly fingerprint: Uint8Array };

/** Whose chunks they are: 16 bytes each. */
export interface StageIdentity {
  readonly replicaId: Uint8Array;
  readonly diskId: Uint8Array;
}

export class RecordCodec {
  readonly #seed: number;
  readonly #number: Buffer = Buffer.alloc(NUMBER_BYTES);

  constructor({ replicaId, diskId }: StageIdentity) {
    this.#seed = crc32(diskId, crc32(replicaId));
  }

  /** Writes a record over a view of 32 bytes. */
  write(into: Uint8Array, chunk: number, staged: StagedChunk): void {
    const record = asBuffer(into);
    record.fill(0);
    record.writeUInt32LE(KIND[staged.kind], FIELD.kind);
    if (staged.kind === 'bytes') {
      record.writeBigUInt64LE(BigInt(staged.offset), FIELD.offset);
      record.set(staged.fingerprint, FIELD.fingerprint);
    }
    record.writeUInt32LE(this.#checksum(record, chunk), FIELD.checksum);
  }

  /** The record of a chunk; undefined if it says nothing that can be relied on. */
  read(from: Uint8Array, chunk: number): StagedChunk | undefined {
    if (isZero(from)) return undefined;
    const record = asBuffer(from);
    if (record.readUInt32LE(FIELD.checksum) !== this.#checksum(record, chunk)) return undefined;
    const kind = record.readUInt32LE(FIELD.kind);
    if (kind === KIND.zeros) return { kind: 'zeros' };
    const offset = record.readBigUInt64LE(FIELD.offset);
    if (kind !== KIND.bytes || offset > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
    const fingerprint = record.subarray(FIELD.fingerprint, FIELD.fingerprint + FINGERPRINT_BYTES);
    return { kind: 'bytes', offset: Number(offset), fingerprint: Uint8Array.from(fingerprint) };
  }

  #checksum(record: Buffer, chunk: number): number {
    this.#number.writeBigUInt64LE(BigInt(chunk));
    return crc32(record.subarray(0, FIELD.checksum), crc32(this.#number, this.#seed));
  }
}
