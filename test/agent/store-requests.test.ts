/** How many requests a sync makes, exactly, and that it reads each byte of the source once. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { estimateResync, protect, resync, rotateKey, type SyncReport, verify } from '../../src/agent/index.ts';
import { RANGE_FIELDS } from '../../src/workers/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { countRequests, requests } from '../support/counting-store.ts';
import { poolLog } from '../support/in-process-pool.ts';
import { CHUNK, Lab, readReplicaDisk, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));
vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  return {
    ...real,
    openStore: async (...args: Parameters<typeof real.openStore>) => countRequests(await real.openStore(...args)),
  };
});

/** 40 chunks and a short one: two batches of one window. */
const CHUNKS = 41;
const SIZE = 40 * CHUNK + 512;
let lab: Lab;
let source: Buffer;

beforeEach(() => {
  lab = new Lab();
  source = Buffer.alloc(SIZE);
  // Incompressible where neighbours are to be sent together, compressible elsewhere, and zeros.
  for (let chunk = 0; chunk < CHUNKS; chunk += 1) {
    if (chunk % 5 === 4) continue;
    const content = chunk < 10 ? noise(CHUNK, chunk) : prose(CHUNK, chunk);
    content.copy(source, chunk * CHUNK, 0, Math.min(CHUNK, SIZE - chunk * CHUNK));
  }
});
afterEach(() => lab.close());

function begin(layout: 'sealed' | 'raw' = 'sealed'): Promise<SyncReport> {
  const disks = [lab.disk('disk.img', source)];
  return protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, layout, keys: [] });
}

/** Gives chunks other bytes. */
function change(...chunks: readonly number[]): void {
  for (const chunk of chunks) source.writeUInt32LE((source.readUInt32LE(chunk * CHUNK) + 1) >>> 0, chunk * CHUNK);
  lab.disk('disk.img', source);
}

async function counted<T>(
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly counts: Record<string, number> }> {
  requests.clear();
  poolLog.forget();
  const result = await work();
  return { result, counts: Object.fromEntries(requests) };
}

/** Every byte of the disk is in exactly one of the ranges that the workers were given. */
function expectReadOnce(): void {
  const read = poolLog.scans
    .flatMap(({ ranges }) =>
      Array.from({ length: ranges.length / RANGE_FIELDS }, (_, i) => {
        const [, , , fileOffset, lengthBytes] = ranges.subarray(i * RANGE_FIELDS) as unknown as readonly number[];
        return { from: fileOffset!, to: fileOffset! + lengthBytes! };
      }),
    )
    .sort((a, b) => a.from - b.from);
  let at = 0;
  for (const { from, to } of read) {
    expect(from).toBe(at);
    at = to;
  }
  expect(at).toBe(SIZE);
}

