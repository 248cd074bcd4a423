/**
 * Page writes, parts of objects and reads of ranges on a short way, signed here: uploads over connections of our own, reads and
 * whatever goes through a proxy by one request of the SDK's HTTP client.
 *
 * Through the whole of @azure/storage-blob a Put Page took two to three milliseconds of processor time, for its models, policies and
 * traces; a first copy of sealed chunks makes up to four thousand of them per GiB, and they bounded it. Whatever is called
 * less often goes through the SDK. Credentials and errors are the same either way.
 *
 *     string to sign   method \n encoding \n language \n length \n MD5 \n type \n date \n if-modified-since \n if-match \n
 *                      if-none-match \n if-unmodified-since \n range \n x-ms- headers, sorted \n resource, queries sorted
 *
 * Source: Authorize with Shared Key; Put Page; Put Block; Get Blob (Azure Storage REST API).
 */

import {
  bearerTokenAuthenticationPolicy,
  createDefaultHttpClient,
  createHttpHeaders,
  createPipelineRequest,
  type PipelinePolicy,
  type PipelineRequest,
  type PipelineResponse,
  proxyPolicy,
} from '@azure/core-rest-pipeline';
import type { AccessToken, TokenCredential } from '@azure/identity';
import { RestError, StorageSharedKeyCredential } from '@azure/storage-blob';
import type { Clock } from '../ports.ts';
import { discard } from './azure-body.ts';
import { usage } from './store-url.ts';
import { type OnInterrupt, type UploadAnswer, UploadLine } from './upload-line.ts';

/** How requests are authorized; anonymous ones have a SAS in their URL. */
export type AzureCredential = StorageSharedKeyCredential | TokenCredential | 'anonymous';

/** Where to, taken apart once for many requests. */
export interface Target {
  readonly url: URL;
  /** Path and query of it. */
  readonly path: string;
  /** Last in the string to sign: path, and queries by their names. */
  readonly resource: string;
}

/** One request. */
export interface WireRequest {
  readonly target: Target;
  /** Lower case; what every request has is added. */
  readonly headers: Readonly<Record<string, string>>;
}

/** An answer that brings a body, which the caller reads or gives up. */
export interface WireAnswer {
  readonly headers: { get(name: string): string | undefined };
  readonly body: NodeJS.ReadableStream | undefined;
}

/** Knows every header that is sent here, and is known to emulators of years. */
const SERVICE_VERSION = '2021-12-02';
const TOKEN_SCOPE = 'https://storage.azure.com/.default';
const STATUS_CREATED = 201;
const STATUS_UNAUTHORIZED = 401;
const STATUS_OK = 200;
const STATUS_PARTIAL = 206;
/** No body is read before somebody asks for it: that of an error may have no end, and its headers say all. */
const STREAMED: Set<number> = new Set([Number.POSITIVE_INFINITY]);
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
  /** To each origin, `undefined` where a proxy is in between. */
  readonly #lines: Map<string, Promise<UploadLine | undefined>> = new Map();
  /** Keeps one token for many requests, and goes on with it while the identity cannot be asked for the next. */
  #bearer: PipelinePolicy | undefined;

  constructor(credential: AzureCredential, clock: Clock) {
    this.#credential = credential;
    this.#clock = clock;
    this.#bearer = bearerOf(credential);
  }

  /** A PUT. @throws RestError for any answer but 201, and whatever sockets fail with: to be called inside `bounded` */
  async upload({ target, headers }: WireRequest, body: Buffer, onInterrupt: OnInterrupt): Promise<void> {
    const about = { 'content-length': String(body.byteLength), 'content-type': 'application/octet-stream' };
    const sent = this.#signed('PUT', { target, headers: { ...headers, ...about } });
    const line = await this.#lineTo(target);
    if (line && !this.#bearer) {
      const answer = await line.put(target.path, sent, body, onInterrupt);
      if (answer.status !== STATUS_CREATED)
        throw refused(pipelineResponse(answer, pipelineRequest('PUT', target, sent)));
      return;
    }
    const controller = new AbortController();
    onInterrupt((error) => controller.abort(error));
    const request = pipelineRequest('PUT', target, sent, controller.signal, body);
    const response = await this.#authorized(request, async (next) =>
      line
        ? pipelineResponse(await line.put(target.path, next.headers.toJSON(), body, onInterrupt), next)
        : this.#throughSdk(next),
    );
    if (response.status !== STATUS_CREATED) throw refused(response);
    // The connection is free again behind it.
    response.readableStreamBody?.resume();
  }

  /** A GET. @throws RestError for any answer without what was asked for, and as `upload` does: to be called inside `attempt` */
  async fetch(request: WireRequest, abortSignal: AbortSignal): Promise<WireAnswer> {
    const asked = pipelineRequest('GET', request.target, this.#signed('GET', request), abortSignal);
    const response = await this.#authorized(asked, (next) => this.#throughSdk(next));
    if (response.status !== STATUS_OK && response.status !== STATUS_PARTIAL) throw refused(response);
    return { headers: response.headers, body: response.readableStreamBody };
  }

  async close(): Promise<void> {
    for (const line of this.#lines.values()) (await line)?.close();
  }

  /** All headers of a request, with its signature where there is a key. */
  #signed(method: 'PUT' | 'GET', { target, headers }: WireRequest): Record<string, string> {
    const sent: Record<string, string> = {
      ...headers,
      'user-agent': 'blockferry',
      // biome-ignore lint/style/noRestrictedGlobals: what the clock says, in the form of the header
      'x-ms-date': new Date(this.#clock.nowMs()).toUTCString(),
      'x-ms-version': SERVICE_VERSION,
    };
    const credential = this.#credential;
    if (this.#bearer && target.url.protocol !== 'https:') {
      throw usage('no token is sent without encryption', 'write https://');
    }
    if (credential instanceof StorageSharedKeyCredential) {
      const signature = credential.computeHMACSHA256(stringToSign(method, credential.accountName, target, sent));
      sent['authorization'] = `SharedKey ${credential.accountName}:${signature}`;
    }
    return sent;
  }

  /** Sends with a token, if there is an identity that has one. */
  async #authorized(
    request: PipelineRequest,
    send: (next: PipelineRequest) => Promise<PipelineResponse>,
  ): Promise<PipelineResponse> {
    const response = await (this.#bearer ? this.#bearer.sendRequest(request, send) : send(request));
    // The token was not taken: the next request asks for another one.
    if (response.status === STATUS_UNAUTHORIZED) this.#bearer = bearerOf(this.#credential);
    return response;
  }

  #throughSdk(request: PipelineRequest): Promise<PipelineResponse> {
    return this.#proxy.sendRequest(request, (next) => this.#http.sendRequest(next));
  }

  #lineTo({ url }: Target): Promise<UploadLine | undefined> {
    const known = this.#lines.get(url.origin);
    if (known !== undefined) return known;
    const line = this.#isProxied(url).then((isProxied) => (isProxied ? undefined : new UploadLine(url, this.#clock)));
    this.#lines.set(url.origin, line);
    return line;
  }

  /** Whether the environment names a proxy for it: the SDK's policy would then choose an agent. */
  async #isProxied(url: URL): Promise<boolean> {
    let chosen: unknown;
    const probe = createPipelineRequest({ url: url.href, allowInsecureConnection: true });
    await this.#proxy.sendRequest(probe, async (next) => {
      chosen = next.agent;
      return { request: next, headers: next.headers, status: STATUS_OK };
    });
    return chosen !== undefined;
  }
}

