/**
 * The real pool of threads, from the built package: what crosses a thread comes back as it should, errors with their
 * codes and fields, buffers by transfer. Run `npm run build` first, as `npm test` does.
 */
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  CRC64_BYTES,
  crc64,
  deriveEpochKeys,
  ENTRY_BYTES,
  isZeroEntry,
  LOG_FRAME_BYTES_MAX,
  LogOrder,
  readEntry,
  slotSizeBytes,
} from '../../src/chunker/index.ts';
import type { FoldTask, OpenTask, ScanTask, SealFrameTask, WorkerPool, WorkerSetup } from '../../src/workers/index.ts';
import { noise, prose } from '../chunker/support.ts';

const CHUNK = 65_536;
const CHUNKS = 5;
/** The last chunk is short. */
const SIZE = 4 * CHUNK + 1536;
const SLOT = slotSizeBytes(CHUNK);
const VERDICT = { zero: 0, same: 1, changed: 2 };

const directory = mkdtempSync(join(tmpdir(), 'blockferry-pool-'));
const content = Buffer.concat([noise(CHUNK, 1), prose(CHUNK, 2), Buffer.alloc(CHUNK), prose(CHUNK, 3), noise(1536, 4)]);
let pool: WorkerPool;
let source: number;

const setup: WorkerSetup = {
  replicaId: noise(16, 5),
  disks: (['sealed', 'raw'] as const).map((layout, i) => ({
    guid: noise(16, 6 + i),
    layout,
    virtualSizeBytes: SIZE,
    chunkBytes: CHUNK,
  })),
  fingerprint: 'xxh128',
  fingerprintKey: noise(32, 8),
  compression: 'lz4',
  epochs: [deriveEpochKeys(noise(32, 9), 1)],
  currentEpoch: 1,
  checksums: true,
};

async function startPool(signal?: AbortSignal): Promise<WorkerPool> {
  const path = fileURLToPath(new URL('../../dist/workers/index.js', import.meta.url));
  if (!existsSync(path)) throw new Error(`${path} is missing: run "npm run build" first`);
  const built = (await import(path)) as typeof import('../../src/workers/index.ts');
  return new built.WorkerPool(setup, { threads: 2, signal });
}

beforeAll(async () => {
  const path = join(directory, 'disk.img');
  writeFileSync(path, content);
  source = openSync(path, 'r');
  pool = await startPool();
});
afterAll(async () => {
  await pool.close();
  closeSync(source);
  rmSync(directory, { recursive: true });
});

/** All chunks of a disk, each from one range of the file. */
function scan(disk: number, change: Partial<ScanTask> = {}): ScanTask {
  const chunks = Float64Array.from({ length: CHUNKS }, (_, i) => i);
  const ranges = [...chunks].flatMap((i) => [i, 0, source, i * CHUNK, Math.min(CHUNK, SIZE - i * CHUNK)]);
  return {
    kind: 'scan',
    purpose: 'send',
    disk,
    generation: 3,
    chunks,
    ranges: Float64Array.from(ranges),
    inline: [],
    entries: new Uint8Array(CHUNKS * ENTRY_BYTES),
    forced: new Uint8Array(CHUNKS),
    buffer: new ArrayBuffer(CHUNKS * SLOT),
    ...change,
  };
}

/** What a store would be asked for: the slots of a scan, to be opened. */
function openTask(
  disk: number,
  result: Awaited<ReturnType<WorkerPool['scan']>>,
  targets: readonly number[] = [],
): OpenTask {
  const used = [0, 1, 3, 4];
  return {
    kind: 'open',
    disk,
    chunks: Float64Array.from(used),
    entries: Uint8Array.from(used.flatMap((i) => [...result.entries.subarray(i * ENTRY_BYTES, (i + 1) * ENTRY_BYTES)])),
    places: Float64Array.from(used.flatMap((i) => [...result.places.subarray(i * 2, i * 2 + 2)])),
    buffer: result.buffer.slice(0),
    targets: Float64Array.from(targets),
  };
}

