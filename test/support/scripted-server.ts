/**
 * An HTTP server on the loopback that answers by script: what Azure says and the emulator does not, and what networks do.
 * Requests are noted; each is answered by the next step, and by `otherwise` when the script is used up.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
}

/** One step of the script. */
export type Step =
  | Answer
  /** Takes the request and never answers. */
  | 'stall'
  /** Closes the connection with RST, after the request was read. */
  | 'reset'
  /** Sends headers and half of the body, then nothing more. */
  | { readonly stallAfterHeaders: Answer }
  /** Announces the whole body, sends half of it, closes. */
  | { readonly truncate: Answer }
  /** Announces the whole body, sends half of it, ends it as if that were all (chunked, so HTTP sees nothing wrong). */
  | { readonly endEarly: Answer };

export interface NotedRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

export interface ScriptedServer {
  readonly origin: string;
  readonly requests: NotedRequest[];
  readonly script: Step[];
  otherwise: Step;
  /** The largest number of requests that were open at once. */
  readonly peak: number;
  close(): Promise<void>;
}

/** An answer of the blob service with an error code. */
export function serviceError(status: number, code: string, headers: Readonly<Record<string, string>> = {}): Answer {
  return {
    status,
    headers: { 'x-ms-error-code': code, 'x-ms-request-id': 'request-1', 'content-type': 'application/xml', ...headers },
    body: `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code><Message>said by the script</Message></Error>`,
  };
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

function send(response: ServerResponse, { status, headers = {}, body = '' }: Answer): void {
  const bytes = Buffer.from(body as Uint8Array);
  response.writeHead(status, { 'content-length': String(bytes.byteLength), etag: '"0x1"', ...headers });
  response.end(bytes);
}

function sendHalf(response: ServerResponse, { status, headers = {}, body = '' }: Answer, then: () => void): void {
  const bytes = Buffer.from(body as Uint8Array);
  response.writeHead(status, { 'content-length': String(bytes.byteLength), etag: '"0x1"', ...headers });
  response.write(bytes.subarray(0, Math.floor(bytes.byteLength / 2)), then);
}

function endEarly(response: ServerResponse, { status, headers = {}, body = '' }: Answer): void {
  const bytes = Buffer.from(body as Uint8Array);
  response.writeHead(status, { etag: '"0x1"', 'transfer-encoding': 'chunked', ...headers });
  response.end(bytes.subarray(0, Math.floor(bytes.byteLength / 2)));
}

export async function startScriptedServer(): Promise<ScriptedServer> {
  const requests: NotedRequest[] = [];
  const script: Step[] = [];
  const sockets = new Set<Socket>();
  let open = 0;
  let peak = 0;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    open += 1;
    peak = Math.max(peak, open);
    response.once('close', () => {
      open -= 1;
    });
    const body = await bodyOf(request);
    requests.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers, body });
    const step = script.shift() ?? scripted.otherwise;
    if (step === 'stall') return;
    if (step === 'reset') request.socket.resetAndDestroy();
    else if ('stallAfterHeaders' in step) sendHalf(response, step.stallAfterHeaders, () => {});
    else if ('truncate' in step) sendHalf(response, step.truncate, () => request.socket.destroy());
    else if ('endEarly' in step) endEarly(response, step.endEarly);
    else send(response, step);
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => request.socket.destroy());
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const scripted: ScriptedServer = {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    script,
    otherwise: { status: 500 },
    get peak() {
      return peak;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return scripted;
}
