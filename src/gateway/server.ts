/**
 * The HTTP side of a gateway. Nothing of a request is taken before its client is known and may do it: first the token, then the
 * place, then the call with its lengths, then the body. Whoever is slow, sends too much or breaks the protocol is cut off alone.
 */
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { asBuffer } from '../bytes.ts';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import {
  GATEWAY_BODY_BYTES_MAX,
  GATEWAY_CONNECTIONS_MAX,
  GATEWAY_HELD_BYTES_MAX,
  GATEWAY_REQUEST_MS_MAX,
} from '../limits.ts';
import {
  ANSWER_HEADER,
  bodyCrc,
  CALL_HEADER,
  CRC_HEADER,
  encodeFailure,
  GATEWAY_PATH,
  IncomingCall,
} from '../transport/index.ts';
import { answerBytesOf, type CallAnswer, type CallContext } from './calls.ts';
import { HeldBytes } from './held-bytes.ts';

const HEADERS_MS_MAX = 10_000;
const CHECK_MS = 5_000;
/** Longer than the pause of a cycle is not worth a connection. */
const IDLE_MS = 60_000;
const NOTHING: Uint8Array = new Uint8Array();

/** A request whose client is known and may make it. */
export type Admitted = Pick<CallContext, 'call' | 'body' | 'place' | 'signal'>;

export interface GatewayServerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** PEM of certificate and key. */
  readonly tls?: { readonly certificate: string; readonly key: string };
  /** Who asks, and whether for a place of theirs. @throws STORE_AUTHENTICATION */
  readonly admit: (authorization: string | undefined, place: string) => void;
  readonly answer: (request: Admitted) => Promise<CallAnswer>;
  /** A fault of our own. */
  readonly onFault: (error: unknown) => void;
}

export class GatewayServer {
  readonly #options: GatewayServerOptions;
  readonly #server: Server;
  /** What goes through waits for the store with its bytes in hand: half of the memory is never its. */
  readonly #passed: HeldBytes = new HeldBytes(GATEWAY_HELD_BYTES_MAX / 2);
  readonly #held: HeldBytes = new HeldBytes(GATEWAY_HELD_BYTES_MAX / 2);
  readonly #sockets: Set<Socket> = new Set();

  private constructor(options: GatewayServerOptions) {
    this.#options = options;
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => void this.#serve(request, response);
    const settings = { connectionsCheckingInterval: CHECK_MS };
    const { tls } = options;
    this.#server = tls
      ? createHttpsServer({ ...settings, cert: tls.certificate, key: tls.key, minVersion: 'TLSv1.2' }, onRequest)
      : createHttpServer(settings, onRequest);
    this.#server.requestTimeout = GATEWAY_REQUEST_MS_MAX;
    this.#server.headersTimeout = HEADERS_MS_MAX;
    this.#server.keepAliveTimeout = IDLE_MS;
    // Nothing moves on it: a client that takes no answer.
    this.#server.timeout = GATEWAY_REQUEST_MS_MAX;
    this.#server.maxConnections = GATEWAY_CONNECTIONS_MAX;
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      // A client that goes away is its own business.
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('clientError', (_error, socket) => socket.destroy());
  }

