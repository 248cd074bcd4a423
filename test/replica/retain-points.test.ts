/** Dropping points: what stays can be restored whatever happens, what nobody needs is gone, and it costs what it deletes. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { prune } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { RETENTION_DEFAULT } from '../../src/agent/policy/index.ts';
import { BlockferryError, isBlockferryError } from '../../src/errors.ts';
import {
  Committer,
  openReplica,
  POINTS_KEPT,
  type RetainResult,
  type Root,
  retainPoints,
  shipLogs,
  withPin,
  workerSetup,
} from '../../src/replica/index.ts';
import { LOGS_PREFIX, logKey } from '../../src/replica/layout.ts';
import { snapshotsOf } from '../../src/replica/pin-record.ts';
import { Lanes } from '../../src/transport/index.ts';
import type { WorkerPool } from '../../src/workers/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { ApplyLab, type GuestWrite } from '../support/apply-lab.ts';
import { InProcessPool } from '../support/in-process-pool.ts';
import { CHUNK } from '../support/replica-lab.ts';
import { type BeforeCall, watchStore } from '../support/watched-store.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let item: ApplyLab;
beforeEach(async () => {
  item = new ApplyLab([noise(3 * CHUNK, 1), prose(2 * CHUNK, 2)]);
  await item.protect();
});
afterEach(() => item.close());

let seed = 100;
const write = (disk = 0): GuestWrite => {
  seed += 1;
  return { disk, offset: (seed % 5) * 4096, lengthBytes: 512, bytes: noise(512, seed) };
};

/** Three baselines, of which the middle one has a point with a log of its own, and two outstanding logs. Seven points. */
async function manyPoints(): Promise<void> {
  await item.ship([write()]);
  await item.ship([write()]);
  await item.apply();
  await item.ship([write()]);
  await item.ship([write(1)]);
  await item.apply();
  await item.ship([write()]);
  await item.ship([write()]);
}

const rootNow = async (): Promise<Root> => (await item.lab.replica()).record.root;
const ids = ({ points }: Root): string[] => points.map(({ id }) => id);

async function committerOf(before: BeforeCall = async () => {}): Promise<Committer> {
  const store = watchStore(await item.lab.store(), before);
  const replica = await openReplica(store, await item.lab.unlock('web'), undefined);
  const local = new LocalItem(item.session.home, 'web', item.lab.ports.files);
  return new Committer(replica, 'test', (anchor) => local.saveAnchor(anchor), item.lab.ports);
}

async function retain(committer: Committer, drop: Iterable<string>): Promise<RetainResult> {
  const { side } = await new LocalItem(item.session.home, 'web', item.lab.ports.files).load();
  const { signal } = new AbortController();
  return retainPoints({ committer, side, clock: item.lab.ports.clock, signal }, new Set(drop));
}

/** What the store has and the root does not name: keys of logs, and snapshots. */
async function leftovers(): Promise<string[]> {
  const store = await item.lab.store();
  const root = await rootNow();
  const named = new Set([
    ...root.logs.map(logKey),
    ...root.baselines.flatMap(snapshotsOf).map(({ blob, snapshot }) => `${blob} ${snapshot}`),
  ]);
  const found: string[] = [];
  for await (const key of store.list(LOGS_PREFIX)) found.push(key);
  for await (const blob of store.list('disks/')) {
    for (const snapshot of await store.pages(blob).snapshots()) found.push(`${blob} ${snapshot}`);
  }
  return found.filter((name) => !named.has(name));
}

