/** apply: whatever logs say, all points come back exactly before and after, and the base ends as the guest had it. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { protect, resync, status } from '../../src/agent/index.ts';
import { withOwn } from '../../src/agent/open-item.ts';
import { nodePorts } from '../../src/host/index.ts';
import type { FailpointName } from '../../src/ports.ts';
import { baseKey, Committer, isProcessed, manifestKey, takeOver } from '../../src/replica/index.ts';
import { LOGS_PREFIX } from '../../src/replica/layout.ts';
import { LOGS_PER_ROUND } from '../../src/replica/log-merge.ts';
import type { ApplyState } from '../../src/replica/root.ts';
import { createDisk } from '../../src/vhd/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { ApplyLab, applyItem, applyOwn, type GuestWrite, shipPieces } from '../support/apply-lab.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { CHUNK, readReplicaChunks, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const LAYOUTS = ['sealed', 'raw'] as const;
const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const FIRST_CASE = numberFromEnvironment('BLOCKFERRY_CASE', 0);
const CASES = numberFromEnvironment('BLOCKFERRY_CASES', 8);

let item: ApplyLab;
afterEach(() => item.close());

/** Two disks, the first with a short last chunk; some chunks are zeros. */
function contents(): readonly Buffer[] {
  const first = Buffer.concat([
    noise(CHUNK, 1),
    prose(CHUNK, 2),
    Buffer.alloc(2 * CHUNK),
    noise(CHUNK, 3),
    prose(1536, 4),
  ]);
  return [first, Buffer.concat([prose(CHUNK, 5), noise(CHUNK, 6)])];
}

async function begin(layout: 'sealed' | 'raw', disks: readonly Buffer[] = contents()): Promise<void> {
  item = new ApplyLab(disks);
  await item.protect(layout);
}

const data = (disk: number, offset: number, lengthBytes: number, seed: number): GuestWrite => ({
  disk,
  offset,
  lengthBytes,
  bytes: noise(lengthBytes, seed),
});
const zeros = (disk: number, offset: number, lengthBytes: number): GuestWrite => ({ disk, offset, lengthBytes });

/** Writes that overlap, cross chunk borders, and now and then are zeros or what is there already. */
function throwWrites(dice: Dice): readonly GuestWrite[] {
  return Array.from({ length: dice.between(1, 6) }, () => {
    const disk = dice.below(item.disks.length);
    const sectors = item.disks[disk]!.byteLength / 512;
    const from = dice.below(sectors);
    const count = Math.min(dice.oneIn(3) ? dice.between(1, 300) : dice.between(1, 16), sectors - from);
    const place = { disk, offset: from * 512, lengthBytes: count * 512 };
    if (dice.oneIn(4)) return place;
    const bytes = dice.oneIn(6)
      ? Buffer.from(item.disks[disk]!.subarray(place.offset, place.offset + place.lengthBytes))
      : noise(place.lengthBytes, dice.next());
    return { ...place, bytes };
  });
}

