/**
 * A page blob in Azure (or in an emulator), over @azure/storage-blob.
 *
 * Left to us by the SDK and the service's emulators, and therefore here: the checks of page-rules.ts, a timeout on
 * every request, the length and the checksum of what is read, paging of range lists, and errors that say what
 * happened. Not here: retries, pacing, the fence protocol (fenced-blob.ts).
 *
 * `getPageRanges` of the SDK is never used: it returns counts that are one too small and only the first segment.
 */
import type { ContainerClient, PageBlobClient, PageBlobRequestConditions } from '@azure/storage-blob';
import { asBuffer } from '../bytes.ts';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { PAGE_WRITE_BYTES_MAX } from '../limits.ts';
import { type AzureSettings, attempt, bounded } from './azure-attempt.ts';
import { damagedTransfer } from './azure-errors.ts';
import { getRange } from './azure-range.ts';
import { type Target, targetOf } from './azure-wire.ts';
import { checkBlobSize, checkClear, checkFence, checkLease, checkRead, checkWrite } from './page-rules.ts';
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
import { checksumHeaders } from './transport-checksum.ts';

function guardConditions(guard: WriteGuard): PageBlobRequestConditions {
  const sequence = { ifSequenceNumberEqualTo: guard.fence };
  return guard.leaseId === undefined ? sequence : { ...sequence, leaseId: guard.leaseId };
}

function leaseConditions(leaseId: string | undefined): { conditions?: { leaseId: string } } {
  return leaseId === undefined ? {} : { conditions: { leaseId } };
}

/** Runs `call`; `fallback` where the thing is gone, or the lease is not ours any more (`codes` says which). */
async function unless<T>(
  codes: readonly ('STORE_NOT_FOUND' | 'REPLICA_LEASED')[],
  fallback: T,
  call: Promise<T>,
): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (isBlockferryError(error, ...codes)) return fallback;
    throw error;
  }
}

export class AzurePageBlob implements PageBlob {
  readonly key: string;
  readonly #container: ContainerClient;
  readonly #client: PageBlobClient;
  readonly #settings: AzureSettings;
  /** The size never changes while a blob lives, so it is asked for once. */
  #sizeBytes: number | undefined;
  #pagesTarget: Target | undefined;

  constructor(container: ContainerClient, blobName: string, key: string, settings: AzureSettings) {
    this.key = key;
    this.#container = container;
    this.#client = container.getPageBlobClient(blobName);
    this.#settings = settings;
  }

