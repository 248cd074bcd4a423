/**
 * The base of one disk as places in page blobs: where chunks are written, cleared and read.
 *
 * `sealed`: slots in segments of at most 4 TiB, created when the first slot goes there. `raw`: the bytes of the disk in one
 * page blob that ends with a VHD footer, so that a cloud VM can boot from it. Knows places only; what stands there is
 * the chunker's business, and whether it counts is the manifest's.
 */

import { alignUp, MIB, SECTOR_BYTES } from '../bytes.ts';
import {
  type DiskGeometry,
  joinCrc64,
  segmentCount,
  segmentSizeBytes,
  slotPlace,
  slotSizeBytes,
  slotsPerSegment,
} from '../chunker/index.ts';
import { PAGE_BLOB_BYTES_MAX, PAGE_WRITE_BYTES_MAX } from '../limits.ts';
import type { DiskDescription } from './description.ts';

/** A place in a segment of a base. */
export interface BasePlace {
  readonly segment: number;
  readonly offset: number;
}

/** Bytes of a buffer that belong to a chunk. */
export interface BasePiece {
  readonly chunk: number;
  /** Where in the place of the chunk they go; absent: at its front. */
  readonly chunkOffset?: number;
  /** Where in the buffer they are. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** Their CRC-64, where somebody has made it. */
  readonly crc64?: Uint8Array | undefined;
}

/** Pieces that lie side by side, in the base and in a buffer. */
export interface BaseRun {
  readonly segment: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly crc64: Uint8Array | undefined;
}

/** Where things stand in the base of one disk. Pure arithmetic. */
export class BaseLayout {
  readonly #geometry: DiskGeometry;
  readonly #raw: boolean;
  /** Distance from one chunk to the next. */
  readonly strideBytes: number;

  constructor(disk: DiskDescription) {
    this.#geometry = disk;
    this.#raw = disk.layout === 'raw';
    this.strideBytes = this.#raw ? disk.chunkBytes : slotSizeBytes(disk.chunkBytes);
  }

  get segments(): number {
    return this.#raw ? 1 : segmentCount(this.#geometry);
  }

  segmentBytes(segment: number): number {
    return this.#raw ? rawBlobBytes(this.#geometry.virtualSizeBytes) : segmentSizeBytes(this.#geometry, segment);
  }

  place(chunk: number): BasePlace {
    const { chunkBytes } = this.#geometry;
    return this.#raw ? { segment: 0, offset: chunk * chunkBytes } : slotPlace(chunk, chunkBytes);
  }

  /** The ranges that chunks [from, to) occupy, one per segment. */
  *spans(from: number, to: number): Generator<BasePlace & { readonly lengthBytes: number }> {
    const perSegment = this.#raw ? Number.MAX_SAFE_INTEGER : slotsPerSegment(this.#geometry.chunkBytes);
    for (let chunk = from; chunk < to; ) {
      const { segment, offset } = this.place(chunk);
      const end = Math.min(to, (segment + 1) * perSegment);
      const lengthBytes = (end - chunk) * this.strideBytes;
      // The last chunk of a raw base may be short; the footer behind it must stand.
      const limit = this.#raw ? this.#geometry.virtualSizeBytes - offset : lengthBytes;
      yield { segment, offset, lengthBytes: Math.min(lengthBytes, limit) };
      chunk = end;
    }
  }

  /** Joins what lies side by side, in the base and in `buffer`, into runs of at most one Put Page. */
  runs(pieces: readonly BasePiece[], buffer: ArrayBuffer): readonly BaseRun[] {
    const runs: (BasePlace & { start: number; lengthBytes: number; crc64: Uint8Array | undefined })[] = [];
    for (const { chunk, chunkOffset = 0, offset, lengthBytes, crc64 } of pieces) {
      const chunkPlace = this.place(chunk);
      const place = { segment: chunkPlace.segment, offset: chunkPlace.offset + chunkOffset };
      const last = runs.at(-1);
      const joins =
        last !== undefined &&
        last.segment === place.segment &&
        last.offset + last.lengthBytes === place.offset &&
        last.start + last.lengthBytes === offset &&
        last.lengthBytes + lengthBytes <= PAGE_WRITE_BYTES_MAX;
      if (joins) {
        last.lengthBytes += lengthBytes;
        last.crc64 = last.crc64 && crc64 && joinCrc64(last.crc64, crc64, lengthBytes);
      } else runs.push({ ...place, start: offset, lengthBytes, crc64 });
    }
    return runs.flatMap(({ segment, offset, start, lengthBytes, crc64 }) => {
      // A slot of a 4 MiB chunk is a little longer than one Put Page.
      const parts: BaseRun[] = [];
      for (let at = 0; at < lengthBytes; at += PAGE_WRITE_BYTES_MAX) {
        const length = Math.min(PAGE_WRITE_BYTES_MAX, lengthBytes - at);
        const bytes = new Uint8Array(buffer, start + at, length);
        parts.push({ segment, offset: offset + at, bytes, crc64: length === lengthBytes ? crc64 : undefined });
      }
      return parts;
    });
  }
}

/** Length of a raw base: the disk rounded up to what Azure boots from (1 MiB), and the footer. */
export function rawBlobBytes(virtualSizeBytes: number): number {
  return alignUp(virtualSizeBytes, MIB) + SECTOR_BYTES;
}

/** Whether a disk of this size can have a raw base: one page blob holds it all. */
export function fitsRaw(virtualSizeBytes: number): boolean {
  return rawBlobBytes(virtualSizeBytes) <= PAGE_BLOB_BYTES_MAX;
}
