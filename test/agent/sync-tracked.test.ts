/** Tracked copies: what they commit, what they read, how they resume, what they refuse, and what they tell. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { resync } from '../../src/agent/index.ts';
import { isBlockferryError } from '../../src/errors.ts';
import type { FailpointName } from '../../src/ports.ts';
import { chunkRuns, runsWithin } from '../../src/replica/chunk-runs.ts';
import type { DiskSyncCounts } from '../../src/replica/index.ts';
import { encodeRoot, ROOT_KEY, type Root, rootHash } from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { CopyLab, type CopyOptions, sameContents } from '../support/copy-lab.ts';
import { Dice } from '../support/dice.ts';
import { poolLog } from '../support/in-process-pool.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const open: CopyLab[] = [];
afterEach(() => {
  for (const lab of open.splice(0)) lab.close();
});

async function create(layout: 'sealed' | 'raw', contents: readonly Buffer[]): Promise<CopyLab> {
  const lab = await CopyLab.create(layout, contents);
  open.push(lab);
  return lab;
}

const SMALL: readonly Buffer[] = [noise(12 * CHUNK + 1536, 1), noise(5 * CHUNK, 2)];

/** Chunks that the workers were asked to read, as `disk chunk`, in order. */
function scanned(): string[] {
  return poolLog.scans
    .flatMap(({ disk, chunks }) => [...chunks].map((chunk) => [disk, chunk] as const))
    .sort(([a, b], [c, d]) => a - c || b - d)
    .map(([disk, chunk]) => `${disk} ${chunk}`);
}

const root = async (lab: CopyLab): Promise<Root> => (await lab.lab.replica()).record.root;

/** Replaces the committed root, with the replica's key. */
async function rewriteRoot(lab: CopyLab, change: (root: Root) => Root): Promise<void> {
  const { store, keyring, record } = await lab.lab.replica();
  const changed = change(record.root);
  const bytes = encodeRoot(changed, keyring.keys.root);
  await store.put(ROOT_KEY, bytes);
  const anchor = { generation: changed.generation, hash: Buffer.from(rootHash(bytes)).toString('hex') };
  const path = `${lab.lab.session.home}/items/web/anchor.json`;
  await lab.lab.ports.files.replace(path, Buffer.from(JSON.stringify(anchor)));
}

async function expectFailure(work: Promise<unknown>): Promise<void> {
  await expect(work).rejects.toMatchObject({ code: 'FAILPOINT' });
}

/** The log over the newest baseline is the disk, and the first recovery point is what it was. */
async function expectExact(lab: CopyLab, first: readonly Buffer[]): Promise<void> {
  expect(sameContents(lab.replayed(await lab.baseline()), lab.contents)).toBe(true);
  const replica = await lab.lab.replica();
  expect(sameContents(await lab.point(replica, replica.record.root.points[0]!), first)).toBe(true);
}

