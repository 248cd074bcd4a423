/**
 * ChangeLog: a log that is open for reading. Its blocks come oldest first or newest first, each checked as it comes, and
 * none of its data is held.
 *
 * Blocks are linked backwards only ([MS-HRL] 2.5). To walk forwards, a first pass goes back through the links and keeps
 * the place of every n-th block; then each stretch between two of them is gone back through once more and handed out
 * in order. n grows with the log, so a log of any size is walked in bounded memory and read twice at most.
 */
import { SECTOR_BYTES } from '../bytes.ts';
import { throwIfAborted } from '../errors.ts';
import { HRL_MARKS_MAX } from '../limits.ts';
import type { Ports, RandomAccessFile } from '../ports.ts';
import { BlockMarks } from './block-marks.ts';
import { type LogFault, logError } from './fault.ts';
import { openLogFile, readLogBytes } from './log-file.ts';
import { HEADER_BYTES, type LogHeader, parseLogHeader } from './log-header.ts';
import { isFault, type LogBlock, parseBlock, previousOffsetOf } from './metadata-block.ts';
import { findValidEnd } from './recovery.ts';

/** Bytes of a block that say where the one before it begins. */
const LINK_BYTES = 8;

export interface OpenLogOptions {
  readonly ports: Pick<Ports, 'files'>;
  /** Ends the scan of an unclosed log. */
  readonly signal?: AbortSignal;
}

/** What walking through a log takes. */
export interface WalkOptions {
  readonly signal?: AbortSignal | undefined;
  /** Places of blocks that are kept; for tests. */
  readonly marksMax?: number;
}

export class ChangeLog {
  readonly header: LogHeader;
  /** False: it was not closed cleanly, and what is read is its valid prefix. */
  readonly isClosed: boolean;
  /** Where its last block ends; bytes behind that are not part of it. */
  readonly endOffset: number;
  readonly #file: RandomAccessFile;

  private constructor(file: RandomAccessFile, header: LogHeader, endOffset: number) {
    this.#file = file;
    this.header = header;
    this.isClosed = header.endOffset !== 0;
    this.endOffset = endOffset;
  }

  /**
   * A log that was not closed is scanned for its valid prefix.
   * @throws DISK_NOT_FOUND, DISK_UNREADABLE, HRL_HEADER, HRL_TORN, ABORTED
   */
  static async open(path: string, { ports, signal }: OpenLogOptions): Promise<ChangeLog> {
    const file = await openLogFile(path, ports.files);
    try {
      const sizeBytes = await file.sizeBytes();
      const bytes = new Uint8Array(Math.min(HEADER_BYTES, sizeBytes));
      await readLogBytes(file, bytes, 0);
      const header = parseLogHeader(bytes, path);
      if (header.endOffset === 0) {
        return new ChangeLog(file, header, await findValidEnd(file, header, sizeBytes, signal));
      }
      checkEnd(path, header, sizeBytes);
      return new ChangeLog(file, header, header.endOffset);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get path(): string {
    return this.#file.path;
  }

  /** @throws HRL_BLOCK, HRL_ENTRY, HRL_TORN, DISK_UNREADABLE, ABORTED */
  async *blocks({ signal, marksMax = HRL_MARKS_MAX }: WalkOptions = {}): AsyncGenerator<LogBlock, void, void> {
    const marks = await this.#marks(marksMax, signal);
    let entryCount = 0;
    for (let i = marks.length - 1; i >= 0; i -= 1) {
      const stretch: number[] = [];
      for (let at: number | undefined = marks[i]; at !== marks[i + 1] && at !== undefined; ) {
        stretch.push(at);
        at = await this.#previousOffset(at);
      }
      for (const offset of stretch.reverse()) {
        throwIfAborted(signal);
        const block = await this.#block(offset);
        yield block;
        entryCount += block.entries.length;
      }
    }
    this.#checkEntryCount(entryCount);
  }

  /** @throws HRL_BLOCK, HRL_ENTRY, HRL_TORN, DISK_UNREADABLE, ABORTED */
  async *blocksNewestFirst({ signal }: WalkOptions = {}): AsyncGenerator<LogBlock, void, void> {
    let entryCount = 0;
    for (let offset = this.#lastOffset(); offset !== undefined; ) {
      throwIfAborted(signal);
      const block = await this.#block(offset);
      yield block;
      entryCount += block.entries.length;
      offset = block.previousOffset;
    }
    this.#checkEntryCount(entryCount);
  }

  /** Fills `into` with bytes of the log from `fileOffset`. @throws HRL_TORN, DISK_UNREADABLE */
  async read(into: Uint8Array, fileOffset: number): Promise<void> {
    await readLogBytes(this.#file, into, fileOffset);
  }

  /** The file itself, for reading through a window of it. */
  get file(): RandomAccessFile {
    return this.#file;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  #lastOffset(): number | undefined {
    return this.endOffset === HEADER_BYTES ? undefined : this.endOffset - this.header.metadataBytes;
  }

  /** Places of blocks, newest first, the same number of blocks apart. */
  async #marks(marksMax: number, signal: AbortSignal | undefined): Promise<readonly number[]> {
    const marks = new BlockMarks(marksMax);
    for (let offset = this.#lastOffset(); offset !== undefined; offset = await this.#previousOffset(offset)) {
      throwIfAborted(signal);
      marks.note(offset);
    }
    return marks.offsets;
  }

  async #previousOffset(offset: number): Promise<number | undefined> {
    const link = Buffer.allocUnsafe(LINK_BYTES);
    await readLogBytes(this.#file, link, offset);
    const previous = previousOffsetOf(link, offset, this.header.metadataBytes);
    if (isFault(previous)) throw logError(this.path, previous);
    return previous;
  }

  async #block(offset: number): Promise<LogBlock> {
    const bytes = Buffer.allocUnsafe(this.header.metadataBytes);
    await readLogBytes(this.#file, bytes, offset);
    const block = parseBlock(bytes, offset);
    if (isFault(block)) throw logError(this.path, block);
    return block;
  }

  /** Only the header of a closed log says how many entries there are. */
  #checkEntryCount(foundEntries: number): void {
    const { entryCount } = this.header;
    if (!this.isClosed || foundEntries === entryCount) return;
    const rule = 'TotalMetadataEntries is the number of entries in all blocks';
    throw logError(this.path, { code: 'HRL_BLOCK', offset: 96, rule, facts: { entryCount, foundEntries } });
  }
}

/** A damaged end is never taken for an open log: guessing where it was could leave writes out unnoticed. */
function checkEnd(path: string, { endOffset, metadataBytes }: LogHeader, sizeBytes: number): void {
  const refuse = (code: LogFault['code'], rule: string): never => {
    throw logError(path, { code, offset: 44, rule, facts: { endOffset, sizeBytes } });
  };
  if (endOffset > sizeBytes) refuse('HRL_TORN', 'a closed log ends inside its file');
  const isPossible = endOffset === HEADER_BYTES || endOffset >= HEADER_BYTES + metadataBytes;
  if (!isPossible || endOffset % SECTOR_BYTES !== 0) {
    refuse('HRL_HEADER', 'a closed log ends behind a block, or behind its header if it has none');
  }
}