describe.each(LAYOUTS)('apply, layout %s', (layout) => {
  it(`ends with what the guest has, whatever it wrote (${CASES} cases from seed ${SEED})`, {
    timeout: 120_000,
  }, async () => {
    for (let n = FIRST_CASE; n < FIRST_CASE + CASES; n += 1) {
      const dice = new Dice(SEED, n);
      await begin(layout);
      try {
        for (let cycle = dice.between(1, 3); cycle > 0; cycle -= 1) {
          for (let logs = dice.between(1, 4); logs > 0; logs -= 1) await item.ship(throwWrites(dice));
          await item.check();
          await item.apply(dice.oneIn(2) ? {} : { changedPagesMax: dice.below(2) });
          await item.checkApplied();
        }
      } catch (error) {
        throw new Error(`BLOCKFERRY_SEED=${SEED} BLOCKFERRY_CASE=${n}`, { cause: error });
      } finally {
        item.close();
      }
    }
  });

  it('processes the newest point, and leaves older ones on their baseline', async () => {
    await begin(layout);
    await item.ship([data(0, 512, 1024, 10)]);
    await item.ship([data(1, CHUNK - 512, 1024, 11)]);
    const result = await item.apply();
    expect(result).toMatchObject({ appliedLogs: 2, chunksWritten: 3, point: { id: result.root.points[2]!.id } });
    const { root } = result;
    expect(root.points.map((point) => isProcessed(root, point))).toEqual([true, false, true]);
    expect(root.baselines.map(({ appliedLog }) => appliedLog)).toEqual([0, 2]);
    // Log 2 is in the newest baseline, and the older point does not need it.
    expect(root.logs.map(({ seq }) => seq)).toEqual([1]);
    await item.checkApplied();
    await item.ship([zeros(0, 0, CHUNK)]);
    expect((await item.apply()).root.logs.map(({ seq }) => seq)).toEqual([1]);
    await item.checkApplied();
  });

  it('deletes logs that nobody needs from the store, and what a failed try to ship left', async () => {
    await begin(layout);
    const { store } = await item.lab.replica();
    const name = (seq: string, id: string): string => `${LOGS_PREFIX}${seq.padStart(20, '0')}-${id.repeat(16)}`;
    for (const seq of ['1', '2', '3']) await store.put(name(seq, 'ab'), noise(10, 1));
    await item.ship([data(0, 512, 1024, 10)]);
    await item.ship([data(0, 2048, 1024, 11)]);
    await item.apply();
    const left: string[] = [];
    for await (const key of store.list(LOGS_PREFIX)) left.push(key);
    // The first log is needed by the point between; of log 3 nobody knows yet whose it is.
    expect(left.map((key) => Number(key.slice(LOGS_PREFIX.length, LOGS_PREFIX.length + 20)))).toEqual([1, 3]);
    expect(left).not.toContain(name('1', 'ab'));
    expect(left).toContain(name('3', 'ab'));
    await item.checkApplied();
  });

  it('without logs does nothing', async () => {
    await begin(layout);
    const before = (await item.lab.replica()).record;
    const result = await item.apply();
    expect(result).toMatchObject({ appliedLogs: 0, chunksWritten: 0, fetchedBytes: 0, sentBytes: 0 });
    expect((await item.lab.replica()).record.hash).toEqual(before.hash);
  });

  it('of what the base has already writes no chunk', async () => {
    await begin(layout);
    const same = item.disks[0]!.subarray(1024, 4096);
    await item.ship([
      { disk: 0, offset: 1024, lengthBytes: 3072, bytes: Buffer.from(same) },
      zeros(0, 2 * CHUNK, CHUNK),
    ]);
    expect(await item.apply()).toMatchObject({ appliedLogs: 1, chunksWritten: 0, sentBytes: 0 });
    await item.checkApplied();
  });

  it('takes more logs than fit side by side in several rounds', { timeout: 60_000 }, async () => {
    await begin(layout);
    for (let n = 0; n < LOGS_PER_ROUND + 2; n += 1)
      await item.ship([data(0, n * 2048, 4096, n), zeros(1, n * 512, 512)]);
    const progress: number[] = [];
    const { root, appliedLogs } = await applyItem(item.session, {
      onProgress: ({ doneBytes, totalBytes }) => {
        expect(totalBytes).toBe((LOGS_PER_ROUND + 2) * 4096);
        progress.push(doneBytes);
      },
    });
    expect(appliedLogs).toBe(LOGS_PER_ROUND + 2);
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
    expect(progress.at(-1)).toBe((LOGS_PER_ROUND + 2) * 4096);
    // A baseline in between stays, because a point stands on it.
    expect(root.baselines.map(({ appliedLog }) => appliedLog)).toEqual([0, LOGS_PER_ROUND, LOGS_PER_ROUND + 2]);
    await item.checkApplied();
  });

  it('lets points that came meanwhile stand on what it made', async () => {
    await begin(layout);
    await item.ship([data(0, 512, 1024, 10)]);
    item.lab.arm({ name: 'apply.after-slots', hit: 1 });
    await expect(item.apply()).rejects.toMatchObject({ code: 'FAILPOINT' });
    // As by a tracker on another machine: a log that is shipped while an apply is unfinished harms nobody.
    item.lab.arm();
    await item.ship([data(0, 2048, 1024, 11)]);
    await item.ship([data(1, 2048, 1024, 12)]);
    await item.check();
    const { root } = await item.apply();
    expect(root.points.map(({ log }) => log)).toEqual([0, 1, 2, 3]);
    expect(root.baselines.map(({ appliedLog }) => appliedLog)).toEqual([0, 3]);
    await item.checkApplied();
  });

  it('commits on its way when many pages of the manifest have changed', async () => {
    await begin(layout);
    await item.ship([data(0, 0, 512, 1), data(1, 0, 512, 2)]);
    const before = (await item.lab.replica()).record.root.generation;
    const { root } = await item.apply({ changedPagesMax: 0 });
    // The intent, one behind each of the two chunks, and the baseline.
    expect(root.generation).toBe(before + 4);
    await item.checkApplied();
  });

  it('refuses while a sync is unfinished, and goes on after it', async () => {
    await begin(layout);
    await item.ship([data(0, 512, 1024, 10)]);
    item.lab.disk('disk0.img', noise(item.disks[0]!.byteLength, 40));
    item.lab.arm({ name: 'sync.after-intent', hit: 1 });
    await expect(resync(item.session, 'web')).rejects.toMatchObject({ code: 'FAILPOINT' });
    item.lab.arm();
    await expect(item.apply()).rejects.toMatchObject({
      code: 'RESYNC_REQUIRED',
      hint: expect.stringMatching(/resync/),
    });
    await resync(item.session, 'web');
    expect(await item.apply()).toMatchObject({ appliedLogs: 0 });
  });

  it('refuses while another writer has the replica', async () => {
    await begin(layout);
    await item.ship([data(0, 512, 1024, 10)]);
    const { store } = await item.lab.replica();
    await store.pages(manifestKey('d0')).acquireLease('00000000-1111-2222-3333-444444444444', 60);
    await expect(item.apply()).rejects.toMatchObject({ code: 'REPLICA_LEASED' });
    await item.check();
  });
});