  /** @throws USAGE if the address is taken, or certificate and key do not fit */
  static async listen(options: GatewayServerOptions): Promise<GatewayServer> {
    const { host, port } = options.listen;
    try {
      const server = new GatewayServer(options);
      await new Promise<void>((resolve, reject) => {
        server.#server.once('error', reject);
        server.#server.listen(port, host, () => {
          server.#server.off('error', reject);
          resolve();
        });
      });
      return server;
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new BlockferryError('USAGE', `the gateway cannot listen on ${host}:${port}: ${reason}`, {
        cause,
        facts: { host, port },
        hint: 'choose another address for "listen", and see that certificate and key belong together',
      });
    }
  }

  /** Where it is to be had. */
  get url(): string {
    const { address, family, port } = this.#server.address() as AddressInfo;
    const host = family === 'IPv6' ? `[${address}]` : address;
    return `gateway+${this.#options.tls ? 'https' : 'http'}://${host}:${port}`;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    response.on('close', () => gone.abort());
    response.on('error', () => {});
    try {
      const { call, place, bodyBytes } = this.#admit(request);
      const held = call.name.startsWith('pages-') || call.name === 'read' ? this.#passed : this.#held;
      await held.hold(bodyBytes + answerBytesOf(call), gone.signal, async () => {
        const body = await readBody(request, bodyBytes);
        send(response, await this.#options.answer({ call, body, place, signal: gone.signal }));
        await sent(response, gone.signal);
      });
    } catch (error) {
      this.#refuse(request, response, error);
    }
  }

  #admit(request: IncomingMessage): {
    readonly call: IncomingCall;
    readonly place: string;
    readonly bodyBytes: number;
  } {
    const { headers, method, url = '' } = request;
    const place = url.slice(GATEWAY_PATH.length);
    this.#options.admit(headers.authorization, place);
    if (method !== 'POST' || !url.startsWith(GATEWAY_PATH))
      throw malformed(`calls are POST ${GATEWAY_PATH}STORE/PREFIX`);
    const length = headers['content-length'];
    if (length === undefined || !/^\d{1,10}$/.test(length)) throw malformed('the length of the body is said');
    const bodyBytes = Number(length);
    if (bodyBytes > GATEWAY_BODY_BYTES_MAX) throw malformed(`a body has at most ${GATEWAY_BODY_BYTES_MAX} bytes`);
    const header = headers[CALL_HEADER];
    return { call: new IncomingCall(typeof header === 'string' ? header : undefined), place, bodyBytes };
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    if (!isBlockferryError(error) && !(error instanceof RangeError)) this.#options.onFault(error);
    if (response.headersSent || response.destroyed) return void response.destroy();
    const failure = encodeFailure(error);
    const isUnknown = isBlockferryError(error, 'STORE_AUTHENTICATION') && error.facts['status'] === 401;
    // What was not read of a body is not wanted: the connection ends with the answer.
    const headers = { 'content-type': 'application/json', ...(request.complete ? {} : { connection: 'close' }) };
    response.writeHead(isUnknown ? 401 : failure.status, headers).end(failure.body);
    if (!request.complete) response.once('finish', () => request.destroy());
  }
}

/** @throws STORE_CORRUPT_TRANSFER for a body that is not what its sender summed up */
async function readBody(request: IncomingMessage, bodyBytes: number): Promise<Uint8Array> {
  const body = bodyBytes === 0 ? NOTHING : Buffer.allocUnsafeSlow(bodyBytes);
  let at = 0;
  try {
    for await (const piece of request as AsyncIterable<Buffer>) {
      body.set(piece, at);
      at += piece.byteLength;
    }
  } catch (cause) {
    throw new BlockferryError('ABORTED', 'the client is gone', { cause });
  }
  if (at === bodyBytes && request.headers[CRC_HEADER] === bodyCrc(body)) return body;
  throw new BlockferryError(
    'STORE_CORRUPT_TRANSFER',
    `${at} of ${bodyBytes} bytes arrived, or their checksum differs`,
    {
      facts: { rule: 'bodies are whole' },
      retryable: true,
    },
  );
}

function send(response: ServerResponse, { fields, bytes = NOTHING }: CallAnswer): void {
  const headers = {
    'content-type': 'application/octet-stream',
    'content-length': bytes.byteLength,
    [ANSWER_HEADER]: JSON.stringify(fields),
    [CRC_HEADER]: bodyCrc(bytes),
  };
  response.writeHead(200, headers).end(asBuffer(bytes));
}

/** Its bytes are held until the client took them, or is gone. */
function sent(response: ServerResponse, gone: AbortSignal): Promise<void> {
  if (response.writableFinished || gone.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    response.once('finish', resolve);
    gone.addEventListener('abort', () => resolve(), { once: true });
  });
}

function malformed(rule: string): BlockferryError {
  return new BlockferryError('USAGE', `the request breaks the rule "${rule}"`, { facts: { rule } });
}
