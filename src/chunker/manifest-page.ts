/**
 * Pages of the manifest tree, sealed (docs/formats/replica.md, "Manifest tree").
 *
 *     header 64 | ciphertext | tag 16 | zeros        65,536 bytes
 *     entries (`RMP1`): 1,363 entries of 48 bytes    table (`RTP1`): 2,045 references of 32 bytes
 *
 * `openPage` returns the plaintext that was sealed for exactly this replica, disk, kind, page number and reference, or
 * throws REPLICA_MANIFEST. Which of its two copies a page stands in is not sealed: the tag in the reference names the
 * bytes, wherever they lie.
 */
import { BlockferryError } from '../errors.ts';
import { HEADER_BYTES, PAGE_BYTES, PAGE_PLAINTEXT_BYTES, type PageKind, TAG_BYTES } from './geometry.ts';
import type { PageReference } from './manifest-entry.ts';
import { RecordCipher, type RecordKind, type SealingContext } from './record.ts';

/** `RMP1` and `RTP1` as little-endian u32. */
const MAGIC: Readonly<Record<PageKind, number>> = { entries: 0x3150_4d52, table: 0x3150_5452 };
const NO_BYTES: Uint8Array = new Uint8Array(0);

const PAGE_KIND: RecordKind = { label: 'rpage1\0\0', purpose: 'page', fault: pageFault };

/** Seals and opens the manifest pages of one disk. Not to be shared between threads. */
export class PageCipher {
  readonly #record: RecordCipher;

  constructor(context: SealingContext) {
    this.#record = new RecordCipher(PAGE_KIND, context);
  }

  /**
   * Writes the sealed page into `into`, which is exactly PAGE_BYTES long, and returns the reference to it. The page
   * itself identifies it in the nonce. `copy` is only passed through.
   */
  sealPage(
    kind: PageKind,
    page: number,
    generation: number,
    copy: PageReference['copy'],
    plaintext: Uint8Array,
    into: Buffer,
  ): PageReference {
    const length = PAGE_PLAINTEXT_BYTES[kind];
    if (plaintext.byteLength !== length) throw new RangeError(`a page of ${kind} has ${length} bytes of plaintext`);
    if (into.byteLength !== PAGE_BYTES) throw new RangeError(`a page has ${PAGE_BYTES} bytes, not ${into.byteLength}`);
    const record = {
      magic: MAGIC[kind],
      number: page,
      generation,
      compression: 0,
      plaintextLength: length,
      head: plaintext,
      tail: NO_BYTES,
      identity: plaintext,
    };
    this.#record.seal(record, into, 0, PAGE_BYTES);
    const tagOffset = HEADER_BYTES + length;
    const tag = Uint8Array.from(into.subarray(tagOffset, tagOffset + TAG_BYTES));
    return { generation, epoch: this.#record.currentEpoch, copy, tag };
  }

  /**
   * The plaintext of the page, in a buffer that the caller owns.
   * @throws REPLICA_MANIFEST for anything but the page that `reference` names.
   */
  openPage(kind: PageKind, page: number, reference: Omit<PageReference, 'copy'>, bytes: Uint8Array): Buffer {
    if (bytes.byteLength !== PAGE_BYTES) throw pageFault(page, `page has ${PAGE_BYTES} bytes`);
    const clen = PAGE_PLAINTEXT_BYTES[kind];
    return this.#record.open(bytes, {
      magic: MAGIC[kind],
      number: page,
      compressionMax: 0,
      plaintextLength: clen,
      generation: reference.generation,
      epoch: reference.epoch,
      clen,
      tag: reference.tag,
    });
  }
}

function pageFault(page: number, rule: string): BlockferryError {
  return new BlockferryError('REPLICA_MANIFEST', `manifest page ${page} breaks the rule: ${rule}`, {
    facts: { page, rule },
  });
}
