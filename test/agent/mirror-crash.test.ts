/**
 * mirror fails at the n-th hit of every failpoint, for n = 1, 2, 3 … until a run completes. After each failure every point of the second
 * store still comes back exactly, and the next run ends with all that the first one has.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { prune, rotateKey } from '../../src/agent/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { everyFault, fails, metBy } from '../support/every-fault.ts';
import { FIRST_URL, MirrorLab } from '../support/mirror-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const items: MirrorLab[] = [];
afterEach(() => {
  for (const item of items.splice(0)) item.close();
});

async function begin(layout: 'sealed' | 'raw'): Promise<MirrorLab> {
  const first = Buffer.concat([noise(CHUNK, 1), prose(CHUNK, 2), Buffer.alloc(CHUNK), noise(CHUNK, 3), prose(1536, 4)]);
  const item = new MirrorLab([first, Buffer.concat([prose(CHUNK, 5), noise(CHUNK, 6)])]);
  items.push(item);
  await item.protect(layout);
  return item;
}

/** The guest writes parts of chunks, whole ones, and zeros. */
async function writeSome(item: MirrorLab, seed: number): Promise<void> {
  await item.ship([
    { disk: 0, offset: 512, lengthBytes: 1024, bytes: noise(1024, seed) },
    { disk: 0, offset: 3 * CHUNK, lengthBytes: CHUNK },
    { disk: 0, offset: 2 * CHUNK, lengthBytes: 512, bytes: noise(512, seed + 1) },
    { disk: 1, offset: CHUNK, lengthBytes: CHUNK, bytes: noise(CHUNK, seed + 2) },
  ]);
}

/** What each run has to carry, from where both stores stand. */
const SCENES = {
  'the first copy': async (item: MirrorLab) => writeSome(item, 10),
  logs: async (item: MirrorLab) => {
    await item.mirror();
    await rotateKey(item.session, 'web');
    await writeSome(item, 20);
    await writeSome(item, 30);
  },
  'a copy over what is there': async (item: MirrorLab) => {
    await writeSome(item, 40);
    await item.mirror();
    await writeSome(item, 50);
    await item.apply();
    await prune(item.session, 'web', { drop: new Set((await item.pointsAt(FIRST_URL)).slice(0, -1)) });
    await writeSome(item, 60);
  },
} as const;

/** Logs and creation are no matter of the layout. */
const OVERWRITING = 'a copy over what is there';

describe.each(['sealed', 'raw'] as const)('a mirror that fails at any failpoint, layout %s', (layout) => {
  it.each(Object.entries(SCENES).filter(([name]) => layout === 'sealed' || name === OVERWRITING))(
    'leaves all points whole, and the next one ends it: %s',
    { timeout: 180_000 },
    async (name, set) => {
      const item = await begin(layout);
      await set(item);
      const anew = item.keep();
      const met = await metBy(item.lab, () => item.mirror());
      const failures = await everyFault(met, async (failpoint, hit) => {
        anew();
        item.lab.arm({ name: failpoint, hit });
        if (!(await fails(item.mirror()))) return false;
        // Before its root there is no replica to look at.
        if (name !== 'the first copy') await item.checkAt();
        item.lab.arm();
        await item.mirror();
        expect(await item.checkAt()).toEqual(expect.arrayContaining([...(await item.pointsAt(FIRST_URL))]));
        await item.checkLiveAt();
        return true;
      });
      const reached =
        name === 'logs' ? ['mirror.after-log', 'key.after-keyring'] : ['mirror.after-intent', 'mirror.after-slots'];
      const all =
        name === 'logs' ? reached : [...reached, 'mirror.after-pages', 'mirror.after-snapshots', 'mirror.after-log'];
      for (const each of all) expect(failures, each).toHaveProperty([each]);
    },
  );

  it('goes on inside a disk, whatever came to the first store meanwhile', { timeout: 120_000 }, async () => {
    const item = await begin(layout);
    await item.mirror();
    for (let round = 0; round < 8; round += 1) {
      await writeSome(item, 100 + round * 10);
      await item.apply();
      await prune(item.session, 'web', { drop: new Set((await item.pointsAt(FIRST_URL)).slice(0, -1)) });
      const name = round % 2 === 0 ? 'mirror.after-intent' : 'mirror.after-pages';
      item.lab.arm({ name, hit: 2 + (round % 3) });
      expect(await fails(item.carry({ windowBytes: CHUNK }))).toBe(true);
      item.lab.arm();
      await item.checkAt();
      expect((await item.replicaAt()).record.root.sync?.kind).toBe('resync');
      if (round % 3 !== 0) continue;
      expect((await item.carry({ windowBytes: CHUNK })).by).toBe('copy');
      await item.checkAt();
      await item.checkLiveAt();
    }
  });
});
