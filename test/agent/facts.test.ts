/** What is gathered of an item, from the real parts: replica, tracking, disks, home. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { gatherFacts } from '../../src/agent/facts.ts';
import { protect } from '../../src/agent/index.ts';
import { noise } from '../chunker/support.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let lab: Lab;
const facts = () => gatherFacts(lab.session, 'web');

beforeEach(async () => {
  lab = new Lab();
  const disks = [lab.disk('disk.img', noise(3 * CHUNK, 1))];
  await protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, keys: [] });
});
afterEach(() => lab.close());

describe('the facts of an item', () => {
  it('are of its replica and its tracking', async () => {
    const { nowMs, replica, ...rest } = await facts();
    expect(rest).toEqual({ item: 'web', tracking: { mode: 'logging', served: false, stopped: false } });
    expect(replica).toMatchObject({ owner: { isOurs: true, phase: 'replicating', epoch: 1 }, points: 1 });
    expect(nowMs - replica!.newestPointMs!).toBeLessThan(60_000);
  });

  it('say why the replica could not be opened, and that it was there once', async () => {
    await lab.ports.files.remove('/memory/store/root');
    expect(await facts()).toMatchObject({ replicaError: { code: 'REPLICA_NOT_FOUND' }, wasSeen: true });
  });

  it('say which disk cannot be opened', async () => {
    await lab.ports.files.remove(`${lab.directory}/disk.img`);
    const { sourceError, replica } = await facts();
    expect(sourceError).toMatchObject({ code: 'DISK_NOT_FOUND', message: expect.stringContaining('disk.img') });
    expect(replica?.points).toBe(1);
  });

  it('say what of the local state cannot be believed', async () => {
    const directory = `${lab.session.home}/items/web`;
    await lab.ports.files.replace(`${directory}/tracking/state.json`, Buffer.from('{'));
    expect(await facts()).toMatchObject({ localError: { code: 'LOCAL_STATE' }, replica: { points: 1 } });
    await lab.ports.files.replace(`${directory}/item.json`, Buffer.from('{'));
    expect(await facts()).toMatchObject({ localError: { code: 'LOCAL_STATE' } });
  });

  it('are none of an item that is not there', async () => {
    await expect(gatherFacts(lab.session, 'nobody')).rejects.toMatchObject({ code: 'ITEM_NOT_FOUND' });
  });
});
