/**
 * The store in a folder: objects are plain files replaced in one step, disks are plain sparse files with a sidecar
 * (folder-blob.ts). Format: docs/formats/folder-store.md.
 *
 * Compare and swap holds between processes that open the same folder with the same URL, on a file system that all
 * of them see alike: one machine, or a share with close-to-open consistency where one machine writes.
 */
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { BlockferryError, throwIfAborted } from '../errors.ts';
import type { Ports, Random } from '../ports.ts';
import { type FolderContext, FolderPageBlob } from './folder-blob.ts';
import { notAnObject, onFiles } from './folder-errors.ts';
import { blobPaths, ensureDirectory, publish } from './folder-layout.ts';
import { FolderLock } from './folder-lock.ts';
import { FolderStagedObject } from './folder-staged.ts';
import { checkKey, checkKeyPrefix, isKey } from './keys.ts';
import { beyondEnd, checkObjectRead, checkObjectSize, tooLong } from './page-rules.ts';
import type { CallOptions, ObjectReadOptions, PageBlob, StagedObject, Store, StoredObject } from './store.ts';

const STAGING_ID_BYTES = 16;

function etagOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 32);
}

/** A folder as a store. `directory` is absolute. */
export class FolderStore implements Store {
  readonly url: string;
  readonly #context: FolderContext;
  /** One per key: writers in this process share what they know of a blob. */
  readonly #blobs = new Map<string, FolderPageBlob>();
  /** For the names of stagings. */
  readonly #random: Random;

  constructor({
    directory,
    ports,
  }: { readonly directory: string; readonly ports: Pick<Ports, 'clock' | 'random' | 'files' | 'failpoint'> }) {
    const { files, clock, random, failpoint } = ports;
    this.#random = random;
    this.url = pathToFileURL(directory).href;
    this.#context = { directory, files, clock, failpoint, lock: new FolderLock(files, clock, directory) };
  }

  async prepare(options?: CallOptions): Promise<void> {
    throwIfAborted(options?.signal);
    const { files, directory } = this.#context;
    await onFiles(this.url, () => ensureDirectory(files, directory));
  }

  async get(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined> {
    checkKey(key);
    throwIfAborted(options?.signal);
    const bytes = await onFiles(key, () => this.#read(key, maxBytes));
    return bytes && { bytes, etag: etagOf(bytes) };
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options?: CallOptions & { readonly ifMatch?: string | null },
  ): Promise<string> {
    checkKey(key);
    const { files, directory, lock, failpoint } = this.#context;
    const { live, temporary, state } = blobPaths(directory, key);
    return await onFiles(key, () =>
      lock.hold(options?.signal, async (held) => {
        if (await files.exists(state)) throw notAnObject(key, 'it is a page blob');
        if (options?.ifMatch !== undefined) await this.#compare(key, options.ifMatch);
        await ensureDirectory(files, dirname(live));
        await publish(
          files,
          temporary,
          live,
          (write) => write(bytes),
          async () => {
            await failpoint('object.after-temporary');
            await held.verify();
          },
        );
        return etagOf(bytes);
      }),
    );
  }

  async read(key: string, offset: number, lengthBytes: number, options?: ObjectReadOptions): Promise<Uint8Array> {
    checkKey(key);
    checkObjectRead(key, offset, lengthBytes);
    throwIfAborted(options?.signal);
    const { files, directory } = this.#context;
    return await onFiles(key, async () => {
      const file = await files.open(blobPaths(directory, key).live, 'read');
      try {
        const sizeBytes = await file.sizeBytes();
        checkObjectSize(key, sizeBytes, options?.sizeBytes);
        if (offset + lengthBytes > sizeBytes) throw beyondEnd(key, offset, lengthBytes, sizeBytes);
        const into = Buffer.allocUnsafeSlow(lengthBytes);
        // An object is replaced, never changed: the open file is one version of it.
        const got = await file.read(into, offset);
        if (got < lengthBytes) throw beyondEnd(key, offset, lengthBytes, offset + got);
        return into;
      } finally {
        await file.close();
      }
    });
  }

  stage(key: string, partBytes: number): StagedObject {
    checkKey(key);
    const id = Buffer.from(this.#random.bytes(STAGING_ID_BYTES)).toString('hex');
    return new FolderStagedObject(this.#context, key, partBytes, id);
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    checkKey(key);
    const { files, directory, lock } = this.#context;
    const { live, state } = blobPaths(directory, key);
    await onFiles(key, () =>
      lock.hold(options?.signal, async () => {
        if (await files.exists(state)) throw notAnObject(key, 'it is a page blob');
        if (!(await files.exists(live))) return;
        await files.remove(live);
        await files.syncDirectory(dirname(live));
      }),
    );
  }

  async *list(prefix: string, options?: CallOptions): AsyncGenerator<string> {
    checkKeyPrefix(prefix);
    const parent = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    for await (const key of this.#walk(parent, options)) {
      if (key.startsWith(prefix)) yield key;
    }
  }

  pages(key: string): PageBlob {
    checkKey(key);
    let blob = this.#blobs.get(key);
    if (blob === undefined) {
      blob = new FolderPageBlob(this.#context, key);
      this.#blobs.set(key, blob);
    }
    return blob;
  }

  async close(): Promise<void> {
    const blobs = [...this.#blobs.values()];
    this.#blobs.clear();
    await Promise.all(blobs.map((blob) => blob.close()));
  }

  /** Keys under `parent` (ends in a slash, or empty), ascending as whole strings: `a-b`, `a/b`, `ab`. */
  async *#walk(parent: string, options: CallOptions | undefined): AsyncGenerator<string> {
    throwIfAborted(options?.signal);
    const { files, directory } = this.#context;
    const entries = await onFiles(this.url, () => files.list(join(directory, parent)));
    const names = entries
      .filter(({ name, kind }) => isKey(name) && (kind === 'file' || kind === 'directory'))
      .map(({ name, kind }) => (kind === 'directory' ? `${name}/` : name))
      .sort((a, b) => (a < b ? -1 : 1));
    for (const name of names) {
      if (name.endsWith('/')) yield* this.#walk(parent + name, options);
      else yield parent + name;
    }
  }

  async #read(key: string, maxBytes: number): Promise<Uint8Array | undefined> {
    const { files, directory } = this.#context;
    const { live } = blobPaths(directory, key);
    try {
      return await files.readSmall(live, maxBytes);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      const file = await files.open(live, 'read');
      const lengthBytes = await file.sizeBytes().finally(() => file.close());
      throw tooLong(key, lengthBytes, maxBytes);
    }
  }

  async #compare(key: string, ifMatch: string | null): Promise<void> {
    const { files, directory } = this.#context;
    const { live } = blobPaths(directory, key);
    const there = ifMatch === null ? await files.exists(live) : undefined;
    if (there === false) return;
    const bytes = there ? undefined : await files.readSmall(live, Number.MAX_SAFE_INTEGER);
    if (bytes && etagOf(bytes) === ifMatch) return;
    throw new BlockferryError('STORE_CONDITION', `${key} ${ifMatch === null ? 'exists already' : 'was changed'}`, {
      facts: { source: key, rule: ifMatch === null ? 'must not exist' : `etag is ${ifMatch}` },
    });
  }
}
