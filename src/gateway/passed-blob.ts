/**
 * A page blob whose calls go through to the store. What changes it, and what a change is decided by, waits behind what the gateway
 * still holds; reads, and the renewal of a lease, do not.
 */
import type {
  ByteRange,
  CallOptions,
  PageBlob,
  PageBlobState,
  RangesOptions,
  ReadOptions,
  WriteGuard,
  WriteOptions,
} from '../transport/index.ts';
import type { MakeLanes } from './uploader.ts';

export class PassedBlob implements PageBlob {
  readonly key: string;
  readonly #blob: PageBlob;
  readonly #lanes: MakeLanes;
  readonly #barrier: () => Promise<void>;

  constructor(blob: PageBlob, lanes: MakeLanes, barrier: () => Promise<void>) {
    this.key = blob.key;
    this.#blob = blob;
    this.#lanes = lanes;
    this.#barrier = barrier;
  }

  async create(sizeBytes: number, fence: number, options?: CallOptions): Promise<void> {
    await this.#barrier();
    await this.#blob.create(sizeBytes, fence, options);
  }

  state(options?: CallOptions): Promise<PageBlobState | undefined> {
    return this.#blob.state(options);
  }

  async write(bytes: Uint8Array, offset: number, guard: WriteGuard, options?: WriteOptions): Promise<void> {
    await this.#barrier();
    await this.#lanes().run(bytes.byteLength, () => this.#blob.write(bytes, offset, guard, options), options);
  }

  async clear(offset: number, lengthBytes: number, guard: WriteGuard, options?: CallOptions): Promise<void> {
    await this.#barrier();
    await this.#blob.clear(offset, lengthBytes, guard, options);
  }

  read(offset: number, lengthBytes: number, options?: ReadOptions): Promise<Uint8Array> {
    return this.#lanes().run(lengthBytes, () => this.#blob.read(offset, lengthBytes, options), options);
  }

  ranges(options?: RangesOptions): AsyncIterable<ByteRange> {
    return this.#blob.ranges(options);
  }

  flush(options?: CallOptions): Promise<void> {
    return this.#blob.flush(options);
  }

  async snapshot(guard: WriteGuard, options?: CallOptions): Promise<string> {
    await this.#barrier();
    return await this.#blob.snapshot(guard, options);
  }

  async deleteSnapshot(snapshot: string, options?: CallOptions): Promise<void> {
    await this.#barrier();
    await this.#blob.deleteSnapshot(snapshot, options);
  }

  async snapshots(options?: CallOptions): Promise<readonly string[]> {
    await this.#barrier();
    return await this.#blob.snapshots(options);
  }

  async raiseFence(fence: number, leaseId: string | undefined, options?: CallOptions): Promise<void> {
    await this.#barrier();
    await this.#blob.raiseFence(fence, leaseId, options);
  }

  async acquireLease(leaseId: string, durationSeconds: number, options?: CallOptions): Promise<void> {
    await this.#barrier();
    await this.#blob.acquireLease(leaseId, durationSeconds, options);
  }

  renewLease(leaseId: string, options?: CallOptions): Promise<void> {
    return this.#blob.renewLease(leaseId, options);
  }

  releaseLease(leaseId: string, options?: CallOptions): Promise<void> {
    return this.#blob.releaseLease(leaseId, options);
  }

  async remove(leaseId?: string, options?: CallOptions): Promise<void> {
    await this.#barrier();
    await this.#blob.remove(leaseId, options);
  }
}