describe('while an apply is at work', () => {
  const MOMENTS: readonly FailpointName[] = [
    'apply.after-intent',
    'folder.after-write',
    'apply.after-slots',
    'apply.after-pages',
    'apply.after-snapshots',
  ];

  it.each(LAYOUTS)('logs can be shipped from elsewhere, layout %s', async (layout) => {
    for (const moment of MOMENTS) {
      await begin(layout);
      await item.ship([data(0, 512, 1024, 10), data(1, 0, 512, 11)]);
      let shipped = 0;
      let heads: readonly string[] = [];
      item.lab.onFailpoint = async (name) => {
        if (name !== moment) return;
        item.lab.onFailpoint = undefined;
        await item.ship([data(0, 1024, 1024, 12), data(0, 3 * CHUNK, 512, 13)]);
        shipped += 1;
        heads = (await item.lab.replica()).record.root.disks.map(({ head }) => head);
      };
      const { root, appliedLogs } = await item.apply({ changedPagesMax: 0 });
      expect(shipped, moment).toBe(1);
      // Those that came too late for the round have one of their own.
      expect(appliedLogs).toBe(2);
      expect(root.sync).toBeUndefined();
      expect(root.disks.map(({ head }) => head)).toEqual(heads);
      await item.checkApplied();
      item.close();
    }
  });

  it('another writer that takes the base over ends it, and nothing is committed over that', async () => {
    for (const moment of ['apply.after-slots', 'apply.after-snapshots'] as const) {
      await begin('sealed');
      await item.ship([data(0, 512, 1024, 10)]);
      item.lab.onFailpoint = async (name) => {
        if (name !== moment) return;
        item.lab.onFailpoint = undefined;
        // As if the lease had run out, and the other one had begun the same apply.
        await withOwn(item.session, 'web', async ({ replica, saveAnchor }) => {
          const committer = new Committer(replica, 'other', saveAnchor, item.lab.ports);
          await committer.commit(async ({ sync, generation }) => {
            return { sync: { ...(sync as ApplyState), begun: generation + 1 } };
          });
        });
      };
      await expect(item.apply()).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
      expect((await item.lab.replica()).record.root.baselines).toHaveLength(1);
      await item.check();
      await item.apply();
      await item.checkApplied();
      item.close();
    }
  });

  it('logs that a side which takes over gives up, while they are read, are not applied', async () => {
    await begin('sealed');
    await item.ship([data(0, 512, 1024, 10)]);
    await item.ship([data(0, 3 * CHUNK, 512, 11)]);
    await withOwn(item.session, 'web', async (stale) => {
      const { store } = stale.replica;
      const read = store.read.bind(store);
      store.read = async (...args) => {
        store.read = read;
        const committer = new Committer(await item.lab.replica(), 'other', async () => {}, item.lab.ports);
        const point = committer.root.points.at(-2)!;
        const { owner, generation: newestGeneration } = committer.root;
        const take = { side: noise(16, 9), point: point.id, epoch: owner.epoch, newestGeneration, nowMs: 1 };
        const choice = { planned: false, discardNewer: false, random: item.lab.ports.random };
        await committer.commit(async (root) => takeOver(root, { ...take, ...choice }));
        return read(...args);
      };
      await expect(applyOwn(item.session, stale)).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
    });
    const { root } = (await item.lab.replica()).record;
    expect(root).toMatchObject({ baselines: [{ appliedLog: 0 }], logs: [{ seq: 1 }], points: [{ log: 1 }] });
    expect(root.sync).toBeUndefined();
  });

  it('a base that changed between the look at it and its lease is left alone', async () => {
    await begin('sealed');
    await item.ship([data(0, 512, 1024, 10)]);
    await withOwn(item.session, 'web', async (stale) => {
      await item.apply();
      await item.ship([data(0, 512, 1024, 11)]);
      const before = (await item.lab.replica()).record.hash;
      await expect(applyOwn(item.session, stale)).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
      expect((await item.lab.replica()).record.hash).toEqual(before);
    });
    await item.apply();
    await item.checkApplied();
  });
});

