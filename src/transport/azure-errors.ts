/**
 * The one table that turns answers of the blob service and failures of sockets into our errors.
 *
 * Nothing the SDK says is passed on as text or as cause: its errors carry the request with its URL, and the URL may
 * carry a SAS. What remains is the status, the service's code and its request id, which support asks for.
 */
import type { RestError } from '@azure/storage-blob';
import { BlockferryError, type ErrorCode, type Fact } from '../errors.ts';

/** What was being done, for messages: `disks/d0/base: Put Page at offset 4096`. */
export interface Request {
  readonly subject: string;
  readonly operation: string;
}

/** Code of the SDK for a body that it cannot read. */
const PARSE_ERROR = 'PARSE_ERROR';

interface Verdict {
  readonly code: ErrorCode;
  readonly retryable?: boolean;
  readonly mayStillApply?: boolean;
  readonly hint?: string;
}

const HINT_SIGN_IN =
  'check that the SAS has not expired, that it allows read, write, delete, create and list, and that the clock is right';
const HINT_PERMISSION =
  'the SAS does not allow this, or the identity lacks the role "Storage Blob Data Contributor" on the container';
const HINT_NETWORK = 'check the name of the account, the network and the proxy';

const LEASED: Verdict = { code: 'REPLICA_LEASED' };
const CONDITION: Verdict = { code: 'STORE_CONDITION' };
const UNKNOWN: Verdict = { code: 'STORE_UNREACHABLE', retryable: true, mayStillApply: true };
const BUSY: Verdict = { code: 'STORE_THROTTLED', retryable: true };
const BUSY_UNKNOWN: Verdict = { code: 'STORE_THROTTLED', retryable: true, mayStillApply: true };
const DAMAGED: Verdict = { code: 'STORE_CORRUPT_TRANSFER', retryable: true };

/** By the service's code; these are unambiguous whatever the status. */
const BY_SERVICE_CODE: Readonly<Record<string, Verdict>> = {
  SequenceNumberConditionNotMet: { code: 'REPLICA_FENCED' },
  LeaseAlreadyPresent: LEASED,
  LeaseAlreadyBroken: LEASED,
  LeaseIdMissing: LEASED,
  LeaseIdMismatchWithBlobOperation: LEASED,
  LeaseIdMismatchWithLeaseOperation: LEASED,
  LeaseIsBreakingAndCannotBeAcquired: LEASED,
  LeaseIsBreakingAndCannotBeChanged: LEASED,
  LeaseIsBrokenAndCannotBeRenewed: LEASED,
  LeaseLost: LEASED,
  LeaseNotPresentWithBlobOperation: LEASED,
  LeaseNotPresentWithLeaseOperation: LEASED,
  BlobAlreadyExists: CONDITION,
  ConditionNotMet: CONDITION,
  TargetConditionNotMet: CONDITION,
  InvalidBlockList: {
    code: 'STORE_CONDITION',
    hint: 'another writer made this object meanwhile, or the upload waited for a week; run the command again',
  },
  ContainerBeingDeleted: { code: 'STORE_REFUSED', retryable: true },
  SnapshotOperationRateExceeded: BUSY,
  SnapshotCountExceeded: {
    code: 'STORE_FULL',
    hint: 'delete old recovery points: the blob has as many snapshots as it may',
  },
  ServerBusy: BUSY,
  OperationTimedOut: BUSY_UNKNOWN,
  Md5Mismatch: DAMAGED,
  Crc64Mismatch: DAMAGED,
  AuthorizationPermissionMismatch: { code: 'STORE_AUTHENTICATION', hint: HINT_PERMISSION },
  AuthorizationFailure: {
    code: 'STORE_AUTHENTICATION',
    hint: 'the firewall of the storage account refuses this network, or the SAS does not cover it',
  },
  FeatureNotSupported: {
    code: 'STORE_REFUSED',
    hint: 'emulators know no CRC-64: with the account devstoreaccount1 blockferry sends them MD5 instead',
  },
  AccountIsDisabled: { code: 'STORE_REFUSED', hint: 'the storage account is disabled' },
  MemoryExtentStoreAtSizeLimit: { code: 'STORE_FULL', hint: 'the emulator has reached its --extentMemoryLimit' },
};

