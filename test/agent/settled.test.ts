/** How far a gateway says a replica has come at the store: believed as far as nobody is led back by it. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { protect, resync } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { type OwnReplica, withOwn } from '../../src/agent/open-item.ts';
import { settledHeads } from '../../src/agent/ship.ts';
import type { Store } from '../../src/transport/index.ts';
import { noise } from '../chunker/support.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const ROOT = '/memory/store/root';
let lab: Lab;
/** The root before the one that the home saw last. */
let old: Uint8Array;

beforeEach(async () => {
  lab = new Lab();
  lab.disk('disk.img', noise(3 * CHUNK, 1));
  const disks = [`${lab.directory}/disk.img`];
  await protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, keys: [] });
  old = (await lab.ports.files.readSmall(ROOT, 1 << 20))!;
  lab.disk('disk.img', noise(3 * CHUNK, 2));
  await resync(lab.session, 'web');
});
afterEach(() => lab.close());

/** With a store that says so of its root. */
function behind(own: OwnReplica, bytes: Uint8Array): OwnReplica {
  const settled: Store['settled'] = async () => ({ bytes, etag: 'e' });
  const store = new Proxy(own.replica.store, {
    get: (target, name) => (name === 'settled' ? settled : Reflect.get(target, name)),
  });
  return { ...own, replica: { ...own.replica, store } };
}

describe('the root that a gateway names as the one at the store', () => {
  it('is refused where the home has seen a newer one there, and the home forgets nothing of that', async () => {
    const anchor = () => new LocalItem(lab.session.home, 'web', lab.ports.files).loadAnchor();
    const before = await anchor();
    await withOwn(lab.session, 'web', async (own) => {
      await expect(settledHeads(lab.session, behind(own, old))).rejects.toMatchObject({ code: 'REPLICA_ROLLED_BACK' });
      const now = (await lab.ports.files.readSmall(ROOT, 1 << 20))!;
      expect(await settledHeads(lab.session, behind(own, now))).toHaveLength(1);
    });
    expect(await anchor()).toEqual(before);
  });
});
