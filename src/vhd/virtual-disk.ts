/**
 * VirtualDisk: what every disk format offers to the rest, and DiskWriter: what every format that we write offers.
 *
 * Reading is by extents. A caller that moves many bytes asks for the extents of a range, and reads the data ones
 * itself from their file at their offset (in a worker thread, by descriptor); `read` is for small amounts. A source is
 * never written.
 *
 * WritableDisk: an image that exists, changed in place.
 */
import type { RandomAccessFile } from '../ports.ts';

export type DiskFormat = 'vhd' | 'vhdx' | 'raw';
export type DiskSubformat = 'fixed' | 'dynamic' | 'differencing';

/** What `blockferry info` prints. */
export interface DiskInfo {
  readonly format: DiskFormat;
  readonly subformat: DiskSubformat;
  readonly virtualSizeBytes: number;
  /** Allocation unit; 0 where the format has none (raw, fixed VHD). */
  readonly blockSizeBytes: number;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  /** Paths of the files, the disk itself first, its parents behind it. */
  readonly chain: readonly string[];
  /** `replayed`: the VHDX had a log that was not empty; it was replayed in memory. */
  readonly log: 'none' | 'clean' | 'replayed';
  /** Facts worth telling that are no fault, such as a CHS geometry that differs from the size. */
  readonly notes: readonly string[];
}

/**
 * A range of the guest's disk.
 * - `absent`: no file of the chain says anything about it; reads as zeros.
 * - `zero`: a file of the chain says it is zeros.
 * - `data`: `lengthBytes` bytes of `file` from `fileOffset`. Bytes beyond the end of the file are zeros (a fixed or
 *   whole-block file may be cut short beyond the guest's last byte).
 * - `memory`: the bytes themselves, from a log replayed in memory; `bytes` is a view, do not write to it.
 */
export type Extent =
  | { readonly kind: 'absent' | 'zero'; readonly offset: number; readonly lengthBytes: number; readonly depth: number }
  | {
      readonly kind: 'data';
      readonly offset: number;
      readonly lengthBytes: number;
      readonly depth: number;
      readonly file: RandomAccessFile;
      readonly fileOffset: number;
    }
  | {
      readonly kind: 'memory';
      readonly offset: number;
      readonly lengthBytes: number;
      readonly depth: number;
      readonly bytes: Uint8Array;
    };

/** A disk with its parents, open for reading. */
export interface VirtualDisk {
  readonly info: DiskInfo;
  /** Identity that stays with the disk for life: VHDX virtual disk id, VHD unique id, '' for raw. */
  readonly identity: string;
  /**
   * VHDX DataWriteGuid of the disk itself, VHD unique id with timestamp, '' for raw. Changes when a well-behaved
   * writer changes what the guest sees.
   */
  readonly contentId: string;
  /** Open files of the chain, the disk itself first. Their descriptors stay valid until `close`. */
  readonly files: readonly RandomAccessFile[];
  /**
   * Extents of [offset, offset + lengthBytes) in order, without gaps, neighbours of one kind and place merged. An
   * absent range of many TiB costs only the block table behind it. `depth` is the index in `files` that decided.
   */
  extents(offset: number, lengthBytes: number): AsyncIterable<Extent>;
  /** Fills `into` with the guest's bytes from `offset`. @throws RangeError outside the disk. */
  read(into: Uint8Array, offset: number): Promise<void>;
  close(): Promise<void>;
}

/** How `zero` makes zeros. */
export interface ZeroOptions {
  /** The guest does not need the range any more: it reads as zeros, and a VHDX says that it is unmapped. */
  readonly unmap?: boolean;
}

/**
 * A disk open for writing in place. What a power cut leaves is in docs/formats: everything before a `flush` that
 * returned, each later sector old or new, and an image that opens.
 *
 * Calls may overlap in time. Where their ranges overlap too, each sector ends up as one of them wants it; whoever
 * cares for the order waits. Extents are those of the moment: the next write or zero may move them. One program at a
 * time has an image open for writing, and nobody writes a disk that has children: they would be lost.
 *
 * After the first error of a change only reading and `close` are left, and `close` leaves the image as a power cut would.
 */
export interface WritableDisk extends VirtualDisk {
  /** Changes with the first write, where the format has such an id (VHDX). */
  readonly contentId: string;
  /**
   * Changes contentId now, durably, where the first write would, and to this GUID: so that it is known before anything is
   * written. Does nothing behind that write, when repeated, and where the format has no such id.
   * @throws OUTPUT_FAILED
   */
  renewContentId(next: string): Promise<void>;
  /**
   * Writes whole logical sectors. `bytes` stay as they are until it returns.
   * @throws {RangeError} for parts of sectors, and outside the disk
   * @throws OUTPUT_FAILED if the file cannot be written
   */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /**
   * `write` where it needs nothing but bytes in a file's cache, and done when this returns; false where it needs more, and
   * nothing was written.
   * @throws as `write`
   */
  writeNow(bytes: Uint8Array, offset: number): boolean;
  /** Makes [offset, offset + lengthBytes), whole logical sectors, read as zeros; whole blocks give up their space. */
  zero(offset: number, lengthBytes: number, options?: ZeroOptions): Promise<void>;
  /** Makes everything durable whose `write` or `zero` returned before. */
  flush(): Promise<void>;
  /** Flushes, marks the image as cleanly closed, closes the files of the chain. */
  close(): Promise<void>;
}

/** A place in a file that is being written. */
export interface FileRange {
  readonly file: RandomAccessFile;
  readonly fileOffset: number;
  readonly lengthBytes: number;
}

/**
 * A disk image being made. It grows under a temporary name beside its final path and gets that name in `finish`, when
 * it is complete and durable. What was never placed reads as zeros. After an error only `abort` may be called.
 */
export interface DiskWriter {
  readonly path: string;
  /**
   * Where the guest's range [offset, offset + lengthBytes) lives in the file; allocates what is missing. In order,
   * without gaps. Calls must not overlap in time; writing the returned ranges (also from other threads) may.
   */
  place(offset: number, lengthBytes: number): Promise<readonly FileRange[]>;
  /** `place` and write. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** Writes the tables, makes all durable, gives the file its final name. */
  finish(): Promise<void>;
  /** Closes and removes the temporary file. */
  abort(): Promise<void>;
}

/** One fault that `check` found. */
export interface DiskFault {
  readonly file: string;
  /** Absolute offset in the file. */
  readonly offset: number;
  /** The broken rule, in words. */
  readonly rule: string;
  readonly code: string;
}