describe('a tracked copy', () => {
  it('commits a baseline and its heads, and no recovery point; those that exist stay', async () => {
    const lab = await create('sealed', SMALL);
    const before = await root(lab);
    lab.write(0, 0, Buffer.alloc(512, 7));
    lab.begin();
    const { point, root: after } = await lab.copy();
    expect(point).toBeUndefined();
    expect(after.points).toEqual(before.points);
    expect(after.baselines.map(({ generation }) => generation)).toEqual([before.generation, after.generation]);
    expect(after.disks.map(({ head }) => head)).toEqual(lab.tracked.heads);
    expect(after.sync).toBeUndefined();
    await expectExact(lab, SMALL);
    const { pointId } = await resync(lab.lab.session, 'web');
    expect((await root(lab)).points.map(({ id }) => id)).toEqual([before.points[0]!.id, pointId]);
  });

  it('goes on though the files of its source change, and without one a changed source is refused', async () => {
    const lab = await create('sealed', SMALL);
    lab.begin();
    let left = 3;
    const onExtents = (): void => {
      left -= 1;
      if (left > 0) lab.write(0, left * 512, Buffer.alloc(512, left));
    };
    await lab.copy({ onExtents, only: undefined });
    await expectExact(lab, SMALL);
    left = 3;
    const still: CopyOptions = { tracked: undefined, only: undefined, onExtents };
    await expect(lab.copy(still)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
  });

  it('reads its dirty chunks alone, and counts them exactly', async () => {
    const lab = await create('sealed', SMALL);
    for (const chunk of [1, 2, 12]) lab.write(0, chunk * CHUNK, Buffer.alloc(512, 9));
    lab.write(1, 3 * CHUNK, Buffer.alloc(CHUNK));
    lab.begin();
    lab.dirty[0]!.add(7);
    poolLog.forget();
    const { disks } = await lab.copy();
    expect(scanned()).toEqual(['0 1', '0 2', '0 7', '0 12', '1 3']);
    const counts = ({ chunksCompared, chunksSent, chunksCleared, readBytes }: Readonly<DiskSyncCounts>) => ({
      ...{ chunksCompared, chunksSent, chunksCleared, readBytes },
    });
    expect(disks.map(counts)).toEqual([
      { chunksCompared: 4, chunksSent: 3, chunksCleared: 0, readBytes: 3 * CHUNK + 1536 },
      { chunksCompared: 1, chunksSent: 0, chunksCleared: 1, readBytes: CHUNK },
    ]);
    await expectExact(lab, SMALL);
  });

  it('of nothing reads nothing, and leaves the frozen state as it is', async () => {
    const lab = await create('sealed', SMALL);
    lab.begin();
    poolLog.forget();
    const { root: after, disks } = await lab.copy();
    expect(scanned()).toEqual([]);
    expect(disks.map(({ readBytes }) => readBytes)).toEqual([0, 0]);
    const [first, second] = after.baselines.map(({ disks: frozen }) => frozen);
    expect(second).toEqual(first);
  });
});

/** A shipped log, as far as a root has it. */
const LOG = { seq: 1, id: new Uint8Array(16).fill(5), frames: 1, sizeBytes: 4096, dataBytes: 512 };

describe('a set of dirty chunks', () => {
  it.each([
    ['a tracked copy', {}],
    ['a copy of disks at rest', { tracked: undefined }],
  ])('is refused to %s while logs are not applied; all chunks are taken', async (_, options) => {
    const lab = await create('sealed', SMALL);
    lab.begin();
    await rewriteRoot(lab, (old) => ({ ...old, logs: [LOG] }));
    poolLog.forget();
    await expect(lab.copy(options)).rejects.toMatchObject({
      code: 'REPLICA_BEHIND',
      facts: { baselines: 1, outstanding: 1 },
    });
    expect(scanned()).toEqual([]);
    const { root: after } = await lab.copy({ ...options, only: undefined });
    expect(after.baselines.at(-1)!.appliedLog).toBe(1);
    await expectExact(lab, SMALL);
  });

  it('is refused while the replica was never filled', async () => {
    const lab = await create('sealed', SMALL);
    lab.begin();
    const sync = { kind: 'initial', source: lab.tracked.epoch, disk: 0, cursor: 0, suspect: [] } as const;
    await rewriteRoot(lab, (old) => ({ ...old, baselines: [], points: [], sync }));
    await expect(lab.copy()).rejects.toMatchObject({ code: 'REPLICA_BEHIND', facts: { baselines: 0 } });
  });

  it('of disks at rest gives a recovery point, and is resumed with the same set only', async () => {
    const lab = await create('sealed', [Buffer.concat([...SMALL, ...SMALL]), SMALL[1]!]);
    for (const disk of [0, 1]) lab.write(disk, 0, Buffer.alloc(512, 3));
    lab.begin();
    const still = { tracked: undefined };
    lab.lab.arm({ name: 'sync.after-intent', hit: 3 });
    await expectFailure(lab.copy(still));
    expect((await root(lab)).sync).toMatchObject({ disk: 1 });
    lab.dirty[0]!.add(4);
    poolLog.forget();
    lab.lab.arm();
    const { point } = await lab.copy(still);
    expect(scanned()).toEqual(['0 0', '0 4', '1 0']);
    expect(lab.notices.map(({ code }) => code)).toEqual(['SYNC_RESTARTED', 'CHUNKS_IN_DOUBT']);
    const replica = await lab.lab.replica();
    expect(sameContents(await lab.point(replica, point!), lab.contents)).toBe(true);
  });
});

/** Chunks of the first disk, scattered: three windows of 128 runs. */
const SCATTERED = Array.from({ length: 260 }, (_, i) => i * 2 + 1);

/** A disk of many chunks, of which the scattered ones are data. */
function scatteredDisk(): Buffer {
  const content = Buffer.alloc(520 * CHUNK);
  for (const chunk of SCATTERED) content.writeUInt32LE(chunk, chunk * CHUNK);
  return content;
}

describe('an interrupted tracked copy', () => {
  async function begin(layout: 'sealed' | 'raw'): Promise<CopyLab> {
    const lab = await create(layout, [scatteredDisk(), SMALL[1]!]);
    for (const chunk of SCATTERED) lab.write(0, chunk * CHUNK + 8192, Buffer.alloc(512, 1 + (chunk % 200)));
    lab.write(1, 0, Buffer.alloc(512, 8));
    lab.begin();
    return lab;
  }

  it.each(['sealed', 'raw'] as const)('goes on exactly where the last root stands, layout %s', async (layout) => {
    let resumed = 0;
    for (let hit = 1; ; hit += 1) {
      const lab = await begin(layout);
      lab.lab.arm({ name: 'sync.after-anchor', hit });
      const ended = await lab.copy().then(
        () => true,
        () => false,
      );
      if (ended) break;
      const { sync } = await root(lab);
      if (sync !== undefined && sync.kind !== 'apply') {
        const [disk, cursor] = [sync.disk, sync.cursor];
        const left = [...(disk === 0 ? SCATTERED.filter((chunk) => chunk >= cursor).map((c) => `0 ${c}`) : []), '1 0'];
        // In doubt is what was under way, no other chunk, and nothing settled.
        for (const range of sync.suspect) {
          const known = range.disk === 0 ? chunkRuns(SCATTERED) : chunkRuns([0]);
          expect([...runsWithin(known, range.from, range.to)]).toEqual([{ from: range.from, to: range.to }]);
          if (range.disk === disk) expect(range.from).toBeGreaterThanOrEqual(cursor);
        }
        poolLog.forget();
        lab.lab.arm();
        // The disk goes on changing, which takes nothing of what was settled.
        lab.write(0, 0, Buffer.alloc(512, 77));
        lab.write(0, SCATTERED[0]! * CHUNK, Buffer.alloc(512, 78));
        const { disks } = await lab.copy();
        expect(scanned()).toEqual(left);
        expect(disks.reduce((sum, { chunksSent }) => sum + chunksSent, 0)).toBe(left.length);
        expect(disks.reduce((sum, { chunksCompared }) => sum + chunksCompared, 0)).toBe(left.length);
        if (cursor > 0) resumed += 1;
        await expectExact(lab, [scatteredDisk(), SMALL[1]!]);
      }
      lab.close();
      open.splice(open.indexOf(lab), 1);
    }
    expect(resumed).toBeGreaterThanOrEqual(2);
  });

  it('of another set begins anew, with what was left in doubt among its chunks, sent whole', async () => {
    const lab = await create('raw', SMALL);
    for (const chunk of [1, 5]) lab.write(0, chunk * CHUNK, Buffer.alloc(512, 1));
    lab.begin();
    lab.lab.arm({ name: 'sync.after-slots', hit: 2 });
    await expectFailure(lab.copy());
    // As a map would not do it: only what is in doubt makes the copy look at 1 and 5 again.
    lab.begin();
    lab.dirty[0]!.clear();
    lab.dirty[0]!.add(9);
    poolLog.forget();
    lab.lab.arm();
    const { disks } = await lab.copy();
    expect(scanned()).toEqual(['0 1', '0 5', '0 9']);
    expect(disks[0]).toMatchObject({ chunksSent: 2, sentBytes: 2 * CHUNK });
    expect(lab.notices).toEqual([
      {
        code: 'CHUNKS_IN_DOUBT',
        message: '2 chunks are sent whole: an interrupted sync may have left them half written',
      },
    ]);
    await expectExact(lab, SMALL);
  });

  it('sends what an interrupted apply left in doubt', async () => {
    const lab = await create('sealed', SMALL);
    lab.write(0, 5 * CHUNK, Buffer.alloc(512, 1));
    lab.begin();
    const suspect = [
      { disk: 0, from: 2, to: 4 },
      { disk: 1, from: 4, to: 5 },
    ];
    await rewriteRoot(lab, (old) => ({ ...old, logs: [LOG], sync: { kind: 'apply', log: 1, begun: 3, suspect } }));
    const { disks } = await lab.copy({ only: undefined });
    expect(disks.map(({ chunksSent }) => chunksSent)).toEqual([3, 1]);
    expect(lab.notices.map(({ code }) => code)).toEqual(['CHUNKS_IN_DOUBT']);
    expect(lab.notices[0]!.message).toContain('3 chunks are sent whole: an interrupted apply');
    await expectExact(lab, SMALL);
  });
});

const FAULTS: readonly FailpointName[] = [
  ...(['sync.after-fence', 'sync.after-intent', 'sync.after-slots', 'sync.after-pages'] as const),
  ...(['sync.after-snapshots', 'sync.after-root', 'sync.after-anchor'] as const),
  ...(['folder.after-write', 'folder.after-undo', 'object.after-temporary'] as const),
];

/** A copy with a guest that writes at every failpoint. */
async function writtenCopy(lab: CopyLab, dice: Dice, fault?: { name: FailpointName; hit: number }): Promise<boolean> {
  let left = 6;
  lab.lab.onFailpoint = () => {
    left -= 1;
    if (left > 0) lab.writeAnything(dice, SMALL);
  };
  lab.lab.arm(fault);
  try {
    await lab.copy();
    return true;
  } catch (error) {
    if (isBlockferryError(error, 'FAILPOINT')) return false;
    throw error;
  } finally {
    lab.lab.onFailpoint = undefined;
    lab.lab.arm();
  }
}

async function dirtied(layout: 'sealed' | 'raw', dice: Dice): Promise<CopyLab> {
  const lab = await create(layout, SMALL);
  for (let n = 0; n < 12; n += 1) lab.writeAnything(dice, SMALL);
  lab.write(0, 4 * CHUNK, Buffer.alloc(CHUNK));
  lab.begin();
  return lab;
}

describe.each(['sealed', 'raw'] as const)('a tracked copy that fails at any step, layout %s', (layout) => {
  it('is exact with its log when it is through, and the recovery point is never touched', async () => {
    const failures: Partial<Record<FailpointName, number>> = {};
    for (const name of FAULTS) {
      for (let hit = 1; ; hit += 1) {
        const dice = new Dice(hit);
        const lab = await dirtied(layout, dice);
        const ended = await writtenCopy(lab, dice, { name, hit });
        if (!ended) {
          failures[name] = hit;
          const replica = await lab.lab.replica();
          expect(sameContents(await lab.point(replica, replica.record.root.points[0]!), SMALL)).toBe(true);
          expect(await writtenCopy(lab, dice)).toBe(true);
        }
        await expectExact(lab, SMALL);
        lab.close();
        open.splice(open.indexOf(lab), 1);
        if (ended) break;
      }
    }
    expect(failures).toMatchObject({ 'sync.after-fence': 1, 'sync.after-snapshots': 1 });
    for (const name of ['sync.after-intent', 'sync.after-slots', 'sync.after-root'] as const) {
      expect(failures[name], name).toBeGreaterThanOrEqual(2);
    }
    expect(failures['folder.after-write']).toBeGreaterThan(8);
  });
});

describe.each(['sealed', 'raw'] as const)('a cancelled copy, layout %s', (layout) => {
  it('leaves the recovery points as they were, and the next one goes on', async () => {
    const lab = await create(layout, [scatteredDisk(), SMALL[1]!]);
    for (const chunk of SCATTERED) lab.write(0, chunk * CHUNK, Buffer.alloc(512, 1 + (chunk % 200)));
    lab.begin();
    const before = await root(lab);
    const stop = new AbortController();
    lab.lab.arm();
    lab.lab.onFailpoint = (name, hit) => {
      if (name === 'sync.after-anchor' && hit === 3) stop.abort();
    };
    await expect(lab.copy({ signal: stop.signal })).rejects.toMatchObject({ code: 'ABORTED' });
    lab.lab.onFailpoint = undefined;
    const cancelled = await root(lab);
    expect(cancelled.points).toEqual(before.points);
    expect(cancelled.baselines).toEqual(before.baselines);
    expect(cancelled.disks.map(({ head }) => head)).toEqual(before.disks.map(({ head }) => head));
    expect(cancelled.sync?.kind).toBe('resync');
    poolLog.forget();
    const { disks } = await lab.copy();
    expect(disks[0]!.chunksCompared).toBeLessThan(SCATTERED.length);
    expect(lab.notices[0]).toMatchObject({ code: 'SYNC_RESUMED' });
    await expectExact(lab, [scatteredDisk(), SMALL[1]!]);
  });
});
