/** What a failback compares with stays in the store while it does, also where the owner drops the point meanwhile. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it, vi } from 'vitest';
import { commit, failback, failover, prune, resync, reverse } from '../../src/agent/index.ts';
import { protect } from '../../src/agent/protect.ts';
import type { ItemEvent, Session } from '../../src/agent/types.ts';
import { generateKeyFile, listPins, manifestKey } from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const lab = new Lab();
afterEach(() => lab.close());

it('a failback keeps the point that it compares with, also when the owner drops it', async () => {
  const content = noise(6 * CHUNK, 1);
  const disk = lab.disk('disk.img', content);
  const key = join(lab.directory, 'key');
  await generateKeyFile(key, lab.ports);
  const keys = [{ type: 'key-file', path: key }] as const;
  await protect(lab.session, { name: 'web', disks: [disk], url: STORE_URL, chunkBytes: CHUNK, keys });

  const other: Session = { ...lab.session, home: '/memory/other' };
  const outDirectory = join(lab.directory, 'out');
  const reference = { name: 'web', url: STORE_URL, keys };
  const { disks } = await failover(other, reference, { point: 'latest', outDirectory, format: 'raw' });
  await commit(other, 'web');
  const changed = Buffer.from(content);
  changed.set(noise(CHUNK, 2), 2 * CHUNK);
  writeFileSync(disks[0]!.path, changed);
  await reverse(other, 'web');

  const events: ItemEvent[] = [];
  const home: Session = { ...lab.session, onEvent: (event) => events.push(event) };
  const pinned: string[] = [];
  lab.onFailpoint = async (name) => {
    if (name !== 'stage.after-index' || pinned.length > 0) return;
    const replica = await lab.replica();
    const { root } = replica.record;
    const { id } = root.points.at(-1)!;
    const { manifestSnapshot } = root.baselines.at(-1)!.disks[0]!;
    pinned.push(...(await listPins(replica, lab.ports.clock)).points);
    expect(pinned).toEqual([id]);
    // The owner goes on, and keeps no more than its newest point.
    changed.set(noise(512, 3), 4 * CHUNK);
    writeFileSync(disks[0]!.path, changed);
    await resync(other, 'web');
    const { dropped } = await prune(other, 'web', { drop: new Set([id]) });
    expect(dropped).toEqual([id]);
    expect(await replica.store.pages(manifestKey('d0')).snapshots()).toContain(manifestSnapshot);
  };
  const first = await failback(home, 'web', { mode: 'delta' });
  expect(first.state).toBe('waiting-for-owner');
  expect(first.disks[0]).toMatchObject({ differingChunks: 1 });
  expect(pinned).toHaveLength(1);
  expect((await listPins(await lab.replica(), lab.ports.clock)).points.size).toBe(0);
  expect(events.filter((event) => event.type === 'notice')).toEqual([]);
});
