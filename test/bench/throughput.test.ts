/**
 * The throughput regression test. What a copy, a message, a request or a wait too many would change is counted exactly; times are
 * only ever compared with what a native or hand-written reference takes in the same seconds, best of many short slices, with one
 * retry. Controls plant what has to be noticed, a copy of each chunk and a wait of each request for the one before, and see it
 * noticed.
 */
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import pLimit from 'p-limit';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { type DiscardingServer, startDiscardingServer } from '../../bench/discarding-server.ts';
import { protect, resync } from '../../src/agent/index.ts';
import { crc64 } from '../../src/chunker/crc64.ts';
import {
  ChunkKernel,
  chunkMemory,
  createFingerprinter,
  ENTRY_BYTES,
  type Fingerprinter,
  isZero,
  type Verdict,
} from '../../src/chunker/index.ts';
import type { PageBlob, Store } from '../../src/transport/store.ts';
import { type BatchDisk, scanBatch } from '../../src/workers/batch.ts';
import type { ScanTask } from '../../src/workers/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { poolLog } from '../support/in-process-pool.ts';
import { Lab } from '../support/replica-lab.ts';

const planted = vi.hoisted(() => ({ oneRequestAtATime: false }));
/** Page writes that came with a checksum of whoever made the bytes, and whether it is theirs. */
const checksums = vi.hoisted(() => ({ right: 0, wrong: 0 }));

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));
vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  return {
    ...real,
    openStore: async (url: string, options: Parameters<typeof real.openStore>[1]) => {
      const limit = pLimit(planted.oneRequestAtATime ? 1 : Number.POSITIVE_INFINITY);
      // As Azure has it: the server stands under the account of the emulators, who get an MD5.
      return writing(
        await real.openStore(url, { ...options, transportChecksum: 'crc64' }),
        ([bytes, , , options], write) => {
          const known = options?.crc64;
          if (known) checksums[crc64(bytes).equals(known) ? 'right' : 'wrong'] += 1;
          return limit(write);
        },
      );
    },
  };
});

type Write = Parameters<PageBlob['write']>;

