/**
 * Manifest entries and page references, as they lie in the plaintext of a page (docs/formats/replica.md).
 *
 *     entry      0 generation u64 | 8 epoch u32 | 12 clen u32 | 16 tag 16 | 32 fingerprint 16        (48 bytes)
 *     reference  0 generation u64 | 8 epoch u32 | 12 copy u32 | 16 tag 16                            (32 bytes)
 *
 * All zeros mean "a chunk of zeros" and "no such page". A real one never is: its generation is at least 1.
 *
 * Bytes here come out of an authenticated page; what is checked is only that a number can be held as one. Everything
 * works on views of the page: nothing is copied, and whoever owns the page owns them.
 */
import { asBuffer } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { FINGERPRINT_BYTES } from './fingerprint.ts';
import { ENTRIES_PER_PAGE, ENTRY_BYTES, type PageCopy, REFERENCE_BYTES, TAG_BYTES } from './geometry.ts';
import { checkGeneration, writeU64 } from './record.ts';
import { isZero } from './zero.ts';

const ENTRY = { generation: 0, epoch: 8, clen: 12, tag: 16, fingerprint: 32 } as const;
const REFERENCE = { generation: 0, epoch: 8, copy: 12, tag: 16 } as const;

/** What the manifest says of a chunk that is not zero. */
export interface ManifestEntry {
  /** The generation that wrote the slot. */
  readonly generation: number;
  readonly epoch: number;
  /** Bytes of ciphertext; for layout raw the plaintext length. */
  readonly clen: number;
  /** 16 bytes; for layout raw zeros. */
  readonly tag: Uint8Array;
  /** 16 bytes. */
  readonly fingerprint: Uint8Array;
}

/** What a table page or the root says of a page. */
export interface PageReference {
  readonly generation: number;
  readonly epoch: number;
  readonly copy: PageCopy;
  /** 16 bytes. */
  readonly tag: Uint8Array;
}

/** A view of entry `index` (0 … 1362) of a page's plaintext, or of any row of entries. */
export function entryAt(page: Uint8Array, index: number): Uint8Array {
  return page.subarray(index * ENTRY_BYTES, (index + 1) * ENTRY_BYTES);
}

/** Whether the entry says that the chunk is zeros. */
export function isZeroEntry(entry: Uint8Array): boolean {
  return isZero(entry);
}

/** Whether the entry stands for a chunk that is not zeros and has this fingerprint. */
export function hasFingerprint(entry: Uint8Array, fingerprint: Uint8Array): boolean {
  for (let i = 0; i < FINGERPRINT_BYTES; i += 1) if (entry[ENTRY.fingerprint + i] !== fingerprint[i]) return false;
  return !isZeroEntry(entry);
}

/** The entry with views of its tag and fingerprint; undefined for a chunk of zeros. @throws REPLICA_MANIFEST */
export function readEntry(entry: Uint8Array): ManifestEntry | undefined {
  if (isZeroEntry(entry)) return undefined;
  const fields = asBuffer(entry);
  return {
    generation: readGeneration(fields, 'entry'),
    epoch: fields.readUInt32LE(ENTRY.epoch),
    clen: fields.readUInt32LE(ENTRY.clen),
    tag: entry.subarray(ENTRY.tag, ENTRY.tag + TAG_BYTES),
    fingerprint: entry.subarray(ENTRY.fingerprint, ENTRY.fingerprint + FINGERPRINT_BYTES),
  };
}

/** Writes an entry over a view of one; undefined writes "zeros". */
export function writeEntry(into: Uint8Array, entry: ManifestEntry | undefined): void {
  if (entry === undefined) {
    into.fill(0, 0, ENTRY_BYTES);
    return;
  }
  checkGeneration(entry.generation);
  const fields = asBuffer(into);
  writeU64(fields, ENTRY.generation, entry.generation);
  fields.writeUInt32LE(entry.epoch, ENTRY.epoch);
  fields.writeUInt32LE(entry.clen, ENTRY.clen);
  into.set(entry.tag, ENTRY.tag);
  into.set(entry.fingerprint, ENTRY.fingerprint);
}

/** Reference `index` of a table page's plaintext; undefined if there is no such page. @throws REPLICA_MANIFEST */
export function readReference(table: Uint8Array, index: number): PageReference | undefined {
  const bytes = table.subarray(index * REFERENCE_BYTES, (index + 1) * REFERENCE_BYTES);
  if (isZero(bytes)) return undefined;
  const fields = asBuffer(bytes);
  const copy = fields.readUInt32LE(REFERENCE.copy);
  if (copy !== 0 && copy !== 1) throw manifestFault('reference', 'copy is 0 or 1');
  return {
    generation: readGeneration(fields, 'reference'),
    epoch: fields.readUInt32LE(REFERENCE.epoch),
    copy,
    tag: bytes.subarray(REFERENCE.tag, REFERENCE.tag + TAG_BYTES),
  };
}

/** Writes reference `index` of a table page's plaintext; undefined writes "no such page". */
export function writeReference(table: Uint8Array, index: number, reference: PageReference | undefined): void {
  const bytes = table.subarray(index * REFERENCE_BYTES, (index + 1) * REFERENCE_BYTES);
  if (reference === undefined) {
    bytes.fill(0);
    return;
  }
  checkGeneration(reference.generation);
  const fields = asBuffer(bytes);
  writeU64(fields, REFERENCE.generation, reference.generation);
  fields.writeUInt32LE(reference.epoch, REFERENCE.epoch);
  fields.writeUInt32LE(reference.copy, REFERENCE.copy);
  bytes.set(reference.tag, REFERENCE.tag);
}

/** Entries of manifest page `page` that stand for chunks, `chunks` being those of the disk. */
export function entriesOfPage(page: number, chunks: number): number {
  return Math.max(0, Math.min(ENTRIES_PER_PAGE, chunks - page * ENTRIES_PER_PAGE));
}

function readGeneration(fields: Buffer, what: string): number {
  const generation = fields.readBigUInt64LE(0);
  if (generation >= 1n && generation <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(generation);
  throw manifestFault(what, 'generation is 1 … 2^53 - 1');
}

function manifestFault(what: string, rule: string): BlockferryError {
  return new BlockferryError('REPLICA_MANIFEST', `manifest ${what} breaks the rule: ${rule}`, { facts: { rule } });
}
