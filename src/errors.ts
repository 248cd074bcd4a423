/**
 * Errors: one base class, one subclass per area, a stable `code` each.
 *
 * Users match on `code` (or on the area's class); messages are for people and may change. A message is lower case,
 * has no full stop, and names the thing, the place and the numbers. `hint` says what to do next. `facts` are the
 * numbers of the message for programs. Wrong arguments of a caller are TypeError or RangeError, impossible states
 * are `assert`; neither is a BlockferryError.
 *
 * An Error that crosses a worker boundary loses class, code and fields: `toWire` / `fromWire` keep them.
 */

/** What went wrong, by the part that has to be mended. The CLI maps an area to one exit code. */
export type ErrorArea = 'usage' | 'source' | 'store' | 'lock' | 'key' | 'replica' | 'aborted' | 'failed';

/** Every stable code with its area. A new code gets a line here and one in docs/errors.md. */
export const ERROR_CODES = {
  // usage: the request itself is wrong
  USAGE: 'usage',
  UNSUPPORTED: 'usage',
  /** What was asked for is not possible in the state that the item is in. */
  ILLEGAL_STATE: 'usage',
  /** A configuration file has mistakes; the message has a line for each. */
  CONFIG_INVALID: 'usage',
  // source: bytes of a disk or log break a rule of their format, or the source is gone or changed
  DISK_NOT_FOUND: 'source',
  DISK_UNREADABLE: 'source',
  DISK_TRUNCATED: 'source',
  VHD_FOOTER: 'source',
  VHD_HEADER: 'source',
  VHD_BAT: 'source',
  VHD_BLOCK: 'source',
  VHD_LOCATOR: 'source',
  VHDX_IDENTIFIER: 'source',
  VHDX_HEADER: 'source',
  VHDX_REGION: 'source',
  VHDX_METADATA: 'source',
  VHDX_BAT: 'source',
  VHDX_BITMAP: 'source',
  VHDX_LOG: 'source',
  VHDX_LOCATOR: 'source',
  CHAIN_PARENT_NOT_FOUND: 'source',
  CHAIN_PARENT_MISMATCH: 'source',
  CHAIN_OUTSIDE_ROOT: 'source',
  CHAIN_TOO_DEEP: 'source',
  CHAIN_CYCLE: 'source',
  SOURCE_CHANGED: 'source',
  HRL_HEADER: 'source',
  HRL_BLOCK: 'source',
  HRL_ENTRY: 'source',
  HRL_TORN: 'source',
  HRL_CHAIN: 'source',
  RESYNC_REQUIRED: 'source',
  // store: the place where replicas live
  STORE_UNREACHABLE: 'store',
  STORE_TIMEOUT: 'store',
  STORE_THROTTLED: 'store',
  STORE_REFUSED: 'store',
  STORE_NOT_FOUND: 'store',
  STORE_CORRUPT_TRANSFER: 'store',
  STORE_CONDITION: 'store',
  STORE_FULL: 'store',
  STORE_AUTHENTICATION: 'key',
  // lock: another writer
  ITEM_LOCKED: 'lock',
  REPLICA_LEASED: 'lock',
  REPLICA_FENCED: 'lock',
  /** The replica follows other disks, or these may not replicate now. */
  REPLICA_OTHER_SIDE: 'lock',
  /** Two sides have written since they parted; which of them counts is for a person to say. */
  SPLIT_BRAIN: 'lock',
  /** The disks were stopped for a planned failover. */
  WRITES_STOPPED: 'lock',
  // key
  KEY_WRONG: 'key',
  KEY_MISSING: 'key',
  KEY_INVALID: 'key',
  // replica: what the store holds does not verify
  REPLICA_NOT_FOUND: 'usage',
  REPLICA_FOREIGN: 'usage',
  REPLICA_ROOT: 'replica',
  REPLICA_ROLLED_BACK: 'replica',
  REPLICA_MANIFEST: 'replica',
  REPLICA_SLOT: 'replica',
  REPLICA_LOG: 'replica',
  REPLICA_KEYRING: 'replica',
  REPLICA_DESCRIPTION: 'replica',
  POINT_NOT_FOUND: 'usage',
  ITEM_NOT_FOUND: 'usage',
  // the rest
  OUTPUT_EXISTS: 'usage',
  OUTPUT_FAILED: 'failed',
  /** A disk was proved not to be what the manifest says. */
  DISK_DIFFERS: 'failed',
  ABORTED: 'aborted',
  LOCAL_STATE: 'failed',
  TRACKER_GONE: 'failed',
  AGENT_GONE: 'failed',
  FREEZE_FAILED: 'failed',
  /** Machines that were to share a moment did not come to rest together. */
  BARRIER_LOST: 'failed',
  /** The root has no room for another point, baseline or log. */
  REPLICA_FULL: 'failed',
  /** A set of dirty chunks was given, but the base lacks more than these. */
  REPLICA_BEHIND: 'failed',
  /** An NBD client breaks the protocol; its connection is dropped, and nobody else notices. */
  NBD_PROTOCOL: 'failed',
  /** A file of the cache of a gateway is not what was written. */
  GATEWAY_CACHE: 'failed',
  WORKER_FAILED: 'failed',
  FAILPOINT: 'failed',
  /** The command line's name for an error without a code: of the operating system, or a bug. */
  UNEXPECTED: 'failed',
} as const satisfies Record<string, ErrorArea>;