describe('threads', () => {
  it('are not ended while they load: Node may abort the process then', async () => {
    const loaded = new Set<Worker>();
    const ended: boolean[] = [];
    const { emit, terminate } = Worker.prototype;
    Worker.prototype.emit = function (event: string | symbol, ...rest: unknown[]) {
      if (event === 'message') loaded.add(this);
      return emit.call(this, event, ...rest);
    };
    Worker.prototype.terminate = function () {
      ended.push(loaded.has(this));
      return terminate.call(this);
    };
    try {
      const path = fileURLToPath(new URL('../../dist/workers/index.js', import.meta.url));
      const built = (await import(path)) as typeof import('../../src/workers/index.ts');
      const busy = new built.WorkerPool(setup, { threads: 2 });
      const work = Promise.allSettled([busy.scan(scan(0)), busy.scan(scan(0))]);
      await busy.close();
      await work;
    } finally {
      Object.assign(Worker.prototype, { emit, terminate });
    }
    expect(ended).toEqual([true, true]);
  });

  it('are started when there is work for them', async () => {
    const started = new Set<Worker>();
    const { postMessage } = Worker.prototype;
    Worker.prototype.postMessage = function (...message: Parameters<typeof postMessage>) {
      started.add(this);
      postMessage.apply(this, message);
    };
    try {
      const idle = await startPool();
      await idle.scan(scan(0));
      await idle.scan(scan(0));
      expect(started.size).toBe(1);
      await Promise.all([idle.scan(scan(0)), idle.scan(scan(0)), idle.scan(scan(0))]);
      expect(started.size).toBe(2);
      // All have loaded: none is waited for.
      await idle.close();
    } finally {
      Object.assign(Worker.prototype, { postMessage });
    }
  });
});

