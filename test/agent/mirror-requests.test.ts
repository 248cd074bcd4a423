/** What catching up asks of both stores, exactly, after the first one folded and gave up what leads there. */
import { afterEach, expect, it, vi } from 'vitest';
import { prune } from '../../src/agent/index.ts';
import { noise } from '../chunker/support.ts';
import { countRequests, requests } from '../support/counting-store.ts';
import { FIRST_URL, MirrorLab, SECOND_URL } from '../support/mirror-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));
vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  return {
    ...real,
    openStore: async (url: string, ...more: [never]) =>
      countRequests(await real.openStore(url, ...more), url === SECOND_URL ? 'second ' : 'first '),
  };
});

let item: MirrorLab;
afterEach(() => item.close());

/** Requests of a store since they were cleared; a pin has a random name. */
function asked(store: 'first' | 'second'): Record<string, number> {
  const all = [...requests].filter(([name]) => name.startsWith(`${store} `));
  return Object.fromEntries(
    all.map(([name, count]) => [name.slice(store.length + 1).replace(/^[0-9a-f]{32}/, 'pin'), count]),
  );
}

it('a store that was away is brought what differs, once, and nothing else is read', async () => {
  const content = Buffer.concat(Array.from({ length: 40 }, (_, chunk) => noise(CHUNK, chunk)));
  item = new MirrorLab([content]);
  await item.protect();
  await item.mirror();
  for (let n = 0; n < 3; n += 1) {
    const offset = 7 * CHUNK + n * 512;
    await item.ship([
      { disk: 0, offset, lengthBytes: 512, bytes: noise(512, 100 + n) },
      { disk: 0, offset: 20 * CHUNK, lengthBytes: 2 * CHUNK, bytes: noise(2 * CHUNK, 200 + n) },
      { disk: 0, offset: 30 * CHUNK, lengthBytes: CHUNK },
    ]);
    await item.apply();
  }
  await prune(item.session, 'web', { drop: new Set((await item.pointsAt(FIRST_URL)).slice(0, -1)) });
  requests.clear();
  const report = await item.mirror();
  expect(report).toMatchObject({ by: 'copy', points: 1, logs: 0, chunksCopied: 3, chunksCleared: 1 });
  expect(report.fetchedBytes).toBeLessThanOrEqual(1.1 * 3 * CHUNK);
  expect(report.sentBytes).toBeLessThanOrEqual(1.1 * 3 * CHUNK);
  // Opened, and the root once more behind the pin; a table page and a page of the manifest; a slot and two that are neighbours.
  const opened = { 'root get': 2, 'replica.json get': 1, 'keyring.json get': 1, 'pin put': 1, 'pin delete': 1 };
  expect(asked('first')).toEqual({ ...opened, 'manifest read': 2, 'base read': 2, 'store close': 1 });
  // A root that names the suspects, and one that names what became of them.
  expect(asked('second')).toMatchObject({ 'root put': 2, 'manifest read': 2, 'manifest write': 2 });
  expect(asked('second')).toMatchObject({
    'base write': 2,
    'base clear': 1,
    'base snapshot': 1,
    'manifest snapshot': 1,
  });
  expect(asked('second')).not.toHaveProperty(['base read']);
  await item.checkAt();
  requests.clear();
  expect(await item.mirror()).toMatchObject({ by: 'nothing' });
  expect(asked('first')).toEqual({ ...opened, 'store close': 1 });
  const looked = { 'root get': 2, 'replica.json get': 1, 'keyring.json get': 1 };
  expect(asked('second')).toEqual({ ...looked, 'store prepare': 1, 'store close': 1 });
});
