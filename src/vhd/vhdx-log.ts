/**
 * Finds what is to be replayed in the log of a VHDX ([MS-VHDX] 2.3.2): the active sequence.
 *
 * The log is a ring of 4 KiB sectors. An entry is valid only as a whole: header, every descriptor, every data sector,
 * checksum. Valid entries that follow each other with sequence numbers one apart form a sequence; it counts only if
 * the tail of its newest entry (the head) is the start of one of its entries. The one with the greatest head is active,
 * and replay goes from the head's tail to the head, not from the sequence's first entry.
 *
 * Cost: the ring is read in windows, and a sector belongs to at most one entry because entries cannot contain the
 * start of another (vhdx-log-entry.ts). So verifying everything that claims to be an entry is linear in the log's
 * length, whatever lengths a hostile log claims.
 */
import type { BlockferryError } from '../errors.ts';
import { VHDX_FILE_BYTES_MAX } from '../limits.ts';
import { crc32c } from './crc32c.ts';
import type { VhdxBytes } from './vhdx-bytes.ts';
import type { LogPlacement } from './vhdx-header.ts';
import { vhdxFault } from './vhdx-layout.ts';
import {
  beginsEntry,
  descriptorsIn,
  ENTRY_CRC_OFFSET,
  isDataSector,
  LOG_SECTOR_BYTES,
  type LogEntryHeader,
  parseDescriptor,
  parseEntryHeader,
} from './vhdx-log-entry.ts';

const WINDOW_BYTES = 1024 * 1024;
const ZERO_FIELD = new Uint8Array(4);

/** The entries to replay, oldest first, and the ring to read them from. */
export interface ActiveSequence {
  readonly ring: LogRing;
  readonly entries: readonly LogEntryHeader[];
  readonly head: LogEntryHeader;
}

/** The log's sectors, through one window that moves; offsets count from the start of the log and wrap at its end. */
export class LogRing {
  readonly placement: LogPlacement;
  readonly #bytes: VhdxBytes;
  #windowOffset = -1;
  #window: Uint8Array = new Uint8Array(0);

  /** `bytes` is the file as it stands. */
  constructor(bytes: VhdxBytes, placement: LogPlacement) {
    this.#bytes = bytes;
    this.placement = placement;
  }

  /** The sector at `offset`; valid until the next call. */
  async sector(offset: number): Promise<Uint8Array> {
    const position = offset % this.placement.lengthBytes;
    const inWindow = position % WINDOW_BYTES;
    if (this.#windowOffset !== position - inWindow) {
      // The log is whole MiB, so every window is full.
      this.#window = await this.#bytes.read(this.placement.offset + position - inWindow, WINDOW_BYTES);
      this.#windowOffset = position - inWindow;
    }
    return this.#window.subarray(inWindow, inWindow + LOG_SECTOR_BYTES);
  }
}

/** The active sequence of a log that has a GUID. @throws VHDX_LOG without one, DISK_TRUNCATED below what it needs */
export async function findActiveSequence(
  bytes: VhdxBytes,
  placement: LogPlacement,
  source: string,
): Promise<ActiveSequence> {
  const ring = new LogRing(bytes, placement);
  const entries = await validEntries(ring);
  let active: readonly LogEntryHeader[] | undefined;
  for (const sequence of sequences(entries, placement.lengthBytes)) {
    const candidate = fromTail(sequence);
    if (!candidate) continue;
    const difference = active === undefined ? 1n : headOf(candidate).sequenceNumber - headOf(active).sequenceNumber;
    if (difference === 0n) throw ambiguous(headOf(candidate), placement, source);
    if (difference > 0n) active = candidate;
  }
  if (!active) {
    const problem = `log with GUID ${placement.guid} holds ${entries.size} valid entries but no sequence to replay`;
    throw vhdxFault('VHDX_LOG', source, placement.offset, 'a log with a GUID has an active sequence', problem);
  }
  const head = headOf(active);
  checkFileOffsets(head, bytes.sizeBytes, placement, source);
  return { ring, entries: active, head };
}

/** Every entry of the ring that is valid as a whole, by its offset. */
async function validEntries(ring: LogRing): Promise<ReadonlyMap<number, LogEntryHeader>> {
  const entries = new Map<number, LogEntryHeader>();
  for (let offset = 0; offset < ring.placement.lengthBytes; ) {
    const entry = beginsEntry(viewOf(await ring.sector(offset))) ? await verifyEntry(ring, offset) : undefined;
    if (entry) entries.set(offset, entry);
    offset += entry?.lengthBytes ?? LOG_SECTOR_BYTES;
  }
  return entries;
}

