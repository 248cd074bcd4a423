/** Who may change what a replica holds of the disks. */
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { protect, resync } from '../../src/agent/index.ts';
import { assertReplicating, Committer, type Owner } from '../../src/replica/index.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const US = Buffer.alloc(16, 1);
const THEM = Buffer.alloc(16, 2);

const owner = (change: Partial<Owner>): { readonly owner: Owner } => ({
  owner: { side: US, epoch: 2, phase: 'replicating', sinceMs: 1, ...change },
});

it('is the owner, while it replicates', () => {
  assertReplicating(owner({}), US);
  for (const [state, word] of [
    [owner({ side: THEM }), 'follows other disks'],
    [owner({ phase: 'synced', point: 'p7' }), 'stopped for a planned failover at point p7'],
    [owner({ phase: 'failed-over', point: 'p7' }), 'took over from point p7'],
    [owner({ phase: 'ended' }), 'was ended'],
    [owner({ side: THEM, phase: 'ended' }), 'was ended'],
  ] as const) {
    expect(() => assertReplicating(state, US)).toThrow(expect.objectContaining({ code: 'REPLICA_OTHER_SIDE' }));
    expect(() => assertReplicating(state, US)).toThrow(word);
  }
});

let lab: Lab;
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab.close());

it('no sync of another side writes a byte', async () => {
  const disk = lab.disk('d0.img', Buffer.alloc(4 * CHUNK, 1));
  await protect(lab.session, { name: 'web', disks: [disk], url: STORE_URL, chunkBytes: CHUNK, keys: [] });
  const committer = new Committer(await lab.replica(), 'test', async () => {}, lab.ports);
  const taken = await committer.commit(async ({ owner: before }) => ({
    owner: { side: THEM, epoch: before.epoch + 1, phase: 'replicating', sinceMs: 2 },
  }));
  lab.disk('d0.img', Buffer.alloc(4 * CHUNK, 2));
  await expect(resync(lab.session, 'web')).rejects.toMatchObject({ code: 'REPLICA_OTHER_SIDE' });
  expect((await lab.replica()).record.root).toEqual(taken);
});
