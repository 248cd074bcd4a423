/**
 * LogWriter: appends to a log of changes, and closes it.
 *
 *   header with EOLLocation 0 and an empty block, durable with the file's name
 *   | data data … block | data … block |     data is in the file when `append` resolves, durable when `sync` does
 *   | hole … block |                         zeros by length: nothing is written, the file grows over them
 *   header with EOLLocation, written once all of that is durable
 *
 * Invariants:
 * - Calls run in the order in which they are made; `append` may be called while a `sync` waits for the device.
 * - What was appended before a `sync` that resolved is in the valid prefix of the log, whatever happens afterwards.
 *   What was not synced yet can be lost, also by the end of the process: its block may not be written.
 * - After the first error the writer refuses everything but `abandon`, and the log stays unclosed.
 * - DataChecksum is filled, so recovery sees torn data. Data that looks like the next block never stands where a block
 *   could, so recovery does not follow a log that a guest stores.
 */
import { dirname } from 'node:path';
import { asBuffer, MIB, SECTOR_BYTES } from '../bytes.ts';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { NIL_GUID, randomGuid } from '../guid.ts';
import { DISK_BYTES_MAX, HRL_WRITE_BYTES_MAX } from '../limits.ts';
import type { Ports, RandomAccessFile } from '../ports.ts';
import { checksum } from './checksum.ts';
import { encodeLogHeader, HEADER_BYTES, type LogHeader, METADATA_BYTES_DEFAULT, toLogTime } from './log-header.ts';
import { encodeBlock, type LogEntry, slotsOf, ZEROS_CHECKSUM } from './metadata-block.ts';

const SLOTS = slotsOf(METADATA_BYTES_DEFAULT);
/** Zeros of one entry: few enough that its checksum proves them (`isZeroEntry`). */
const ZERO_ENTRY_BYTES: number = 16 * MIB;

interface LogPlace {
  /** Where on the disk. */
  readonly byteOffset: number;
  /** In log time; now by default. */
  readonly timeStamp?: number;
}

/** One write of the guest: whole sectors, at least one. The bytes must not change until `append` resolves. */
export type LogWrite =
  /** At most HRL_WRITE_BYTES_MAX. */
  | (LogPlace & { readonly bytes: Uint8Array })
  /** Zeros by length, as many as the disk has. They are a hole in the file: they take no space. */
  | (LogPlace & { readonly zeroBytes: number });

export interface CreateLogOptions {
  readonly ports: Pick<Ports, 'files' | 'clock' | 'random' | 'failpoint'>;
  /** UniqueId of the log before this one; none by default: the chain begins here. */
  readonly previousUniqueId?: string;
  /** DataWriteGuid of the VHDX whose changes these are: `contentId` of the open disk. */
  readonly dataWriteGuid?: string;
  /** For a log that stands for others: their identity. A new one by default. */
  readonly uniqueId?: string;
  /** Creation, in log time; now by default. */
  readonly timeStamp?: number;
}

export interface CloseLogOptions {
  /** DataWriteGuid that the VHDX has by now, if it changed since the log was created. */
  readonly dataWriteGuid?: string;
}

/** Bytes that stand behind each other. */
interface Run {
  readonly pieces: readonly Uint8Array[];
  readonly fileOffset: number;
}

type State = 'open' | 'closing' | 'closed' | 'broken' | 'abandoned';
type WrittenHeader = LogHeader & { readonly dataWriteGuid: string };

export class LogWriter {
  readonly path: string;
  readonly #ports: CreateLogOptions['ports'];
  readonly #file: RandomAccessFile;
  readonly #header: WrittenHeader;
  /** What stands behind each other at the end and is not in the file yet: the caller's bytes, and blocks. */
  #pieces: Uint8Array[] = [];
  #pieceBytes = 0;
  /** Runs of pieces before those, with a hole behind each. */
  #runs: Run[] = [];
  /** Where the file ends once the pieces are written. */
  #endOffset = HEADER_BYTES;
  #durableEndOffset = 0;
  #lastBlockOffset = 0;
  #pending: LogEntry[] = [];
  #pendingBytes = 0;
  #holeBytes = 0;
  #entryCount = 0;
  #state: State = 'open';
  #cause: unknown;
  #isFileOpen = true;
  /** The call made last; the next one runs behind it. How many have not ended. */
  #tail: Promise<void> = Promise.resolve();
  #stepCount = 0;