/** A stable error code. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** A number or short text of an error message, for programs. */
export type Fact = string | number | boolean | bigint;

/** What an error carries besides its code and message. */
export interface ErrorDetails {
  readonly facts?: Readonly<Record<string, Fact>>;
  /** The operator's next step. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** True if the same request may succeed later; only the transport retries. */
  readonly retryable?: boolean;
}

/** A BlockferryError as plain data, for messages between threads and for `--json`. */
export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly facts: Readonly<Record<string, Fact>>;
  readonly hint?: string;
  readonly retryable: boolean;
  readonly stack?: string;
}

const BRAND: unique symbol = Symbol.for('blockferry.error') as never;

/** Base of every error this package reports on purpose. */
export class BlockferryError extends Error {
  readonly [BRAND] = true;
  override readonly name: string = 'BlockferryError';
  readonly code: ErrorCode;
  readonly facts: Readonly<Record<string, Fact>>;
  readonly hint: string | undefined;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.facts = details.facts ?? {};
    this.hint = details.hint;
    this.retryable = details.retryable ?? false;
  }

  /** The area of the code. */
  get area(): ErrorArea {
    return ERROR_CODES[this.code];
  }

  /** Two copies of this package in one process recognise each other's errors. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && BRAND in value;
  }
}

/** Whether `value` is an error of this package with one of `codes` (any code if none is given). */
export function isBlockferryError(value: unknown, ...codes: readonly ErrorCode[]): value is BlockferryError {
  return value instanceof BlockferryError && (codes.length === 0 || codes.includes(value.code));
}

/** Plain data that survives structured clone and JSON. Other errors become WORKER_FAILED with their message. */
export function toWire(error: unknown): WireError {
  if (isBlockferryError(error)) {
    const wire = { code: error.code, message: error.message, facts: error.facts, retryable: error.retryable };
    return {
      ...wire,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
      ...(error.stack === undefined ? {} : { stack: error.stack }),
    };
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const stack = error instanceof Error ? error.stack : undefined;
  return { code: 'WORKER_FAILED', message, facts: {}, retryable: false, ...(stack === undefined ? {} : { stack }) };
}

/** The error that `toWire` was given, with its code and fields. */
export function fromWire(wire: WireError): BlockferryError {
  const { code, message, facts, hint, retryable } = wire;
  const error = new BlockferryError(code, message, { facts, retryable, ...(hint === undefined ? {} : { hint }) });
  if (wire.stack !== undefined) error.stack = wire.stack;
  return error;
}

/** Throws ABORTED if the signal says so; called between steps that cannot be interrupted themselves. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortedError(signal);
}

/** The ABORTED error for a signal, with the signal's reason as cause. */
export function abortedError(signal: AbortSignal): BlockferryError {
  return isBlockferryError(signal.reason)
    ? signal.reason
    : new BlockferryError('ABORTED', 'interrupted', { cause: signal.reason });
}
