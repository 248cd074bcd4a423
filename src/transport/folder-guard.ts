/** Lease and fence of a page blob in a folder, judged as the blob service does. */
import { BlockferryError } from '../errors.ts';
import type { BlobState, Lease } from './folder-state.ts';
import type { WriteGuard } from './store.ts';

/** Whose state is judged, and when. */
export interface Subject {
  readonly key: string;
  /** Wall time. */
  readonly nowMs: number;
}

function activeLease({ lease }: BlobState, { nowMs }: Subject): Lease | undefined {
  return lease !== null && lease.expiresMs > nowMs ? lease : undefined;
}

/** The error for a writer that does not hold the lease (any more). */
export function leasedError(state: BlobState, subject: Subject): BlockferryError {
  const active = activeLease(state, subject);
  if (active === undefined) {
    return new BlockferryError('REPLICA_LEASED', `${subject.key}: the lease of this writer is gone`, {
      facts: { source: subject.key },
    });
  }
  const expiresInMs = active.expiresMs - subject.nowMs;
  return new BlockferryError('REPLICA_LEASED', `${subject.key}: another writer holds the lease for ${expiresInMs} ms`, {
    facts: { source: subject.key, expiresInMs },
  });
}

/** A lease needs its id, and an id needs its lease. @throws REPLICA_LEASED */
export function checkLeaseOf(state: BlobState, leaseId: string | undefined, subject: Subject): void {
  if (activeLease(state, subject)?.id !== leaseId) throw leasedError(state, subject);
}

/** @throws REPLICA_LEASED, REPLICA_FENCED */
export function checkGuard(state: BlobState, guard: WriteGuard, subject: Subject): void {
  checkLeaseOf(state, guard.leaseId, subject);
  if (state.fence === guard.fence) return;
  throw new BlockferryError(
    'REPLICA_FENCED',
    `${subject.key}: fence is ${state.fence}, this writer holds ${guard.fence}`,
    { facts: { source: subject.key, fence: state.fence, held: guard.fence } },
  );
}