describe('dropping points', () => {
  it('deletes what they alone needed, and never takes the newest', async () => {
    await manyPoints();
    const all = ids(await rootNow());
    expect(all).toHaveLength(7);
    const kept = [all[3]!, all[6]!];
    const { dropped } = await retain(
      await committerOf(),
      all.filter((id) => id !== all[3]),
    );
    expect(dropped.map(({ id }) => id)).toEqual(all.filter((id) => !kept.includes(id)));
    const root = await rootNow();
    expect(ids(root)).toEqual(kept);
    expect(root.baselines).toHaveLength(2);
    expect(await leftovers()).toEqual([]);
    await item.check();
    await item.apply();
    await item.checkApplied();
  });

  it('costs a root, a look at the pins, and the deletions; nothing where there is nothing to drop', async () => {
    await manyPoints();
    const calls: string[] = [];
    const committer = await committerOf(async (call) => {
      calls.push(call.replace(/[0-9a-f-]{32,}$/, '…'));
    });
    calls.length = 0;
    await retain(committer, ['p999']);
    expect(calls).toEqual([]);
    const [, first, second, third] = ids(committer.root);
    // The middle baseline, of which one disk was frozen anew, and the log of a point on each of two baselines.
    await retain(committer, [first!, second!, third!]);
    expect(calls.filter((call) => !call.startsWith('delete'))).toEqual(['put root', 'list pins/']);
    expect(calls.filter((call) => call.startsWith('delete')).toSorted()).toEqual([
      'delete logs/…',
      'delete logs/…',
      'delete snapshot disks/d0/base',
      'delete snapshot disks/d0/manifest',
    ]);
    expect(await leftovers()).toEqual([]);
  });

  it('fails at any call without harm: every point that stays comes back, and an apply ends it', async () => {
    for (let failing = 1; ; failing += 1) {
      await manyPoints();
      let call = 0;
      let isArmed = false;
      const committer = await committerOf(async () => {
        if (!isArmed) return;
        call += 1;
        if (call === failing) throw new BlockferryError('STORE_REFUSED', 'stopped here');
      });
      isArmed = true;
      const all = ids(committer.root);
      const done = await retain(
        committer,
        all.filter((_, i) => i % 2 === 0),
      ).catch((error) => error);
      await item.check();
      if (!isBlockferryError(done)) break;
      await item.ship([write()]);
      await item.apply();
      await item.checkApplied();
      expect(await leftovers(), `call ${failing}`).toEqual([]);
      expect(failing).toBeLessThan(40);
    }
  });

  it('works over roots that others committed meanwhile', async () => {
    await manyPoints();
    const committer = await committerOf();
    const [first] = ids(committer.root);
    await item.ship([write()]);
    await item.apply();
    const { dropped } = await retain(committer, [first!]);
    expect(dropped.map(({ id }) => id)).toEqual([first]);
    expect(await leftovers()).toEqual([]);
    await item.check();
  });

  it('works in the middle of an apply, at every place that it passes', async () => {
    for (const name of [
      'apply.after-intent',
      'apply.after-slots',
      'apply.after-snapshots',
      'sync.after-root',
    ] as const) {
      await manyPoints();
      const drop = ids(await rootNow());
      let isDone = false;
      item.lab.onFailpoint = async (hit) => {
        if (hit !== name || isDone) return;
        isDone = true;
        await retain(await committerOf(), drop);
      };
      await item.apply();
      item.lab.onFailpoint = undefined;
      expect(isDone).toBe(true);
      await item.checkApplied();
      expect(ids(await rootNow())).toEqual(drop.slice(-1));
      await item.ship([write()]);
      await item.apply();
      expect(await leftovers(), name).toEqual([]);
    }
  });

  it('leaves the point that the other side starts from, and refuses a side that is not the owner', async () => {
    await manyPoints();
    const committer = await committerOf();
    const [first, second] = ids(committer.root);
    const { owner } = committer.root;
    await committer.commit(async () => ({ owner: { ...owner, point: first! } }));
    await retain(await committerOf(), [first!, second!]);
    expect(ids(await rootNow()).slice(0, 1)).toEqual([first]);
    const other = await committerOf();
    await other.commit(async () => ({ owner: { ...owner, side: noise(16, 3), epoch: 2 } }));
    const third = ids(other.root)[1]!;
    await expect(retain(await committerOf(), [third])).rejects.toMatchObject({ code: 'REPLICA_OTHER_SIDE' });
    expect(ids(await rootNow())).toContain(third);
  });
});

describe('a point that is shipped', () => {
  /** Ships cycles in which nothing was written. */
  async function shipNothing(committer: Committer, count: number): Promise<void> {
    const { clock } = item.lab.ports;
    const { signal } = new AbortController();
    const lanes = new Lanes({ clock, limit: 8 });
    const pool = new InProcessPool(workerSetup(committer.replica)) as unknown as WorkerPool;
    for (let i = 0; i < count; i += 1) {
      const { owner, disks } = committer.root;
      const heads = disks.map(({ head }) => head);
      const of = { committer, side: owner.side, pool, lanes, ports: item.lab.ports, signal, timeMs: clock.nowMs() };
      await shipLogs({ ...of, logs: [[], []], heads, consistency: 'crash' });
    }
  }

  it('pushes the oldest out, and what that one alone needed is gone from the store', async () => {
    await manyPoints();
    await item.apply();
    const before = await rootNow();
    await shipNothing(await committerOf(), POINTS_KEPT - 2);
    expect(await leftovers()).toEqual([]);
    const root = await rootNow();
    expect(root.points).toHaveLength(POINTS_KEPT);
    expect(root.baselines.length).toBeLessThan(before.baselines.length);
    expect(root.logs.length).toBeLessThan(before.logs.length);
  });

  it('is committed even if the store fails to delete what it pushed out', async () => {
    await manyPoints();
    await item.apply();
    const refusing = await committerOf(async (call) => {
      if (call.startsWith('delete')) throw new BlockferryError('STORE_REFUSED', 'nothing is deleted here');
    });
    await shipNothing(refusing, POINTS_KEPT - 2);
    expect((await rootNow()).points).toHaveLength(POINTS_KEPT);
    expect((await leftovers()).length).toBeGreaterThan(0);
    await item.ship([write()]);
    await item.apply();
    expect(await leftovers()).toEqual([]);
  });
});

describe('prune', () => {
  it('drops by name, and tells what went', async () => {
    await manyPoints();
    const all = ids(await rootNow());
    const report = await prune(item.session, 'web', { drop: new Set([all[1]!, all[6]!, 'p999']) });
    expect(report).toMatchObject({ item: 'web', dropped: [all[1]], points: 6 });
    expect(report.generation).toBe((await rootNow()).generation);
    await item.check();
  });

  it('drops by a policy, but not what somebody reads', async () => {
    await manyPoints();
    const all = ids(await rootNow());
    const policy = { ...RETENTION_DEFAULT, pointsMax: 2 };
    const replica = await item.lab.replica();
    const inUse = await withPin(replica, all[2]!, { ports: item.lab.ports }, () =>
      prune(item.session, 'web', { policy }),
    );
    expect(inUse.dropped).toEqual([all[0], all[1], all[3], all[4]]);
    expect((await prune(item.session, 'web', { policy })).dropped).toEqual([all[2]]);
    expect((await prune(item.session, 'web', { policy })).dropped).toEqual([]);
    expect(await leftovers()).toEqual([]);
    await item.check();
  });
});
