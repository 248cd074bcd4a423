/**
 * A store behind a gateway (docs/gateway.md): every call is one request, which the gateway passes on or, for what a delta cycle
 * writes, holds durably and passes on later. The credential is a token of the gateway; this side knows nothing of the real store.
 */
import { BlockferryError } from '../errors.ts';
import { GATEWAY_LIST_BYTES_MAX } from '../limits.ts';
import type { Random } from '../ports.ts';
import { GatewayBlob, listOf, notAnAnswer, textOf } from './gateway-blob.ts';
import { type Answer, type Exchange, GatewayLine, type GatewayLineOptions } from './gateway-line.ts';
import type { GatewayCall } from './gateway-protocol.ts';
import { checkKey, checkKeyPrefix } from './keys.ts';
import { checkObjectRead } from './page-rules.ts';
import { StagedParts } from './staged-parts.ts';
import type {
  CallOptions,
  ObjectReadOptions,
  PageBlob,
  PutOptions,
  StagedObject,
  Store,
  StoredObject,
} from './store.ts';

const STAGING_ID_BYTES = 16;

function partsGone(key: string, cause: RangeError): BlockferryError {
  return new BlockferryError('STORE_CONDITION', `${key}: the gateway lost parts of this upload: ${cause.message}`, {
    cause,
    facts: { source: key, rule: 'parts stay until the commit' },
    hint: 'run the command again',
  });
}

export interface GatewayStoreOptions extends GatewayLineOptions {
  readonly random: Random;
}

export class GatewayStore implements Store {
  readonly url: string;
  readonly #line: GatewayLine;
  readonly #random: Random;

  constructor({ random, ...line }: GatewayStoreOptions) {
    this.url = `gateway+${line.origin}/${line.place}`;
    this.#line = new GatewayLine(line);
    this.#random = random;
  }

  async prepare(options?: CallOptions): Promise<void> {
    await this.#call(this.url, 'prepare', { fields: {} }, options);
  }

  get(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined> {
    return this.#get('get', key, maxBytes, options);
  }

  settled(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined> {
    return this.#get('settled', key, maxBytes, options);
  }

  async put(key: string, bytes: Uint8Array, { signal, ifMatch, early }: PutOptions = {}): Promise<string> {
    checkKey(key);
    const fields = { key, ...(ifMatch === undefined ? {} : { ifMatch }), ...(early ? { early } : {}) };
    const answer = await this.#call(key, 'put', { fields, body: bytes }, signal ? { signal } : {});
    return textOf(key, answer.fields, 'etag');
  }

  async read(key: string, offset: number, lengthBytes: number, options: ObjectReadOptions = {}): Promise<Uint8Array> {
    checkKey(key);
    checkObjectRead(key, offset, lengthBytes);
    const { sizeBytes, ...call } = options;
    const fields = { key, offset, lengthBytes, ...(sizeBytes === undefined ? {} : { sizeBytes }) };
    return (await this.#call(key, 'read', { fields, answerBytesMax: lengthBytes }, call)).bytes;
  }

  stage(key: string, partBytes: number): StagedObject {
    checkKey(key);
    const parts = new StagedParts(key, partBytes);
    const staging = Buffer.from(this.#random.bytes(STAGING_ID_BYTES)).toString('hex');
    const fields = { key, partBytes, staging };
    return {
      put: async (index, bytes, options) => {
        parts.check(index, bytes.byteLength);
        await this.#call(key, 'stage-put', { fields: { ...fields, index }, body: bytes }, options);
        parts.stored(index, bytes.byteLength);
      },
      commit: async (count, options) => {
        parts.checkWhole(count);
        parts.end();
        await this.#call(key, 'stage-commit', { fields: { ...fields, parts: count } }, options).catch(
          (cause: unknown) => {
            // All of them were put, so the gateway was started anew in between.
            throw cause instanceof RangeError ? partsGone(key, cause) : cause;
          },
        );
      },
      abort: async () => {
        parts.abandon();
        await this.#call(key, 'stage-abort', { fields }, {});
      },
    };
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    checkKey(key);
    await this.#call(key, 'delete', { fields: { key } }, options);
  }

  async *list(prefix: string, options?: CallOptions): AsyncGenerator<string> {
    checkKeyPrefix(prefix);
    for (let after: string | undefined; ; ) {
      const fields = { prefix, ...(after === undefined ? {} : { after }) };
      const page = await this.#call(this.url, 'list', { fields, answerBytesMax: GATEWAY_LIST_BYTES_MAX }, options);
      const { more, items } = listOf(this.url, page);
      for (const item of items) {
        const key = textOf(this.url, { key: item }, 'key');
        // Else it would never end.
        if (after !== undefined && key <= after) throw notAnAnswer(this.url);
        after = key;
        yield key;
      }
      if (!more || items.length === 0) return;
    }
  }

  pages(key: string): PageBlob {
    checkKey(key);
    return new GatewayBlob(this.#line, key);
  }

  async close(): Promise<void> {
    this.#line.close();
  }

  async #get(
    name: 'get' | 'settled',
    key: string,
    maxBytes: number,
    options: CallOptions | undefined,
  ): Promise<StoredObject | undefined> {
    checkKey(key);
    const answer = await this.#call(key, name, { fields: { key, maxBytes }, answerBytesMax: maxBytes }, options);
    return answer.fields['exists'] === true
      ? { bytes: answer.bytes, etag: textOf(key, answer.fields, 'etag') }
      : undefined;
  }

  async #call(
    subject: string,
    name: GatewayCall,
    exchange: Exchange,
    options: CallOptions | undefined,
  ): Promise<Answer> {
    return await this.#line.call(subject, name, exchange, options);
  }
}
