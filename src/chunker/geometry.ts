/**
 * Geometry: where a chunk, a slot and a manifest page stand. Pure arithmetic over the size of a disk and of its chunks,
 * the same for every reader and writer of a replica (docs/formats/replica.md).
 *
 *     base     1 MiB reserved | slot 0 | slot 1 | …          one or more segments of at most 4 TiB of slots
 *     manifest table page 0 copy 0 | copy 1 | table page 1 … | manifest page 0 copy 0 | copy 1 | …
 *
 * It promises places that never overlap and are multiples of 512. It knows nothing of what stands there.
 */
import { alignUp, divCeil, isPowerOfTwo, MIB, SECTOR_BYTES, TIB } from '../bytes.ts';
import { CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, DISK_BYTES_MAX } from '../limits.ts';

/** The two numbers all places follow from. */
export interface DiskGeometry {
  readonly virtualSizeBytes: number;
  readonly chunkBytes: number;
}

/** Clear header before, and GCM tag behind the ciphertext of every sealed record. */
export const HEADER_BYTES = 64;
export const TAG_BYTES = 16;

/** Reserved at the head of each segment of a base. */
export const SEGMENT_HEAD_BYTES: number = MIB;
const SEGMENT_SLOTS_BYTES_MAX = 4 * TIB;

/** A page of the manifest tree, sealed. */
export const PAGE_BYTES = 65_536;
export const ENTRY_BYTES = 48;
export const REFERENCE_BYTES = 32;
/** Entries of a manifest page: what fits between header and tag. */
export const ENTRIES_PER_PAGE = 1363;
/** References of a table page. */
export const REFERENCES_PER_TABLE = 2045;
/** The two kinds of page: `entries` holds manifest entries, `table` references to those. */
export type PageKind = 'entries' | 'table';
/** Plaintext bytes of each kind. */
export const PAGE_PLAINTEXT_BYTES: Readonly<Record<PageKind, number>> = {
  entries: ENTRIES_PER_PAGE * ENTRY_BYTES,
  table: REFERENCES_PER_TABLE * REFERENCE_BYTES,
};
/** Which of its two places a page stands in. */
export type PageCopy = 0 | 1;

/** A place in a base: segment 0 is the blob `base`, segment n the blob `base.<n>`. */
export interface SlotPlace {
  readonly segment: number;
  readonly offset: number;
}

/** Throws a RangeError unless disk and chunk size are ones that a replica can have. */
export function checkGeometry(geometry: DiskGeometry): void {
  const { virtualSizeBytes } = geometry;
  checkChunkBytes(geometry.chunkBytes);
  if (!Number.isSafeInteger(virtualSizeBytes) || virtualSizeBytes < 0 || virtualSizeBytes > DISK_BYTES_MAX) {
    throw new RangeError(`a disk of ${virtualSizeBytes} bytes is outside 0 … ${DISK_BYTES_MAX}`);
  }
  if (virtualSizeBytes % SECTOR_BYTES !== 0) {
    throw new RangeError(`a disk of ${virtualSizeBytes} bytes is no multiple of ${SECTOR_BYTES}`);
  }
}

/** Throws a RangeError unless `chunkBytes` is a power of two within the limits. */
export function checkChunkBytes(chunkBytes: number): void {
  if (!isPowerOfTwo(chunkBytes) || chunkBytes < CHUNK_BYTES_MIN || chunkBytes > CHUNK_BYTES_MAX) {
    throw new RangeError(
      `a chunk size of ${chunkBytes} bytes is no power of two from ${CHUNK_BYTES_MIN} to ${CHUNK_BYTES_MAX}`,
    );
  }
}

/** Chunks of the disk, counting a short last one. */
export function chunkCount(geometry: DiskGeometry): number {
  checkGeometry(geometry);
  return divCeil(geometry.virtualSizeBytes, geometry.chunkBytes);
}

/** Bytes of chunk number `chunk`; only the last one may be short. */
export function chunkLengthBytes(geometry: DiskGeometry, chunk: number): number {
  checkIndex('chunk', chunk, chunkCount(geometry));
  return Math.min(geometry.chunkBytes, geometry.virtualSizeBytes - chunk * geometry.chunkBytes);
}

/** Bytes a record of `contentBytes` of ciphertext occupies: header, ciphertext, tag, zeros up to a multiple of 512. */
export function paddedSlotBytes(contentBytes: number): number {
  return alignUp(HEADER_BYTES + contentBytes + TAG_BYTES, SECTOR_BYTES);
}

/** Distance from one slot to the next. */
export function slotSizeBytes(chunkBytes: number): number {
  checkChunkBytes(chunkBytes);
  return paddedSlotBytes(chunkBytes);
}

/** Slots of a full segment. */
export function slotsPerSegment(chunkBytes: number): number {
  return Math.floor(SEGMENT_SLOTS_BYTES_MAX / slotSizeBytes(chunkBytes));
}

/** Where the slot of a chunk stands. */
export function slotPlace(chunk: number, chunkBytes: number): SlotPlace {
  if (!Number.isSafeInteger(chunk) || chunk < 0) throw new RangeError(`${chunk} is no chunk number`);
  const perSegment = slotsPerSegment(chunkBytes);
  const segment = Math.floor(chunk / perSegment);
  return { segment, offset: SEGMENT_HEAD_BYTES + (chunk - segment * perSegment) * slotSizeBytes(chunkBytes) };
}

/** Segments of a base; a disk of no bytes still has one. */
export function segmentCount(geometry: DiskGeometry): number {
  return Math.max(1, divCeil(chunkCount(geometry), slotsPerSegment(geometry.chunkBytes)));
}

/** Size of the page blob of a segment. */
export function segmentSizeBytes(geometry: DiskGeometry, segment: number): number {
  checkIndex('segment', segment, segmentCount(geometry));
  const perSegment = slotsPerSegment(geometry.chunkBytes);
  const slots = Math.min(perSegment, chunkCount(geometry) - segment * perSegment);
  return SEGMENT_HEAD_BYTES + slots * slotSizeBytes(geometry.chunkBytes);
}

/** Manifest pages that cover the disk, whether they exist or not. */
export function manifestPageCount(geometry: DiskGeometry): number {
  return divCeil(chunkCount(geometry), ENTRIES_PER_PAGE);
}

/** Table pages that cover the manifest pages. */
export function tablePageCount(geometry: DiskGeometry): number {
  return divCeil(manifestPageCount(geometry), REFERENCES_PER_TABLE);
}

/** Size of the manifest blob: every page of both levels, twice. */
export function manifestBlobBytes(geometry: DiskGeometry): number {
  return (tablePageCount(geometry) + manifestPageCount(geometry)) * 2 * PAGE_BYTES;
}

/** Offset of a copy of a page in the manifest blob. */
export function pagePlace(geometry: DiskGeometry, level: PageKind, page: number, copy: PageCopy): number {
  const tables = tablePageCount(geometry);
  checkIndex(`${level} page`, page, level === 'table' ? tables : manifestPageCount(geometry));
  const before = level === 'table' ? page : tables + page;
  return (before * 2 + copy) * PAGE_BYTES;
}

function checkIndex(what: string, index: number, count: number): void {
  if (!Number.isSafeInteger(index) || index < 0 || index >= count) {
    throw new RangeError(`there is no ${what} ${index}, only ${count} of them`);
  }
}
