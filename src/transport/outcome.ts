/**
 * What is known about a request that failed. The one question that matters for safety: can it still take effect?
 */
import { type BlockferryError, type ErrorCode, isBlockferryError } from '../errors.ts';

/**
 * Whether the write behind this error may have been applied, or may still be applied later: it timed out, was aborted
 * or lost its connection after it was sent, or the service itself does not know. An error without this certainty
 * must never be followed by a newer write to the same place before the fence was raised.
 */
export function mayStillApply(error: unknown): boolean {
  if (!isBlockferryError(error)) return true;
  return error.code === 'STORE_TIMEOUT' || error.code === 'ABORTED' || error.facts['mayStillApply'] === true;
}

/** Answers that mean "less at a time, please". */
const CONGESTION_CODES: readonly ErrorCode[] = ['STORE_TIMEOUT', 'STORE_THROTTLED'];

/** The cause in one short phrase if the error is a sign of overload, else undefined. */
export function congestionCause(error: unknown): string | undefined {
  if (!isBlockferryError(error)) return undefined;
  const status = error.facts['status'];
  if (!CONGESTION_CODES.includes(error.code) && status !== 502 && status !== 504) return undefined;
  const service = error.facts['serviceCode'];
  if (status === undefined) return error.code === 'STORE_TIMEOUT' ? 'no answer in time' : 'the store asked for less';
  return service === undefined ? `HTTP ${status}` : `HTTP ${status} ${service}`;
}

/** How long the store asked to wait before the next try. */
export function retryAfterMs(error: BlockferryError): number {
  const value = error.facts['retryAfterMs'];
  return typeof value === 'number' ? value : 0;
}
