/**
 * The store in a container of Azure page blobs: objects are block blobs that become visible in one step, disks are page
 * blobs.
 */
import { createHash } from 'node:crypto';
import type { ContainerClient } from '@azure/storage-blob';
import { asBuffer, bytesEqual } from '../bytes.ts';
import { type BlockferryError, isBlockferryError } from '../errors.ts';
import type { Random } from '../ports.ts';
import { type AzureSettings, attempt } from './azure-attempt.ts';
import { AzurePageBlob } from './azure-blob.ts';
import { collect, discard } from './azure-body.ts';
import { damagedTransfer } from './azure-errors.ts';
import { readObject } from './azure-range.ts';
import { AzureStagedObject } from './azure-staged.ts';
import { checkKey, checkKeyPrefix, isKey } from './keys.ts';
import { checkObjectRead, tooLong } from './page-rules.ts';
import type { CallOptions, ObjectReadOptions, PageBlob, StagedObject, Store, StoredObject } from './store.ts';

/** What an AzureStore is made of; `openStore` makes it from a URL. */
export interface AzureStoreOptions {
  readonly container: ContainerClient;
  /** Path of the replica inside the container, without slashes at its ends; may be empty. */
  readonly prefix: string;
  /** For people: without a SAS. */
  readonly url: string;
  readonly settings: AzureSettings;
  readonly random: Random;
}

export class AzureStore implements Store {
  readonly url: string;
  readonly #container: ContainerClient;
  readonly #prefix: string;
  readonly sendsCrc64: boolean;
  readonly #settings: AzureSettings;
  readonly #random: Random;

  constructor({ container, prefix, url, settings, random }: AzureStoreOptions) {
    this.url = url;
    this.#container = container;
    this.#prefix = prefix === '' ? '' : `${prefix}/`;
    this.#settings = settings;
    this.sendsCrc64 = settings.transportChecksum === 'crc64';
    this.#random = random;
  }

  /** A SAS for one container may list it but neither see its properties nor create it; so listing is the question. */
  async prepare(options?: CallOptions): Promise<void> {
    try {
      await this.#attempt(this.url, 'List Blobs', 0, options, (abortSignal) =>
        this.#container.listBlobsFlat({ abortSignal }).byPage({ maxPageSize: 1 }).next(),
      );
      return;
    } catch (error) {
      if (!isBlockferryError(error, 'STORE_NOT_FOUND')) throw error;
    }
    await this.#attempt(this.url, 'Create Container', 0, options, (abortSignal) =>
      this.#container.createIfNotExists({ abortSignal }),
    );
  }

  async get(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined> {
    checkKey(key);
    const client = this.#container.getBlobClient(this.#prefix + key);
    try {
      return await this.#attempt(key, 'Get Blob', maxBytes, options, async (abortSignal) => {
        const answer = await client.download(0, undefined, { abortSignal, maxRetryRequests: 0 });
        const { contentLength, etag, contentMD5, readableStreamBody } = answer;
        if (contentLength === undefined || etag === undefined)
          throw this.#damaged(key, 'Get Blob', 'length or etag is missing');
        if (contentLength > maxBytes) {
          discard(readableStreamBody);
          throw tooLong(key, contentLength, maxBytes);
        }
        const bytes = Buffer.allocUnsafeSlow(contentLength);
        const got = await collect(readableStreamBody, bytes);
        if (got !== contentLength) throw this.#damaged(key, 'Get Blob', `${got} of ${contentLength} bytes arrived`);
        if (contentMD5 && !bytesEqual(createHash('md5').update(bytes).digest(), contentMD5)) {
          throw this.#damaged(key, 'Get Blob', `the checksum of ${contentLength} bytes does not match`);
        }
        return { bytes, etag };
      });
    } catch (error) {
      if (isBlockferryError(error, 'STORE_NOT_FOUND')) return undefined;
      throw error;
    }
  }

  async put(
    key: string,
    bytes: Uint8Array,
    options?: CallOptions & { readonly ifMatch?: string | null },
  ): Promise<string> {
    checkKey(key);
    const body = asBuffer(bytes);
    const ifMatch = options?.ifMatch;
    const conditions = ifMatch === undefined ? {} : ifMatch === null ? { ifNoneMatch: '*' } : { ifMatch };
    const answer = await this.#attempt(key, 'Put Blob', body.byteLength, options, (abortSignal) =>
      this.#container.getBlockBlobClient(this.#prefix + key).upload(body, body.byteLength, {
        abortSignal,
        conditions,
        blobHTTPHeaders: { blobContentMD5: createHash('md5').update(body).digest() },
      }),
    );
    if (answer.etag === undefined) throw this.#damaged(key, 'Put Blob', 'the answer names no etag');
    return answer.etag;
  }

  async read(key: string, offset: number, lengthBytes: number, options?: ObjectReadOptions): Promise<Uint8Array> {
    checkKey(key);
    checkObjectRead(key, offset, lengthBytes);
    const { url } = this.#container.getBlobClient(this.#prefix + key);
    return await readObject(url, key, offset, lengthBytes, this.#settings, options);
  }

  stage(key: string, partBytes: number): StagedObject {
    checkKey(key);
    const client = this.#container.getBlockBlobClient(this.#prefix + key);
    return new AzureStagedObject(client, key, partBytes, this.#settings, this.#random);
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    checkKey(key);
    await this.#attempt(key, 'Delete Blob', 0, options, (abortSignal) =>
      this.#container.getBlobClient(this.#prefix + key).deleteIfExists({ abortSignal }),
    );
  }

  async *list(prefix: string, options?: CallOptions): AsyncGenerator<string> {
    checkKeyPrefix(prefix);
    let marker: string | undefined;
    do {
      const settings = marker === undefined ? {} : { continuationToken: marker };
      const page = await this.#attempt(this.url, 'List Blobs', 0, options, async (abortSignal) => {
        const list = this.#container.listBlobsFlat({ abortSignal, prefix: this.#prefix + prefix });
        return (await list.byPage(settings).next()).value;
      });
      for (const { name } of page?.segment.blobItems ?? []) {
        const key = name.slice(this.#prefix.length);
        // Whatever else lies in the container was not put there by a store.
        if (isKey(key)) yield key;
      }
      marker = page?.continuationToken || undefined;
    } while (marker !== undefined);
  }

  pages(key: string): PageBlob {
    checkKey(key);
    return new AzurePageBlob(this.#container, this.#prefix + key, key, this.#settings);
  }

  async close(): Promise<void> {
    await this.#settings.wire.close();
  }

  #attempt<T>(
    subject: string,
    operation: string,
    bodyBytes: number,
    options: CallOptions | undefined,
    send: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return attempt(this.#settings, { subject, operation }, bodyBytes, options, send);
  }

  #damaged(key: string, operation: string, what: string): BlockferryError {
    return damagedTransfer({ subject: key, operation }, what);
  }
}
