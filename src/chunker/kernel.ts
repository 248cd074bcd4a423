/**
 * The kernel: what a worker does to one chunk, in the order that costs least.
 *
 *     out   zero test → fingerprint → compare with the entry → compress → seal, and the new entry
 *     back  open → decompress → fingerprint; layout raw: fingerprint
 *
 * A chunk that is the same as the replica's costs the zero test and the fingerprint, and no allocation beyond the digest.
 * Reading, buffers and threads are the worker's business. One instance per disk and thread.
 */
import { bytesEqual } from '../bytes.ts';
import type { Codec } from './codec.ts';
import { FINGERPRINT_BYTES, type Fingerprinter } from './fingerprint.ts';
import { TAG_BYTES } from './geometry.ts';
import { hasFingerprint, isZeroEntry, type ManifestEntry, readEntry, writeEntry } from './manifest-entry.ts';
import { type SlotCipher, slotFault, slotTag } from './slot.ts';
import { isZero } from './zero.ts';

/** `zero`: its range is to be cleared. `same`: nothing to do. `changed`: slot (layout raw: the bytes) to be written. */
export type Verdict = 'zero' | 'same' | 'changed';

/** How chunks are prepared. Without `sealing` the layout is raw: bytes go out as they are. */
export interface KernelSetup {
  readonly fingerprinter: Fingerprinter;
  readonly sealing?: { readonly cipher: SlotCipher; readonly codec: Codec };
}

/** What was found out about a chunk. */
export interface Scanned {
  readonly verdict: Verdict;
  /** Bytes of the slot that was written; 0 unless layout sealed and `changed`. */
  readonly slotBytes: number;
}

const ZERO: Scanned = { verdict: 'zero', slotBytes: 0 };
const SAME: Scanned = { verdict: 'same', slotBytes: 0 };
const CHANGED_RAW: Scanned = { verdict: 'changed', slotBytes: 0 };
const NO_TAG: Uint8Array = new Uint8Array(TAG_BYTES);

export class ChunkKernel {
  readonly #setup: KernelSetup;
  readonly #fingerprint: Uint8Array = new Uint8Array(FINGERPRINT_BYTES);

  constructor(setup: KernelSetup) {
    this.#setup = setup;
  }

  /** How the chunk stands to its entry (a view of 48 bytes). Writes nothing. */
  compare(plaintext: Uint8Array, entry: Uint8Array): Verdict {
    if (isZero(plaintext)) return isZeroEntry(entry) ? 'same' : 'zero';
    this.#setup.fingerprinter.digest(plaintext, this.#fingerprint, 0);
    return hasFingerprint(entry, this.#fingerprint) ? 'same' : 'changed';
  }

  /**
   * Compares, and prepares what differs: the new entry over `newEntry` (48 bytes) and, layout sealed, the slot into
   * `slots` from `slotOffset`, where slotSizeBytes of room is always enough. `forced` takes the chunk as differing
   * whatever `entry` says: its stored bytes are in doubt.
   */
  scan(
    plaintext: Uint8Array,
    chunk: number,
    generation: number,
    entry: Uint8Array,
    forced: boolean,
    newEntry: Uint8Array,
    slots: Buffer,
    slotOffset: number,
  ): Scanned {
    const verdict = this.compare(plaintext, entry);
    if (verdict === 'same' && !forced) return SAME;
    // A forced chunk is `same` to an entry of zeros exactly if it is zeros itself.
    if (verdict === 'zero' || (verdict === 'same' && isZeroEntry(entry))) {
      writeEntry(newEntry, undefined);
      return ZERO;
    }
    const fingerprint = this.#fingerprint;
    const sealing = this.#setup.sealing;
    if (sealing === undefined) {
      writeEntry(newEntry, { generation, epoch: 0, clen: plaintext.byteLength, tag: NO_TAG, fingerprint });
      return CHANGED_RAW;
    }
    const { cipher, codec } = sealing;
    const { clen, paddedBytes } = cipher.seal(plaintext, chunk, generation, fingerprint, codec, slots, slotOffset);
    const tag = slotTag(slots, slotOffset, clen);
    writeEntry(newEntry, { generation, epoch: cipher.currentEpoch, clen, tag, fingerprint });
    return { verdict: 'changed', slotBytes: paddedBytes };
  }

  /**
   * The content of a chunk from what the store holds of it: a slot of its exact padded length, or (layout raw) the bytes,
   * which then come back themselves. It is good until another chunk is opened or scanned on this thread. @throws REPLICA_SLOT if it is not what `entry` describes.
   */
  open(stored: Uint8Array, chunk: number, entry: Uint8Array, plaintextBytes: number): Uint8Array {
    const expected = readEntry(entry);
    if (expected === undefined) throw slotFault(chunk, 'a chunk of zeros has no slot');
    const { fingerprinter, sealing } = this.#setup;
    if (sealing) return sealing.cipher.open(stored, chunk, expected, plaintextBytes, fingerprinter);
    this.#checkRaw(stored, chunk, expected, plaintextBytes);
    return stored;
  }

  #checkRaw(stored: Uint8Array, chunk: number, expected: ManifestEntry, plaintextBytes: number): void {
    if (stored.byteLength !== plaintextBytes || expected.clen !== plaintextBytes) {
      throw slotFault(chunk, 'length is that of the chunk');
    }
    this.#setup.fingerprinter.digest(stored, this.#fingerprint, 0);
    if (!bytesEqual(expected.fingerprint, this.#fingerprint)) {
      throw slotFault(chunk, 'fingerprint is that of the manifest');
    }
  }
}