  private constructor(path: string, ports: CreateLogOptions['ports'], file: RandomAccessFile, header: WrittenHeader) {
    this.path = path;
    this.#ports = ports;
    this.#file = file;
    this.#header = header;
  }

  /**
   * Creates the log; it is durable, empty and open when this resolves.
   * @throws OUTPUT_EXISTS, OUTPUT_FAILED
   */
  static async create(path: string, options: CreateLogOptions): Promise<LogWriter> {
    const { ports, previousUniqueId = NIL_GUID, dataWriteGuid } = options;
    const timeStamp = options.timeStamp ?? toLogTime(ports.clock.nowMs());
    const header: WrittenHeader = {
      ...{ version: 2, timeStamp, lastModified: timeStamp, endOffset: 0, metadataBytes: METADATA_BYTES_DEFAULT },
      ...{ uniqueId: options.uniqueId ?? randomGuid(ports.random.bytes(16)), previousUniqueId, entryCount: 0 },
      dataWriteGuid: dataWriteGuid === undefined || dataWriteGuid === '' ? NIL_GUID : dataWriteGuid,
    };
    const file = await createFile(path, ports.files);
    const writer = new LogWriter(path, ports, file, header);
    try {
      await writer.#begin();
      return writer;
    } catch (error) {
      await writer.abandon();
      throw error;
    }
  }

  get uniqueId(): string {
    return this.#header.uniqueId;
  }

  /** Size of the file once a block for all that was appended is written. */
  get sizeBytes(): number {
    return this.#endOffset + (this.#pending.length === 0 ? 0 : METADATA_BYTES_DEFAULT);
  }

  /** Bytes of those that are written: without holes. What the log takes of its volume. */
  get storedBytes(): number {
    return this.sizeBytes - this.#holeBytes;
  }

  /** Entries so far: one for each write, more where its data looks like a block of this log and for many zeros. */
  get entryCount(): number {
    return this.#entryCount;
  }

