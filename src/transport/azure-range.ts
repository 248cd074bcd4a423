/**
 * Ranges of a blob: bytes that are whole, come from where they were asked for, and are of one version.
 *
 * The service cuts a range at the end of the blob without an error, the SDK reports whatever arrived: length, place and
 * checksum are compared here.
 */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { PAGE_WRITE_BYTES_MAX } from '../limits.ts';
import { type AzureSettings, attempt } from './azure-attempt.ts';
import { collect, discard } from './azure-body.ts';
import { damagedTransfer, type Request } from './azure-errors.ts';
import { targetOf } from './azure-wire.ts';
import { beyondEnd, checkObjectSize } from './page-rules.ts';
import type { ObjectReadOptions } from './store.ts';
import { checksumAsked, checksumHolds } from './transport-checksum.ts';

/** An emulator says `bytes 0--1/0` of an empty object, where the service answers 416. */
const CONTENT_RANGE = /^bytes (\d+)-(-?\d+)\/(\d+)$/;
const HTTP_RANGE_NOT_SATISFIABLE = 416;

export interface RangeRequest {
  readonly abortSignal: AbortSignal;
  /** The version to read; any if absent. */
  readonly etag?: string | undefined;
}

/** What an answer says of the whole blob. */
export interface RangeAnswer {
  readonly sizeBytes: number;
  readonly etag: string;
}

/**
 * Fills `into` from `offset` of the blob, in one request. Where the blob ends before, nothing is read and `sizeBytes` tells.
 * @throws STORE_CORRUPT_TRANSFER and what the SDK throws: to be called inside `attempt`.
 */
export async function getRange(
  { wire, transportChecksum: checksum }: Pick<AzureSettings, 'wire' | 'transportChecksum'>,
  url: string,
  request: Request,
  into: Buffer,
  offset: number,
  { abortSignal, etag }: RangeRequest,
): Promise<RangeAnswer> {
  const end = offset + into.byteLength;
  const asked = {
    'x-ms-range': `bytes=${offset}-${end - 1}`,
    ...checksumAsked(checksum),
    ...(etag === undefined ? {} : { 'if-match': etag }),
  };
  const { headers, body } = await wire.fetch({ target: targetOf(url, {}), headers: asked }, abortSignal);
  const [range, version] = [headers.get('content-range'), headers.get('etag')];
  const [, first, last, size] = CONTENT_RANGE.exec(range ?? '')?.map(Number) ?? [];
  if (first !== offset || last === undefined || size === undefined || version === undefined) {
    discard(body);
    throw damagedTransfer(request, `the answer is not the range from ${offset}: ${range}`);
  }
  if (size < end) {
    discard(body);
    return { sizeBytes: size, etag: version };
  }
  const got = await collect(body, into);
  if (got !== into.byteLength || last !== end - 1) {
    throw damagedTransfer(request, `${got} of ${into.byteLength} bytes arrived`);
  }
  if (!checksumHolds(checksum, into, headers)) {
    throw damagedTransfer(request, `the checksum of ${into.byteLength} bytes does not match`);
  }
  return { sizeBytes: size, etag: version };
}

/** Bytes of an object, one request per 4 MiB, all of the version that the first of them met. */
export async function readObject(
  url: string,
  key: string,
  offset: number,
  lengthBytes: number,
  settings: AzureSettings,
  options: ObjectReadOptions | undefined,
): Promise<Uint8Array> {
  const into = Buffer.allocUnsafeSlow(lengthBytes);
  let etag: string | undefined;
  for (let done = 0; done < lengthBytes; done += PAGE_WRITE_BYTES_MAX) {
    const piece = into.subarray(done, done + PAGE_WRITE_BYTES_MAX);
    const at = offset + done;
    const request = { subject: key, operation: `Get Blob at offset ${at}` };
    const found = await attempt(settings, request, piece.byteLength, options, (abortSignal) =>
      getRange(settings, url, request, piece, at, { abortSignal, etag }),
    ).catch((error: unknown) => {
      throw objectError(error, key, offset, lengthBytes);
    });
    checkObjectSize(key, found.sizeBytes, options?.sizeBytes);
    if (found.sizeBytes < at + piece.byteLength) throw beyondEnd(key, offset, lengthBytes, found.sizeBytes);
    etag = found.etag;
  }
  return into;
}

function objectError(error: unknown, key: string, offset: number, lengthBytes: number): unknown {
  if (!isBlockferryError(error)) return error;
  if (error.facts['status'] === HTTP_RANGE_NOT_SATISFIABLE) return beyondEnd(key, offset, lengthBytes);
  if (error.code !== 'STORE_CONDITION') return error;
  return new BlockferryError(error.code, `${key}: was replaced while it was read`, {
    facts: error.facts,
    retryable: true,
  });
}