/** The entry at `offset` if all of it is valid. */
async function verifyEntry(ring: LogRing, offset: number): Promise<LogEntryHeader | undefined> {
  const { guid, lengthBytes: logLengthBytes } = ring.placement;
  const first = await ring.sector(offset);
  const header = parseEntryHeader(viewOf(first), offset, guid, logLengthBytes);
  if (typeof header === 'string') return undefined;

  let crc = crc32c(ZERO_FIELD, crc32c(first.subarray(0, ENTRY_CRC_OFFSET)));
  crc = crc32c(first.subarray(ENTRY_CRC_OFFSET + 4), crc);
  let dataSectors = countDataDescriptors(viewOf(first), header, 0, ring);
  for (let i = 1; i < header.descriptorSectors && dataSectors !== undefined; i += 1) {
    const sector = await ring.sector(offset + i * LOG_SECTOR_BYTES);
    const more = countDataDescriptors(viewOf(sector), header, i, ring);
    dataSectors = more === undefined ? undefined : dataSectors + more;
    crc = crc32c(sector, crc);
  }
  if (dataSectors === undefined) return undefined;
  const sectors = header.descriptorSectors + dataSectors;
  if (sectors * LOG_SECTOR_BYTES !== header.lengthBytes) return undefined;
  for (let i = header.descriptorSectors; i < sectors; i += 1) {
    const sector = await ring.sector(offset + i * LOG_SECTOR_BYTES);
    if (!isDataSector(viewOf(sector), header.sequenceNumber)) return undefined;
    crc = crc32c(sector, crc);
  }
  return crc === header.checksum ? header : undefined;
}

/** Data descriptors among those in one sector; undefined if any descriptor there is invalid. */
function countDataDescriptors(
  sector: DataView,
  header: LogEntryHeader,
  sectorIndex: number,
  ring: LogRing,
): number | undefined {
  const { from, count } = descriptorsIn(header, sectorIndex);
  let data = 0;
  for (let i = 0; i < count; i += 1) {
    const descriptor = parseDescriptor(sector, from + i * 32, header.sequenceNumber, ring.placement);
    if (typeof descriptor === 'string') return undefined;
    if (descriptor.kind === 'data') data += 1;
  }
  return data;
}

/** Entries in runs that follow each other in the ring with sequence numbers one apart; as long as possible. */
function* sequences(
  entries: ReadonlyMap<number, LogEntryHeader>,
  logLengthBytes: number,
): Generator<readonly LogEntryHeader[]> {
  const successorOf = (entry: LogEntryHeader): LogEntryHeader | undefined => {
    const next = entries.get((entry.offset + entry.lengthBytes) % logLengthBytes);
    return next?.sequenceNumber === entry.sequenceNumber + 1n ? next : undefined;
  };
  const successors = new Set<LogEntryHeader>();
  for (const entry of entries.values()) {
    const next = successorOf(entry);
    if (next) successors.add(next);
  }
  for (const entry of entries.values()) {
    if (successors.has(entry)) continue;
    const sequence: LogEntryHeader[] = [];
    for (let next: LogEntryHeader | undefined = entry; next; next = successorOf(next)) sequence.push(next);
    yield sequence;
  }
}

/** The part of a sequence that its head wants replayed; undefined if the head's tail is no entry of it. */
function fromTail(sequence: readonly LogEntryHeader[]): readonly LogEntryHeader[] | undefined {
  const { tailOffset } = headOf(sequence);
  const first = sequence.findIndex((entry) => entry.offset === tailOffset);
  return first < 0 ? undefined : sequence.slice(first);
}

/** Only the head's offsets count: those of older entries may be beyond a file that has shrunk since. */
function checkFileOffsets(head: LogEntryHeader, fileSizeBytes: number, placement: LogPlacement, source: string): void {
  const at = placement.offset + head.offset;
  if (head.flushedFileOffset > BigInt(fileSizeBytes)) {
    const rule = 'the file is at least as long as the log says it was flushed';
    const problem = `file of ${fileSizeBytes} bytes is cut short, its log wants ${head.flushedFileOffset}`;
    throw vhdxFault('DISK_TRUNCATED', source, at + 48, rule, problem);
  }
  if (head.lastFileOffset > BigInt(VHDX_FILE_BYTES_MAX)) {
    const rule = `a VHDX file has at most ${VHDX_FILE_BYTES_MAX} bytes`;
    throw vhdxFault('VHDX_LOG', source, at + 56, rule, `log wants a file of ${head.lastFileOffset} bytes`);
  }
}

function ambiguous(head: LogEntryHeader, placement: LogPlacement, source: string): BlockferryError {
  const at = placement.offset + head.offset;
  const problem = `two log sequences end with sequence number ${head.sequenceNumber}`;
  return vhdxFault('VHDX_LOG', source, at, 'one sequence of a log is the newest', problem);
}

function headOf(sequence: readonly LogEntryHeader[]): LogEntryHeader {
  return sequence[sequence.length - 1]!;
}

function viewOf(sector: Uint8Array): DataView {
  return new DataView(sector.buffer, sector.byteOffset, sector.byteLength);
}