describe('a scan in a worker', () => {
  it.each([
    ['sealed', 0],
    ['raw', 1],
  ])('tells zeros from data and seals or gathers what is new, layout %s', async (layout, disk) => {
    const task = scan(disk);
    const result = await pool.scan(task);
    expect(task.buffer.byteLength).toBe(0);
    expect(result.buffer.byteLength).toBe(CHUNKS * SLOT);
    expect(result.readBytes).toBe(SIZE);
    const { zero, same, changed } = VERDICT;
    expect([...result.verdicts]).toEqual([changed, changed, same, changed, changed]);
    const entry = readEntry(result.entries.subarray(4 * ENTRY_BYTES))!;
    if (layout === 'raw') {
      expect([entry.epoch, entry.clen]).toEqual([0, 1536]);
      for (const i of [0, 1, 3, 4]) {
        const [at, length] = result.places.subarray(i * 2) as unknown as [number, number];
        expect(Buffer.from(result.buffer, at, length).equals(content.subarray(i * CHUNK, i * CHUNK + length))).toBe(
          true,
        );
      }
    } else {
      expect([entry.generation, entry.epoch, entry.clen]).toEqual([3, 1, 1536]);
      expect(readEntry(result.entries.subarray(ENTRY_BYTES))!.clen).toBeLessThan(CHUNK);
    }

    const again = await pool.scan(scan(disk, { entries: result.entries }));
    expect([...again.verdicts]).toEqual([same, same, same, same, same]);
    expect(again.places.every((place) => place === 0)).toBe(true);
    // Chunk 2 had data before and is zeros now; chunk 3 is in doubt, and so is chunk 2's slot.
    const before = Uint8Array.from(result.entries);
    before.copyWithin(2 * ENTRY_BYTES, 0, ENTRY_BYTES);
    const forced = await pool.scan(scan(disk, { entries: before, forced: Uint8Array.of(0, 0, 0, 1, 0) }));
    expect([...forced.verdicts]).toEqual([same, same, zero, changed, same]);
    expect(isZeroEntry(forced.entries.subarray(2 * ENTRY_BYTES, 3 * ENTRY_BYTES))).toBe(true);
    const doubt = await pool.scan(scan(disk, { entries: result.entries, forced: new Uint8Array(CHUNKS).fill(1) }));
    expect([...doubt.verdicts]).toEqual([changed, changed, zero, changed, changed]);
  });

  it.each([0, 1])('has a checksum of what stands in the place of each changed chunk, on disk %i', async (disk) => {
    const { verdicts, places, checksums, buffer } = await pool.scan(scan(disk));
    const made = [...verdicts.keys()].filter((i) => verdicts[i] === VERDICT.changed);
    expect(made).toHaveLength(4);
    for (const i of made) {
      const bytes = new Uint8Array(buffer, places[i * 2], places[i * 2 + 1]);
      expect(Buffer.from(checksums.subarray(i * CRC64_BYTES, (i + 1) * CRC64_BYTES))).toEqual(crc64(bytes));
    }
  });

  it('only compares where that is all that is asked, and then needs no room', async () => {
    const { entries } = await pool.scan(scan(0));
    const before = Uint8Array.from(entries);
    before[ENTRY_BYTES + 40]! ^= 1;
    const result = await pool.scan(scan(0, { purpose: 'compare', entries: before, buffer: new ArrayBuffer(16) }));
    expect([...result.verdicts]).toEqual([VERDICT.same, VERDICT.changed, VERDICT.same, VERDICT.same, VERDICT.same]);
    expect(result.buffer.byteLength).toBe(16);
  });

  it.each([
    ['sealed', 0, SLOT],
    ['raw', 1, CHUNK],
  ])('ends where the buffer might be too small for the next chunk, layout %s', async (layout, disk, roomBytes) => {
    const result = await pool.scan(scan(disk, { buffer: new ArrayBuffer(2 * roomBytes) }));
    expect([...result.verdicts]).toEqual([VERDICT.changed, VERDICT.changed]);
    expect(result.readBytes).toBe(2 * CHUNK);
    const [at, lengthBytes] = result.places.subarray(2) as unknown as [number, number];
    if (layout === 'raw') {
      expect(Buffer.from(result.buffer, at, lengthBytes).equals(content.subarray(CHUNK, 2 * CHUNK))).toBe(true);
    } else {
      const slot = new Uint8Array(result.buffer, at, lengthBytes);
      const entry = result.entries.subarray(ENTRY_BYTES, 2 * ENTRY_BYTES);
      const { buffer } = Uint8Array.from(slot);
      const task = { kind: 'open', disk, chunks: Float64Array.of(1), entries: Uint8Array.from(entry) } as const;
      const places = Float64Array.of(0, lengthBytes);
      expect((await pool.open({ ...task, places, buffer, targets: new Float64Array(0) })).damage).toEqual([]);
    }
  });

  it('puts a chunk together from files, bytes in memory and gaps of zeros', async () => {
    const middle = noise(4096, 20);
    const task = scan(1, {
      chunks: Float64Array.of(1),
      ranges: Float64Array.of(0, 512, source, 1024, 512, 0, 8192, -1, 0, 4096),
      inline: [middle],
      entries: new Uint8Array(ENTRY_BYTES),
      forced: new Uint8Array(1),
    });
    const { buffer, places, readBytes } = await pool.scan(task);
    const expected = Buffer.alloc(CHUNK);
    content.copy(expected, 512, 1024, 1536);
    middle.copy(expected, 8192);
    expect(Buffer.from(buffer, places[0]!, places[1]!).equals(expected)).toBe(true);
    expect(readBytes).toBe(512);
  });

  it('reads zeros beyond the end of a file', async () => {
    const task = scan(1, {
      chunks: Float64Array.of(3),
      ranges: Float64Array.of(0, 0, source, SIZE - 512, CHUNK),
      entries: new Uint8Array(ENTRY_BYTES),
      forced: new Uint8Array(1),
    });
    const { buffer } = await pool.scan(task);
    const expected = Buffer.alloc(CHUNK);
    content.copy(expected, 0, SIZE - 512);
    expect(Buffer.from(buffer, 0, CHUNK).equals(expected)).toBe(true);
  });
});

