/**
 * One request to the blob service: bounded in time, abortable, its failure translated.
 *
 * The SDK has no timeout of its own for a socket that stalls (its `tryTimeoutInMs` only asks the server), so every
 * request runs against a timer of the Clock port; when it fires, the request is aborted and the caller gets
 * STORE_TIMEOUT whether or not the SDK notices.
 */
import { abortedError, BlockferryError, throwIfAborted } from '../errors.ts';
import type { Clock } from '../ports.ts';
import { azureError, type Request } from './azure-errors.ts';
import type { AzureWire } from './azure-wire.ts';
import { shared } from './signals.ts';
import type { CallOptions } from './store.ts';
import type { TransportChecksum } from './transport-checksum.ts';

/** Below this rate a request counts as stalled; 4 MiB get 128 seconds. */
const SLOWEST_BYTES_PER_SECOND = 32 * 1024;

/** How requests of one store are bounded. */
export interface AttemptLimits {
  readonly clock: Clock;
  /** For the answer; the body gets time by its length on top. */
  readonly timeoutMs: number;
}

/** How a store sends; shared by all its blobs and objects. */
export interface AzureSettings extends AttemptLimits {
  readonly transportChecksum: TransportChecksum;
  readonly wire: AzureWire;
}

/** Made once: an error for each request that was answered in time would cost more than its timer. */
const SETTLED = new BlockferryError('ABORTED', 'the request was answered');

function timeoutError(request: Request, timeoutMs: number): BlockferryError {
  const seconds = Math.round(timeoutMs / 1000);
  return new BlockferryError('STORE_TIMEOUT', `${request.subject}: ${request.operation}: no answer in ${seconds} s`, {
    facts: { source: request.subject, operation: request.operation, timeoutMs, mayStillApply: true },
    retryable: true,
  });
}

/**
 * Runs `send` with a signal that fires on timeout and on the caller's abort.
 * @throws STORE_TIMEOUT, ABORTED, or what `azureError` makes of the failure.
 */
export async function attempt<T>(
  limits: AttemptLimits,
  request: Request,
  bodyBytes: number,
  options: CallOptions | undefined,
  send: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const outer = options?.signal;
  throwIfAborted(outer);
  const timeoutMs = limits.timeoutMs + Math.ceil((bodyBytes / SLOWEST_BYTES_PER_SECOND) * 1000);
  const inner = new AbortController();
  const settled = new AbortController();
  let interrupt: (error: BlockferryError) => void = () => {};
  const interrupted = new Promise<never>((_, reject) => {
    interrupt = (error) => {
      reject(error);
      inner.abort(error);
    };
  });
  const onAbort = (): void => interrupt(abortedError(outer as AbortSignal));
  if (outer) shared(outer).addEventListener('abort', onAbort, { once: true });
  limits.clock.sleep(timeoutMs, settled.signal).then(
    () => interrupt(timeoutError(request, timeoutMs)),
    () => {},
  );
  try {
    return await Promise.race([send(inner.signal), interrupted]);
  } catch (error) {
    throw azureError(error, request);
  } finally {
    outer?.removeEventListener('abort', onAbort);
    settled.abort(SETTLED);
  }
}
