/** What several tests of the chunker need: contents, contexts, and sealed chunks with their entries. */
import type { Codec } from '../../src/chunker/codec.ts';
import { createCodec } from '../../src/chunker/codec.ts';
import type { Fingerprinter } from '../../src/chunker/fingerprint.ts';
import { deriveEpochKeys, type EpochKeys } from '../../src/chunker/keys.ts';
import type { ManifestEntry } from '../../src/chunker/manifest-entry.ts';
import type { SealingContext } from '../../src/chunker/record.ts';
import { type SlotCipher, slotTag } from '../../src/chunker/slot.ts';

/** Bytes that look random and are the same in each run (xorshift32). */
export function noise(lengthBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  let state = (seed * 2_654_435_761 + 1) >>> 0 || 1;
  for (let i = 0; i < lengthBytes; i += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state >>> 11;
  }
  return bytes;
}

/** Bytes that compress about as well as text. */
export function prose(lengthBytes: number, seed: number): Buffer {
  const words = ['block', 'chunk', 'disk', 'ferry', 'replica', 'manifest', 'slot', 'page', 'root', 'log'];
  const picks = noise(lengthBytes, seed);
  let text = '';
  for (let i = 0; text.length < lengthBytes; i += 1) text += `${words[picks[i]! % words.length]} ${picks[i]} `;
  return Buffer.from(text).subarray(0, lengthBytes);
}

/** Keys of some epochs. */
export function epochs(...numbers: readonly number[]): Map<number, EpochKeys> {
  return new Map(numbers.map((epoch) => [epoch, deriveEpochKeys(noise(32, 1000 + epoch), epoch)]));
}

/** A context whose random port repeats from run to run but not within one. */
export function context(change: Partial<SealingContext> = {}): SealingContext {
  let calls = 0;
  return {
    replicaId: noise(16, 1),
    diskId: noise(16, 2),
    epochs: epochs(1),
    currentEpoch: 1,
    randomBytes: (lengthBytes) => {
      calls += 1;
      return noise(lengthBytes, 50_000 + calls);
    },
    ...change,
  };
}

/** A chunk as the store holds it, with what the manifest says of it. */
export interface StoredChunk {
  readonly chunk: number;
  readonly plaintext: Buffer;
  readonly slot: Buffer;
  readonly entry: ManifestEntry;
}

/** Seals a chunk and makes its entry. */
export function sealChunk(
  cipher: SlotCipher,
  fingerprinter: Fingerprinter,
  plaintext: Buffer,
  chunk: number,
  generation: number,
  codec: Codec = createCodec('none'),
): StoredChunk {
  const into = Buffer.alloc(plaintext.length + 1024, 0xee);
  const fingerprint = Buffer.alloc(16);
  fingerprinter.digest(plaintext, fingerprint, 0);
  const { clen, paddedBytes } = cipher.seal(plaintext, chunk, generation, fingerprint, codec, into, 0);
  const entry = { generation, epoch: cipher.currentEpoch, clen, tag: slotTag(into, 0, clen), fingerprint };
  return { chunk, plaintext, slot: into.subarray(0, paddedBytes), entry };
}
