/** The costs of a resync of a disk of 1 GiB with 1,000 scattered changes of 4 KiB, in exact numbers. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { protect } from '../../src/agent/index.ts';
import { chunkRuns } from '../../src/replica/chunk-runs.ts';
import { openReplica, type SyncResult } from '../../src/replica/index.ts';
import { copyItem } from '../support/copy-lab.ts';
import { Dice } from '../support/dice.ts';
import { poolLog } from '../support/in-process-pool.ts';
import { CHUNK, Lab, readReplicaChunks } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const BLOCK = 4096;
const CHUNKS = 2 ** 30 / CHUNK;
const BLOCKS_PER_CHUNK = CHUNK / BLOCK;

let lab: Lab | undefined;
afterEach(() => lab?.close());

/** Distinct numbers below `end`, ascending. */
function scattered(count: number, end: number): readonly number[] {
  const dice = new Dice(7);
  const numbers = new Set<number>();
  while (numbers.size < count) numbers.add(dice.below(end));
  return [...numbers].sort((a, b) => a - b);
}

/** Every so many chunks one has data from the start. */
const STEP = 8;

/** Protects a sparse disk. Store and disk are real files. */
async function begin(
  layout: 'sealed' | 'raw',
  chunks: number,
): Promise<{ readonly path: string; readonly url: string }> {
  lab = new Lab();
  const first = Buffer.alloc(CHUNK, 'first');
  const data = Array.from({ length: chunks / STEP }, (_, i) => [i * STEP, first] as const);
  const path = lab.sparseDisk('disk.img', chunks, data);
  const { href: url } = pathToFileURL(`${lab.directory}/store`);
  await protect(lab.session, { name: 'web', disks: [path], url, chunkBytes: CHUNK, layout, keys: [] });
  return { path, url };
}

/** Writes blocks of the disk, then copies their chunks. */
async function change(path: string, blocks: readonly number[]): Promise<Required<SyncResult>['disks'][number]> {
  const file = openSync(path, 'r+');
  for (const [i, block] of blocks.entries())
    writeSync(file, Buffer.alloc(BLOCK, 1 + (i % 255)), 0, BLOCK, block * BLOCK);
  closeSync(file);
  const chunks = [...new Set(blocks.map((block) => Math.floor(block / BLOCKS_PER_CHUNK)))];
  const tracked = { epoch: new Uint8Array(32), heads: ['00000000-0000-0000-0000-000000000001'] };
  poolLog.forget();
  const { disks } = await copyItem(lab!, { tracked, only: [chunkRuns(chunks)] });
  const read = poolLog.scans.flatMap((scan) => [...scan.chunks]);
  expect(read.sort((a, b) => a - b)).toEqual(chunks);
  expect(disks[0]).toMatchObject({
    readBytes: chunks.length * CHUNK,
    chunksCompared: chunks.length,
    chunksSent: chunks.length,
    chunksDamaged: 0,
  });
  return disks[0]!;
}

/** The newest baseline is the disk. */
async function expectEqual(path: string, url: string): Promise<void> {
  const store = await lab!.store(url);
  const replica = await openReplica(store, await lab!.unlock('web'), undefined);
  const state = replica.record.root.baselines.at(-1)!.disks[0]!;
  const file = openSync(path, 'r');
  const wanted = Buffer.alloc(CHUNK);
  const zeros = Buffer.alloc(CHUNK);
  let next = 0;
  const check = (chunk: number, bytes: Uint8Array): void => {
    readSync(file, wanted, 0, CHUNK, chunk * CHUNK);
    if (!wanted.equals(bytes)) throw new Error(`chunk ${chunk} differs`);
  };
  for await (const { chunk, bytes } of readReplicaChunks(replica, 0, state, lab!.ports)) {
    for (; next < chunk; next += 1) check(next, zeros);
    check(chunk, bytes);
    next += 1;
  }
  const chunks = replica.description.disks[0]!.virtualSizeBytes / CHUNK;
  for (; next < chunks; next += 1) check(next, zeros);
  closeSync(file);
  await store.close();
}

describe('1,000 scattered changes of 4 KiB in 1 GiB', () => {
  const blocks = scattered(1000, CHUNKS * BLOCKS_PER_CHUNK);
  const chunks = new Set(blocks.map((block) => Math.floor(block / BLOCKS_PER_CHUNK)));

  it('are found by reading their chunks alone, and sent as these to a sealed base', async () => {
    const { path, url } = await begin('sealed', CHUNKS);
    const counts = await change(path, blocks);
    expect(counts.fetchedBytes).toBe(0);
    expect(counts.sentBytes).toBeLessThan(chunks.size * CHUNK);
    await expectEqual(path, url);
  });

  it('are 1,000 blocks to a raw base, for which the old chunks come back where there were any', async () => {
    const { path, url } = await begin('raw', CHUNKS);
    const counts = await change(path, blocks);
    const old = [...chunks].filter((chunk) => chunk % STEP === 0);
    expect(counts).toMatchObject({ sentBytes: 1000 * BLOCK, fetchedBytes: old.length * CHUNK });
    expect(old.length).toBeGreaterThan(80);
    await expectEqual(path, url);
  });
});

describe('one change of 4 KiB', () => {
  it.each([
    ['in data', 5, CHUNK],
    ['in zeros', 5 + BLOCKS_PER_CHUNK, 0],
  ])('%s is 4,096 bytes to a raw base', async (_, block, fetchedBytes) => {
    const { path, url } = await begin('raw', 32);
    expect(await change(path, [block])).toMatchObject({ sentBytes: BLOCK, fetchedBytes });
    await expectEqual(path, url);
  });
});