/** A store whose page writes go through `around`. */
function writing(store: Store, around: (of: Write, write: () => Promise<void>) => Promise<void>): Store {
  const pages = (key: string): PageBlob => {
    const blob = store.pages(key);
    return new Proxy(blob, {
      get(target, name) {
        const value = Reflect.get(target, name, target) as unknown;
        if (typeof value !== 'function') return value;
        if (name !== 'write') return value.bind(target) as unknown;
        return (...of: Write) => around(of, () => target.write(...of));
      },
    });
  };
  return new Proxy(store, {
    get(target, name) {
      if (name === 'pages') return pages;
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

const KIB = 1024;
const MIB = 1024 * KIB;
const CHUNK_BYTES = 256 * KIB;
const CHUNKS = 64;
const BATCH_BYTES = 2 * MIB;
const LANES = 8;

/** Half of the chunks compress, a quarter are noise, a quarter zeros; none is like another. */
function content(): Buffer {
  const kinds = [prose, noise, prose, () => Buffer.alloc(CHUNK_BYTES)];
  return Buffer.concat(Array.from({ length: CHUNKS }, (_, i) => kinds[i % kinds.length]!(CHUNK_BYTES, i)));
}

describe('a sync, counted', () => {
  const disk = content();
  let lab: Lab;
  let server: DiscardingServer;

  beforeEach(async () => {
    planted.oneRequestAtATime = false;
    Object.assign(checksums, { right: 0, wrong: 0 });
    lab = new Lab();
    // The lanes are seen to fill whatever this machine is busy with: no write is answered before the next ones have come.
    server = await startDiscardingServer({ writes: LANES, waitMs: 250 });
  });
  afterEach(async () => {
    await server.close();
    lab.close();
  });

  interface Counted {
    readonly messages: number;
    readonly readBytes: number;
    readonly writes: number;
    readonly atOnce: number;
    readonly bodyBytes: number;
  }

  async function counted(work: () => Promise<{ disks: readonly { readBytes: number }[] }>): Promise<Counted> {
    poolLog.forget();
    server.reset();
    const report = await work();
    const { requests, atOnce, bodyBytes } = server.counts();
    const readBytes = report.disks.reduce((sum, each) => sum + each.readBytes, 0);
    return {
      messages: poolLog.scans.length,
      readBytes,
      writes: requests['PUT blob page update'] ?? 0,
      atOnce,
      bodyBytes,
    };
  }

  const begin = (layout: 'sealed' | 'raw'): Promise<Counted> => {
    const disks = [lab.disk('disk.img', disk)];
    const request = { name: 'web', disks, url: `${server.url}/bench/web`, layout, keys: [] } as const;
    return counted(() => protect(lab.session, request));
  };

  /** Manifest pages: one with entries and one with references, in each sync that changes anything. */
  const PAGES = 2;

  it('costs a message for 2 MiB, a read of each byte and a write for each run of slots, eight at a time', {
    retry: 1,
  }, async () => {
    const { messages, readBytes, writes, atOnce, bodyBytes } = await begin('sealed');
    expect({ messages, readBytes }).toEqual({ messages: disk.byteLength / BATCH_BYTES, readBytes: disk.byteLength });
    // A slot that compressed ends its run, and so do zeros: of four chunks the first is one run, the two behind it another.
    expect(writes).toBe(CHUNKS / 2 + PAGES);
    expect(atOnce).toBe(LANES);
    expect(bodyBytes).toBeLessThan(0.6 * disk.byteLength);
    // Made where the bytes were: the thread that sends them makes none.
    expect(checksums).toEqual({ right: CHUNKS / 2, wrong: 0 });
  });

  it('of layout raw costs a write for each run of data in a batch', { retry: 1 }, async () => {
    const { messages, readBytes, writes, atOnce } = await begin('raw');
    expect({ messages, readBytes }).toEqual({ messages: disk.byteLength / BATCH_BYTES, readBytes: disk.byteLength });
    // Two runs of 768 KiB in each batch of 2 MiB, and the footer.
    expect(writes).toBe((2 * disk.byteLength) / BATCH_BYTES + 1 + PAGES);
    expect(atOnce).toBe(LANES);
    expect(checksums).toEqual({ right: (2 * disk.byteLength) / BATCH_BYTES, wrong: 0 });
  });

  it('that finds nothing changed costs as many messages, and sends not one page', async () => {
    await begin('sealed');
    const { messages, readBytes, writes } = await counted(() => resync(lab.session, 'web'));
    expect({ messages, readBytes, writes }).toEqual({
      messages: disk.byteLength / BATCH_BYTES,
      readBytes: disk.byteLength,
      writes: 0,
    });
  });

  it('with a planted wait of each request for the one before is told by what is under way at one time', async () => {
    planted.oneRequestAtATime = true;
    await server.close();
    server = await startDiscardingServer({ writes: LANES, waitMs: 20 }); // nothing comes, however long it waits
    expect((await begin('sealed')).atOnce).toBeLessThan(LANES / 2);
  });
});

/** A kernel with the fault that is easiest to make: it works on a copy of the chunk. */
class CopyingKernel extends ChunkKernel {
  override compare(plaintext: Uint8Array, entry: Uint8Array): Verdict {
    return super.compare(Buffer.from(plaintext), entry);
  }
}

describe('the compare pass of a worker', () => {
  const BATCH_CHUNKS = BATCH_BYTES / CHUNK_BYTES;
  const directory = mkdtempSync(join(tmpdir(), 'bf-throughput-'));
  let descriptor: number;
  let fingerprinter: Fingerprinter;

  beforeAll(async () => {
    const path = join(directory, 'disk.img');
    writeFileSync(path, Buffer.concat(Array.from({ length: BATCH_CHUNKS }, (_, i) => noise(CHUNK_BYTES, i))));
    descriptor = openSync(path, 'r');
    fingerprinter = await createFingerprinter('xxh128', noise(32, 1));
  });
  afterAll(() => {
    closeSync(descriptor);
    rmSync(directory, { recursive: true });
  });

  /** One batch of a disk of which nothing has changed, with a kernel of this kind. */
  function comparing(Kernel: typeof ChunkKernel): () => void {
    const kernel = new Kernel({ fingerprinter });
    const geometry = { virtualSizeBytes: BATCH_BYTES, chunkBytes: CHUNK_BYTES };
    const disk: BatchDisk = {
      disk: { ...geometry, guid: noise(16, 2), layout: 'raw' },
      kernel,
      checksums: false,
      scratch: chunkMemory().input(MIB),
    };
    const entries = Buffer.alloc(BATCH_CHUNKS * ENTRY_BYTES);
    const [none, nowhere] = [Buffer.alloc(ENTRY_BYTES), Buffer.alloc(0)];
    for (let i = 0; i < BATCH_CHUNKS; i += 1) {
      const entry = entries.subarray(i * ENTRY_BYTES, (i + 1) * ENTRY_BYTES);
      kernel.scan(noise(CHUNK_BYTES, i), i, 1, none, false, entry, nowhere, 0);
    }
    const indexes = Array.from({ length: BATCH_CHUNKS }, (_, i) => i);
    const task: ScanTask = {
      ...{ kind: 'scan', disk: 0, generation: 2, purpose: 'compare', inline: [], entries, buffer: new ArrayBuffer(0) },
      chunks: Float64Array.from(indexes),
      ranges: Float64Array.from(indexes.flatMap((i) => [i, 0, descriptor, i * CHUNK_BYTES, CHUNK_BYTES])),
      forced: new Uint8Array(BATCH_CHUNKS),
    };
    return () => {
      const { verdicts } = scanBatch(task, disk);
      if (verdicts.some((verdict) => verdict !== 1)) throw new Error(`not the same: ${verdicts.join()}`);
    };
  }

  /** The least that can be done: read, look for zeros, fingerprint. */
  function byHand(): () => void {
    const [scratch, print] = [chunkMemory().input(CHUNK_BYTES), Buffer.alloc(16)];
    return () => {
      for (let i = 0; i < BATCH_CHUNKS; i += 1) {
        readSync(descriptor, scratch, 0, CHUNK_BYTES, i * CHUNK_BYTES);
        if (isZero(scratch)) throw new Error('noise is not zeros');
        fingerprinter.digest(scratch, print, 0);
      }
    };
  }

  /** Bytes that `work` allocates for each MiB of disk, on the heap or beside it; the most that was seen, since a collection hides some. */
  function allocatedPerMib(work: () => void): number {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const BATCHES = 4;
    const allocated = (): number => {
      collect();
      const before = process.memoryUsage();
      for (let i = 0; i < BATCHES; i += 1) work();
      const after = process.memoryUsage();
      return after.heapUsed - before.heapUsed + after.arrayBuffers - before.arrayBuffers;
    };
    for (let i = 0; i < 3; i += 1) allocated(); // code is compiled, caches are filled
    return Math.max(...Array.from({ length: 5 }, allocated)) / ((BATCHES * BATCH_BYTES) / MIB);
  }

  it('allocates next to nothing: less than an eighth of what it reads', () => {
    const bytes = allocatedPerMib(comparing(ChunkKernel));
    console.info(`compare: ${Math.round(bytes)} bytes allocated per MiB`);
    expect(bytes).toBeLessThan(MIB / 8);
  });

  it('with a planted copy of each chunk is told by what it allocates', () => {
    expect(allocatedPerMib(comparing(CopyingKernel))).toBeGreaterThan(0.9 * MIB);
  });

  const NEAR = 0.85;

  it(`runs at ${NEAR} at least of the rate of a loop that only reads, looks for zeros and fingerprints`, () => {
    const ratio = atLeast(NEAR, byHand(), comparing(ChunkKernel));
    console.info(`compare: ${ratio.toFixed(2)} of the rate by hand`);
    expect(ratio).toBeGreaterThan(NEAR);
  });

  it('with a planted copy of each chunk is told by its rate', () => {
    const ratio = rateRatio(comparing(ChunkKernel), comparing(CopyingKernel));
    console.info(`compare with a copy: ${ratio.toFixed(2)} of the rate without`);
    expect(ratio).toBeLessThan(NEAR);
  });

  it('fingerprints ten times as fast at least as Node hashes with MD5', () => {
    const [bytes, print] = [noise(CHUNK_BYTES, 3), Buffer.alloc(16)];
    const ratio = atLeast(
      10,
      () => void createHash('md5').update(bytes).digest(),
      () => fingerprinter.digest(bytes, print, 0),
    );
    console.info(`xxh128: ${ratio.toFixed(1)} times the rate of MD5`);
    expect(ratio).toBeGreaterThan(10);
  });

  it('makes the checksum of what is sent one and a half times as fast at least as Node hashes with MD5', () => {
    const bytes = noise(CHUNK_BYTES, 4);
    const ratio = atLeast(
      1.5,
      () => void createHash('md5').update(bytes).digest(),
      () => void crc64(bytes),
    );
    console.info(`crc64: ${ratio.toFixed(1)} times the rate of MD5`);
    expect(ratio).toBeGreaterThan(1.5);
  });
});

/** How much faster `ours` is than `reference`: the best of many slices of each, in turn; so short that some are not interrupted. */
function rateRatio(reference: () => void, ours: () => void): number {
  const [SLICES, SLICE_MS] = [100, 2];
  const slice = (work: () => void): number => {
    const startedMs = performance.now();
    let runs = 0;
    let elapsedMs = 0;
    for (; elapsedMs < SLICE_MS; runs += 1) {
      work();
      elapsedMs = performance.now() - startedMs;
    }
    return elapsedMs / runs;
  };
  let [referenceMs, oursMs] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let i = 0; i < SLICES; i += 1) {
    referenceMs = Math.min(referenceMs, slice(reference));
    oursMs = Math.min(oursMs, slice(ours));
  }
  return referenceMs / oursMs;
}

/** The ratio; where it is below `floor`, that of a second try. */
function atLeast(floor: number, reference: () => void, ours: () => void): number {
  const first = rateRatio(reference, ours);
  return first >= floor ? first : rateRatio(reference, ours);
}
