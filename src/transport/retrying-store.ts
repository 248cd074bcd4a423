/**
 * A store whose calls are tried again. A replacement whose answer was lost is resolved by reading: with a condition on
 * the etag, either our bytes are there, or the condition still decides.
 */
import { bytesEqual } from '../bytes.ts';
import { isBlockferryError } from '../errors.ts';
import { FencedBlob, type FencedBlobOptions } from './fenced-blob.ts';
import { mayStillApply } from './outcome.ts';
import { resumed } from './resumed.ts';
import type { Retry } from './retry.ts';
import { RetryingBlob } from './retrying-blob.ts';
import type {
  CallOptions,
  ObjectReadOptions,
  PageBlob,
  PutOptions,
  StagedObject,
  Store,
  StoredObject,
} from './store.ts';

export class RetryingStore implements Store {
  readonly #store: Store;
  readonly #retry: Retry;

  constructor(store: Store, retry: Retry) {
    this.#store = store;
    this.#retry = retry;
  }

  get url(): string {
    return this.#store.url;
  }

  get sendsCrc64(): boolean {
    return this.#store.sendsCrc64 === true;
  }

  prepare(options?: CallOptions): Promise<void> {
    return this.#retry.run('prepare', () => this.#store.prepare(options), options?.signal);
  }

  get(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined> {
    return this.#retry.run(`${key}: get`, () => this.#store.get(key, maxBytes, options), options?.signal);
  }

  /** Undefined where the store below has none. */
  get settled(): Store['settled'] {
    const { settled } = this.#store;
    if (settled === undefined) return undefined;
    return (key, maxBytes, options) => {
      const call = (): Promise<StoredObject | undefined> => settled.call(this.#store, key, maxBytes, options);
      return this.#retry.run(`${key}: get settled`, call, options?.signal);
    };
  }

  /**
   * Without `ifMatch` the last of several writers is whoever arrives last, and a try whose answer was lost may arrive
   * later than the next put; what must not be rolled back is put with `ifMatch`.
   */
  async put(key: string, bytes: Uint8Array, options?: PutOptions): Promise<string> {
    let unknown = false;
    const attempt = async (): Promise<string> => {
      try {
        return await this.#store.put(key, bytes, options);
      } catch (error) {
        if (unknown && isBlockferryError(error, 'STORE_CONDITION')) {
          const etag = await this.#etagIfEqual(key, bytes, options);
          if (etag !== undefined) return etag;
        }
        unknown ||= mayStillApply(error);
        throw error;
      }
    };
    return await this.#retry.run(`${key}: put`, attempt, options?.signal);
  }

  read(key: string, offset: number, lengthBytes: number, options?: ObjectReadOptions): Promise<Uint8Array> {
    const call = (): Promise<Uint8Array> => this.#store.read(key, offset, lengthBytes, options);
    return this.#retry.run(`${key}: read`, call, options?.signal);
  }

  /** Each call is safe to repeat: a part is put again with the same bytes, and a commit that was applied finds its parts. */
  stage(key: string, partBytes: number): StagedObject {
    const staged = this.#store.stage(key, partBytes);
    return {
      put: (index, bytes, options) =>
        this.#retry.run(`${key}: put part ${index}`, () => staged.put(index, bytes, options), options?.signal),
      commit: (parts, options) =>
        this.#retry.run(`${key}: commit`, () => staged.commit(parts, options), options?.signal),
      abort: () => this.#retry.run(`${key}: abort`, () => staged.abort()),
    };
  }

  delete(key: string, options?: CallOptions): Promise<void> {
    return this.#retry.run(`${key}: delete`, () => this.#store.delete(key, options), options?.signal);
  }

  async *list(prefix: string, options?: CallOptions): AsyncGenerator<string> {
    const open = (last: string | undefined): AsyncIterable<string> => keysAfter(this.#store, prefix, last, options);
    yield* resumed(this.#retry, `${prefix}: list`, options?.signal, open);
  }

  /** Retries everything but writes; those go through `fenced`. */
  pages(key: string): PageBlob {
    return new RetryingBlob(this.#store.pages(key), this.#retry);
  }

  /** The way to write a page blob: see FencedBlob. */
  fenced(key: string, options: Omit<FencedBlobOptions, 'blob' | 'retry'>): FencedBlob {
    return new FencedBlob({ ...options, blob: this.#store.pages(key), retry: this.#retry });
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  async #etagIfEqual(key: string, bytes: Uint8Array, options: CallOptions | undefined): Promise<string | undefined> {
    try {
      const there = await this.#store.get(key, bytes.byteLength, options);
      return there && bytesEqual(there.bytes, bytes) ? there.etag : undefined;
    } catch (error) {
      // Longer than ours, so not ours.
      if (isBlockferryError(error, 'STORE_REFUSED')) return undefined;
      throw error;
    }
  }
}

async function* keysAfter(
  store: Store,
  prefix: string,
  last: string | undefined,
  options: CallOptions | undefined,
): AsyncGenerator<string> {
  for await (const key of store.list(prefix, options)) {
    if (last === undefined || key > last) yield key;
  }
}