  /**
   * Appends the writes in this order. They are in the file when this resolves, but neither durable nor described.
   * @throws RangeError, before anything is written; OUTPUT_FAILED
   */
  append(writes: readonly LogWrite[]): Promise<void> {
    for (const write of writes) checkWrite(write);
    return this.#inOrder(() => {
      this.#add(writes);
      return this.#writePieces();
    });
  }

  /**
   * `append`, done when it returns; false where calls before it have not ended or the file cannot, and nothing was appended.
   * @throws as `append`
   */
  appendNow(writes: readonly LogWrite[]): boolean {
    if (this.#stepCount > 0 || this.#file.writeNow === undefined) return false;
    for (const write of writes) checkWrite(write);
    if (this.#state !== 'open') throw this.#unusable();
    try {
      this.#add(writes);
      return this.#writePiecesNow();
    } catch (cause) {
      throw this.#break(cause);
    }
  }

  /** Makes durable what was appended before. @throws OUTPUT_FAILED */
  async sync(): Promise<void> {
    let endOffset = 0;
    await this.#inOrder(async () => {
      await this.#describePending();
      endOffset = this.#endOffset;
      await this.#ports.failpoint('hrl.after-block');
    });
    // Outside the order: further writes are appended while the device works.
    if (endOffset <= this.#durableEndOffset) return;
    await this.#guard(async () => {
      await this.#file.sync();
      this.#durableEndOffset = Math.max(this.#durableEndOffset, endOffset);
      await this.#ports.failpoint('hrl.after-sync');
    });
  }

  /**
   * Makes everything durable, then writes the header that closes the log. @throws OUTPUT_FAILED
   */
  close(options: CloseLogOptions = {}): Promise<void> {
    const closed = this.#inOrder(async () => {
      await this.#describePending();
      await this.#file.sync();
      this.#durableEndOffset = this.#endOffset;
      await this.#ports.failpoint('hrl.after-data');
      await this.#writeClosingHeader(options.dataWriteGuid);
      await this.#file.sync();
      await this.#ports.failpoint('hrl.after-close');
      await this.#closeFile();
      this.#state = 'closed';
    });
    if (this.#state === 'open') this.#state = 'closing';
    return closed;
  }

  /**
   * The next log of the chain, beside this one or elsewhere, open and durable. This one is still open: append to the
   * next from now on, and close this.
   * @throws OUTPUT_EXISTS, OUTPUT_FAILED
   */
  async rotate(path: string, options: Pick<CreateLogOptions, 'dataWriteGuid'> = {}): Promise<LogWriter> {
    const { dataWriteGuid = this.#header.dataWriteGuid } = options;
    return await LogWriter.create(path, { ports: this.#ports, previousUniqueId: this.uniqueId, dataWriteGuid });
  }

  /** Gives the file back and leaves the log unclosed. Harmless after `close`, and when repeated. */
  async abandon(): Promise<void> {
    if (this.#state !== 'closed') this.#state = 'abandoned';
    await this.#tail;
    await this.#closeFile();
  }

  async #begin(): Promise<void> {
    await this.#guard(async () => {
      await this.#file.write(encodeLogHeader(this.#header, HEADER_BYTES + METADATA_BYTES_DEFAULT), 0);
      this.#addBlock();
      await this.#writePieces();
      await this.#file.sync();
      await this.#ports.files.syncDirectory(dirname(this.path));
      this.#durableEndOffset = this.#endOffset;
      await this.#ports.failpoint('hrl.after-create');
    });
  }

  /** Puts the writes behind what is there; they are in the file when the pieces are written. */
  #add(writes: readonly LogWrite[]): void {
    const now = toLogTime(this.#ports.clock.nowMs());
    for (const write of writes) {
      const { timeStamp = now } = write;
      if ('bytes' in write) this.#addBytes(write.byteOffset, write.bytes, timeStamp);
      else this.#addZeros(write.byteOffset, write.zeroBytes, timeStamp);
    }
  }

  #addBytes(byteOffset: number, bytes: Uint8Array, timeStamp: number): void {
    for (let done = 0; done < bytes.byteLength; ) {
      const rest = done === 0 ? bytes : bytes.subarray(done);
      // A block between the last one and the lookalike: then the distance that it claims is wrong.
      const cut = this.#findLookalike(rest);
      const data = cut === undefined ? rest : rest.subarray(0, cut);
      if (data.byteLength > 0) {
        const [fileOffset, dataLength] = [this.#endOffset, data.byteLength];
        this.#put(data);
        const dataChecksum = checksum(data);
        this.#describe({ byteOffset: byteOffset + done, dataLength, fileOffset, timeStamp, dataChecksum });
        done += dataLength;
      }
      if (cut !== undefined && this.#pending.length > 0) this.#addBlock();
    }
  }

  /**
   * The first sector of the data that a scan could take for the next block, because it begins with its own distance from
   * the last one: a guest may store logs. (Directly behind a block no other block helps; there it can only pass for
   * an empty one.)
   */
  #findLookalike(bytes: Uint8Array): number | undefined {
    const data = asBuffer(bytes);
    const distance = this.#endOffset - this.#lastBlockOffset;
    for (let offset = 0; offset < data.byteLength; offset += SECTOR_BYTES) {
      const isLookalike = data.readUInt32LE(offset) === distance + offset && data.readUInt32LE(offset + 4) === 0;
      if (isLookalike && distance + offset > METADATA_BYTES_DEFAULT) return offset;
    }
    return undefined;
  }

  #addZeros(byteOffset: number, zeroBytes: number, timeStamp: number): void {
    for (let done = 0; done < zeroBytes; ) {
      const dataLength = Math.min(ZERO_ENTRY_BYTES, zeroBytes - done);
      this.#endRun();
      const fileOffset = this.#endOffset;
      this.#endOffset += dataLength;
      this.#holeBytes += dataLength;
      const dataChecksum = ZEROS_CHECKSUM;
      this.#describe({ byteOffset: byteOffset + done, dataLength, fileOffset, timeStamp, dataChecksum });
      done += dataLength;
    }
  }

  /** The entry is in the next block, which follows when it is full. */
  #describe(entry: LogEntry): void {
    this.#pending.push(entry);
    this.#pendingBytes += entry.dataLength;
    this.#entryCount += 1;
    if (this.#pending.length === SLOTS || this.#pendingBytes >= HRL_WRITE_BYTES_MAX) this.#addBlock();
  }

  #describePending(): Promise<void> {
    if (this.#pending.length > 0) this.#addBlock();
    return this.#writePieces();
  }

  #addBlock(): void {
    const offset = this.#endOffset;
    const distance = this.#lastBlockOffset === 0 ? 0 : offset - this.#lastBlockOffset;
    this.#put(encodeBlock(this.#pending, distance, METADATA_BYTES_DEFAULT));
    this.#lastBlockOffset = offset;
    this.#pending = [];
    this.#pendingBytes = 0;
  }

  async #writeClosingHeader(dataWriteGuid: string | undefined): Promise<void> {
    const endOffset = this.#endOffset;
    const header = {
      ...this.#header,
      ...{ endOffset, entryCount: this.#entryCount, lastModified: toLogTime(this.#ports.clock.nowMs()) },
      ...(dataWriteGuid === undefined ? {} : { dataWriteGuid: dataWriteGuid === '' ? NIL_GUID : dataWriteGuid }),
    };
    await this.#file.write(encodeLogHeader(header, endOffset), 0);
  }

  #put(bytes: Uint8Array): void {
    this.#pieces.push(bytes);
    this.#pieceBytes += bytes.byteLength;
    this.#endOffset += bytes.byteLength;
  }

  #endRun(): void {
    if (this.#pieces.length === 0) return;
    this.#runs.push({ pieces: this.#pieces, fileOffset: this.#endOffset - this.#pieceBytes });
    this.#pieces = [];
    this.#pieceBytes = 0;
  }

  /** What is appended goes to the system's cache: nobody waits for a thread where the file can do without. */
  async #writePieces(): Promise<void> {
    if (this.#writePiecesNow()) return;
    for (const { pieces, fileOffset } of this.#takeRuns()) await this.#file.write(Buffer.concat(pieces), fileOffset);
  }

  #writePiecesNow(): boolean {
    if (this.#file.writeNow === undefined) return false;
    for (const { pieces, fileOffset } of this.#takeRuns()) this.#file.writeNow(pieces, fileOffset);
    return true;
  }

  #takeRuns(): readonly Run[] {
    this.#endRun();
    const runs = this.#runs;
    this.#runs = [];
    return runs;
  }

  /** Runs the step behind all calls made before. */
  #inOrder(step: () => Promise<void>): Promise<void> {
    if (this.#state !== 'open') return Promise.reject(this.#unusable());
    this.#stepCount += 1;
    const done = this.#tail
      .then(() => this.#guard(step))
      .finally(() => {
        this.#stepCount -= 1;
      });
    this.#tail = done.catch(() => {});
    return done;
  }

  /** Runs one step; the first error breaks the writer. */
  async #guard(step: () => Promise<void>): Promise<void> {
    if (this.#state === 'broken' || this.#state === 'abandoned') throw this.#unusable();
    try {
      await step();
    } catch (cause) {
      throw this.#break(cause);
    }
  }

  /** Nobody knows what the file has. Returns what is thrown. */
  #break(cause: unknown): unknown {
    this.#state = 'broken';
    this.#cause = cause;
    return isBlockferryError(cause) ? cause : failed(this.path, cause);
  }

  #unusable(): BlockferryError {
    return new BlockferryError('OUTPUT_FAILED', `${this.path}: the log is ${this.#state}`, {
      facts: { source: this.path, rule: 'a log is written before it is closed, and not after an error' },
      ...(this.#cause === undefined ? {} : { cause: this.#cause }),
    });
  }

  async #closeFile(): Promise<void> {
    if (!this.#isFileOpen) return;
    this.#isFileOpen = false;
    await this.#file.close();
  }
}

