/**
 * ImageFile: a disk image while it is being made. It grows as `<path>.partial` and gets its name when it is complete
 * and durable, so a file under its final name is always whole. Both names must be free: nothing is ever overwritten.
 *
 * After the first error the image is broken: every further step is refused, only `abort` is left.
 */
import { dirname } from 'node:path';
import { SECTOR_BYTES } from '../bytes.ts';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';

type State = 'growing' | 'finished' | 'broken' | 'aborted';

/** Owns the temporary file until `finish` or `abort`. */
export class ImageFile {
  readonly path: string;
  readonly file: RandomAccessFile;
  readonly #temporary: string;
  readonly #files: FileSystem;
  #state: State = 'growing';
  #isOpen = true;

  private constructor(path: string, temporary: string, file: RandomAccessFile, files: FileSystem) {
    this.path = path;
    this.#temporary = temporary;
    this.file = file;
    this.#files = files;
  }

  /** @throws OUTPUT_EXISTS, OUTPUT_FAILED */
  static async create(path: string, files: FileSystem): Promise<ImageFile> {
    await refuseExisting(path, files);
    const temporary = `${path}.partial`;
    try {
      return new ImageFile(path, temporary, await files.open(temporary, 'create'), files);
    } catch (cause) {
      if (errnoOf(cause) === 'EEXIST') throw existsError(temporary, 'remove it if no other run is writing it');
      throw outputError(temporary, cause);
    }
  }

  /** Runs one step on the file. An error of the operating system becomes OUTPUT_FAILED, and the image is broken. */
  async guard<T>(step: () => Promise<T>): Promise<T> {
    this.assertUsable();
    try {
      return await step();
    } catch (error) {
      this.#state = 'broken';
      throw asOutputError(this.#temporary, error);
    }
  }

  /** @throws OUTPUT_FAILED unless the image is still growing. */
  assertUsable(): void {
    if (this.#state === 'growing') return;
    throw new BlockferryError('OUTPUT_FAILED', `${this.path}: the image is ${this.#state}`, {
      facts: { source: this.path, rule: 'an image is written before finish, and not after an error' },
    });
  }

  /** Makes content and name durable. */
  async finish(): Promise<void> {
    await this.guard(async () => {
      await this.file.sync();
      await this.#close();
      await refuseExisting(this.path, this.#files);
      await this.#files.rename(this.#temporary, this.path);
      await this.#files.syncDirectory(dirname(this.path));
    });
    this.#state = 'finished';
  }

  /** Closes and removes the temporary file; harmless after `finish`, and when repeated. */
  async abort(): Promise<void> {
    if (this.#state === 'finished' || this.#state === 'aborted') return;
    this.#state = 'aborted';
    await this.#close();
    await this.#files.remove(this.#temporary);
  }

  async #close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.file.close();
  }
}

/** @throws {RangeError} unless the range lies inside the disk and both ends lie on a sector. */
export function checkWriteRange(
  offset: number,
  lengthBytes: number,
  virtualSizeBytes: number,
  sectorBytes: number = SECTOR_BYTES,
): void {
  const isWhole = offset % sectorBytes === 0 && lengthBytes % sectorBytes === 0;
  if (isWhole && offset >= 0 && lengthBytes >= 0 && offset + lengthBytes <= virtualSizeBytes) return;
  throw new RangeError(
    `cannot write ${lengthBytes} bytes at ${offset} of a disk of ${virtualSizeBytes}: whole sectors of ${sectorBytes} bytes only`,
  );
}

async function refuseExisting(path: string, files: FileSystem): Promise<void> {
  if (await files.exists(path)) throw existsError(path, 'name another file, or remove this one');
}

function existsError(path: string, hint: string): BlockferryError {
  return new BlockferryError('OUTPUT_EXISTS', `${path}: already exists`, { facts: { source: path }, hint });
}

/** What came of writing `path`: errors of the operating system as OUTPUT_FAILED, typed ones as they are. */
export function asOutputError(path: string, error: unknown): unknown {
  return isBlockferryError(error) || error instanceof RangeError ? error : outputError(path, error);
}

function outputError(path: string, cause: unknown): BlockferryError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new BlockferryError('OUTPUT_FAILED', `${path}: cannot be written: ${reason}`, {
    facts: { source: path },
    cause,
    ...(errnoOf(cause) === 'ENOSPC' ? { hint: 'free space on the volume, or write to another one' } : {}),
  });
}

function errnoOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}