describe('an open in a worker', () => {
  it.each([
    ['sealed', 0],
    ['raw', 1],
  ])('writes what verifies to its places, layout %s', async (_, disk) => {
    const result = await pool.scan(scan(disk));
    const path = join(directory, `out-${disk}`);
    const out = openSync(path, 'w+');
    const targets = [0, 1, 3, 4].flatMap((chunk, i) => [
      i,
      0,
      out,
      chunk * CHUNK,
      Math.min(CHUNK, SIZE - chunk * CHUNK),
    ]);
    const opened = await pool.open(openTask(disk, result, targets));
    closeSync(out);
    expect(opened.damage).toEqual([]);
    expect(opened.writtenBytes).toBe(SIZE - CHUNK);
    expect(readFileSync(path).equals(content)).toBe(true);
  });

  it('reports damage by chunk, with code and facts, and opens the others', async () => {
    const task = openTask(0, await pool.scan(scan(0)));
    new Uint8Array(task.buffer)[task.places[2]! + 100]! ^= 1;
    const { damage, buffer } = await pool.open(task);
    expect(damage).toHaveLength(1);
    expect(damage[0]).toMatchObject({
      index: 1,
      error: { code: 'REPLICA_SLOT', facts: { chunk: 1 }, retryable: false },
    });
    expect(buffer.byteLength).toBe(CHUNKS * SLOT);
  });
});

/** What a store would be asked for, and new bytes for some of it. */
async function foldTask(
  disk: number,
  news: readonly { readonly chunk: number; readonly from: number; readonly bytes: Uint8Array }[],
): Promise<FoldTask> {
  const scanned = await pool.scan(scan(disk));
  const freshOffset = CHUNKS * SLOT;
  const buffer = new ArrayBuffer(2 * freshOffset);
  new Uint8Array(buffer).set(new Uint8Array(scanned.buffer));
  for (const { chunk, from, bytes } of news)
    new Uint8Array(buffer).set(bytes, freshOffset + chunk * (disk === 1 ? CHUNK : SLOT) + from);
  return {
    kind: 'fold',
    disk,
    generation: 4,
    chunks: Float64Array.from({ length: CHUNKS }, (_, i) => i),
    entries: scanned.entries,
    forced: new Uint8Array(CHUNKS),
    stored: scanned.places,
    freshOffset,
    covers: Float64Array.from(news.flatMap(({ chunk, from, bytes }) => [chunk, from, from + bytes.byteLength])),
    buffer,
  };
}

