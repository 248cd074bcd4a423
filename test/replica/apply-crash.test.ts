/**
 * apply fails at the n-th hit of every failpoint, for n = 1, 2, 3 … until a run completes. After each failure every committed
 * point still comes back exactly, and the next apply, or a sync in its place, ends with what the guest has. The controls
 * take away what makes it so, and must then be caught with a broken replica.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { apply } from '../../src/agent/index.ts';
import { withDisks, withOwn } from '../../src/agent/open-item.ts';
import { runSync } from '../../src/agent/run-sync.ts';
import { type Baseline, encodeRoot, ROOT_KEY, type Root, rootHash } from '../../src/replica/index.ts';
import { LOGS_PER_ROUND } from '../../src/replica/log-merge.ts';
import { noise, prose } from '../chunker/support.ts';
import { ApplyLab, type GuestWrite } from '../support/apply-lab.ts';
import { everyFault, fails, metBy } from '../support/every-fault.ts';
import { CHUNK, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const CONTENTS = [
  Buffer.concat([noise(CHUNK, 1), prose(CHUNK, 2), Buffer.alloc(CHUNK), noise(CHUNK, 3), prose(1536, 4)]),
  Buffer.concat([prose(CHUNK, 5), noise(CHUNK, 6)]),
];

const data = (disk: number, offset: number, lengthBytes: number, seed: number): GuestWrite => {
  return { disk, offset, lengthBytes, bytes: noise(lengthBytes, seed) };
};
/** Parts of chunks, whole ones, ones that become zeros or cease to be, and one that both logs touch. */
const FIRST: readonly GuestWrite[] = [
  data(0, 512, 1024, 10),
  { disk: 0, offset: CHUNK, lengthBytes: CHUNK },
  data(0, 2 * CHUNK + 4096, 512, 11),
  data(1, 512, 512, 12),
];
const SECOND: readonly GuestWrite[] = [
  data(0, 1024, 1024, 13),
  data(1, CHUNK, CHUNK, 14),
  data(0, 4 * CHUNK, 1536, 15),
];

const items: ApplyLab[] = [];
afterEach(() => {
  for (const item of items.splice(0)) item.close();
});

async function shipped(layout: 'sealed' | 'raw'): Promise<ApplyLab> {
  const item = new ApplyLab(CONTENTS);
  items.push(item);
  await item.protect(layout);
  await item.ship(FIRST);
  await item.ship(SECOND);
  return item;
}

/** A sync of what the guest has, without the apply that a resync begins with. */
async function syncItem(item: ApplyLab): Promise<void> {
  for (const [i, disk] of item.disks.entries()) item.lab.disk(`disk${i}.img`, disk);
  await withOwn(item.session, 'web', (own) =>
    withDisks(item.session, own.state, (sources) => runSync(item.session, own, sources, { phase: 'resync' })),
  );
  await item.remember();
}

describe.each(['sealed', 'raw'] as const)('an apply that fails at any failpoint, layout %s', (layout) => {
  it.each<readonly [string, number | undefined]>([
    ['', undefined],
    [', committing on its way', 0],
  ])('leaves all points whole, and is finished by the next one%s', { timeout: 120_000 }, async (_, changedPagesMax) => {
    const options = changedPagesMax === undefined ? {} : { changedPagesMax };
    const item = await shipped(layout);
    const anew = item.keep();
    const met = await metBy(item.lab, () => item.apply(options));
    const failures = await everyFault(met, async (name, hit) => {
      anew();
      item.lab.arm({ name, hit });
      if (!(await fails(item.apply(options)))) return false;
      await item.check();
      item.lab.arm();
      await item.apply();
      await item.checkApplied();
      return true;
    });
    expect(failures).toMatchObject({ 'apply.after-intent': 1, 'apply.after-snapshots': 1 });
    for (const name of ['apply.after-slots', 'apply.after-pages', 'sync.after-root', 'sync.after-anchor'] as const) {
      expect(failures[name], name).toBeGreaterThanOrEqual(2);
    }
    expect(failures['folder.after-write']).toBeGreaterThan(5);
  });

  it('is made good by a sync as well', { timeout: 120_000 }, async () => {
    const item = await shipped(layout);
    const anew = item.keep();
    const met = await metBy(item.lab, () => item.apply({ changedPagesMax: 0 }));
    await everyFault(met, async (name, hit) => {
      anew();
      item.lab.arm({ name, hit });
      if (!(await fails(item.apply({ changedPagesMax: 0 })))) return false;
      item.lab.arm();
      await syncItem(item);
      await item.checkApplied();
      return true;
    });
  });

  it('and fails again and again, is still finished', { timeout: 120_000 }, async () => {
    const item = await shipped(layout);
    for (let hit = 1; hit <= 40; hit += 1) {
      item.lab.arm({ name: 'folder.after-write', hit: 1 + ((hit * 7) % 13) });
      if (!(await fails(item.apply({ changedPagesMax: hit % 3 })))) {
        await item.checkApplied();
        await item.ship([data(0, (hit * 1536) % (4 * CHUNK), 2048, hit)]);
      }
      await item.check();
    }
    item.lab.arm();
    await item.apply();
    await item.checkApplied();
  });
});

