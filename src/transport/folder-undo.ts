/**
 * The undo file of one snapshot of a page blob in a folder: what the granules held when the snapshot was taken, kept
 * before each of them changes for the first time.
 *
 * ```
 * offset 0   file header, 4096 bytes:
 *            "BFUNDO1\0" (8) | granule bytes u32 | snapshot number u32 | blob bytes u64 | zeros | crc32 at 4092
 * then       records, each: header of 4096 bytes | old bytes (granules x 64 KiB, or none if all are zeros)
 *
 * record header
 *   0   4  magic "BFUR"
 *   4   4  snapshot number
 *   8   4  batch: ascends with each group commit
 *  12   4  first granule
 *  16   4  granules, 1 ... 1000
 *  20   4  1 if bytes follow, 0 if all the granules were zeros
 *  24   4  x granules: crc32 of each granule (with bytes only)
 *  4092 4  crc32 of all before it
 * ```
 * Numbers are little-endian. The file is append-only. A batch is written only after the one before it is durable, so only
 * the records of the last batch can be torn; the reader checks their bytes and stops at the first that is not whole.
 * What it leaves out there has changed nothing: the live bytes change only after their batch is durable. Of two records
 * for one granule the first counts.
 */
import { crc32 } from 'node:zlib';
import { divCeil, KIB } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { allDone, GroupCommit } from './gate.ts';
import { GranuleIndex } from './granule-index.ts';

const HEADER_BYTES = 4096;
const CHECKSUM_AT = HEADER_BYTES - 4;
const CHECKSUMS_AT = 24;
const FILE_MAGIC = 'BFUNDO1\0';
const RECORD_MAGIC = 0x52554642;

/** Unit in which old content is kept. */
export const UNDO_GRANULE_BYTES: number = 64 * KIB;
/** Of one record. */
export const UNDO_RECORD_GRANULES_MAX = 1000;

/** Stands for "zeros" where an index holds the position of old bytes in units of 4096. */
const ZEROS = 0;

function seal(header: Buffer): Buffer {
  header.writeUInt32LE(crc32(header.subarray(0, CHECKSUM_AT)), CHECKSUM_AT);
  return header;
}

function isSealed(header: Buffer): boolean {
  return crc32(header.subarray(0, CHECKSUM_AT)) === header.readUInt32LE(CHECKSUM_AT);
}

/** The first bytes of the undo file of snapshot `number`. */
export function newUndoHeader(number: number, sizeBytes: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.write(FILE_MAGIC, 0, 'latin1');
  header.writeUInt32LE(UNDO_GRANULE_BYTES, 8);
  header.writeUInt32LE(number, 12);
  header.writeBigUInt64LE(BigInt(sizeBytes), 16);
  return seal(header);
}

/** Old content of a run of granules, with room for the record header in front so that it is written in one piece. */
export interface OldContent {
  readonly firstGranule: number;
  readonly granules: number;
  /** undefined: all zeros. */
  readonly record: Buffer | undefined;
}

/** A buffer for the old content of `granules`; `oldBytesOf` is where to read it into. */
export function newRecord(granules: number): Buffer {
  return Buffer.allocUnsafeSlow(HEADER_BYTES + granules * UNDO_GRANULE_BYTES);
}

/** The part of a record behind its header. */
export function oldBytesOf(record: Buffer): Buffer {
  return record.subarray(HEADER_BYTES);
}

interface RecordHeader {
  readonly batch: number;
  readonly firstGranule: number;
  readonly granules: number;
  readonly hasBytes: boolean;
  readonly checksums: Buffer;
}