describe('a fold in a worker', () => {
  it.each([
    ['sealed', 0],
    ['raw', 1],
  ])('lays new bytes over old ones, layout %s', async (layout, disk) => {
    const expected = Buffer.from(content);
    const news = [
      { chunk: 0, from: 512, bytes: noise(1024, 30) },
      { chunk: 0, from: 8192, bytes: new Uint8Array(512) },
      { chunk: 1, from: 0, bytes: new Uint8Array(CHUNK) },
      { chunk: 2, from: CHUNK - 512, bytes: noise(512, 31) },
      { chunk: 3, from: 1024, bytes: content.subarray(3 * CHUNK + 1024, 3 * CHUNK + 2048) },
      { chunk: 4, from: 1024, bytes: noise(512, 32) },
    ];
    for (const { chunk, from, bytes } of news) expected.set(bytes, chunk * CHUNK + from);
    const { zero, same, changed } = VERDICT;
    const result = await pool.fold(await foldTask(disk, news));
    expect([...result.verdicts]).toEqual([changed, zero, changed, same, changed]);
    expect(isZeroEntry(result.entries.subarray(ENTRY_BYTES, 2 * ENTRY_BYTES))).toBe(true);
    expect(readEntry(result.entries)!.generation).toBe(4);

    const used = [0, 2, 4];
    const out = openSync(join(directory, `fold-${layout}`), 'w+');
    const opened = await pool.open({
      kind: 'open',
      disk,
      chunks: Float64Array.from(used),
      entries: Uint8Array.from(
        used.flatMap((i) => [...result.entries.subarray(i * ENTRY_BYTES, (i + 1) * ENTRY_BYTES)]),
      ),
      places: Float64Array.from(used.flatMap((i) => [...result.places.subarray(i * 2, i * 2 + 2)])),
      buffer: result.buffer,
      targets: Float64Array.from(used.flatMap((c, i) => [i, 0, out, c * CHUNK, Math.min(CHUNK, SIZE - c * CHUNK)])),
    });
    closeSync(out);
    expect(opened.damage).toEqual([]);
    const found = readFileSync(join(directory, `fold-${layout}`));
    for (const i of used) {
      expect(found.subarray(i * CHUNK, (i + 1) * CHUNK).equals(expected.subarray(i * CHUNK, (i + 1) * CHUNK))).toBe(
        true,
      );
    }
  });

  it('needs no old slot of a chunk that is new from end to end', async () => {
    const task = await foldTask(0, [{ chunk: 0, from: 0, bytes: noise(CHUNK, 33) }]);
    const stored = Float64Array.from(task.stored).fill(0, 0, 2);
    expect((await pool.fold({ ...task, stored })).verdicts[0]).toBe(VERDICT.changed);
    const partly = await foldTask(0, [{ chunk: 0, from: 512, bytes: noise(512, 33) }]);
    await expect(pool.fold({ ...partly, stored })).rejects.toThrow(/neither old nor new bytes/);
  });

  it('takes a forced chunk as changed, and refuses old bytes that do not verify', async () => {
    const same = await foldTask(0, []);
    const forced = Uint8Array.of(0, 0, 0, 1, 0);
    expect([...(await pool.fold({ ...same, forced })).verdicts]).toEqual([1, 1, 1, VERDICT.changed, 1]);
    const damaged = await foldTask(0, [{ chunk: 0, from: 0, bytes: noise(512, 34) }]);
    new Uint8Array(damaged.buffer)[damaged.stored[0]! + 100]! ^= 1;
    await expect(pool.fold(damaged)).rejects.toMatchObject({ code: 'REPLICA_SLOT', facts: { chunk: 0 } });
  });

  it('that does not fit its buffer is refused', async () => {
    const task = await foldTask(0, []);
    await expect(pool.fold({ ...task, freshOffset: task.freshOffset + 512 })).rejects.toThrow(/does not fit/);
  });
});

