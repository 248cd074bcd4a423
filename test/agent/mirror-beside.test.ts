/** What others do beside a mirror, at its very instants: neither loses what the other is about. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { apply, prune } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { BlockferryError } from '../../src/errors.ts';
import type { FailpointName } from '../../src/ports.ts';
import { noise, prose } from '../chunker/support.ts';
import { FIRST_URL, MirrorLab, SECOND_URL } from '../support/mirror-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

/** Deletions of logs that the second store refuses, if it does. */
const refused = vi.hoisted((): { logs: string[] | undefined } => ({ logs: undefined }));
vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  return {
    ...real,
    openStore: async (url: string, ...more: [never]) => {
      const store = await real.openStore(url, ...more);
      const remove = store.delete.bind(store);
      if (url !== SECOND_URL) return store;
      store.delete = async (key, options) => {
        if (!refused.logs || !key.startsWith('logs/')) return remove(key, options);
        refused.logs.push(key);
        throw new BlockferryError('STORE_REFUSED', 'no log is deleted here');
      };
      return store;
    },
  };
});

let item: MirrorLab;
afterEach(() => {
  refused.logs = undefined;
  item.close();
});

async function begin(): Promise<void> {
  item = new MirrorLab([Buffer.concat([noise(CHUNK, 1), prose(CHUNK, 2), Buffer.alloc(CHUNK), noise(CHUNK, 3)])]);
  await item.protect();
  await item.write(10);
  await item.mirror();
}

/** Runs `work` once, when a failpoint is met first. */
function at(name: FailpointName, work: () => Promise<unknown>): void {
  item.lab.onFailpoint = async (met) => {
    if (met !== name) return;
    item.lab.onFailpoint = undefined;
    await work();
  };
}

/** Folds the logs of the second store from elsewhere. */
async function applyThere(): Promise<void> {
  const { keys } = await new LocalItem(item.session.home, 'web', item.lab.ports.files).load();
  await apply(item.session, { name: 'web', url: SECOND_URL, keys });
}

/** The first store makes new points, folds them and gives up all but the newest. */
async function goOn(seed: number): Promise<void> {
  for (let n = 0; n < 2; n += 1) await item.write(seed + 10 * n);
  await item.apply();
  await prune(item.session, 'web', { drop: new Set((await item.pointsAt(FIRST_URL)).slice(0, -1)) });
  await item.write(seed + 30);
  await item.apply();
  await prune(item.session, 'web', { drop: new Set((await item.pointsAt(FIRST_URL)).slice(0, -1)) });
}

it('what is carried counts, even if the second store fails to delete what was given up for it', async () => {
  await begin();
  const before = await item.pointsAt();
  await item.write(20);
  await item.carry();
  await item.takeOver(FIRST_URL, before.at(-1)!, 9);
  refused.logs = [];
  expect(await item.mirror()).toMatchObject({ by: 'owner' });
  expect(refused.logs).toHaveLength(1);
  expect(await item.checkAt()).toEqual(before);
});

describe('what is being carried', () => {
  it.each(['mirror.after-intent', 'mirror.after-log'] as const)(
    'stays in the first store while that goes on and gives it up: %s',
    async (name) => {
      await begin();
      await item.write(20);
      if (name === 'mirror.after-intent') {
        await item.apply();
        await prune(item.session, 'web', { drop: new Set((await item.pointsAt(FIRST_URL)).slice(0, -1)) });
        await item.write(30);
      } else await item.write(30);
      const newest = (await item.pointsAt(FIRST_URL)).at(-1);
      at(name, () => goOn(40));
      expect(await item.mirror()).toMatchObject({ by: name === 'mirror.after-log' ? 'logs' : 'copy', pointId: newest });
      expect(await item.pointsAt(FIRST_URL)).not.toContain(newest);
      expect(await item.checkAt()).toContain(newest);
      expect(await item.mirror()).toMatchObject({ by: 'copy', pointId: (await item.pointsAt(FIRST_URL)).at(-1) });
      await item.checkAt();
    },
  );

  it('stays in the second store while somebody folds logs there, also where a side has used their numbers again', async () => {
    await begin();
    const [older, point] = await item.pointsAt();
    const had = item.disks.map((disk) => Buffer.from(disk));
    await item.write(20);
    await item.write(30);
    await item.mirror({ applyFrom: 100 });
    await item.takeOver(FIRST_URL, point!, 9);
    for (const [i, disk] of had.entries()) disk.copy(item.disks[i]!);
    await item.write(40);
    // Who folds what is given up goes first; then logs lead there no more, and nobody folds beside a copy.
    at('mirror.after-log', applyThere);
    await expect(item.mirror()).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
    await item.checkAt();
    at('mirror.after-log', () => expect(applyThere()).rejects.toMatchObject({ code: 'RESYNC_REQUIRED' }));
    expect(await item.mirror()).toMatchObject({ by: 'copy' });
    expect(item.lab.onFailpoint).toBeUndefined();
    expect(await item.checkAt()).toEqual([older, ...(await item.pointsAt(FIRST_URL))]);
    await item.checkLiveAt();
  });
});
