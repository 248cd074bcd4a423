/**
 * A writer session: the page blobs of a replica, leased and fenced, for as long as one writer works on them.
 *
 * Opening a blob takes its lease under the session's id and raises its sequence number above every earlier writer's, so
 * that what an earlier writer still has under way fails instead of rolling a chunk back. The leases are renewed in the
 * background; when one cannot be, the session's signal aborts and nothing more is written.
 */
import { isBlockferryError } from '../errors.ts';
import type { Ports } from '../ports.ts';
import type { FencedBlob, Lanes, PageBlob, RetryingStore } from '../transport/index.ts';

/** A blob that this session may write. */
export type SessionBlob = FencedBlob;

/** Azure allows 15 to 60 seconds; the longest leaves the most time to renew. */
const LEASE_SECONDS = 60;
const RENEW_MS = 20_000;

export interface WriterSessionOptions {
  readonly store: RetryingStore;
  /** One per home, so that a process that follows a killed one takes its leases over at once. */
  readonly leaseId: string;
  /** Makes the lanes of one blob; all of a session share one bound. */
  readonly lanes: () => Lanes;
  readonly ports: Ports;
  readonly signal: AbortSignal;
}

export class WriterSession {
  readonly #options: WriterSessionOptions;
  readonly #leased: Map<string, PageBlob> = new Map();
  readonly #lost: AbortController = new AbortController();
  readonly #ended: AbortController = new AbortController();
  readonly #renewing: Promise<void>;
  /** Aborts with the caller's signal, or with the reason when a lease is lost. */
  readonly signal: AbortSignal;

  constructor(options: WriterSessionOptions) {
    this.#options = options;
    this.signal = AbortSignal.any([options.signal, this.#lost.signal]);
    this.#renewing = this.#renewLoop();
  }

  /** A blob under this session's lease and fence; made with `createBytes` if it is missing, else undefined. */
  async open(key: string, createBytes?: number): Promise<SessionBlob | undefined> {
    const { store, leaseId } = this.#options;
    const options = { signal: this.signal };
    const blob = store.pages(key);
    let state = await blob.state(options);
    if (!state) {
      if (createBytes === undefined) return undefined;
      await blob.create(createBytes, 0, options);
      state = { sizeBytes: createBytes, fence: 0 };
    }
    await blob.acquireLease(leaseId, LEASE_SECONDS, options);
    this.#leased.set(key, blob);
    // Read again: whoever held the lease until now may have raised it meanwhile.
    const fence = ((await blob.state(options))?.fence ?? state.fence) + 1;
    await blob.raiseFence(fence, leaseId, options);
    return store.fenced(key, { fence, leaseId, lanes: this.#options.lanes(), signal: this.signal });
  }

  /** Gives all leases back. What cannot be given back runs out by itself. */
  async close(): Promise<void> {
    this.#ended.abort();
    await this.#renewing;
    const released = [...this.#leased.values()].map((blob) => blob.releaseLease(this.#options.leaseId));
    await Promise.allSettled(released);
  }

  async #renewLoop(): Promise<void> {
    const { ports, leaseId } = this.#options;
    for (;;) {
      try {
        await ports.clock.sleep(RENEW_MS, this.#ended.signal);
      } catch {
        return;
      }
      try {
        await Promise.all([...this.#leased.values()].map((blob) => blob.renewLease(leaseId)));
      } catch (error) {
        // A store that is down for a moment is no loss: the lease lasts for two more tries.
        if (isBlockferryError(error, 'REPLICA_LEASED')) this.#lost.abort(error);
      }
    }
  }
}
