/**
 * A page blob whose harmless calls are tried again: reads, state, leases, snapshots' names, raising the fence.
 *
 * `write`, `clear` and `snapshot` pass through with their one try. Repeating a write whose outcome is unknown can roll a
 * chunk back, unless the fence is raised in between; fenced-blob.ts does that and is the way to write.
 */
import { isBlockferryError } from '../errors.ts';
import { mayStillApply } from './outcome.ts';
import { resumed } from './resumed.ts';
import type { Retry } from './retry.ts';
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

export class RetryingBlob implements PageBlob {
  readonly key: string;
  readonly #blob: PageBlob;
  readonly #retry: Retry;

  constructor(blob: PageBlob, retry: Retry) {
    this.key = blob.key;
    this.#blob = blob;
    this.#retry = retry;
  }

  /** "Exists already" after a lost answer is our own blob if it is exactly the empty one that was asked for. */
  async create(sizeBytes: number, fence: number, options?: CallOptions): Promise<void> {
    let unknown = false;
    await this.#again('create', options, async () => {
      try {
        await this.#blob.create(sizeBytes, fence, options);
      } catch (error) {
        if (unknown && isBlockferryError(error, 'STORE_CONDITION') && (await this.#isNew(sizeBytes, fence, options)))
          return;
        unknown ||= mayStillApply(error);
        throw error;
      }
    });
  }

  state(options?: CallOptions): Promise<PageBlobState | undefined> {
    return this.#again('state', options, () => this.#blob.state(options));
  }

  write(bytes: Uint8Array, offset: number, guard: WriteGuard, options?: WriteOptions): Promise<void> {
    return this.#blob.write(bytes, offset, guard, options);
  }

  clear(offset: number, lengthBytes: number, guard: WriteGuard, options?: CallOptions): Promise<void> {
    return this.#blob.clear(offset, lengthBytes, guard, options);
  }

  read(offset: number, lengthBytes: number, options?: ReadOptions): Promise<Uint8Array> {
    return this.#again('read', options, () => this.#blob.read(offset, lengthBytes, options));
  }

  async *ranges(options?: RangesOptions): AsyncGenerator<ByteRange> {
    const open = (last: ByteRange | undefined): AsyncIterable<ByteRange> =>
      last === undefined ? this.#blob.ranges(options) : rangesAfter(this.#blob, last, options);
    yield* resumed(this.#retry, `${this.key}: ranges`, options?.signal, open);
  }

  flush(options?: CallOptions): Promise<void> {
    return this.#again('flush', options, () => this.#blob.flush(options));
  }

  snapshot(guard: WriteGuard, options?: CallOptions): Promise<string> {
    return this.#blob.snapshot(guard, options);
  }

  deleteSnapshot(snapshot: string, options?: CallOptions): Promise<void> {
    return this.#again('delete snapshot', options, () => this.#blob.deleteSnapshot(snapshot, options));
  }

  snapshots(options?: CallOptions): Promise<readonly string[]> {
    return this.#again('snapshots', options, () => this.#blob.snapshots(options));
  }

  raiseFence(fence: number, leaseId: string | undefined, options?: CallOptions): Promise<void> {
    return this.#again('raise fence', options, () => this.#blob.raiseFence(fence, leaseId, options));
  }

  acquireLease(leaseId: string, durationSeconds: number, options?: CallOptions): Promise<void> {
    return this.#again('acquire lease', options, () => this.#blob.acquireLease(leaseId, durationSeconds, options));
  }

  renewLease(leaseId: string, options?: CallOptions): Promise<void> {
    return this.#again('renew lease', options, () => this.#blob.renewLease(leaseId, options));
  }

  releaseLease(leaseId: string, options?: CallOptions): Promise<void> {
    return this.#again('release lease', options, () => this.#blob.releaseLease(leaseId, options));
  }

  remove(leaseId?: string, options?: CallOptions): Promise<void> {
    return this.#again('remove', options, () => this.#blob.remove(leaseId, options));
  }

  #again<T>(operation: string, options: CallOptions | undefined, call: () => Promise<T>): Promise<T> {
    return this.#retry.run(`${this.key}: ${operation}`, call, options?.signal);
  }

  async #isNew(sizeBytes: number, fence: number, options: CallOptions | undefined): Promise<boolean> {
    const state = await this.#blob.state(options);
    if (state?.sizeBytes !== sizeBytes || state.fence !== fence) return false;
    for await (const _ of this.#blob.ranges(options)) return false;
    return true;
  }
}

/** What comes behind `last`; the store may begin a range before the offset it is given. */
async function* rangesAfter(
  blob: PageBlob,
  last: ByteRange,
  options: RangesOptions | undefined,
): AsyncGenerator<ByteRange> {
  const from = last.offset + last.lengthBytes;
  for await (const { offset, lengthBytes } of blob.ranges({ ...options, fromOffset: from })) {
    const start = Math.max(offset, from);
    if (offset + lengthBytes > start) yield { offset: start, lengthBytes: offset + lengthBytes - start };
  }
}