describe('the requests of a sync', () => {
  it('of a new replica: a write per run of neighbours, two pages, two snapshots, four roots', async () => {
    const { result, counts } = await counted(() => begin());
    // Chunks 0-3 and 5-8 lie side by side in full slots; the other 25 have compressed slots with gaps between.
    expect(counts).toMatchObject({ 'base write': 2 + 25, 'manifest write': 2, 'root put': 4 });
    expect(counts['base clear']).toBeUndefined();
    expect([counts['base snapshot'], counts['manifest snapshot']]).toEqual([1, 1]);
    expect(result.disks[0]).toMatchObject({
      chunksCompared: CHUNKS,
      chunksSent: 33,
      chunksCleared: 0,
      readBytes: SIZE,
    });
    expectReadOnce();
  });

  it('where nothing changed: no write, no page, no snapshot, one root', async () => {
    await begin();
    const { result, counts } = await counted(() => resync(lab.session, 'web'));
    expect(result).toMatchObject({ changed: false });
    expect(result.disks[0]).toMatchObject({ chunksCompared: CHUNKS, chunksSent: 0, sentBytes: 0 });
    for (const name of Object.keys(counts)) expect(name).not.toMatch(/write|clear|snapshot$/);
    expect(counts['root put']).toBe(1);
    expectReadOnce();
  });

  it('where N single chunks changed: N writes, two pages, two snapshots, two roots', async () => {
    await begin();
    const changed = [10, 12, 20, 31, 40];
    change(...changed);
    const { result, counts } = await counted(() => resync(lab.session, 'web'));
    expect(counts).toMatchObject({
      'base write': changed.length,
      'manifest write': 2,
      'base snapshot': 1,
      'manifest snapshot': 1,
      'root put': 2,
    });
    expect(counts['base clear']).toBeUndefined();
    expect(result.disks[0]).toMatchObject({ chunksSent: changed.length, chunksCleared: 0 });
    expectReadOnce();
  });

  it('where chunks became zeros: a clear per run of neighbours, no write of a slot', async () => {
    await begin();
    source.fill(0, 10 * CHUNK, 14 * CHUNK);
    source.fill(0, 20 * CHUNK, 21 * CHUNK);
    lab.disk('disk.img', source);
    const { result, counts } = await counted(() => resync(lab.session, 'web'));
    expect(counts).toMatchObject({ 'base clear': 2, 'manifest write': 2, 'root put': 2 });
    expect(counts['base write']).toBeUndefined();
    expect(result.disks[0]).toMatchObject({ chunksSent: 0, chunksCleared: 5, sentBytes: 0 });
  });

  it('with every chunk sent, whatever its fingerprint says', async () => {
    await begin();
    const { result } = await counted(() => resync(lab.session, 'web', { full: true }));
    expect(result.disks[0]).toMatchObject({ chunksSent: 33, chunksCompared: CHUNKS });
    expectReadOnce();
  });

  it('to a raw base sends the bytes themselves, neighbours together, and then only blocks that differ', async () => {
    const first = await counted(() => begin('raw'));
    // The footer, nine runs between zeros, and one of them cut by the end of a batch.
    expect(first.counts['base write']).toBe(1 + 9 + 1);
    expect(first.counts['base read']).toBeUndefined();
    expect(first.result.disks[0]).toMatchObject({ chunksSent: 33, sentBytes: 32 * CHUNK + 512 });
    change(2, 3, 30, 40);
    const { result, counts } = await counted(() => resync(lab.session, 'web'));
    expect(counts).toMatchObject({ 'base write': 4, 'manifest write': 2, 'base read': 3 });
    expect(result.disks[0]).toMatchObject({ chunksSent: 4, sentBytes: 3 * 4096 + 512 });
    const again = await counted(() => resync(lab.session, 'web', { full: true }));
    expect(again.counts['base read']).toBeUndefined();
    expect(again.result.disks[0]).toMatchObject({ chunksSent: 33, sentBytes: 32 * CHUNK + 512 });
  });

  it('of a dry run: nothing but reads', async () => {
    await begin();
    change(1, 2, 40);
    source.fill(0, 5 * CHUNK, 6 * CHUNK);
    lab.disk('disk.img', source);
    const { result, counts } = await counted(() => estimateResync(lab.session, 'web'));
    expect(result.disks).toEqual([{ disk: 'd0', differingChunks: 4, differingBytes: 4 * CHUNK }]);
    for (const name of Object.keys(counts)) expect(name).toMatch(/ (get|read|state|close)$/);
    expectReadOnce();
  });
});

describe('damage in the store', () => {
  it('is healed by sending exactly what does not verify', async () => {
    await begin();
    const store = await lab.store();
    const blob = store.pages('disks/d0/base');
    const { fence } = (await blob.state())!;
    for (const chunk of [3, 4, 17, 40]) await blob.write(noise(512, chunk), 1_048_576 + chunk * 66_048, { fence });
    const { damage } = await verify(lab.session, { name: 'web' });
    // The point was frozen before; what is damaged is the live base. Chunk 4 is zeros: nobody looks at its slot.
    expect(damage).toEqual([]);
    const { result } = await counted(() => resync(lab.session, 'web', { verifyTarget: true }));
    expect(result.disks[0]).toMatchObject({ chunksSent: 3, chunksCompared: CHUNKS });
    const replica = await lab.replica();
    const { tables } = replica.record.root.disks[0]!;
    expect((await readReplicaDisk(replica, 0, { tables, live: true }, lab.ports)).equals(source)).toBe(true);
  });
});

describe('a rotated key', () => {
  it('seals what is written from then on, and nothing is sent again for it', async () => {
    await begin();
    expect(await rotateKey(lab.session, 'web')).toBe(2);
    change(10);
    const { result } = await counted(() => resync(lab.session, 'web'));
    expect(result.disks[0]).toMatchObject({ chunksSent: 1 });
    const replica = await lab.replica();
    expect(
      (await readReplicaDisk(replica, 0, replica.record.root.baselines.at(-1)!.disks[0]!, lab.ports)).equals(source),
    ).toBe(true);
  });
});