  async create(sizeBytes: number, fence: number, options?: CallOptions): Promise<void> {
    checkBlobSize(this.key, sizeBytes);
    checkFence(this.key, fence);
    await this.#attempt('Create Page Blob', 0, options, (abortSignal) =>
      this.#client.create(sizeBytes, { abortSignal, blobSequenceNumber: fence, conditions: { ifNoneMatch: '*' } }),
    );
    this.#sizeBytes = sizeBytes;
  }

  async state(options?: CallOptions): Promise<PageBlobState | undefined> {
    const found = await unless(['STORE_NOT_FOUND'], undefined, this.#properties(options));
    return found && { sizeBytes: found.sizeBytes, fence: found.fence };
  }

  async write(bytes: Uint8Array, offset: number, guard: WriteGuard, options?: WriteOptions): Promise<void> {
    checkWrite(this.key, offset, bytes.byteLength, await this.#size(options));
    const body = asBuffer(bytes);
    const { wire, transportChecksum } = this.#settings;
    const headers = {
      'x-ms-page-write': 'update',
      'x-ms-range': `bytes=${offset}-${offset + body.byteLength - 1}`,
      'x-ms-if-sequence-number-eq': String(guard.fence),
      ...(guard.leaseId === undefined ? {} : { 'x-ms-lease-id': guard.leaseId }),
      ...checksumHeaders(transportChecksum, body, options?.crc64),
    };
    this.#pagesTarget ??= targetOf(this.#client.url, { comp: 'page' });
    const request = { target: this.#pagesTarget, headers };
    const about = { subject: this.key, operation: `Put Page at offset ${offset}` };
    await bounded(this.#settings, about, body.byteLength, options, (onInterrupt) =>
      wire.upload(request, body, onInterrupt),
    );
  }

  async clear(offset: number, lengthBytes: number, guard: WriteGuard, options?: CallOptions): Promise<void> {
    checkClear(this.key, offset, lengthBytes, await this.#size(options));
    await this.#attempt(`Clear Pages at offset ${offset}`, 0, options, (abortSignal) =>
      this.#client.clearPages(offset, lengthBytes, { abortSignal, conditions: guardConditions(guard) }),
    );
  }

  async read(offset: number, lengthBytes: number, options?: ReadOptions): Promise<Uint8Array> {
    checkRead(this.key, offset, lengthBytes, await this.#size(options));
    const into = Buffer.allocUnsafeSlow(lengthBytes);
    for (let done = 0; done < lengthBytes; ) {
      const piece = into.subarray(done, Math.min(lengthBytes, done + PAGE_WRITE_BYTES_MAX));
      await this.#readPiece(piece, offset + done, options);
      done += piece.byteLength;
    }
    return into;
  }

  async *ranges(options?: RangesOptions): AsyncGenerator<ByteRange> {
    const client = this.#at(options?.snapshot);
    const sizeBytes = await this.#size(options);
    const from = options?.fromOffset ?? 0;
    let marker: string | undefined;
    let held: ByteRange | undefined;
    do {
      const settings = marker === undefined ? {} : { continuationToken: marker };
      const page = await this.#attempt('Get Page Ranges', 0, options, async (abortSignal) => {
        const pages = client.listPageRanges(from, sizeBytes - from, { abortSignal }).byPage(settings);
        return (await pages.next()).value;
      });
      for (const { start, end } of page?.pageRange ?? []) {
        this.#checkListed(start, end, held, sizeBytes);
        // Neighbours are listed apart where they were written apart.
        if (held && held.offset + held.lengthBytes === start) {
          held = { offset: held.offset, lengthBytes: end + 1 - held.offset };
        } else {
          if (held) yield held;
          held = { offset: start, lengthBytes: end + 1 - start };
        }
      }
      marker = page?.continuationToken || undefined;
    } while (marker !== undefined);
    if (held) yield held;
  }

  async flush(): Promise<void> {}

  /** The snapshot holds only if the fence still stood when it was taken: it is bound to the etag seen with the fence. */
  async snapshot(guard: WriteGuard, options?: CallOptions): Promise<string> {
    const { fence, etag } = await this.#properties(options);
    if (fence !== guard.fence) {
      throw new BlockferryError('REPLICA_FENCED', `${this.key}: fence is ${fence}, this writer holds ${guard.fence}`, {
        facts: { source: this.key, fence, held: guard.fence },
      });
    }
    const conditions = { ifMatch: etag, ...(guard.leaseId === undefined ? {} : { leaseId: guard.leaseId }) };
    const { snapshot } = await this.#attempt('Snapshot Blob', 0, options, (abortSignal) =>
      this.#client.createSnapshot({ abortSignal, conditions }),
    ).catch((error: unknown) => {
      if (!isBlockferryError(error, 'STORE_CONDITION')) throw error;
      throw new BlockferryError(error.code, `${this.key}: a write crossed the snapshot`, {
        facts: error.facts,
        retryable: true,
      });
    });
    if (snapshot === undefined) throw this.#damaged('Snapshot Blob', 'the answer names no snapshot');
    return snapshot;
  }

  async deleteSnapshot(snapshot: string, options?: CallOptions): Promise<void> {
    const request = this.#attempt('Delete Snapshot', 0, options, async (abortSignal) => {
      await this.#client.withSnapshot(snapshot).delete({ abortSignal });
    });
    await unless(['STORE_NOT_FOUND'], undefined, request);
  }

  async snapshots(options?: CallOptions): Promise<readonly string[]> {
    const { name } = this.#client;
    const found: string[] = [];
    let marker: string | undefined;
    do {
      const settings = marker === undefined ? {} : { continuationToken: marker };
      const page = await this.#attempt('List Snapshots', 0, options, async (abortSignal) => {
        const list = this.#container.listBlobsFlat({ abortSignal, prefix: name, includeSnapshots: true });
        return (await list.byPage(settings).next()).value;
      });
      const items = page?.segment.blobItems ?? [];
      for (const item of items) {
        if (item.name === name && item.snapshot) found.push(item.snapshot);
      }
      // Names ascend: behind the first longer one there is nothing of this blob.
      const passed = items.some((item: { readonly name: string }) => item.name !== name);
      marker = passed ? undefined : page?.continuationToken || undefined;
    } while (marker !== undefined);
    return found.sort();
  }

  async raiseFence(fence: number, leaseId: string | undefined, options?: CallOptions): Promise<void> {
    checkFence(this.key, fence);
    await this.#attempt(`Set Sequence Number to ${fence}`, 0, options, (abortSignal) =>
      this.#client.updateSequenceNumber('max', fence, { abortSignal, ...leaseConditions(leaseId) }),
    );
  }

  async acquireLease(leaseId: string, durationSeconds: number, options?: CallOptions): Promise<void> {
    checkLease(this.key, leaseId, durationSeconds);
    await this.#attempt('Acquire Lease', 0, options, (abortSignal) =>
      this.#client.getBlobLeaseClient(leaseId).acquireLease(durationSeconds, { abortSignal }),
    );
  }

  async renewLease(leaseId: string, options?: CallOptions): Promise<void> {
    await this.#attempt('Renew Lease', 0, options, (abortSignal) =>
      this.#client.getBlobLeaseClient(leaseId).renewLease({ abortSignal }),
    );
  }

  async releaseLease(leaseId: string, options?: CallOptions): Promise<void> {
    const request = this.#attempt('Release Lease', 0, options, async (abortSignal) => {
      await this.#client.getBlobLeaseClient(leaseId).releaseLease({ abortSignal });
    });
    await unless(['STORE_NOT_FOUND', 'REPLICA_LEASED'], undefined, request);
  }

  async remove(leaseId?: string, options?: CallOptions): Promise<void> {
    const request = this.#attempt('Delete Blob', 0, options, async (abortSignal) => {
      await this.#client.delete({ abortSignal, deleteSnapshots: 'include', ...leaseConditions(leaseId) });
    });
    await unless(['STORE_NOT_FOUND'], undefined, request);
    this.#sizeBytes = undefined;
  }
  #at(snapshot: string | undefined): PageBlobClient {
    return snapshot === undefined ? this.#client : this.#client.withSnapshot(snapshot);
  }

  #attempt<T>(
    operation: string,
    bodyBytes: number,
    options: CallOptions | undefined,
    send: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return attempt(this.#settings, { subject: this.key, operation }, bodyBytes, options, send);
  }

  async #size(options?: CallOptions): Promise<number> {
    return this.#sizeBytes ?? (await this.#properties(options)).sizeBytes;
  }

  async #properties(options?: CallOptions): Promise<PageBlobState & { readonly etag: string }> {
    const answer = await this.#attempt('Get Blob Properties', 0, options, (abortSignal) =>
      this.#client.getProperties({ abortSignal }),
    );
    const { contentLength: sizeBytes, blobSequenceNumber: fence, etag, blobType } = answer;
    if (blobType !== 'PageBlob') {
      throw new BlockferryError('STORE_REFUSED', `${this.key} is a ${blobType}, not a page blob`, {
        facts: { source: this.key, rule: 'disks are page blobs' },
      });
    }
    if (sizeBytes === undefined || fence === undefined || etag === undefined) {
      throw this.#damaged('Get Blob Properties', 'size, sequence number or etag is missing');
    }
    this.#sizeBytes = sizeBytes;
    return { sizeBytes, fence, etag };
  }

  async #readPiece(into: Buffer, offset: number, options: ReadOptions | undefined): Promise<void> {
    const request = { subject: this.key, operation: `Get Blob at offset ${offset}` };
    const { url } = this.#at(options?.snapshot);
    await attempt(this.#settings, request, into.byteLength, options, async (abortSignal) => {
      const { sizeBytes } = await getRange(this.#settings, url, request, into, offset, { abortSignal });
      if (offset + into.byteLength > sizeBytes) throw damagedTransfer(request, `the blob ends at ${sizeBytes}`);
    });
  }

  #checkListed(start: number, end: number, before: ByteRange | undefined, sizeBytes: number): void {
    const floor = before ? before.offset + before.lengthBytes : 0;
    if (Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= floor && end >= start && end < sizeBytes) {
      return;
    }
    throw this.#damaged('Get Page Ranges', `range ${start} … ${end} is out of order or outside of ${sizeBytes} bytes`);
  }

  #damaged(operation: string, what: string): BlockferryError {
    return damagedTransfer({ subject: this.key, operation }, what);
  }
}