function fillHeader(header: Buffer, number: number, batch: number, old: OldContent): void {
  header.fill(0);
  header.writeUInt32LE(RECORD_MAGIC, 0);
  header.writeUInt32LE(number, 4);
  header.writeUInt32LE(batch, 8);
  header.writeUInt32LE(old.firstGranule, 12);
  header.writeUInt32LE(old.granules, 16);
  header.writeUInt32LE(old.record ? 1 : 0, 20);
  if (old.record) {
    const bytes = oldBytesOf(old.record);
    for (let i = 0; i < old.granules; i += 1) {
      const granule = bytes.subarray(i * UNDO_GRANULE_BYTES, (i + 1) * UNDO_GRANULE_BYTES);
      header.writeUInt32LE(crc32(granule), CHECKSUMS_AT + 4 * i);
    }
  }
  seal(header);
}

function decodeHeader(header: Buffer, number: number, blobGranules: number): RecordHeader | undefined {
  if (header.readUInt32LE(0) !== RECORD_MAGIC || header.readUInt32LE(4) !== number || !isSealed(header))
    return undefined;
  const firstGranule = header.readUInt32LE(12);
  const granules = header.readUInt32LE(16);
  if (granules === 0 || granules > UNDO_RECORD_GRANULES_MAX || firstGranule + granules > blobGranules) return undefined;
  const checksums = Buffer.from(header.subarray(CHECKSUMS_AT, CHECKSUMS_AT + 4 * granules));
  return { batch: header.readUInt32LE(8), firstGranule, granules, hasBytes: header.readUInt32LE(20) === 1, checksums };
}

export class UndoFile {
  readonly number: number;
  readonly #file: RandomAccessFile;
  readonly #blobGranules: number;
  readonly #index = new GranuleIndex();
  readonly #appends: GroupCommit<OldContent>;
  /** End of the records known to be whole. */
  #endBytes = HEADER_BYTES;
  #batch = 0;

  private constructor(number: number, file: RandomAccessFile, blobGranules: number) {
    this.number = number;
    this.#file = file;
    this.#blobGranules = blobGranules;
    this.#appends = new GroupCommit((items) => this.#commit(items));
  }

