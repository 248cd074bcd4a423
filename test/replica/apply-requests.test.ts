/** How many requests an apply makes, exactly, and how many bytes it sends: by what the logs touch, not by the disk. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { noise, prose } from '../chunker/support.ts';
import { ApplyLab, type GuestWrite } from '../support/apply-lab.ts';
import { countRequests, requests } from '../support/counting-store.ts';
import { CHUNK } from '../support/replica-lab.ts';

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

const CHUNKS = 40;
/** A full slot: what does not compress. */
const SLOT = CHUNK + 512;
let item: ApplyLab;
beforeEach(() => {
  item = new ApplyLab([Buffer.concat(Array.from({ length: CHUNKS }, (_, i) => noise(CHUNK, i))), prose(4 * CHUNK, 99)]);
});
afterEach(() => item.close());

const data = (chunk: number, from: number, lengthBytes: number, disk = 0): GuestWrite => {
  return { disk, offset: chunk * CHUNK + from, lengthBytes, bytes: noise(lengthBytes, chunk + 1000) };
};
const zeros = (chunk: number, from: number, lengthBytes: number): GuestWrite => {
  return { disk: 0, offset: chunk * CHUNK + from, lengthBytes };
};

async function applied(...logs: readonly (readonly GuestWrite[])[]) {
  for (const writes of logs) await item.ship(writes);
  requests.clear();
  const result = await item.apply();
  const counts = Object.fromEntries(requests);
  await item.checkApplied();
  return { counts, result };
}

describe('the requests of an apply', () => {
  it('layout sealed: a read and a write per touched chunk, two pages, the snapshots of one disk, two roots', async () => {
    await item.protect();
    // Chunk 3 by both logs; 10 and 11 side by side.
    const { counts, result } = await applied(
      [data(3, 512, 1024), data(10, 0, 512), data(11, 512, 512)],
      [data(3, 4096, 512), data(30, 8192, 512)],
    );
    expect(counts).toMatchObject({ 'base write': 3, 'manifest write': 2, 'root put': 2 });
    expect([counts['base snapshot'], counts['manifest snapshot']]).toEqual([1, 1]);
    // The neighbours come, and go, in one request.
    expect(counts['base read']).toBe(3);
    expect(counts['base clear']).toBeUndefined();
    expect(result).toMatchObject({ appliedLogs: 2, chunksWritten: 4, sentBytes: 4 * SLOT });
  });

  it('layout sealed: what is new from end to end is not read, what becomes zeros is cleared', async () => {
    await item.protect();
    const { counts, result } = await applied([data(5, 0, 2 * CHUNK), zeros(20, 0, 3 * CHUNK), data(23, 0, CHUNK)]);
    expect(counts['base read']).toBeUndefined();
    expect(counts).toMatchObject({ 'base write': 2, 'base clear': 1 });
    expect(result).toMatchObject({ chunksWritten: 6, sentBytes: 3 * SLOT });
  });

  it('layout raw: no more is sent than the sectors that were written', async () => {
    await item.protect('raw');
    const { counts, result } = await applied(
      [data(3, 512, 1024), data(10, 0, 512), data(11, 512, 512)],
      [data(3, 1024, 1024), data(30, CHUNK - 512, 1024), zeros(35, 4096, 4096)],
    );
    // Of chunk 3 both logs together, 512 … 2048; chunks 30 and 31 side by side; the zeros go as a clear.
    expect(result).toMatchObject({ chunksWritten: 6, sentBytes: 1536 + 512 + 512 + 1024 });
    expect(counts).toMatchObject({ 'base clear': 1, 'manifest write': 2, 'root put': 2 });
    expect(counts['base write']).toBe(4);
  });
});
