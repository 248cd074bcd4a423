/**
 * What each step of the kernel costs on one core, in MB/s of plaintext, best of many short runs.
 *
 *     npm run build && node bench/kernel.bench.js [chunk size in KiB …]
 *
 * Content: `binary` is the machine code of the running Node, `random` does not compress. One JSON line per step; the
 * best run is what the code can do, whatever else the machine was busy with. Chunks of machine code differ, so there the
 * median says more.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { Bench } from 'tinybench';
import {
  ChunkKernel,
  createCodec,
  createFingerprinter,
  decompress,
  deriveEpochKeys,
  ENTRY_BYTES,
  isZero,
  NONCE_BYTES,
  PAGE_BYTES,
  PAGE_PLAINTEXT_BYTES,
  PageCipher,
  SlotCipher,
  slotSizeBytes,
  XaesKey,
} from '../dist/chunker/index.js';

const CODE_OFFSET = 40_000_000;
const SAMPLES = 16;

/** Consecutive chunks of machine code, so that no run sees the bytes of the one before in the cache alone. */
function binaryChunks(chunkBytes) {
  const file = openSync(process.execPath, 'r');
  const chunks = Array.from({ length: SAMPLES }, () => Buffer.alloc(chunkBytes));
  for (const [i, chunk] of chunks.entries()) readSync(file, chunk, 0, chunkBytes, CODE_OFFSET + i * chunkBytes);
  closeSync(file);
  return chunks;
}

async function measure(chunkBytes) {
  const bench = new Bench({ time: 300, warmupTime: 100 });
  const binary = binaryChunks(chunkBytes);
  const random = Array.from({ length: SAMPLES }, () => randomBytes(chunkBytes));
  const keys = new Map([[1, deriveEpochKeys(randomBytes(32), 1)]]);
  const context = { replicaId: randomBytes(16), diskId: randomBytes(16), epochs: keys, currentEpoch: 1, randomBytes };
  const [slots, print] = [Buffer.alloc(slotSizeBytes(chunkBytes)), Buffer.alloc(16)];
  let turn = 0;
  const next = (chunks) => chunks[turn++ % SAMPLES];

  const zeros = Buffer.alloc(chunkBytes);
  bench.add('zero test, zeros', () => isZero(zeros));
  for (const algorithm of ['xxh64', 'xxh128', 'sha256']) {
    const fingerprinter = await createFingerprinter(algorithm, randomBytes(32));
    bench.add(`fingerprint ${algorithm}`, () => fingerprinter.digest(next(random), print, 0));
  }

  const lz4 = createCodec('lz4');
  const packed = binary.flatMap((chunk) => {
    const content = lz4.compress(chunk);
    return content ? [Buffer.from(content)] : [];
  });
  bench.add('lz4 compress, binary', () => lz4.compress(next(binary)));
  bench.add('lz4 compress, random (passed by)', () => lz4.compress(next(random)));
  bench.add('lz4 decompress, binary', () => decompress(lz4.code, packed[turn++ % packed.length], chunkBytes));

  const xaes = new XaesKey(randomBytes(32));
  const [nonce, aad, none] = [randomBytes(NONCE_BYTES), randomBytes(112), Buffer.alloc(0)];
  const sealed = xaes.seal(nonce, aad, random[0]);
  bench.add('xaes seal', () => xaes.sealInto(nonce, aad, next(random), none, slots, 64));
  bench.add('xaes open', () => xaes.open(nonce, aad, sealed));

  const fingerprinter = await createFingerprinter('xxh128', randomBytes(32));
  const kernel = (compression) =>
    new ChunkKernel({ fingerprinter, sealing: { cipher: new SlotCipher(context), codec: createCodec(compression) } });
  const [noEntry, entry] = [Buffer.alloc(ENTRY_BYTES), Buffer.alloc(ENTRY_BYTES)];
  for (const [compression, content, chunks] of [
    ['none', 'random', random],
    ['lz4', 'random', random],
    ['lz4', 'binary', binary],
  ]) {
    const one = kernel(compression);
    const name = `${compression}, ${content}`;
    bench.add(`kernel changed, ${name}`, () => one.scan(next(chunks), 7, 1, noEntry, false, entry, slots, 0));
    const stored = chunks.map((chunk) => {
      const row = Buffer.alloc(ENTRY_BYTES);
      const { slotBytes } = one.scan(chunk, 7, 1, noEntry, false, row, slots, 0);
      return { row, slot: Buffer.from(slots.subarray(0, slotBytes)) };
    });
    bench.add(`kernel open, ${name}`, () => {
      const { row, slot } = next(stored);
      one.open(slot, 7, row, chunkBytes);
    });
  }
  const comparing = kernel('none');
  comparing.scan(random[0], 7, 1, noEntry, false, entry, slots, 0);
  const known = Buffer.from(entry);
  bench.add('kernel same', () => comparing.scan(random[0], 7, 1, known, false, entry, slots, 0));

  await bench.run();
  for (const { name, result } of bench.tasks) report(name, chunkBytes, result);
}

async function measurePages() {
  const bench = new Bench({ time: 300, warmupTime: 100 });
  const keys = new Map([[1, deriveEpochKeys(randomBytes(32), 1)]]);
  const context = { replicaId: randomBytes(16), diskId: randomBytes(16), epochs: keys, currentEpoch: 1, randomBytes };
  const [cipher, plaintext, page] = [
    new PageCipher(context),
    randomBytes(PAGE_PLAINTEXT_BYTES.entries),
    Buffer.alloc(PAGE_BYTES),
  ];
  const reference = cipher.sealPage('entries', 0, 1, 0, plaintext, page);
  const sealed = Buffer.from(page);
  bench.add('manifest page seal', () => cipher.sealPage('entries', 0, 1, 0, plaintext, page));
  bench.add('manifest page open', () => cipher.openPage('entries', 0, reference, sealed));
  await bench.run();
  for (const { name, result } of bench.tasks) report(name, PAGE_BYTES, result);
}

/** Latencies are in milliseconds. */
function report(step, bytes, result) {
  if (result.state !== 'completed') throw new Error(`${step}: ${result.state}`, { cause: result.error });
  const mbPerSecond = (ms) => Math.round(bytes / ms / 1000);
  const { min, p50 } = result.latency;
  const line = { type: 'bench', step, chunkBytes: bytes, bestMBps: mbPerSecond(min), medianMBps: mbPerSecond(p50) };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const sizesKiB = process.argv.slice(2).map(Number);
for (const kib of sizesKiB.length > 0 ? sizesKiB : [64, 256, 1024]) await measure(kib * 1024);
await measurePages();
