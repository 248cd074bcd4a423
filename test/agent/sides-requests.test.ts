/** What a change of sides asks the store for, and how many pools of workers it makes: once, not per step. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { commit, failback, failover, failoverPlanned, resync, reverse, rotateKey } from '../../src/agent/index.ts';
import { protect } from '../../src/agent/protect.ts';
import type { KeySource, Session } from '../../src/agent/types.ts';
import { generateKeyFile } from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { countRequests, requests } from '../support/counting-store.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

const pools = vi.hoisted(() => ({ made: 0 }));
vi.mock('../../src/workers/pool.ts', async () => {
  const { InProcessPool } = await import('../support/in-process-pool.ts');
  return {
    WorkerPool: class extends InProcessPool {
      constructor(...args: ConstructorParameters<typeof InProcessPool>) {
        super(...args);
        pools.made += 1;
      }
    },
  };
});
vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  return {
    ...real,
    openStore: async (...args: Parameters<typeof real.openStore>) => countRequests(await real.openStore(...args)),
  };
});

const CHUNKS = 6;
let lab: Lab;
let keys: readonly KeySource[];
beforeEach(async () => {
  lab = new Lab();
  const disks = ['a.img', 'b.img'].map((name, seed) => lab.disk(name, noise(CHUNKS * CHUNK, seed)));
  const path = join(lab.directory, 'key');
  await generateKeyFile(path, lab.ports);
  keys = [{ type: 'key-file', path }];
  await protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, keys });
});
afterEach(() => lab.close());

/** The machine runs in another home, from where it replicates; its disks there. */
async function moved(): Promise<{ readonly other: Session; readonly paths: readonly string[] }> {
  const other: Session = { ...lab.session, home: '/memory/other' };
  const outDirectory = join(lab.directory, 'out');
  const reference = { name: 'web', url: STORE_URL, keys };
  const { disks } = await failover(other, reference, { point: 'latest', outDirectory, format: 'raw' });
  await commit(other, 'web');
  await reverse(other, 'web');
  return { other, paths: disks.map(({ path }) => path) };
}

/** A guest writes one chunk of each disk, and it is replicated. */
async function write({ other, paths }: Awaited<ReturnType<typeof moved>>, seed: number): Promise<void> {
  for (const [i, path] of paths.entries()) {
    const content = readFileSync(path);
    content.set(noise(CHUNK, seed + i), (seed % CHUNKS) * CHUNK);
    writeFileSync(path, content);
  }
  await resync(other, 'web');
}

it('a planned failover opens the replica once, and looks at its root between its steps', async () => {
  requests.clear();
  await failoverPlanned(lab.session, 'web');
  expect([requests.get('replica.json get'), requests.get('keyring.json get')]).toEqual([1, 1]);
  expect(requests.get('root get')).toBeGreaterThan(3);
});

it('a delta failback makes one pool of workers for all disks and steps', async () => {
  const there = await moved();
  await write(there, 11);
  await failoverPlanned(there.other, 'web');
  pools.made = 0;
  const { state, disks } = await failback(lab.session, 'web', { mode: 'delta' });
  expect([state, disks.map(({ differingChunks }) => differingChunks)]).toEqual(['ready', [1, 1]]);
  expect(pools.made).toBe(1);
});

it('but another one for keys that were changed while it compared', async () => {
  const there = await moved();
  await write(there, 11);
  let isBegun = false;
  lab.onFailpoint = async (name) => {
    if (name !== 'stage.after-index' || isBegun) return;
    isBegun = true;
    await rotateKey(there.other, 'web');
    await write(there, 21);
    await failoverPlanned(there.other, 'web');
  };
  const { state } = await failback(lab.session, 'web', { mode: 'delta' });
  expect([isBegun, state]).toEqual([true, 'ready']);
  for (const [i, name] of ['a.img', 'b.img'].entries()) {
    expect(readFileSync(join(lab.directory, name)).equals(readFileSync(there.paths[i]!))).toBe(true);
  }
});
