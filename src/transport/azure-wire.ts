/**
 * Page writes and parts of objects on a short way: one request of the SDK's HTTP client, signed here.
 *
 * A Put Page through the whole of @azure/storage-blob takes 2 to 3 ms of processor time for its models, policies and traces, ten
 * times what the request itself takes; a first copy of sealed chunks makes four thousand of them per GiB. Whatever is called
 * less often goes through the SDK. Credentials, proxies, sockets and errors are the same either way.
 *
 *     string to sign   verb \n encoding \n language \n length \n MD5 \n type \n date \n if-modified-since \n if-match \n
 *                      if-none-match \n if-unmodified-since \n range \n x-ms- headers, sorted \n resource, queries sorted
 *
 * Source: Authorize with Shared Key; Put Page; Put Block (Azure Storage REST API).
 */

import {
  createDefaultHttpClient,
  createHttpHeaders,
  createPipelineRequest,
  proxyPolicy,
} from '@azure/core-rest-pipeline';
import type { TokenCredential } from '@azure/identity';
import { RestError, StorageSharedKeyCredential } from '@azure/storage-blob';
import type { Clock } from '../ports.ts';
import { AzureToken } from './azure-token.ts';
import { usage } from './store-url.ts';

/** How requests are authorized; anonymous ones have a SAS in their URL. */
export type AzureCredential = StorageSharedKeyCredential | TokenCredential | 'anonymous';

/** Where to, taken apart once for many requests. */
export interface Target {
  readonly url: string;
  readonly isEncrypted: boolean;
  /** Last in the string to sign: path, and queries by their names. */
  readonly resource: string;
}

/** A PUT with a body. */
export interface Upload {
  readonly target: Target;
  /** Lower case; what every request has is added. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Knows every header that is sent here, and is known to emulators of years. */
const SERVICE_VERSION = '2021-12-02';
const STATUS_CREATED = 201;
const STATUS_UNAUTHORIZED = 401;
/** In this order, each on a line of its own, empty where there is none. */
const HEADERS_SIGNED = [
  ...['content-encoding', 'content-language', 'content-length', 'content-md5', 'content-type', 'date'],
  ...['if-modified-since', 'if-match', 'if-none-match', 'if-unmodified-since', 'range'],
] as const;

export class AzureWire {
  readonly #credential: AzureCredential;
  readonly #clock: Clock;
  readonly #http = createDefaultHttpClient();
  readonly #proxy = proxyPolicy();
  readonly #token: AzureToken | undefined;

  constructor(credential: AzureCredential, clock: Clock) {
    this.#credential = credential;
    this.#clock = clock;
    if (credential !== 'anonymous' && !(credential instanceof StorageSharedKeyCredential)) {
      this.#token = new AzureToken(credential, clock);
    }
  }

  /** Sends it once. @throws RestError for any answer but 201, and whatever sockets fail with: to be called inside `attempt` */
  async upload({ target, headers, body }: Upload, abortSignal: AbortSignal): Promise<void> {
    const sent: Record<string, string> = {
      ...headers,
      'content-length': String(body.byteLength),
      'content-type': 'application/octet-stream',
      'user-agent': 'blockferry',
      // biome-ignore lint/style/noRestrictedGlobals: what the clock says, in the form of the header
      'x-ms-date': new Date(this.#clock.nowMs()).toUTCString(),
      'x-ms-version': SERVICE_VERSION,
    };
    const authorization = await this.#authorization(target, sent);
    if (authorization !== undefined) sent['authorization'] = authorization;
    const request = createPipelineRequest({
      url: target.url,
      method: 'PUT',
      headers: createHttpHeaders(sent),
      body,
      abortSignal,
      // Where that is not allowed, the URL was refused when the store was opened.
      allowInsecureConnection: true,
    });
    const response = await this.#proxy.sendRequest(request, (direct) => this.#http.sendRequest(direct));
    if (response.status === STATUS_CREATED) return;
    if (response.status === STATUS_UNAUTHORIZED) this.#token?.drop();
    throw new RestError('not created', { statusCode: response.status, request, response });
  }

  async #authorization(target: Target, headers: Readonly<Record<string, string>>): Promise<string | undefined> {
    if (this.#token) {
      if (!target.isEncrypted) throw usage('no token is sent without encryption', 'write https://');
      return `Bearer ${await this.#token.text()}`;
    }
    const credential = this.#credential;
    if (!(credential instanceof StorageSharedKeyCredential)) return undefined;
    const signature = credential.computeHMACSHA256(stringToSign(credential.accountName, target, headers));
    return `SharedKey ${credential.accountName}:${signature}`;
  }
}

/** `url`: of a blob, with a SAS if there is one. `query`: beside that; values as they are before escaping. */
export function targetOf(url: string, query: Readonly<Record<string, string>>): Target {
  const whole = new URL(url);
  for (const [name, value] of Object.entries(query)) whole.searchParams.set(name, value);
  const { searchParams, pathname, href, protocol } = whole;
  const queries = [...searchParams.keys()].sort().map((name) => `${name}:${searchParams.get(name)}`);
  return { url: href, isEncrypted: protocol === 'https:', resource: [pathname, ...queries].join('\n') };
}

function stringToSign(account: string, { resource }: Target, headers: Readonly<Record<string, string>>): string {
  const own = Object.keys(headers).filter((name) => name.startsWith('x-ms-'));
  return [
    'PUT',
    ...HEADERS_SIGNED.map((name) => headers[name] ?? ''),
    ...own.sort().map((name) => `${name}:${headers[name]}`),
    `/${account}${resource}`,
  ].join('\n');
}
