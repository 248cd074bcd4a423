/** A page blob behind a gateway: each call goes through to the real one, which checks ranges, fences and leases. */
import { BlockferryError } from '../errors.ts';
import { GATEWAY_LIST_BYTES_MAX } from '../limits.ts';
import type { Answer, Exchange, GatewayLine } from './gateway-line.ts';
import type { GatewayCall } from './gateway-protocol.ts';
import type {
  ByteRange,
  CallOptions,
  PageBlob,
  PageBlobState,
  RangesOptions,
  ReadOptions,
  WriteGuard,
} from './store.ts';

export class GatewayBlob implements PageBlob {
  readonly key: string;
  readonly #line: GatewayLine;

  constructor(line: GatewayLine, key: string) {
    this.#line = line;
    this.key = key;
  }

  async create(sizeBytes: number, fence: number, options?: CallOptions): Promise<void> {
    await this.#call('pages-create', { fields: { sizeBytes, fence } }, options);
  }

  async state(options?: CallOptions): Promise<PageBlobState | undefined> {
    const { fields } = await this.#call('pages-state', { fields: {} }, options);
    if (fields['exists'] !== true) return undefined;
    return { sizeBytes: numberOf(this.key, fields, 'sizeBytes'), fence: numberOf(this.key, fields, 'fence') };
  }

  async write(bytes: Uint8Array, offset: number, guard: WriteGuard, options?: CallOptions): Promise<void> {
    await this.#call('pages-write', { fields: { offset, ...guard }, body: bytes }, options);
  }

  async clear(offset: number, lengthBytes: number, guard: WriteGuard, options?: CallOptions): Promise<void> {
    await this.#call('pages-clear', { fields: { offset, lengthBytes, ...guard } }, options);
  }

  async read(offset: number, lengthBytes: number, { snapshot, ...options }: ReadOptions = {}): Promise<Uint8Array> {
    const fields = { offset, lengthBytes, ...(snapshot === undefined ? {} : { snapshot }) };
    const { bytes } = await this.#call('pages-read', { fields, answerBytesMax: lengthBytes }, options);
    return bytes;
  }

  async *ranges({ snapshot, fromOffset = 0, ...options }: RangesOptions = {}): AsyncGenerator<ByteRange> {
    for (let from = fromOffset; ; ) {
      const fields = { fromOffset: from, ...(snapshot === undefined ? {} : { snapshot }) };
      const { more, items } = listOf(this.key, await this.#list('pages-ranges', fields, options));
      const before = from;
      for (const item of items) {
        const [offset, lengthBytes] = rangeOf(this.key, item);
        const start = Math.max(offset, from);
        // The first may begin before the place where the last page ended.
        if (offset + lengthBytes > start) yield { offset: start, lengthBytes: offset + lengthBytes - start };
        from = Math.max(from, offset + lengthBytes);
      }
      if (!more) return;
      // Else it would never end.
      if (from === before) throw notAnAnswer(this.key);
    }
  }

  async flush(options?: CallOptions): Promise<void> {
    await this.#call('pages-flush', { fields: {} }, options);
  }

  async snapshot(guard: WriteGuard, options?: CallOptions): Promise<string> {
    const { fields } = await this.#call('pages-snapshot', { fields: { ...guard } }, options);
    return textOf(this.key, fields, 'snapshot');
  }

  async deleteSnapshot(snapshot: string, options?: CallOptions): Promise<void> {
    await this.#call('pages-delete-snapshot', { fields: { snapshot } }, options);
  }

  async snapshots(options?: CallOptions): Promise<readonly string[]> {
    const { items } = listOf(this.key, await this.#list('pages-snapshots', {}, options));
    return items.map((item) => (typeof item === 'string' ? item : notAText(this.key)));
  }

  async raiseFence(fence: number, leaseId: string | undefined, options?: CallOptions): Promise<void> {
    await this.#call('pages-raise-fence', { fields: { fence, ...withLease(leaseId) } }, options);
  }

  async acquireLease(leaseId: string, durationSeconds: number, options?: CallOptions): Promise<void> {
    await this.#call('pages-acquire-lease', { fields: { leaseId, durationSeconds } }, options);
  }

  async renewLease(leaseId: string, options?: CallOptions): Promise<void> {
    await this.#call('pages-renew-lease', { fields: { leaseId } }, options);
  }

  async releaseLease(leaseId: string, options?: CallOptions): Promise<void> {
    await this.#call('pages-release-lease', { fields: { leaseId } }, options);
  }

  async remove(leaseId?: string, options?: CallOptions): Promise<void> {
    await this.#call('pages-remove', { fields: withLease(leaseId) }, options);
  }

  #list(name: GatewayCall, fields: Exchange['fields'], options: CallOptions | undefined): Promise<Answer> {
    return this.#call(name, { fields, answerBytesMax: GATEWAY_LIST_BYTES_MAX }, options);
  }

  async #call(name: GatewayCall, exchange: Exchange, options: CallOptions | undefined): Promise<Answer> {
    const fields = { key: this.key, ...exchange.fields };
    return await this.#line.call(this.key, name, { ...exchange, fields }, options);
  }
}

function withLease(leaseId: string | undefined): { readonly leaseId?: string } {
  return leaseId === undefined ? {} : { leaseId };
}

/** A page of a listing: JSON in the body. @throws STORE_CORRUPT_TRANSFER */
export function listOf(
  subject: string,
  { fields, bytes }: Answer,
): { readonly more: boolean; readonly items: readonly unknown[] } {
  let items: unknown;
  try {
    items = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    items = undefined;
  }
  if (!Array.isArray(items)) throw notAnAnswer(subject);
  return { more: fields['more'] === true, items };
}

/** @throws STORE_CORRUPT_TRANSFER */
export function textOf(subject: string, fields: Answer['fields'], name: string): string {
  const value = fields[name];
  return typeof value === 'string' ? value : notAText(subject);
}

function numberOf(subject: string, fields: Answer['fields'], name: string): number {
  const value = fields[name];
  if (Number.isSafeInteger(value)) return value as number;
  throw notAnAnswer(subject);
}

function rangeOf(subject: string, item: unknown): readonly [number, number] {
  const [offset, lengthBytes] = Array.isArray(item) ? (item as unknown[]) : [];
  if (Number.isSafeInteger(offset) && Number.isSafeInteger(lengthBytes))
    return [offset as number, lengthBytes as number];
  throw notAnAnswer(subject);
}

function notAText(subject: string): never {
  throw notAnAnswer(subject);
}

export function notAnAnswer(subject: string): BlockferryError {
  return new BlockferryError('STORE_CORRUPT_TRANSFER', `${subject}: the answer is none of a gateway`, {
    facts: { source: subject, rule: 'answers are whole', mayStillApply: true },
    retryable: true,
  });
}
