/** A store put back to an earlier state, seen by the machine that knows better: refused, and nothing is overwritten. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { failover, protect, resync, status } from '../../src/agent/index.ts';
import { noise } from '../chunker/support.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const ROOT = '/memory/store/root';
let lab: Lab;
/** Every root that was ever there, the claim first. */
let roots: Uint8Array[];

const protectItem = (): Promise<unknown> => {
  const disks = [`${lab.directory}/disk.img`];
  return protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, keys: [] });
};
const bring = (): Promise<unknown> =>
  failover(lab.session, { name: 'web' }, { point: 'latest', outDirectory: `${lab.directory}/out` });

beforeEach(async () => {
  lab = new Lab();
  roots = [];
  lab.onFailpoint = async () => {
    const root = await lab.ports.files.readSmall(ROOT, 1 << 20);
    const known = roots.at(-1);
    if (root && !(known && Buffer.from(known).equals(root))) roots.push(root);
  };
  lab.disk('disk.img', noise(3 * CHUNK, 1));
  await protectItem();
  lab.disk('disk.img', noise(3 * CHUNK, 2));
  await resync(lab.session, 'web');
  lab.onFailpoint = undefined;
});
afterEach(() => lab.close());

describe('a root of the past', () => {
  it('is refused by every verb, each of them, and stays as it is', async () => {
    expect(roots.length).toBeGreaterThanOrEqual(5);
    for (const root of roots.slice(0, -1)) {
      await lab.ports.files.replace(ROOT, root);
      for (const verb of [bring, protectItem, () => resync(lab.session, 'web')]) {
        await expect(verb()).rejects.toMatchObject({ code: 'REPLICA_ROLLED_BACK' });
      }
      expect(await status(lab.session, 'web')).toMatchObject([{ state: 'unknown', health: 'critical' }]);
      expect(Buffer.from((await lab.ports.files.readSmall(ROOT, 1 << 20))!).equals(root)).toBe(true);
    }
    await lab.ports.files.replace(ROOT, roots.at(-1)!);
    await bring();
  });
});

describe('a root that is gone', () => {
  it('is not made anew over what is left of the replica', async () => {
    await lab.ports.files.remove(ROOT);
    await expect(protectItem()).rejects.toMatchObject({ code: 'REPLICA_NOT_FOUND' });
    await lab.ports.files.replace(ROOT, roots.at(-1)!);
    await bring();
  });
});
