/**
 * ImageFile: a disk image while it is being made. It grows as `<path>.partial` and gets its name when it is complete
 * and durable, so a file under its final name is always whole. Both names must be free: nothing is ever overwritten.
 */

import { dirname } from 'node:path';
import { BlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';

/** Owns the temporary file until `finish` or `abort`. */
export class ImageFile {
  readonly path: string;
  readonly file: RandomAccessFile;
  readonly #files: FileSystem;
  #open = true;

  private constructor(path: string, file: RandomAccessFile, files: FileSystem) {
    this.path = path;
    this.file = file;
    this.#files = files;
  }

  /** @throws OUTPUT_EXISTS, OUTPUT_FAILED */
  static async create(path: string, files: FileSystem): Promise<ImageFile> {
    await refuseExisting(path, files);
    const temporary = `${path}.partial`;
    try {
      return new ImageFile(path, await files.open(temporary, 'create'), files);
    } catch (cause) {
      if (errnoOf(cause) === 'EEXIST') throw existsError(temporary, 'remove it if no other run is writing it');
      throw new BlockferryError('OUTPUT_FAILED', `${temporary}: cannot be created: ${messageOf(cause)}`, { cause });
    }
  }

  /** Makes content and name durable. */
  async finish(): Promise<void> {
    await this.file.sync();
    await this.#close();
    await refuseExisting(this.path, this.#files);
    await this.#files.rename(this.file.path, this.path);
    await this.#files.syncDirectory(dirname(this.path));
  }

  /** Closes and removes the temporary file; harmless after `finish`, or twice. */
  async abort(): Promise<void> {
    await this.#close();
    await this.#files.remove(`${this.path}.partial`);
  }

  async #close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.file.close();
  }
}

async function refuseExisting(path: string, files: FileSystem): Promise<void> {
  if (await files.exists(path)) throw existsError(path, 'name another file, or remove this one');
}

function existsError(path: string, hint: string): BlockferryError {
  return new BlockferryError('OUTPUT_EXISTS', `${path}: already exists`, { facts: { source: path }, hint });
}

function errnoOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