/** Rewrites the committed root, with the replica's key. */
async function rewriteRoot(item: ApplyLab, change: (root: Root) => Root): Promise<void> {
  const { store, keyring, record } = await item.lab.replica();
  const root = change(record.root);
  const bytes = encodeRoot(root, keyring.keys.root);
  await store.put(ROOT_KEY, bytes);
  const anchor = JSON.stringify({ generation: root.generation, hash: Buffer.from(rootHash(bytes)).toString('hex') });
  await item.lab.ports.files.replace(`${item.session.home}/items/web/anchor.json`, Buffer.from(anchor));
}

describe('a slot that an interrupted apply has overwritten', () => {
  /** The slots are there, their entries are not committed; then the guest writes what was there before. */
  async function interrupted(): Promise<ApplyLab> {
    const item = await shipped('sealed');
    item.lab.arm({ name: 'apply.after-slots', hit: 1 });
    expect(await fails(item.apply())).toBe(true);
    item.lab.arm();
    for (const [i, disk] of CONTENTS.entries()) item.disks[i]!.set(disk);
    return item;
  }

  it('is sent again by a sync although its source is what the entry says', async () => {
    const item = await interrupted();
    await syncItem(item);
    await item.checkApplied();
  });

  it('CONTROL: would be left broken if the root did not name it as suspect', async () => {
    const item = await interrupted();
    await rewriteRoot(item, (root) => ({ ...root, sync: { kind: 'apply', log: 2, begun: 3, suspect: [] } }));
    await syncItem(item);
    await expect(item.checkApplied()).rejects.toMatchObject({ code: 'REPLICA_SLOT' });
  });
});

describe('a point on an older baseline', () => {
  it('stays there, whatever its logs', async () => {
    const item = await shipped('sealed');
    const other = CONTENTS.map((disk, i) => noise(disk.byteLength, 30 + i));
    for (const [i, disk] of other.entries()) item.disks[i]!.set(disk);
    await syncItem(item);
    // As if the resync had been of a moment before the logs: they are played over what it read.
    await rewriteRoot(item, (root) => {
      const [first, second] = root.baselines as [Baseline, Baseline];
      return { ...root, baselines: [first, { ...second, appliedLog: 0 }] };
    });
    for (const { disk, offset, lengthBytes, bytes } of [...FIRST, ...SECOND]) {
      item.disks[disk]!.set(bytes ?? Buffer.alloc(lengthBytes), offset);
    }
    await item.remember();
    await item.check();
    await item.apply();
    await item.checkApplied();
  });
});

describe('an apply of another machine', () => {
  it('that has the store and the key, and nothing else, finishes an interrupted one', async () => {
    for (const layout of ['sealed', 'raw'] as const) {
      const item = await shipped(layout);
      item.lab.arm({ name: 'apply.after-pages', hit: 2 });
      expect(await fails(item.apply())).toBe(true);
      item.lab.arm();
      const { home } = item.session;
      const session = { ...item.session, home: `${home}-elsewhere` };
      const keys = [{ type: 'key-file', path: `${home}/items/web/web.key` }] as const;
      const report = await apply(session, { name: 'web', url: STORE_URL, keys });
      expect(report).toMatchObject({ item: 'web', appliedLogs: 2 });
      await item.checkApplied();
      // The machine that protects the item takes the newer root, and goes on from it.
      await item.ship([data(0, 512, 1024, 20)]);
      await item.apply();
      await item.checkApplied();
    }
  });
});

describe('an interrupted round', () => {
  it('that has written a chunk is followed by one that writes it again, though a log undid it meanwhile', async () => {
    for (const layout of ['sealed', 'raw'] as const) {
      const item = await shipped(layout);
      item.lab.arm({ name: 'apply.after-slots', hit: 1 });
      expect(await fails(item.apply())).toBe(true);
      item.lab.arm();
      await item.ship(CONTENTS.map((bytes, disk) => ({ disk, offset: 0, lengthBytes: bytes.byteLength, bytes })));
      await item.apply();
      await item.checkApplied();
    }
  });

  it('is not followed by a shorter one', { timeout: 60_000 }, async () => {
    const item = await shipped('sealed');
    const count = LOGS_PER_ROUND + 2;
    for (let log = 3; log <= count; log += 1) await item.ship([data(0, log * 1024, 512, log)]);
    item.lab.arm({ name: 'apply.after-slots', hit: 1 });
    expect(await fails(item.apply())).toBe(true);
    item.lab.arm();
    // As a program leaves it that folds more logs at a time than this one.
    const sync = {
      kind: 'apply',
      log: count,
      begun: 3,
      suspect: [
        { disk: 0, from: 0, to: 5 },
        { disk: 1, from: 0, to: 2 },
      ],
    } as const;
    await rewriteRoot(item, (root) => ({ ...root, sync }));
    const { root } = await item.apply();
    expect(root.baselines.map(({ appliedLog }) => appliedLog)).toEqual([0, count]);
    await item.checkApplied();
  });
});
