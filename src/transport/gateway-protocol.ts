/**
 * What a gateway and its clients say to each other (docs/gateway.md): one HTTP request per call of the Store contract.
 *
 * A call is `POST /v1/STORE/PREFIX` with its name and arguments as JSON in one header and its bytes as the body; the answer is the
 * other way round. Both bodies carry their CRC-32. Pure: checks and translates, opens no connection.
 */
import { crc32 } from 'node:zlib';
import { BlockferryError, ERROR_CODES, type ErrorCode, type Fact, isBlockferryError } from '../errors.ts';
import { STORE_KEY_CHARACTERS_MAX } from '../limits.ts';

export const GATEWAY_PATH = '/v1/';
/** JSON of the call, or of what it returns besides bytes. */
export const CALL_HEADER = 'x-blockferry-call';
export const ANSWER_HEADER = 'x-blockferry-answer';
/** CRC-32 of the body, eight hexadecimal digits. */
export const CRC_HEADER = 'x-blockferry-crc';

/** Every call with the arguments it takes; those that end in `?` may be missing. */
export const GATEWAY_CALLS = {
  prepare: [],
  get: ['key', 'maxBytes'],
  settled: ['key', 'maxBytes'],
  put: ['key', 'ifMatch?', 'early?'],
  read: ['key', 'offset', 'lengthBytes', 'sizeBytes?'],
  delete: ['key'],
  list: ['prefix', 'after?'],
  'stage-put': ['key', 'partBytes', 'staging', 'index'],
  'stage-commit': ['key', 'partBytes', 'staging', 'parts'],
  'stage-abort': ['key', 'partBytes', 'staging'],
  'pages-create': ['key', 'sizeBytes', 'fence'],
  'pages-state': ['key'],
  'pages-write': ['key', 'offset', 'fence', 'leaseId?'],
  'pages-clear': ['key', 'offset', 'lengthBytes', 'fence', 'leaseId?'],
  'pages-read': ['key', 'offset', 'lengthBytes', 'snapshot?'],
  'pages-ranges': ['key', 'fromOffset?', 'snapshot?'],
  'pages-flush': ['key'],
  'pages-snapshot': ['key', 'fence', 'leaseId?'],
  'pages-delete-snapshot': ['key', 'snapshot'],
  'pages-snapshots': ['key'],
  'pages-raise-fence': ['key', 'fence', 'leaseId?'],
  'pages-acquire-lease': ['key', 'leaseId', 'durationSeconds'],
  'pages-renew-lease': ['key', 'leaseId'],
  'pages-release-lease': ['key', 'leaseId'],
  'pages-remove': ['key', 'leaseId?'],
} as const satisfies Record<string, readonly string[]>;

export type GatewayCall = keyof typeof GATEWAY_CALLS;
/** Arguments of a call, or what it returns besides bytes. */
export type GatewayFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** Text of an argument: keys are the longest. */
const TEXT_MAX: number = STORE_KEY_CHARACTERS_MAX;

/** The header of a call. */
export function encodeCall(call: GatewayCall, fields: GatewayFields): string {
  return JSON.stringify({ do: call, ...fields });
}

/** A call that came in, its arguments not yet looked at. */
export class IncomingCall {
  readonly name: GatewayCall;
  readonly #fields: Readonly<Record<string, unknown>>;

  /** @throws USAGE unless it is a call with all its arguments */
  constructor(header: string | undefined) {
    const fields = parseObject(header);
    const name = Object.hasOwn(fields, 'do') ? fields['do'] : undefined;
    if (typeof name !== 'string' || !Object.hasOwn(GATEWAY_CALLS, name)) throw malformed('names a known call');
    this.name = name as GatewayCall;
    this.#fields = fields;
    for (const field of GATEWAY_CALLS[this.name]) {
      if (!field.endsWith('?') && !this.has(field)) throw malformed(`${name} has "${field}"`);
    }
  }

  has(field: string): boolean {
    return Object.hasOwn(this.#fields, field);
  }

  text(field: string): string {
    const value = this.#fields[field];
    if (typeof value === 'string' && value.length <= TEXT_MAX) return value;
    throw malformed(`"${field}" is text of at most ${TEXT_MAX} characters`);
  }

  optionalText(field: string): string | undefined {
    return this.has(field) ? this.text(field) : undefined;
  }

  integer(field: string): number {
    const value = this.#fields[field];
    if (Number.isSafeInteger(value)) return value as number;
    throw malformed(`"${field}" is a whole number`);
  }

  optionalInteger(field: string): number | undefined {
    return this.has(field) ? this.integer(field) : undefined;
  }

  isNull(field: string): boolean {
    return this.has(field) && this.#fields[field] === null;
  }

  isTrue(field: string): boolean {
    return this.has(field) && this.#fields[field] === true;
  }
}

function parseObject(text: string | undefined): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text ?? '');
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Told below, with what is no object.
  }
  throw malformed(`${CALL_HEADER} holds a JSON object`);
}

function malformed(rule: string): BlockferryError {
  return new BlockferryError('USAGE', `the request breaks the rule "${rule}"`, { facts: { rule } });
}

/** Of a body, as its header says it. */
export function bodyCrc(bytes: Uint8Array): string {
  return crc32(bytes).toString(16).padStart(8, '0');
}

/** HTTP statuses by code; what is not here is the store's trouble: 502. */
const STATUSES: Readonly<Partial<Record<ErrorCode, number>>> = {
  USAGE: 400,
  UNSUPPORTED: 400,
  STORE_AUTHENTICATION: 403,
  STORE_NOT_FOUND: 404,
  REPLICA_LEASED: 409,
  REPLICA_FENCED: 409,
  STORE_CONDITION: 412,
  STORE_REFUSED: 413,
  STORE_CORRUPT_TRANSFER: 422,
  STORE_THROTTLED: 429,
  STORE_FULL: 507,
};

/** An error as an answer. A RangeError is one of the arguments, and stays one. */
export function encodeFailure(error: unknown): { readonly status: number; readonly body: string } {
  if (error instanceof RangeError) return { status: 400, body: JSON.stringify({ range: error.message }) };
  const told = isBlockferryError(error)
    ? error
    : new BlockferryError('STORE_REFUSED', 'the gateway failed at this request', { facts: { rule: 'see its log' } });
  const { code, message, hint, retryable } = told;
  const facts = Object.fromEntries(
    Object.entries(told.facts).map(([name, value]) => [name, typeof value === 'bigint' ? String(value) : value]),
  );
  return { status: STATUSES[code] ?? 502, body: JSON.stringify({ code, message, hint, retryable, facts }) };
}

/** The error that an answer stands for; undefined if it is none of a gateway. */
export function decodeFailure(body: string): Error | undefined {
  let value: Readonly<Record<string, unknown>>;
  try {
    value = JSON.parse(body) as Readonly<Record<string, unknown>>;
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { range, code, message, hint, retryable, facts } = value;
  if (typeof range === 'string') return new RangeError(range);
  if (typeof code !== 'string' || !Object.hasOwn(ERROR_CODES, code) || typeof message !== 'string') return undefined;
  return new BlockferryError(code as ErrorCode, message, {
    facts: factsOf(facts),
    retryable: retryable === true,
    ...(typeof hint === 'string' ? { hint } : {}),
  });
}

function factsOf(value: unknown): Readonly<Record<string, Fact>> {
  if (typeof value !== 'object' || value === null) return {};
  const isFact = (fact: unknown): fact is Fact => ['string', 'number', 'boolean'].includes(typeof fact);
  return Object.fromEntries(Object.entries(value).filter((entry): entry is [string, Fact] => isFact(entry[1])));
}
