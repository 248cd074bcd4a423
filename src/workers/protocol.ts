/**
 * Messages between the main thread and the workers. One message carries a batch of chunks; what is per chunk is packed
 * in arrays of numbers, so that a message costs the same whether it carries one chunk or sixty-four.
 *
 * Ownership: `buffer` is transferred with each message, there and back; whoever received it last owns it. Everything
 * else is small and cloned.
 */
import type { Compression, DiskGeometry, EpochKeys, FingerprintAlgorithm, LogIdentity } from '../chunker/index.ts';
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
  /** Whether what a scan prepares gets a checksum for its way to the store. */
  readonly checksums: boolean;
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
  /** Room for slots (layout raw: bytes): for one at least. */
  readonly buffer: ArrayBuffer;
}

export interface ScanResult {
  /** Of a scan, of as many chunks, from the first on, as the buffer had room for; of the others nothing is known. */
  readonly verdicts: Uint8Array;
  /** New entry of each changed chunk, 48 bytes. */
  readonly entries: Uint8Array;
  /** Per chunk offset and length in `buffer`; only of changed ones. */
  readonly places: Float64Array;
  /** Per chunk the CRC-64 of what stands in its place, only of changed ones; empty if the setup wants none, and of a fold. */
  readonly checksums: Uint8Array;
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
  /** Where the new bytes stand in `buffer`: of chunk i from `freshOffset` + i slots (layout raw:
   * chunks) on, in their places in the chunk. */
  readonly freshOffset: number;
  /** What is new, three numbers each: index of the chunk in the batch, from and to in the chunk. Ascending, apart. */
  readonly covers: Float64Array;
  readonly buffer: ArrayBuffer;
}
export const COVER_FIELDS = 3;

/**
 * Where the bytes of a piece come from: a descriptor, or one of these. `zeros` have none; `sent` are in `buffer` at the
 * offset that else is one in the file.
 */
export const PIECE_SOURCE = { zeros: -1, sent: -2 } as const;
export const PIECE_FIELDS = 5;

/** Read pieces of change logs and seal them as one frame of a shipped log. */
export interface SealFrameTask {
  readonly kind: 'seal-frame';
  readonly log: LogIdentity;
  readonly frame: number;
  /** Five numbers each: disk, offset on it, length, source, offset in the source. In the order of the log. */
  readonly pieces: Float64Array;
  /** LOG_FRAME_BYTES_MAX long. */
  readonly buffer: ArrayBuffer;
}

export interface SealFrameResult {
  /** Of the frame, which stands at the head of `buffer`. */
  readonly frameBytes: number;
  /** Guest bytes in it, without zeros. */
  readonly dataBytes: number;
  readonly buffer: ArrayBuffer;
}

/** Open a frame of a shipped log that was fetched. */
export interface OpenFrameTask {
  readonly kind: 'open-frame';
  readonly log: LogIdentity;
  readonly frame: number;
  /** Of the frame, at the head of `buffer`. */
  readonly frameBytes: number;
  /** LOG_FRAME_BYTES_MAX long. */
  readonly buffer: ArrayBuffer;
}

export interface OpenFrameResult {
  /** Of the plaintext, which stands at the head of `buffer`. */
  readonly plaintextBytes: number;
  readonly buffer: ArrayBuffer;
}

export type Task = ScanTask | OpenTask | FoldTask | SealFrameTask | OpenFrameTask;

/** What comes back for each kind of task. */
export interface Results {
  readonly scan: ScanResult;
  readonly open: OpenResult;
  readonly fold: ScanResult;
  readonly 'seal-frame': SealFrameResult;
  readonly 'open-frame': OpenFrameResult;
}

/** An error with code and fields, in place of a result: thrown errors would lose both on the way. */
export interface TaskFailure {
  readonly error: WireError;
}
