/**
 * kernel: what each step of the chunk kernel costs on one core, and the libraries that could do it beside.
 *
 * Content: `binary` is the machine code of the running Node, `random` does not compress. Chunks of machine code differ, so there
 * the median says more than the best.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { createXXHash128 } from 'hash-wasm';
import { compressSync, uncompressSync } from 'lz4-napi';
import {
  ChunkKernel,
  type Compression,
  createCodec,
  createFingerprinter,
  decompress,
  deriveEpochKeys,
  ENTRY_BYTES,
  FINGERPRINT_ALGORITHMS,
  isZero,
  NONCE_BYTES,
  PAGE_BYTES,
  PAGE_PLAINTEXT_BYTES,
  PageCipher,
  type SealingContext,
  SlotCipher,
  slotSizeBytes,
  XaesKey,
} from '../../src/chunker/index.ts';
import { KIB, type Lab } from '../lab.ts';
import { Steps } from '../steps.ts';

const CODE_OFFSET = 40_000_000;
const SAMPLES = 16;
const SIZES_KIB = [64, 256, 1024];

/** Consecutive chunks of machine code, so that no run sees the bytes of the one before in the cache alone. */
function binaryChunks(chunkBytes: number): readonly Buffer[] {
  const file = openSync(process.execPath, 'r');
  const chunks = Array.from({ length: SAMPLES }, () => Buffer.alloc(chunkBytes));
  for (const [i, chunk] of chunks.entries()) readSync(file, chunk, 0, chunkBytes, CODE_OFFSET + i * chunkBytes);
  closeSync(file);
  return chunks;
}

function cipherContext(): SealingContext {
  const epochs = new Map([[1, deriveEpochKeys(randomBytes(32), 1)]]);
  return { replicaId: randomBytes(16), diskId: randomBytes(16), epochs, currentEpoch: 1, randomBytes };
}

/** Gives the elements of a list over and over. */
function around<T>(list: readonly T[]): () => T {
  let turn = 0;
  return () => list[turn++ % list.length]!;
}

async function chunkSteps(lab: Lab, kib: number): Promise<void> {
  const chunkBytes = kib * KIB;
  const steps = new Steps(lab, 'kernel');
  const add = (step: string, work: () => unknown): void => steps.add(`${step}; ${kib} KiB`, chunkBytes, work);
  const [binary, random] = [binaryChunks(chunkBytes), Array.from({ length: SAMPLES }, () => randomBytes(chunkBytes))];
  const [nextBinary, nextRandom] = [around(binary), around(random)];
  const slots = Buffer.alloc(slotSizeBytes(chunkBytes));

  const zeros = Buffer.alloc(chunkBytes);
  add('zero test, zeros', () => isZero(zeros));
  for (const algorithm of FINGERPRINT_ALGORITHMS) {
    const fingerprinter = await createFingerprinter(algorithm, randomBytes(32));
    const into = Buffer.alloc(32);
    add(`fingerprint ${algorithm}`, () => fingerprinter.digest(nextRandom(), into, 0));
  }
  const xxh128 = await createXXHash128(1, 2);
  add('fingerprint xxh128 by hash-wasm', () => xxh128.init().update(nextRandom()).digest('binary'));

  const lz4 = createCodec('lz4');
  const packed = binary.flatMap((chunk) => {
    const content = lz4.compress(chunk);
    return content ? [Buffer.from(content)] : [];
  });
  const nextPacked = around(packed);
  add('lz4 compress, binary', () => lz4.compress(nextBinary()));
  add('lz4 compress, random (passed by)', () => lz4.compress(nextRandom()));
  add('lz4 decompress, binary', () => decompress(lz4.code, nextPacked(), chunkBytes));
  // Its blocks have the length of the plaintext before them.
  const sized = packed.map((content) => Buffer.from(content));
  for (const block of sized) block.writeUInt32LE(chunkBytes);
  const nextSized = around(sized);
  add('lz4 compress, binary, by lz4-napi', () => compressSync(nextBinary()));
  add('lz4 decompress, binary, by lz4-napi', () => uncompressSync(nextSized()));

  const xaes = new XaesKey(randomBytes(32));
  const [nonce, aad, none] = [randomBytes(NONCE_BYTES), randomBytes(112), Buffer.alloc(0)];
  const sealed = xaes.seal(nonce, aad, random[0]!);
  add('xaes seal', () => xaes.sealInto(nonce, aad, nextRandom(), none, slots, 64));
  add('xaes open', () => xaes.open(nonce, aad, sealed));

  const fingerprinter = await createFingerprinter('xxh128', randomBytes(32));
  const cipher = new SlotCipher(cipherContext());
  const kernel = (compression: Compression): ChunkKernel =>
    new ChunkKernel({ fingerprinter, sealing: { cipher, codec: createCodec(compression) } });
  const [noEntry, entry] = [Buffer.alloc(ENTRY_BYTES), Buffer.alloc(ENTRY_BYTES)];
  for (const [compression, content, chunks] of [
    ['none', 'random', random],
    ['lz4', 'random', random],
    ['lz4', 'binary', binary],
  ] as const) {
    const one = kernel(compression);
    const next = around(chunks);
    add(`chunk sealed, ${compression}, ${content}`, () => one.scan(next(), 7, 1, noEntry, false, entry, slots, 0));
    const stored = chunks.map((chunk) => {
      const row = Buffer.alloc(ENTRY_BYTES);
      const { slotBytes } = one.scan(chunk, 7, 1, noEntry, false, row, slots, 0);
      return { row, slot: Buffer.from(slots.subarray(0, slotBytes)) };
    });
    const nextStored = around(stored);
    add(`chunk opened, ${compression}, ${content}`, () => {
      const { row, slot } = nextStored();
      one.open(slot, 7, row, chunkBytes);
    });
  }
  const comparing = kernel('none');
  comparing.scan(random[0]!, 7, 1, noEntry, false, entry, slots, 0);
  const known = Buffer.from(entry);
  add('chunk found unchanged', () => comparing.scan(random[0]!, 7, 1, known, false, entry, slots, 0));
  await steps.run();
}

async function pageSteps(lab: Lab): Promise<void> {
  const steps = new Steps(lab, 'kernel');
  const cipher = new PageCipher(cipherContext());
  const [plaintext, page] = [randomBytes(PAGE_PLAINTEXT_BYTES.entries), Buffer.alloc(PAGE_BYTES)];
  const reference = cipher.sealPage('entries', 0, 1, 0, plaintext, page);
  const sealed = Buffer.from(page);
  steps.add('manifest page sealed', PAGE_BYTES, () => cipher.sealPage('entries', 0, 1, 0, plaintext, page));
  steps.add('manifest page opened', PAGE_BYTES, () => cipher.openPage('entries', 0, reference, sealed));
  await steps.run();
}

export async function kernel(lab: Lab): Promise<void> {
  for (const kib of lab.smoke ? [256] : SIZES_KIB) await chunkSteps(lab, kib);
  await pageSteps(lab);
}
