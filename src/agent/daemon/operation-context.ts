/** What an operation of the agent runs with, and what its errors are. */
import { BlockferryError, isBlockferryError } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import { type Limits, TransferLimits } from '../transfer-limits.ts';
import type { ActiveShare } from './shares.ts';
import type { OperationContext } from './types.ts';

/** The share is read when it is looked at: it changes while the operation runs. */
export function contextOf(active: ActiveShare, signal: AbortSignal): OperationContext {
  return {
    signal,
    bandwidth: active.bandwidth,
    get lanes() {
      return active.share.lanes;
    },
    get bandwidthBytesPerSecond() {
      return active.share.bandwidthBytesPerSecond;
    },
    onShare: (listener) => active.onShare(listener),
  };
}

/** Limits of requests that follow a share as long as it is there. */
export function limitsOf(active: Pick<OperationContext, 'lanes' | 'bandwidth' | 'onShare'>, clock: Clock): Limits {
  const limits = new TransferLimits(clock, active.lanes);
  active.onShare(({ lanes }) => limits.set(lanes, undefined));
  return { requests: limits.requests, bandwidth: active.bandwidth };
}

/** Why something that ran was stopped. */
export function stopped(reason: string): BlockferryError {
  return new BlockferryError('ABORTED', reason);
}

export function asBlockferryError(error: unknown): BlockferryError {
  if (isBlockferryError(error)) return error;
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new BlockferryError('UNEXPECTED', message, { cause: error });
}
