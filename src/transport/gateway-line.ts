/**
 * The line to a gateway: one call is one HTTP request on a connection that is kept, bounded in time, its failure typed. What is
 * said on it stands in gateway-protocol.ts; retries are the decorators' business, as with every store.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { asBuffer } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { GATEWAY_BODY_BYTES_MAX, GATEWAY_FAILURE_BYTES_MAX, GATEWAY_SOCKETS_MAX } from '../limits.ts';
import { type AttemptLimits, attempt } from './azure-attempt.ts';
import {
  ANSWER_HEADER,
  bodyCrc,
  CALL_HEADER,
  CRC_HEADER,
  decodeFailure,
  encodeCall,
  GATEWAY_PATH,
  type GatewayCall,
  type GatewayFields,
} from './gateway-protocol.ts';
import type { CallOptions } from './store.ts';

export interface GatewayLineOptions {
  /** `https://HOST:PORT` or `http://HOST:PORT`. */
  readonly origin: string;
  /** `STORE/PREFIX`. */
  readonly place: string;
  readonly token: string;
  /** PEM of the authorities to trust instead of those of the system. */
  readonly ca?: string;
  readonly limits: AttemptLimits;
}

/** What goes with a call. */
export interface Exchange {
  readonly fields: GatewayFields;
  readonly body?: Uint8Array;
  /** The most bytes that the answer may have. */
  readonly answerBytesMax?: number;
}

export interface Answer {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly bytes: Uint8Array;
}

interface Received {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly bytes: Buffer;
}

const NOTHING: Uint8Array = new Uint8Array();

export class GatewayLine {
  readonly #options: GatewayLineOptions;
  readonly #agent: HttpAgent | HttpsAgent;

  constructor(options: GatewayLineOptions) {
    const { origin, ca } = options;
    this.#options = options;
    const keep = { keepAlive: true, maxSockets: GATEWAY_SOCKETS_MAX };
    this.#agent = origin.startsWith('https:')
      ? new HttpsAgent({ ...keep, minVersion: 'TLSv1.2', ...(ca === undefined ? {} : { ca }) })
      : new HttpAgent(keep);
  }

  /** One try of one call. @throws what the gateway answered, or what became of the connection */
  async call(subject: string, name: GatewayCall, exchange: Exchange, options?: CallOptions): Promise<Answer> {
    const { limits } = this.#options;
    const { fields, body = NOTHING, answerBytesMax = 0 } = exchange;
    if (Object.values(fields).some((value) => typeof value === 'number' && !Number.isSafeInteger(value))) {
      throw new RangeError(`${subject}: ${name} of ${JSON.stringify(fields)} is no request`);
    }
    for (const lengthBytes of [body.byteLength, answerBytesMax]) {
      if (lengthBytes <= GATEWAY_BODY_BYTES_MAX) continue;
      throw new RangeError(`${subject}: ${name} of ${lengthBytes} bytes is above ${GATEWAY_BODY_BYTES_MAX}`);
    }
    const carriedBytes = body.byteLength + answerBytesMax;
    const received = await attempt(limits, { subject, operation: name }, carriedBytes, options, (signal) =>
      this.#exchange(encodeCall(name, fields), body, answerBytesMax, signal),
    );
    return readAnswer(subject, name, received);
  }

  close(): void {
    this.#agent.destroy();
  }

  #exchange(call: string, body: Uint8Array, answerBytesMax: number, signal: AbortSignal): Promise<Received> {
    const { origin, place, token } = this.#options;
    const send = origin.startsWith('https:') ? httpsRequest : httpRequest;
    const headers = {
      authorization: `Bearer ${token}`,
      'content-length': body.byteLength,
      [CALL_HEADER]: call,
      [CRC_HEADER]: bodyCrc(body),
    };
    return new Promise((resolve, reject) => {
      const request = send(`${origin}${GATEWAY_PATH}${place}`, { method: 'POST', agent: this.#agent, headers, signal });
      request.on('error', reject);
      request.on('response', (response) => {
        const status = response.statusCode ?? 0;
        const bytesMax = status === 200 ? answerBytesMax : GATEWAY_FAILURE_BYTES_MAX;
        collect(response, bytesMax).then((bytes) => resolve({ status, headers: response.headers, bytes }), reject);
      });
      request.end(asBuffer(body));
    });
  }
}

/** All bytes of an answer. @throws STORE_CORRUPT_TRANSFER for one that is longer than it may be, or cut */
async function collect(response: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let lengthBytes = 0;
  for await (const piece of response as AsyncIterable<Buffer>) {
    lengthBytes += piece.byteLength;
    if (lengthBytes > bytesMax) {
      response.destroy();
      throw damaged('the gateway', `its answer is longer than ${bytesMax} bytes`);
    }
    pieces.push(piece);
  }
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

function readAnswer(subject: string, name: GatewayCall, { status, headers, bytes }: Received): Answer {
  const operation = `${subject}: ${name}`;
  if (status !== 200) throw decodeFailure(bytes.toString('utf8')) ?? notAGateway(operation, status);
  if (headers[CRC_HEADER] !== bodyCrc(bytes)) throw damaged(operation, 'the checksum of the answer does not match');
  let fields: unknown;
  try {
    fields = JSON.parse(String(headers[ANSWER_HEADER]));
  } catch {
    fields = undefined;
  }
  if (typeof fields !== 'object' || fields === null) throw damaged(operation, 'the answer is none of a gateway');
  return { fields: fields as Readonly<Record<string, unknown>>, bytes };
}

/** Whether the call took effect is not known: it was answered. */
function damaged(subject: string, what: string): BlockferryError {
  return new BlockferryError('STORE_CORRUPT_TRANSFER', `${subject}: ${what}`, {
    facts: { source: subject, rule: 'answers are whole', mayStillApply: true },
    retryable: true,
  });
}

/** Something in between, or another program at that port. */
function notAGateway(subject: string, status: number): BlockferryError {
  const isBusy = status === 429 || status >= 500;
  return new BlockferryError(
    isBusy ? 'STORE_UNREACHABLE' : 'STORE_REFUSED',
    `${subject}: HTTP ${status} by no gateway`,
    {
      facts: { source: subject, status, mayStillApply: true },
      retryable: isBusy,
      hint: 'check host and port of the gateway, and the proxy in between',
    },
  );
}
