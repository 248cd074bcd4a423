/**
 * The way to write a page blob: with a fence, a lease and retries, so that no write that arrives late can undo a newer one.
 *
 * A request that timed out, was aborted or lost its connection may still be applied later; if newer bytes were written
 * to the same place meanwhile, it would roll them back without a trace. Every write carries the condition that the
 * blob's sequence number is the one this session holds. Invariants:
 *
 * - after a write with unknown outcome, no write is sent before the sequence number was raised: the late one then fails;
 * - a write that fails because of our own raise is sent again with the new number;
 * - a write that fails with the current number while no raise is pending was fenced by another writer: the session is
 *   over (REPLICA_FENCED), and so it is when the lease is gone (REPLICA_LEASED).
 *
 * The caller never has two writes of one place under way. Between sessions the lease keeps two writers from raising to
 * the same number.
 */
import { abortedError, type BlockferryError, isBlockferryError } from '../errors.ts';
import type { Lanes } from './lanes.ts';
import { mayStillApply } from './outcome.ts';
import type { Retry } from './retry.ts';
import { RetryingBlob } from './retrying-blob.ts';
import { shared } from './signals.ts';
import type {
  ByteRange,
  CallOptions,
  PageBlob,
  PageBlobState,
  RangesOptions,
  ReadOptions,
  WriteGuard,
  WriteOptions,
} from './store.ts';

export interface FencedBlobOptions {
  /** The store's own blob, without retries. */
  readonly blob: PageBlob;
  /** The number this session has raised the blob to. */
  readonly fence: number;
  readonly leaseId?: string;
  readonly retry: Retry;
  readonly lanes: Lanes;
  /** Of the session: ends raises, which no single caller owns. */
  readonly signal?: AbortSignal;
}

/** Thrown and caught here alone: no failure, so no wait, no try, no sign of congestion. */
const SEND_AGAIN: unknown = new Error('the fence changed: send again');

export class FencedBlob {
  readonly key: string;
  readonly #blob: PageBlob;
  readonly #steady: RetryingBlob;
  readonly #leaseId: string | undefined;
  readonly #retry: Retry;
  readonly #lanes: Lanes;
  readonly #signal: AbortSignal | undefined;
  #fence: number;
  /** A write of this session may still arrive: nothing is sent before the fence was raised. */
  #isDoubtful = false;
  #raising: Promise<void> | undefined;
  /** Why this session may not write any more. */
  #over: BlockferryError | undefined;

  constructor({ blob, fence, leaseId, retry, lanes, signal }: FencedBlobOptions) {
    this.key = blob.key;
    this.#blob = blob;
    this.#steady = new RetryingBlob(blob, retry);
    this.#fence = fence;
    this.#leaseId = leaseId;
    this.#retry = retry;
    this.#lanes = lanes;
    this.#signal = signal;
  }

  /** The number this session writes with; it ascends with each raise. */
  get fence(): number {
    return this.#fence;
  }

  /** 512 … 4 MiB bytes on 512. They must not change before the promise settles. */
  write(bytes: Uint8Array, offset: number, options?: WriteOptions): Promise<void> {
    const call = (guard: WriteGuard): Promise<void> => this.#blob.write(bytes, offset, guard, options);
    return this.#send(`write at ${offset}`, bytes.byteLength, call, options);
  }

  clear(offset: number, lengthBytes: number, options?: CallOptions): Promise<void> {
    const call = (guard: WriteGuard): Promise<void> => this.#blob.clear(offset, lengthBytes, guard, options);
    return this.#send(`clear at ${offset}`, 0, call, options);
  }

  /** Freezes the content. A lost answer leaves a snapshot that nobody names: compare with `snapshots`. */
  snapshot(options?: CallOptions): Promise<string> {
    return this.#send('snapshot', 0, (guard) => this.#blob.snapshot(guard, options), options);
  }

  read(offset: number, lengthBytes: number, options?: ReadOptions): Promise<Uint8Array> {
    const call = (): Promise<Uint8Array> => this.#blob.read(offset, lengthBytes, options);
    return this.#retry.run(
      `${this.key}: read at ${offset}`,
      () => this.#lanes.run(lengthBytes, call, options),
      options?.signal,
    );
  }

  state(options?: CallOptions): Promise<PageBlobState | undefined> {
    return this.#steady.state(options);
  }

  ranges(options?: RangesOptions): AsyncIterable<ByteRange> {
    return this.#steady.ranges(options);
  }

  flush(options?: CallOptions): Promise<void> {
    return this.#steady.flush(options);
  }

  deleteSnapshot(snapshot: string, options?: CallOptions): Promise<void> {
    return this.#steady.deleteSnapshot(snapshot, options);
  }

  snapshots(options?: CallOptions): Promise<readonly string[]> {
    return this.#steady.snapshots(options);
  }

  async #send<T>(
    operation: string,
    lengthBytes: number,
    call: (guard: WriteGuard) => Promise<T>,
    options: CallOptions | undefined,
  ): Promise<T> {
    const signal = options?.signal;
    const ready = (): Promise<void> => this.#settled(signal);
    const attempt = async (): Promise<T> => {
      for (;;) {
        try {
          return await this.#lanes.run(lengthBytes, () => this.#once(call), { ...options, ready });
        } catch (error) {
          if (error !== SEND_AGAIN) throw error;
        }
      }
    };
    return await this.#retry.run(`${this.key}: ${operation}`, attempt, signal);
  }

  /** One request. @throws SEND_AGAIN if the number changed, or is about to, under it. */
  async #once<T>(call: (guard: WriteGuard) => Promise<T>): Promise<T> {
    if (this.#over !== undefined) throw this.#over;
    if (this.#isDoubtful) throw SEND_AGAIN;
    const fence = this.#fence;
    const guard = this.#leaseId === undefined ? { fence } : { fence, leaseId: this.#leaseId };
    try {
      return await call(guard);
    } catch (error) {
      if (isBlockferryError(error, 'REPLICA_FENCED') && (this.#isDoubtful || fence !== this.#fence)) throw SEND_AGAIN;
      if (isBlockferryError(error, 'REPLICA_FENCED', 'REPLICA_LEASED')) this.#over = error;
      else if (mayStillApply(error)) this.#isDoubtful = true;
      throw error;
    }
  }

  /** Returns when nothing of this session can arrive late any more. */
  async #settled(signal: AbortSignal | undefined): Promise<void> {
    while (this.#isDoubtful && this.#over === undefined) {
      this.#raising ??= this.#raise().finally(() => {
        this.#raising = undefined;
      });
      await orAborted(this.#raising, signal);
    }
  }

  /** `max` makes it harmless to repeat, and to arrive late. */
  async #raise(): Promise<void> {
    const next = this.#fence + 1;
    const options = this.#signal === undefined ? undefined : { signal: this.#signal };
    await this.#steady.raiseFence(next, this.#leaseId, options);
    this.#fence = next;
    this.#isDoubtful = false;
  }
}

/** `work`, or ABORTED as soon as the signal fires; the work goes on for the others. */
async function orAborted(work: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return await work;
  let onAbort: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortedError(signal));
    if (signal.aborted) onAbort();
    else shared(signal).addEventListener('abort', onAbort, { once: true });
  });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
