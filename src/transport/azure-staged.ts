/**
 * A staged object in Azure: blocks of a block blob, committed by their list.
 *
 * Block ids are `base64(16 random bytes of the staging | index u32)`: of one length, as the service wants it of all blocks of
 * a blob, and never those of another staging, so that no list can mix two of them. The list names each block as "latest":
 * a commit whose answer was lost finds its blocks among the committed ones. A commit by somebody else removes all other
 * uncommitted blocks, so one that arrives late names blocks that are gone and fails.
 *
 * The service has no call that drops uncommitted blocks; it drops them after a week, or with the next commit.
 */
import type { BlockBlobClient } from '@azure/storage-blob';
import { asBuffer } from '../bytes.ts';
import type { Random } from '../ports.ts';
import { type AzureSettings, attempt, bounded } from './azure-attempt.ts';
import { targetOf } from './azure-wire.ts';
import { StagedParts } from './staged-parts.ts';
import type { CallOptions, StagedObject } from './store.ts';
import { checksumHeaders } from './transport-checksum.ts';

const STAGING_ID_BYTES = 16;
/** Of one block in the XML of a list. */
const LISTED_BLOCK_BYTES = 64;

export class AzureStagedObject implements StagedObject {
  readonly #client: BlockBlobClient;
  readonly #key: string;
  readonly #settings: AzureSettings;
  readonly #parts: StagedParts;
  readonly #stagingId: Uint8Array;

  constructor(client: BlockBlobClient, key: string, partBytes: number, settings: AzureSettings, random: Random) {
    this.#client = client;
    this.#key = key;
    this.#settings = settings;
    this.#parts = new StagedParts(key, partBytes);
    this.#stagingId = random.bytes(STAGING_ID_BYTES);
  }

  async put(index: number, bytes: Uint8Array, options?: CallOptions): Promise<void> {
    this.#parts.check(index, bytes.byteLength);
    const body = asBuffer(bytes);
    const { wire, transportChecksum } = this.#settings;
    const target = targetOf(this.#client.url, { comp: 'block', blockid: this.#blockId(index) });
    const part = { target, headers: checksumHeaders(transportChecksum, body) };
    const request = { subject: this.#key, operation: `Put Block ${index}` };
    await bounded(this.#settings, request, body.byteLength, options, (onInterrupt) =>
      wire.upload(part, body, onInterrupt),
    );
    this.#parts.stored(index, body.byteLength);
  }

  async commit(parts: number, options?: CallOptions): Promise<void> {
    this.#parts.checkWhole(parts);
    this.#parts.end();
    const ids = Array.from({ length: parts }, (_, index) => this.#blockId(index));
    const request = { subject: this.#key, operation: `Put Block List of ${parts}` };
    await attempt(this.#settings, request, parts * LISTED_BLOCK_BYTES, options, (abortSignal) =>
      this.#client.commitBlockList(ids, { abortSignal }),
    );
  }

  async abort(): Promise<void> {
    this.#parts.abandon();
  }

  #blockId(index: number): string {
    const id = Buffer.alloc(STAGING_ID_BYTES + 4);
    id.set(this.#stagingId);
    id.writeUInt32BE(index, STAGING_ID_BYTES);
    return id.toString('base64');
  }
}
