/**
 * One request to the blob service: bounded in time, abortable, its failure translated.
 *
 * The SDK has no timeout of its own for a socket that stalls (its `tryTimeoutInMs` only asks the server), so every
 * request has a deadline; when it is missed, the request is interrupted and the caller gets STORE_TIMEOUT whether or not
 * whoever sends it notices.
 */
import { abortedError, BlockferryError, throwIfAborted } from '../errors.ts';
import { azureError, type Request } from './azure-errors.ts';
import type { AzureWire } from './azure-wire.ts';
import type { Deadlines } from './deadlines.ts';
import { shared } from './signals.ts';
import type { CallOptions } from './store.ts';
import type { TransportChecksum } from './transport-checksum.ts';
import type { OnInterrupt } from './upload-line.ts';

/** Below this rate a request counts as stalled; 4 MiB get 128 seconds. */
const SLOWEST_BYTES_PER_SECOND = 32 * 1024;

/** How requests of one store are bounded. */
export interface AttemptLimits {
  readonly deadlines: Deadlines;
  /** For the answer; the body gets time by its length on top. */
  readonly timeoutMs: number;
}

/** How a store sends; shared by all its blobs and objects. */
export interface AzureSettings extends AttemptLimits {
  readonly transportChecksum: TransportChecksum;
  readonly wire: AzureWire;
}

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
export function attempt<T>(
  limits: AttemptLimits,
  request: Request,
  bodyBytes: number,
  options: CallOptions | undefined,
  send: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  return bounded(limits, request, bodyBytes, options, (onInterrupt) => {
    const controller = new AbortController();
    onInterrupt((error) => controller.abort(error));
    return send(controller.signal);
  });
}

/** The same without a signal, which costs as much as the rest of this: for what is sent thousands of times. */
export async function bounded<T>(
  limits: AttemptLimits,
  request: Request,
  bodyBytes: number,
  options: CallOptions | undefined,
  send: (onInterrupt: OnInterrupt) => Promise<T>,
): Promise<T> {
  const outer = options?.signal;
  throwIfAborted(outer);
  const timeoutMs = limits.timeoutMs + Math.ceil((bodyBytes / SLOWEST_BYTES_PER_SECOND) * 1000);
  let stop: (error: BlockferryError) => void = () => {};
  let why: BlockferryError | undefined;
  let interrupt: (error: BlockferryError) => void = () => {};
  const interrupted = new Promise<never>((_, reject) => {
    interrupt = (error) => {
      why ??= error;
      reject(error);
      stop(error);
    };
  });
  const onAbort = (): void => interrupt(abortedError(outer as AbortSignal));
  if (outer) shared(outer).addEventListener('abort', onAbort, { once: true });
  const met = limits.deadlines.start(timeoutMs, () => interrupt(timeoutError(request, timeoutMs)));
  try {
    const sent = send((whenInterrupted) => {
      stop = whenInterrupted;
      // It may have looked for a token until now: what nobody waits for must not be sent.
      if (why) stop(why);
    });
    return await Promise.race([sent, interrupted]);
  } catch (error) {
    throw azureError(error, request);
  } finally {
    outer?.removeEventListener('abort', onAbort);
    met();
  }
}
