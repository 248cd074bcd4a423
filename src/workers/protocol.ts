/**
 * Messages between the main thread and the workers. One message carries a batch of chunks; what is per chunk is packed
 * in arrays of numbers, so that a message costs the same whether it carries one chunk or sixty-four.
 *
 * Ownership: `buffer` is transferred with each message, there and back; whoever received it last owns it. Everything
 * else is small and cloned.
 */
import type { Compression, DiskGeometry, EpochKeys, FingerprintAlgorithm } from '../chunker/index.ts';
import type { WireError } from '../errors.ts';

/** What every worker of a pool knows from its start. Holds keys: it never leaves the process. */
export interface WorkerSetup {
  readonly replicaId: Uint8Array;
  readonly disks: readonly WorkerDisk[];
  readonly fingerprint: FingerprintAlgorithm;
  readonly fingerprintKey: Uint8Array;
  readonly compression: Compression;
  readonly epochs: readonly EpochKeys[];
  readonly currentEpoch: number;
}

export interface WorkerDisk extends DiskGeometry {
  readonly guid: Uint8Array;
  readonly layout: 'sealed' | 'raw';
}

/**
 * Places in files, five numbers each: index of the chunk in the batch, offset in that chunk, descriptor, offset in the
 * file, length. A descriptor below zero means the bytes `inline[-1 - descriptor]`. Parts of a chunk that no range
 * covers are zeros.
 */
export type PackedRanges = Float64Array;
export const RANGE_FIELDS = 5;

/** What was found out about a chunk. */
export const VERDICT = { zero: 0, same: 1, changed: 2 } as const;

/** Read chunks of a source, compare them with what the replica holds, prepare those that differ. */
export interface ScanTask {
  readonly kind: 'scan';
  readonly disk: number;
  readonly generation: number;
  /** `compare` only gives verdicts. */
  readonly purpose: 'send' | 'compare';
  /** Ascending chunk numbers. */
  readonly chunks: Float64Array;
  readonly ranges: PackedRanges;
  readonly inline: readonly Uint8Array[];
  /** Manifest entry of each chunk, 48 bytes; all zeros for a chunk of zeros. */
  readonly entries: Uint8Array;
  /** 1 for a chunk that counts as changed whatever its entry says. */
  readonly forced: Uint8Array;
  /** Room for the slots (layout raw: the bytes) of all chunks of the batch. */
  readonly buffer: ArrayBuffer;
}

export interface ScanResult {
  readonly verdicts: Uint8Array;
  /** New entry of each changed chunk, 48 bytes. */
  readonly entries: Uint8Array;
  /** Per chunk offset and length in `buffer`; only of changed ones. */
  readonly places: Float64Array;
  readonly readBytes: number;
  readonly buffer: ArrayBuffer;
}

/** Open slots (layout raw: bytes) that were fetched, check them, and write the content where it belongs. */
export interface OpenTask {
  readonly kind: 'open';
  readonly disk: number;
  readonly chunks: Float64Array;
  readonly entries: Uint8Array;
  /** Per chunk offset and length in `buffer`. */
  readonly places: Float64Array;
  readonly buffer: ArrayBuffer;
  /** Empty to check only. */
  readonly targets: PackedRanges;
}

export interface OpenResult {
  readonly writtenBytes: number;
  /** Chunks (index in the batch) that do not verify, with the reason. */
  readonly damage: readonly { readonly index: number; readonly error: WireError }[];
  readonly buffer: ArrayBuffer;
}

/** Lay what logs say of chunks over what the base has of them, and prepare those that differ then. Gives a ScanResult. */
export interface FoldTask {
  readonly kind: 'fold';
  readonly disk: number;
  readonly generation: number;
  readonly chunks: Float64Array;
  /** Old manifest entry of each chunk. */
  readonly entries: Uint8Array;
  readonly forced: Uint8Array;
  /** Per chunk offset and length in `buffer` of its old slot (layout raw: bytes); 0, 0 where none is needed. */
  readonly stored: Float64Array;
  /** Where the new bytes stand in `buffer`: of chunk i from `freshOffset` + i slots on, in their places in the chunk. */
  readonly freshOffset: number;
  /** What is new, three numbers each: index of the chunk in the batch, from and to in the chunk. Ascending, apart. */
  readonly covers: Float64Array;
  readonly buffer: ArrayBuffer;
}
export const COVER_FIELDS = 3;

export type Task = ScanTask | OpenTask | FoldTask;

/** An error with code and fields, in place of a result: thrown errors would lose both on the way. */
export interface TaskFailure {
  readonly error: WireError;
}
