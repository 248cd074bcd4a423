/** Reading a log from its file: errors that name the log, and a window for walking through it without small reads. */
import { alignUp, MIB, SECTOR_BYTES } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { wordSum } from './checksum.ts';
import { logError } from './fault.ts';

/** The largest piece of data that is read, summed or written at a time. */
export const WINDOW_BYTES: number = MIB;

const WORD_BYTES = 4;

/** @throws DISK_NOT_FOUND, DISK_UNREADABLE */
export async function openLogFile(path: string, files: FileSystem): Promise<RandomAccessFile> {
  try {
    return await files.open(path, 'read');
  } catch (cause) {
    const facts = { source: path };
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') {
      throw new BlockferryError('DISK_NOT_FOUND', `${path}: there is no such file`, { facts, cause });
    }
    throw unreadable(path, cause);
  }
}

/** Fills `into` from `offset`. @throws DISK_UNREADABLE, HRL_TORN if the log ends before that */
export async function readLogBytes(file: RandomAccessFile, into: Uint8Array, offset: number): Promise<void> {
  let lengthBytes: number;
  try {
    lengthBytes = await file.read(into, offset);
  } catch (cause) {
    throw unreadable(file.path, cause);
  }
  if (lengthBytes === into.byteLength) return;
  const rule = 'a log does not become shorter while it is read';
  const facts = { neededBytes: into.byteLength, lengthBytes };
  throw logError(file.path, { code: 'HRL_TORN', offset, rule, facts });
}

function unreadable(path: string, cause: unknown): BlockferryError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new BlockferryError('DISK_UNREADABLE', `${path}: cannot be read: ${reason}`, {
    facts: { source: path },
    cause,
  });
}

/**
 * A window of the file that moves forward. It is asked for whole sectors only, and begins on one, so that it can be
 * summed by words: a scan looks at millions of sectors and may not make an object for each. Views are good until the
 * window moves.
 */
export class FileWindow {
  readonly #file: RandomAccessFile;
  readonly #endOffset: number;
  readonly #buffer: Buffer;
  /** The same memory, for sums. */
  readonly #words: Uint32Array;
  #offset = 0;
  #lengthBytes = 0;

  /** Nothing from `endOffset` on is read; no view is longer than `viewBytesMax`. */
  constructor(file: RandomAccessFile, endOffset: number, viewBytesMax: number) {
    this.#file = file;
    this.#endOffset = endOffset;
    this.#buffer = Buffer.allocUnsafeSlow(alignUp(Math.min(WINDOW_BYTES + viewBytesMax, endOffset), SECTOR_BYTES));
    this.#words = new Uint32Array(this.#buffer.buffer, this.#buffer.byteOffset, this.#buffer.byteLength / WORD_BYTES);
  }

  /** Whether [offset, offset + lengthBytes) is in the window. */
  covers(offset: number, lengthBytes: number): boolean {
    return offset >= this.#offset && offset + lengthBytes <= this.#offset + this.#lengthBytes;
  }

  /** Moves the window to `offset`. */
  async moveTo(offset: number): Promise<void> {
    const lengthBytes = Math.min(this.#buffer.byteLength, this.#endOffset - offset);
    this.#lengthBytes = 0;
    await readLogBytes(this.#file, this.#buffer.subarray(0, lengthBytes), offset);
    this.#offset = offset;
    this.#lengthBytes = lengthBytes;
  }

  /** A view of [offset, offset + lengthBytes), which the window covers. */
  view(offset: number, lengthBytes: number): Buffer {
    const from = offset - this.#offset;
    return this.#buffer.subarray(from, from + lengthBytes);
  }

  /** The u64 at `offset`, which the window covers; right as far as it is a safe integer. */
  sizeAt(offset: number): number {
    const at = offset - this.#offset;
    return this.#buffer.readUInt32LE(at) + this.#buffer.readUInt32LE(at + 4) * 2 ** 32;
  }

  /** The byte sum of [offset, offset + lengthBytes), which the window covers. */
  sumOf(offset: number, lengthBytes: number): number {
    const word = (offset - this.#offset) / WORD_BYTES;
    return wordSum(this.#words, word, word + lengthBytes / WORD_BYTES);
  }
}
