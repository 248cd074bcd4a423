/**
 * DirtyMapFile: a dirty map on its volume. It is made in one durable step and written page by page, one step at a time: an
 * older version of a page never follows a newer one. Knows nothing of what the bits mean.
 */
import { dirname } from 'node:path';
import { MIB } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import {
  encodeHeader,
  type MapIdentity,
  mapError,
  PageCodec,
  pageCountOf,
  pageOffset,
  parseHeader,
} from './dirty-map-format.ts';
import { type DirtyPage, PAGE_BYTES, RECORD_BYTES } from './dirty-page.ts';

/** The most that is read at a time. */
const WINDOW_BYTES: number = MIB;

/** What a map was found to hold. */
export interface OpenedMap {
  readonly file: DirtyMapFile;
  readonly isEverything: boolean;
  /** By their number; those with nothing in them are undefined. */
  readonly pages: (DirtyPage | undefined)[];
}

export class DirtyMapFile {
  readonly #file: RandomAccessFile;
  readonly #identity: MapIdentity;
  readonly #codec: PageCodec;
  #turn: Promise<void> = Promise.resolve();
  #failure: BlockferryError | undefined;

  private constructor(file: RandomAccessFile, identity: MapIdentity) {
    this.#file = file;
    this.#identity = identity;
    this.#codec = new PageCodec(identity);
  }

  /** Makes a map without pages, durably, in place of one that is there. @throws OUTPUT_FAILED */
  static async create(
    path: string,
    identity: MapIdentity,
    isEverything: boolean,
    files: FileSystem,
  ): Promise<OpenedMap> {
    const partial = `${path}.partial`;
    try {
      await files.remove(partial);
      const file = await files.open(partial, 'create');
      try {
        await file.truncate(pageOffset(pageCountOf(identity)));
        await file.write(encodeHeader(identity, isEverything), 0);
        await file.sync();
      } finally {
        await file.close();
      }
      await files.rename(partial, path);
      await files.syncDirectory(dirname(path));
      const pages = new Array<undefined>(pageCountOf(identity)).fill(undefined);
      return { file: new DirtyMapFile(await files.open(path, 'modify'), identity), isEverything, pages };
    } catch (cause) {
      throw unwritable(path, cause);
    }
  }

  /** @throws LOCAL_STATE */
  static async open(path: string, identity: MapIdentity, files: FileSystem): Promise<OpenedMap> {
    let opened: RandomAccessFile | undefined;
    try {
      opened = await files.open(path, 'modify');
      const file = new DirtyMapFile(opened, identity);
      const isEverything = await file.#readHeader();
      // The process may have ended between a write and its sync: what is read here must be there after a power cut.
      await opened.sync();
      return { file, isEverything, pages: await file.#readPages() };
    } catch (error) {
      await opened?.close();
      if (error instanceof BlockferryError) throw error;
      throw mapError(path, 0, 'a dirty map can be read', error);
    }
  }

  /** The first error of writing: from then on nobody knows what the file has, and no step runs. */
  get failure(): BlockferryError | undefined {
    return this.#failure;
  }

  /** Runs the step behind those before it. @throws OUTPUT_FAILED */
  inTurn(step: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(async () => {
      if (this.#failure) throw this.#failure;
      try {
        await step();
      } catch (cause) {
        this.#failure = unwritable(this.#file.path, cause);
        throw this.#failure;
      }
    });
    this.#turn = done.catch(() => {});
    return done;
  }

  /** Writes copies of pages, by their number. Only in turn, like the two below. */
  async writePages(copies: ReadonlyMap<number, Buffer>): Promise<void> {
    for (const [pageNumber, copy] of copies) {
      this.#codec.seal(copy, pageNumber);
      if (this.#file.writeNow === undefined) await this.#file.write(copy, pageOffset(pageNumber));
      else this.#file.writeNow([copy], pageOffset(pageNumber));
    }
  }

  async writeHeader(isEverything: boolean): Promise<void> {
    await this.#file.write(encodeHeader(this.#identity, isEverything), 0);
  }

  /** Makes everything durable that was written. */
  async sync(): Promise<void> {
    await this.#file.sync();
  }

  /** Behind the steps that were begun. */
  async close(): Promise<void> {
    await this.#turn;
    await this.#file.close();
  }

  async #readHeader(): Promise<boolean> {
    const header = Buffer.alloc(RECORD_BYTES);
    await this.#read(header, 0);
    const isEverything = parseHeader(header, this.#identity, this.#file.path);
    const endOffset = pageOffset(pageCountOf(this.#identity));
    if ((await this.#file.sizeBytes()) !== endOffset) {
      throw mapError(this.#file.path, endOffset, 'a dirty map is as long as its disk asks for');
    }
    return isEverything;
  }

  async #readPages(): Promise<(DirtyPage | undefined)[]> {
    const pages: (DirtyPage | undefined)[] = new Array(pageCountOf(this.#identity)).fill(undefined);
    const window = Buffer.allocUnsafe(Math.min(WINDOW_BYTES, pages.length * PAGE_BYTES));
    for (let n = 0; n < pages.length; ) {
      const lengthBytes = Math.min(window.byteLength, (pages.length - n) * PAGE_BYTES);
      await this.#read(window.subarray(0, lengthBytes), pageOffset(n));
      for (let at = 0; at < lengthBytes; at += PAGE_BYTES) {
        pages[n] = this.#codec.open(window.subarray(at, at + PAGE_BYTES), n);
        n += 1;
      }
    }
    return pages;
  }

  async #read(into: Buffer, offset: number): Promise<void> {
    const lengthBytes = await this.#file.read(into, offset);
    if (lengthBytes === into.byteLength) return;
    throw mapError(this.#file.path, offset + lengthBytes, 'a dirty map is as long as its disk asks for');
  }
}

function unwritable(path: string, cause: unknown): BlockferryError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new BlockferryError('OUTPUT_FAILED', `${path}: the dirty map cannot be written: ${reason}`, {
    facts: { source: path },
    cause,
  });
}
