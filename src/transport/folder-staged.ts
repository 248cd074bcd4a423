/**
 * A staged object in a folder: its parts stand in `<key>@stage-<random>` at index × part bytes; committing cuts that file to
 * its length, makes it durable and gives it its name.
 *
 * A process that ends between parts and commit leaves the file behind. It is removed with the next commit of its key, or
 * when a staging begins in its directory and it has not been touched for an hour: a staging that is alive is (no request is
 * tried for longer than ten minutes), and one that slept through is told so when it commits.
 */
import { basename, dirname, join } from 'node:path';
import { BlockferryError, throwIfAborted } from '../errors.ts';
import type { RandomAccessFile } from '../ports.ts';
import type { FolderContext } from './folder-blob.ts';
import { isErrno, notAnObject, onFiles } from './folder-errors.ts';
import { type BlobPaths, blobPaths, ensureDirectory, STAGE_MARK } from './folder-layout.ts';
import type { HeldLock } from './folder-lock.ts';
import { StagedParts } from './staged-parts.ts';
import type { CallOptions, StagedObject } from './store.ts';

const IDLE_MS_MAX = 3_600_000;

export class FolderStagedObject implements StagedObject {
  readonly #context: FolderContext;
  readonly #key: string;
  readonly #partBytes: number;
  readonly #parts: StagedParts;
  readonly #paths: BlobPaths;
  readonly #path: string;
  #file: Promise<RandomAccessFile> | undefined;
  /** Cut, durable and closed; then named. Both happen once, however often the commit is tried. */
  #isFinished = false;
  #isNamed = false;
  /** After a failed sync nobody knows what is on the disk, and a second sync would not tell. */
  #broken: unknown;

  /** @param id Not used by any other staging of the key */
  constructor(context: FolderContext, key: string, partBytes: number, id: string) {
    this.#context = context;
    this.#key = key;
    this.#partBytes = partBytes;
    this.#parts = new StagedParts(key, partBytes);
    this.#paths = blobPaths(context.directory, key);
    this.#path = `${this.#paths.live}${STAGE_MARK}${id}`;
  }

  async put(index: number, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    throwIfAborted(options?.signal);
    this.#parts.check(index, bytes.byteLength);
    await onFiles(this.#key, async () => {
      const file = await this.#open();
      await file.write(bytes, index * this.#partBytes);
    });
    this.#parts.stored(index, bytes.byteLength);
  }

  async commit(parts: number, options?: CallOptions): Promise<void> {
    throwIfAborted(options?.signal);
    const sizeBytes = this.#parts.checkWhole(parts);
    this.#parts.end();
    await onFiles(this.#key, async () => {
      // Long for a large object, and therefore not under the lock.
      if (!this.#isFinished) await this.#finish(sizeBytes);
      await this.#context.lock.hold(options?.signal, (held) => this.#publish(held));
    });
  }

  async abort(): Promise<void> {
    this.#parts.abandon();
    if (this.#isNamed || this.#file === undefined) return;
    await onFiles(this.#key, async () => {
      await this.#close();
      await this.#context.files.remove(this.#path);
    });
  }

  #open(): Promise<RandomAccessFile> {
    if (this.#file === undefined) {
      const opening = this.#create();
      this.#file = opening;
      // A next try begins anew.
      opening.catch(() => {
        this.#file = undefined;
      });
    }
    return this.#file;
  }

  async #create(): Promise<RandomAccessFile> {
    const { files, clock } = this.#context;
    const directory = dirname(this.#path);
    await ensureDirectory(files, directory);
    const oldestMs = clock.nowMs() - IDLE_MS_MAX;
    for (const path of await this.#stagings(() => true)) {
      if ((await this.#touchedMs(path)) < oldestMs) await files.remove(path);
    }
    return await files.open(this.#path, 'create');
  }

  async #finish(sizeBytes: number): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    const file = await this.#open();
    try {
      await file.truncate(sizeBytes);
      await file.sync();
    } catch (error) {
      this.#broken = error;
      throw error;
    }
    await this.#close();
    this.#isFinished = true;
  }

  async #publish(held: HeldLock): Promise<void> {
    const { files, failpoint } = this.#context;
    const { live, state } = this.#paths;
    if (!this.#isNamed) {
      if (await files.exists(state)) throw notAnObject(this.#key, 'it is a page blob');
      await failpoint('object.after-temporary');
      await held.verify();
      await this.#rename(live);
      this.#isNamed = true;
    }
    await files.syncDirectory(dirname(live));
    const ofThisKey = `${basename(live)}${STAGE_MARK}`;
    for (const path of await this.#stagings((name) => name.startsWith(ofThisKey))) await files.remove(path);
  }

  async #rename(live: string): Promise<void> {
    try {
      await this.#context.files.rename(this.#path, live);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
      throw new BlockferryError('STORE_CONDITION', `${this.#key}: the parts of this staging are gone`, {
        cause: error,
        facts: { source: this.#key, rule: 'nobody else commits the object meanwhile' },
        hint: 'another writer made this object meanwhile, or the upload stood still for an hour; run the command again',
      });
    }
  }

  async #close(): Promise<void> {
    const file = await this.#file?.catch(() => undefined);
    await file?.close();
  }

  /** Paths of stagings in the directory of this one. */
  async #stagings(wanted: (name: string) => boolean): Promise<readonly string[]> {
    const directory = dirname(this.#path);
    const entries = await this.#context.files.list(directory);
    return entries
      .filter(({ name }) => name.includes(STAGE_MARK) && wanted(name))
      .map(({ name }) => join(directory, name));
  }

  /** Of a file that is gone: now. */
  async #touchedMs(path: string): Promise<number> {
    try {
      const file = await this.#context.files.open(path, 'read');
      const { modifiedNs } = await file.stamp().finally(() => file.close());
      return Number(modifiedNs / 1_000_000n);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return Number.POSITIVE_INFINITY;
      throw error;
    }
  }
}