/** By status, where the code says nothing more. */
function byStatus(status: number): Verdict {
  switch (status) {
    case 401:
    case 403:
      return { code: 'STORE_AUTHENTICATION', hint: HINT_SIGN_IN };
    case 404:
      return { code: 'STORE_NOT_FOUND' };
    case 408:
      return { code: 'STORE_TIMEOUT', retryable: true, mayStillApply: true };
    case 412:
      return CONDITION;
    case 429:
      return BUSY;
    case 503:
      // Without the service's own code it came from something in between, which does not know what the service did.
      return BUSY_UNKNOWN;
    default:
      return status >= 500 ? UNKNOWN : { code: 'STORE_REFUSED' };
  }
}

/** Nothing was sent, so nothing can take effect later. */
const NEVER_SENT = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'];
const CERTIFICATE = /^(?:ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO)/;

function bySocket(code: string): Verdict {
  if (NEVER_SENT.includes(code)) return { code: 'STORE_UNREACHABLE', retryable: true, hint: HINT_NETWORK };
  if (CERTIFICATE.test(code)) {
    return { code: 'STORE_UNREACHABLE', hint: 'the certificate of the server is not trusted: a proxy in between?' };
  }
  return { ...UNKNOWN, hint: HINT_NETWORK };
}

/** Known by its name: this table is loaded where the SDK is not, for what a gateway's line fails with. */
function isRestError(error: unknown): error is RestError {
  return error instanceof Error && error.name === 'RestError';
}

/** `Retry-After` in seconds, or the service's own headers in milliseconds. */
function waitAskedFor(error: RestError): number | undefined {
  const headers = error.response?.headers;
  const ms = Number(headers?.get('x-ms-retry-after-ms') ?? headers?.get('retry-after-ms') ?? Number.NaN);
  if (ms >= 0) return ms;
  const seconds = Number(headers?.get('retry-after') ?? Number.NaN);
  return seconds >= 0 ? seconds * 1000 : undefined;
}

function build(request: Request, what: string, verdict: Verdict, facts: Record<string, Fact>): BlockferryError {
  return new BlockferryError(verdict.code, `${request.subject}: ${request.operation} failed: ${what}`, {
    facts: {
      source: request.subject,
      operation: request.operation,
      ...facts,
      ...(verdict.mayStillApply ? { mayStillApply: true } : {}),
    },
    retryable: verdict.retryable ?? false,
    ...(verdict.hint === undefined ? {} : { hint: verdict.hint }),
  });
}

/** The error for an answer that is not what the service sent: worth another try. */
export function damagedTransfer({ subject, operation }: Request, what: string): BlockferryError {
  return new BlockferryError('STORE_CORRUPT_TRANSFER', `${subject}: ${operation}: ${what}`, {
    facts: { source: subject, operation, rule: 'answers are whole' },
    retryable: true,
  });
}

/** An answer of the service with a status of an error. */
function fromAnswer(request: Request, error: RestError, status: number): BlockferryError {
  const spoken = error.code === PARSE_ERROR ? undefined : error.code;
  const serviceCode = error.response?.headers.get('x-ms-error-code') ?? spoken;
  const verdict = (serviceCode === undefined ? undefined : BY_SERVICE_CODE[serviceCode]) ?? byStatus(status);
  const requestId = error.response?.headers.get('x-ms-request-id');
  const wait = waitAskedFor(error);
  return build(request, serviceCode === undefined ? `HTTP ${status}` : `HTTP ${status} ${serviceCode}`, verdict, {
    status,
    ...(serviceCode === undefined ? {} : { serviceCode }),
    ...(requestId === undefined ? {} : { requestId }),
    ...(wait === undefined ? {} : { retryAfterMs: wait }),
  });
}

/** Whatever the SDK threw, as our error. Errors that are ours already pass through; arguments were checked before. */
export function azureError(error: unknown, request: Request): unknown {
  if (error instanceof BlockferryError) return error;
  if (isRestError(error) && error.statusCode !== undefined && error.statusCode >= 400) {
    return fromAnswer(request, error, error.statusCode);
  }
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  const name = error instanceof Error ? error.name : '';
  if (name === 'CredentialUnavailableError' || name.startsWith('Authentication') || name.startsWith('AggregateAuth')) {
    const hint = 'sign in (az login), set AZURE_* variables, or use a connection string or a SAS in the URL';
    return build(request, 'no credential was accepted', { code: 'STORE_AUTHENTICATION', hint }, {});
  }
  // The SDK reports an answer without the headers it needs as a wrong argument.
  if (code === PARSE_ERROR || error instanceof RangeError || error instanceof TypeError) {
    return build(request, 'the answer is none of the blob service', { ...DAMAGED, mayStillApply: true }, {});
  }
  return build(
    request,
    code ?? 'the connection broke',
    bySocket(code ?? ''),
    code === undefined ? {} : { cause: code },
  );
}