function checkWrite(write: LogWrite): void {
  const { byteOffset } = write;
  const [lengthBytes, lengthBytesMax] =
    'bytes' in write ? [write.bytes.byteLength, HRL_WRITE_BYTES_MAX] : [write.zeroBytes, DISK_BYTES_MAX];
  const isWhole = byteOffset % SECTOR_BYTES === 0 && lengthBytes % SECTOR_BYTES === 0 && lengthBytes > 0;
  if (isWhole && byteOffset >= 0 && byteOffset + lengthBytes <= DISK_BYTES_MAX && lengthBytes <= lengthBytesMax) return;
  throw new RangeError(
    `cannot log a write of ${lengthBytes} bytes at ${byteOffset}: whole sectors of a disk, at most ${lengthBytesMax} bytes`,
  );
}

async function createFile(path: string, files: Ports['files']): Promise<RandomAccessFile> {
  try {
    return await files.open(path, 'create');
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'EEXIST')) throw failed(path, cause);
    const hint = 'name another file, or remove this one';
    throw new BlockferryError('OUTPUT_EXISTS', `${path}: already exists`, { facts: { source: path }, hint, cause });
  }
}

function failed(path: string, cause: unknown): BlockferryError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new BlockferryError('OUTPUT_FAILED', `${path}: cannot be written: ${reason}`, {
    facts: { source: path },
    cause,
  });
}