describe('apply on a disk of 2 TiB', () => {
  it('passes a terabyte of zeros at once, and clears only what is used', async () => {
    item = new ApplyLab([]);
    const { lab } = item;
    const chunks = 2 ** 41 / CHUNK;
    const used = [3, 4, chunks / 2 - 1, chunks / 2, chunks - 1];
    const path = `${lab.directory}/huge.vhdx`;
    const virtualSizeBytes = chunks * CHUNK;
    const writer = await createDisk(path, {
      format: 'vhdx',
      subformat: 'dynamic',
      virtualSizeBytes,
      ports: nodePorts(),
    });
    for (const chunk of used) await writer.write(noise(CHUNK, chunk), chunk * CHUNK);
    await writer.finish();
    await protect(lab.session, { name: 'web', disks: [path], url: STORE_URL, chunkBytes: CHUNK, keys: [] });
    // As a record cannot be longer than 4 GiB, there are many of them.
    const step = 2 ** 31;
    const pieces = Array.from({ length: 2 ** 40 / step }, (_, i) => ({ disk: 0, offset: i * step, lengthBytes: step }));
    await shipPieces(lab.session, pieces);
    await shipPieces(lab.session, [{ disk: 0, offset: 4 * CHUNK + 512, lengthBytes: 512, bytes: noise(512, 1) }]);
    const startedMs = performance.now();
    const result = await item.apply();
    expect(performance.now() - startedMs).toBeLessThan(10_000);
    expect(result).toMatchObject({ appliedLogs: 2, chunksWritten: 3 });
    const replica = await lab.replica();
    const { tables } = replica.record.root.disks[0]!;
    const found: number[] = [];
    for await (const { chunk, bytes } of readReplicaChunks(replica, 0, { tables, live: true }, lab.ports)) {
      found.push(chunk);
      if (chunk === 4) expect(noise(512, 1).equals(bytes.subarray(512, 1024))).toBe(true);
    }
    expect(found).toEqual([4, chunks / 2, chunks - 1]);
  });
});

describe('what was changed in the store', () => {
  /** Changes a byte of an old slot in the folder, where no checksum of the store watches. */
  async function tamper(chunk: number): Promise<void> {
    const { ports } = item.lab;
    const path = '/memory/store';
    const found: string[] = [];
    const walk = async (directory: string): Promise<void> => {
      for (const { name, kind } of await ports.files.list(directory)) {
        if (kind === 'directory') await walk(`${directory}/${name}`);
        else found.push(`${directory}/${name}`);
      }
    };
    await walk(path);
    const base =
      found.find((name) => name.endsWith(`${baseKey('d0', 0)}`)) ??
      found.find((name) => name.includes('d0') && name.includes('base'))!;
    const file = await ports.files.open(base, 'modify');
    const offset = 1024 * 1024 + chunk * (CHUNK + 512) + 100;
    const byte = new Uint8Array(1);
    await file.read(byte, offset);
    byte[0]! ^= 1;
    await file.write(byte, offset);
    await file.close();
  }

  it('is never folded in: an old slot that does not verify ends the apply', async () => {
    await begin('sealed');
    await item.ship([data(0, CHUNK + 512, 512, 10)]);
    await tamper(1);
    await expect(item.apply()).rejects.toMatchObject({ code: 'REPLICA_SLOT', facts: { chunk: 1 } });
    const { root } = (await item.lab.replica()).record;
    expect(root.baselines).toHaveLength(1);
    expect(root.sync).toMatchObject({ kind: 'apply', log: 1 });
    expect((await status(item.session, 'web'))[0]).toMatchObject({
      health: 'warning',
      action: expect.stringMatching(/apply/),
    });
    // A resync, which has the source, makes it whole.
    item.lab.disk('disk0.img', item.disks[0]!);
    item.lab.disk('disk1.img', item.disks[1]!);
    await resync(item.session, 'web', { verifyTarget: true });
    const replica = await item.lab.replica();
    expect(replica.record.root.sync).toBeUndefined();
  });

  it('does no harm where all of the chunk is new', async () => {
    await begin('sealed');
    await item.ship([data(0, CHUNK, CHUNK, 10)]);
    await tamper(1);
    await item.apply();
    const replica = await item.lab.replica();
    const { tables } = replica.record.root.disks[0]!;
    for await (const { chunk, bytes } of readReplicaChunks(replica, 0, { tables, live: true }, item.lab.ports)) {
      if (chunk === 1) expect(Buffer.from(bytes).equals(noise(CHUNK, 10))).toBe(true);
    }
  });

  it('CONTROL: the slot that was changed is the one that is read', async () => {
    await begin('sealed');
    await item.ship([data(0, 512, 512, 10)]);
    await tamper(1);
    await item.apply();
    await expect(item.checkApplied()).rejects.toMatchObject({ code: 'REPLICA_SLOT' });
  });
});