  /** Opens the file at `path`, and closes it again if it is none of this blob. */
  static async openAt(
    files: FileSystem,
    path: string,
    mode: 'read' | 'modify',
    number: number,
    sizeBytes: number,
  ): Promise<UndoFile> {
    const file = await files.open(path, mode);
    try {
      return await UndoFile.open(file, number, sizeBytes);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** @throws STORE_REFUSED if the file is none of this blob. */
  static async open(file: RandomAccessFile, number: number, sizeBytes: number): Promise<UndoFile> {
    const header = Buffer.alloc(HEADER_BYTES);
    await file.read(header, 0);
    if (!header.equals(newUndoHeader(number, sizeBytes))) {
      throw new BlockferryError('STORE_REFUSED', `${file.path}: the header is not that of snapshot ${number}`, {
        facts: { source: file.path, offset: 0, rule: 'header of an undo file' },
      });
    }
    const undo = new UndoFile(number, file, divCeil(sizeBytes, UNDO_GRANULE_BYTES));
    await undo.refresh();
    return undo;
  }

  /** Granules kept. */
  get granules(): Iterable<number> {
    return this.#index.granules();
  }

  holds(granule: number): boolean {
    return this.#index.has(granule);
  }

  /**
   * Cuts off what a crash left torn and makes the rest durable: a process that was killed may have left records that
   * can be read but would not survive a power cut. Only for the one writer, before it relies on what the file holds.
   */
  async settle(): Promise<void> {
    if ((await this.#file.sizeBytes()) > this.#endBytes) await this.#file.truncate(this.#endBytes);
    await this.#file.sync();
  }

  /** Makes old content durable; several calls at once share one sync. */
  append(old: OldContent): Promise<void> {
    return this.#appends.add(old);
  }

  /** Copies bytes [from, from + into.length) of a kept granule; false if it is not kept here. */
  async read(granule: number, from: number, into: Buffer): Promise<boolean> {
    const position = this.#index.get(granule);
    if (position === undefined) return false;
    if (position === ZEROS) into.fill(0);
    else await this.#file.read(into, position * HEADER_BYTES + from);
    return true;
  }

  /** Takes in whole records that were appended since, by another process or another handle. */
  async refresh(): Promise<void> {
    const bytes = Buffer.alloc(HEADER_BYTES);
    let batch: { readonly header: RecordHeader; readonly start: number }[] = [];
    let at = this.#endBytes;
    while ((await this.#file.read(bytes, at)) === HEADER_BYTES) {
      const header = this.#decode(bytes);
      if (header === undefined) {
        if (await this.#isTorn(at, batch[0]?.header.batch ?? this.#batch)) break;
        continue;
      }
      if (batch[0] && batch[0].header.batch !== header.batch) {
        // A later batch was begun, so this one is durable.
        for (const record of batch) this.#take(record.header, record.start);
        batch = [];
      }
      batch.push({ header, start: at });
      at += HEADER_BYTES + (header.hasBytes ? header.granules * UNDO_GRANULE_BYTES : 0);
    }
    for (const { header, start } of batch) {
      if (!(await this.#isWhole(header, start))) return;
      this.#take(header, start);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /**
   * What ends at `at` is torn if only its batch or the next follows; records of a later batch prove that it was whole
   * once. To take that for a torn tail would drop what snapshots need. False: a writer has just made it whole.
   */
  async #isTorn(at: number, batch: number): Promise<boolean> {
    const bytes = Buffer.alloc(HEADER_BYTES);
    for (let next = at + HEADER_BYTES; (await this.#file.read(bytes, next)) === HEADER_BYTES; next += HEADER_BYTES) {
      const header = this.#decode(bytes);
      if (header === undefined || header.batch < batch + 2) continue;
      // Looked at once more: it may be newer than the first look.
      if ((await this.#file.read(bytes, at)) === HEADER_BYTES && this.#decode(bytes)) return false;
      throw new BlockferryError('STORE_REFUSED', `${this.#file.path}: the record at offset ${at} is damaged`, {
        facts: { source: this.#file.path, offset: at, rule: 'records before the last batch are whole' },
        hint: 'restore this file from a backup of the folder, or delete the recovery points that need it',
      });
    }
    return true;
  }

  #decode(header: Buffer): RecordHeader | undefined {
    return decodeHeader(header, this.number, this.#blobGranules);
  }

  async #isWhole(header: RecordHeader, start: number): Promise<boolean> {
    if (!header.hasBytes) return true;
    const granule = Buffer.allocUnsafe(UNDO_GRANULE_BYTES);
    for (let i = 0; i < header.granules; i += 1) {
      const got = await this.#file.read(granule, start + HEADER_BYTES + i * UNDO_GRANULE_BYTES);
      if (got !== UNDO_GRANULE_BYTES || crc32(granule) !== header.checksums.readUInt32LE(4 * i)) return false;
    }
    return true;
  }

  #take({ batch, firstGranule, granules, hasBytes }: Omit<RecordHeader, 'checksums'>, start: number): void {
    const step = UNDO_GRANULE_BYTES / HEADER_BYTES;
    const first = start / HEADER_BYTES + 1;
    for (let i = 0; i < granules; i += 1) this.#index.add(firstGranule + i, hasBytes ? first + i * step : ZEROS);
    this.#endBytes = start + HEADER_BYTES + (hasBytes ? granules * UNDO_GRANULE_BYTES : 0);
    this.#batch = batch;
  }

  async #commit(items: readonly OldContent[]): Promise<void> {
    const batch = this.#batch + 1;
    let at = this.#endBytes;
    const starts: number[] = [];
    const writes: Promise<void>[] = [];
    for (const old of items) {
      const record = old.record ?? Buffer.alloc(HEADER_BYTES);
      fillHeader(record.subarray(0, HEADER_BYTES), this.number, batch, old);
      starts.push(at);
      writes.push(this.#file.write(record, at));
      at += record.byteLength;
    }
    await allDone(writes);
    await this.#file.sync();
    for (const [i, { firstGranule, granules, record }] of items.entries()) {
      this.#take({ batch, firstGranule, granules, hasBytes: record !== undefined }, starts[i] as number);
    }
  }
}
