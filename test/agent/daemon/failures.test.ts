/** Which failures are tried again, and when. */
import { describe, expect, it } from 'vitest';
import { nextFailure, retryMs } from '../../../src/agent/daemon/machine-record.ts';
import type { AgentVerb, Failure } from '../../../src/agent/daemon/types.ts';
import { BlockferryError, type ErrorCode } from '../../../src/errors.ts';

const MINUTE = 60_000;

function failed(verb: AgentVerb, code: ErrorCode, before?: Failure): Failure {
  return nextFailure(before, verb, new BlockferryError(code, 'no'), { beganMs: 1000, endedMs: 2000 });
}

describe('a failure', () => {
  it('of the network is tried again on the ladder of its row', () => {
    const first = failed('ship', 'STORE_UNREACHABLE');
    expect(retryMs(first)).toBe(1000 + MINUTE);
    expect(retryMs(failed('ship', 'STORE_TIMEOUT', first))).toBe(1000 + 2 * MINUTE);
  });

  it('that only a person can mend is not', () => {
    expect(retryMs(failed('ship', 'STORE_AUTHENTICATION'))).toBeUndefined();
    expect(retryMs(failed('resync', 'CHAIN_PARENT_MISMATCH'))).toBeUndefined();
  });

  it('of a cycle that needs a resync is not, but that of a resync which the guest outran is', () => {
    expect(retryMs(failed('ship', 'RESYNC_REQUIRED'))).toBeUndefined();
    expect(retryMs(failed('resync', 'RESYNC_REQUIRED'))).toBe(1000 + MINUTE);
  });
});