function pipelineRequest(
  method: 'PUT' | 'GET',
  target: Target,
  headers: Record<string, string>,
  abortSignal?: AbortSignal,
  body?: Buffer,
): PipelineRequest {
  return createPipelineRequest({
    url: target.url.href,
    method,
    headers: createHttpHeaders(headers),
    ...(body ? { body } : {}),
    ...(abortSignal ? { abortSignal } : {}),
    streamResponseStatusCodes: STREAMED,
    // Where that is not allowed, the URL was refused when the store was opened.
    allowInsecureConnection: true,
  });
}

/** An answer on a line of our own as the SDK would have it. */
function pipelineResponse({ status, headers }: UploadAnswer, request: PipelineRequest): PipelineResponse {
  return { request, status, headers: createHttpHeaders(Object.fromEntries(headers)) };
}

function bearerOf(credential: AzureCredential): PipelinePolicy | undefined {
  if (credential === 'anonymous' || credential instanceof StorageSharedKeyCredential) return undefined;
  const getToken = async (...asked: Parameters<TokenCredential['getToken']>): Promise<AccessToken> => {
    const token = await credential.getToken(...asked);
    if (token === null) throw Object.assign(new Error('there is no token'), { name: 'AuthenticationError' });
    return token;
  };
  return bearerTokenAuthenticationPolicy({ credential: { getToken }, scopes: TOKEN_SCOPE });
}

function refused(response: PipelineResponse): RestError {
  const { status: statusCode, request } = response;
  discard(response.readableStreamBody);
  return new RestError(`HTTP ${statusCode}`, { statusCode, request, response });
}

/** `url`: of a blob, with a SAS if there is one. `query`: beside that; values as they are before escaping. */
export function targetOf(url: string, query: Readonly<Record<string, string>>): Target {
  const whole = new URL(url);
  for (const [name, value] of Object.entries(query)) whole.searchParams.set(name, value);
  const { searchParams, pathname, search } = whole;
  const queries = [...searchParams.keys()].sort().map((name) => `${name}:${searchParams.get(name)}`);
  return { url: whole, path: `${pathname}${search}`, resource: [pathname, ...queries].join('\n') };
}

function stringToSign(
  method: string,
  account: string,
  { resource }: Target,
  headers: Readonly<Record<string, string>>,
): string {
  const own = Object.keys(headers).filter((name) => name.startsWith('x-ms-'));
  return [
    method,
    ...HEADERS_SIGNED.map((name) => headers[name] ?? ''),
    ...own.sort().map((name) => `${name}:${headers[name]}`),
    `/${account}${resource}`,
  ].join('\n');
}