describe('a frame in a worker', () => {
  const log = { seq: 3, id: noise(16, 40) };

  /** Pieces of disk 0: bytes of the file, zeros of the file, zeros, bytes that are sent along. */
  function seal(pieces: readonly number[], sent: Uint8Array = new Uint8Array()): SealFrameTask {
    const buffer = new ArrayBuffer(LOG_FRAME_BYTES_MAX);
    new Uint8Array(buffer).set(sent, 8192);
    return { kind: 'seal-frame', log, frame: 2, pieces: Float64Array.from(pieces), buffer };
  }

  it('is sealed from files, zeros and bytes sent along, and opened again', async () => {
    const sent = noise(1024, 41);
    const task = seal(
      [0, 512, 4096, source, 512, 0, 4608, 512, source, 2 * CHUNK, 0, 8192, 512, -1, 0, 1, 0, 1024, -2, 8192],
      sent,
    );
    const { frameBytes, dataBytes, buffer } = await pool.sealFrame(task);
    expect(task.buffer.byteLength).toBe(0);
    expect([dataBytes, buffer.byteLength]).toEqual([5120, LOG_FRAME_BYTES_MAX]);
    const opened = await pool.openFrame({ kind: 'open-frame', log, frame: 2, frameBytes, buffer });
    const plaintext = new Uint8Array(opened.buffer, 0, opened.plaintextBytes);
    expect(opened.plaintextBytes).toBe(4 + 4 * 16 + 5120);
    expect(new LogOrder(3, [SIZE, SIZE]).pieces(plaintext, 2)).toEqual([
      { disk: 0, offset: 512, lengthBytes: 4096, bytes: new Uint8Array(content.subarray(512, 4608)) },
      { disk: 0, offset: 4608, lengthBytes: 512 },
      { disk: 0, offset: 8192, lengthBytes: 512 },
      { disk: 1, offset: 0, lengthBytes: 1024, bytes: new Uint8Array(sent) },
    ]);
  });

  it('of another log, or another place, is refused with its code', async () => {
    const { frameBytes, buffer } = await pool.sealFrame(seal([0, 512, 4096, source, 512]));
    const other = { kind: 'open-frame', log, frame: 3, frameBytes, buffer: buffer.slice(0) } as const;
    await expect(pool.openFrame(other)).rejects.toMatchObject({
      code: 'REPLICA_LOG',
      facts: { log: 3, frame: 3, rule: 'authentication tag verifies' },
    });
    const foreign = { ...other, frame: 2, log: { seq: 3, id: noise(16, 42) }, buffer };
    await expect(pool.openFrame(foreign)).rejects.toMatchObject({ code: 'REPLICA_LOG' });
  });

  it('is never filled up with zeros where a log has become shorter', async () => {
    await expect(pool.sealFrame(seal([0, 0, 4096, source, SIZE - 512]))).rejects.toMatchObject({
      code: 'HRL_TORN',
      facts: { offset: SIZE, lengthBytes: 512, neededBytes: 4096 },
    });
  });
});

describe('an error in a worker', () => {
  it('arrives with class, code, facts and cause in words', async () => {
    const task = scan(0, { ranges: Float64Array.of(0, 0, 999_999, 0, CHUNK) });
    const error: unknown = await pool.scan(task).catch((caught: unknown) => caught);
    expect(error).toMatchObject({
      name: 'BlockferryError',
      code: 'DISK_UNREADABLE',
      area: 'source',
      facts: { offset: 0, lengthBytes: CHUNK },
    });
    expect((error as Error).message).toMatch(/reading 65536 bytes at offset 0 failed: EBADF/);
  });

  it('of the operating system while writing is the output\u2019s', async () => {
    const task = openTask(0, await pool.scan(scan(0)), [0, 0, source, 0, CHUNK]);
    await expect(pool.open(task)).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
  });

  it('that nobody planned is WORKER_FAILED with its words', async () => {
    await expect(pool.scan(scan(7))).rejects.toMatchObject({ code: 'WORKER_FAILED', message: /there is no disk 7/ });
    const small = scan(0, { buffer: new ArrayBuffer(SLOT - 1) });
    await expect(pool.scan(small)).rejects.toMatchObject({ code: 'WORKER_FAILED', message: /does not fit/ });
  });

  it('leaves the pool usable', async () => {
    expect((await pool.scan(scan(0))).verdicts).toHaveLength(CHUNKS);
  });
});

describe('a pool with a signal', () => {
  it('starts nothing more once it fired, and gives its reason', async () => {
    const stop = new AbortController();
    const own = await startPool(stop.signal);
    try {
      const running = own.scan(scan(0));
      stop.abort();
      await expect(running).rejects.toMatchObject({ code: 'ABORTED' });
      const task = scan(0);
      await expect(own.scan(task)).rejects.toMatchObject({ code: 'ABORTED' });
      expect(task.buffer.byteLength).toBe(CHUNKS * SLOT);
    } finally {
      await own.close();
    }
  });
});
