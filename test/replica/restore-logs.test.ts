/** restore of points that are not processed: base and logs together are the guest's bytes, or it is an error. */
import { mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { failover, points, verify } from '../../src/agent/index.ts';
import { nodePorts } from '../../src/host/index.ts';
import { LOGS_PREFIX, logKey } from '../../src/replica/layout.ts';
import { LOGS_PER_ROUND } from '../../src/replica/log-merge.ts';
import { openDisk } from '../../src/vhd/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { ApplyLab, type GuestWrite } from '../support/apply-lab.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { everyFault, fails, metBy } from '../support/every-fault.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const FIRST_CASE = numberFromEnvironment('BLOCKFERRY_CASE', 0);
const CASES = numberFromEnvironment('BLOCKFERRY_CASES', 6);

let item: ApplyLab;
afterEach(() => item.close());

/** Two disks, the first with a short last chunk; some chunks are zeros. */
function contents(): readonly Buffer[] {
  const first = Buffer.concat([noise(CHUNK, 1), Buffer.alloc(2 * CHUNK), prose(CHUNK, 2), noise(1536, 3)]);
  return [first, Buffer.concat([prose(CHUNK, 4), Buffer.alloc(CHUNK)])];
}

async function begin(layout: 'sealed' | 'raw' = 'sealed'): Promise<void> {
  item = new ApplyLab(contents());
  await item.protect(layout);
}

const data = (disk: number, offset: number, lengthBytes: number, seed: number): GuestWrite => {
  return { disk, offset, lengthBytes, bytes: noise(lengthBytes, seed) };
};
const zeros = (disk: number, offset: number, lengthBytes: number): GuestWrite => ({ disk, offset, lengthBytes });

function throwWrites(dice: Dice): readonly GuestWrite[] {
  return Array.from({ length: dice.between(1, 5) }, () => {
    const disk = dice.below(item.disks.length);
    const sectors = item.disks[disk]!.byteLength / 512;
    const from = dice.below(sectors);
    const count = Math.min(dice.between(1, dice.oneIn(3) ? 300 : 12), sectors - from);
    return dice.oneIn(3) ? zeros(disk, from * 512, count * 512) : data(disk, from * 512, count * 512, dice.next());
  });
}

let outputs = 0;
type Format = 'vhdx' | 'vhd' | 'raw';

/** Restores a point; returns the directory. */
async function restore(point: string, format: Format = 'raw'): Promise<string> {
  outputs += 1;
  const outDirectory = `${item.lab.directory}/out${outputs}`;
  await failover(item.session, { name: 'web' }, { point, outDirectory, format });
  return outDirectory;
}

/** All bytes of the restored disks. */
async function read(directory: string, format: Format): Promise<readonly Buffer[]> {
  const disks: Buffer[] = [];
  for (const [i, { byteLength }] of item.disks.entries()) {
    const disk = await openDisk(`${directory}/disk${i}.${format}`, { ports: nodePorts(), format });
    const bytes = Buffer.alloc(byteLength);
    await disk.read(bytes, 0);
    await disk.close();
    disks.push(bytes);
  }
  return disks;
}

async function expectRestored(point: string, format: Format = 'raw'): Promise<void> {
  const directory = await restore(point, format);
  for (const [i, bytes] of (await read(directory, format)).entries()) {
    if (!item.points.get(point)![i]!.equals(bytes))
      throw new Error(`disk ${i} of point ${point} comes back differently`);
  }
  rmSync(directory, { recursive: true });
}

describe('a point with logs over its baseline', () => {
  it(`comes back exactly, whatever the guest wrote (${CASES} cases from seed ${SEED})`, {
    timeout: 120_000,
  }, async () => {
    for (let n = FIRST_CASE; n < FIRST_CASE + CASES; n += 1) {
      const dice = new Dice(SEED, n);
      await begin(dice.pick(['sealed', 'raw'] as const));
      try {
        for (let logs = dice.between(1, 5); logs > 0; logs -= 1) {
          await item.ship(throwWrites(dice));
          if (dice.oneIn(4)) await item.apply();
        }
        for (const { id } of await points(item.session, { name: 'web' })) {
          await expectRestored(id, dice.pick(['vhdx', 'vhd', 'raw'] as const));
        }
      } catch (error) {
        throw new Error(`BLOCKFERRY_SEED=${SEED} BLOCKFERRY_CASE=${n}`, { cause: error });
      } finally {
        item.close();
      }
    }
  });

  it('comes back exactly when it takes several rounds, and zeros undo what an earlier round wrote', async () => {
    await begin();
    // Chunk 1 is zeros in the base; the first round writes it, the second makes it zeros again, whole and in part.
    await item.ship([data(0, CHUNK, CHUNK, 10), data(0, 2 * CHUNK + 512, 1024, 11), data(1, CHUNK, CHUNK, 12)]);
    for (let log = 1; log < LOGS_PER_ROUND; log += 1) await item.ship([data(1, log * 512, 512, 20 + log)]);
    await item.ship([zeros(0, CHUNK, CHUNK), zeros(0, 2 * CHUNK + 1024, 512), zeros(1, CHUNK, CHUNK)]);
    const newest = (await points(item.session, { name: 'web' })).at(-1)!.id;
    for (const format of ['raw', 'vhdx', 'vhd'] as const) await expectRestored(newest, format);
  });

  it('takes no space for zeros where nothing was', async () => {
    await begin();
    await item.ship([zeros(0, CHUNK, 2 * CHUNK), zeros(1, CHUNK + 512, 1024)]);
    await item.ship([zeros(0, CHUNK + 1024, 4096)]);
    const report = await failover(
      item.session,
      { name: 'web' },
      { point: 'latest', outDirectory: `${item.lab.directory}/z`, format: 'raw' },
    );
    const fromBase = await failover(
      item.session,
      { name: 'web' },
      { point: 'latest-processed', outDirectory: `${item.lab.directory}/y`, format: 'raw' },
    );
    expect(report.disks.map(({ writtenBytes }) => writtenBytes)).toEqual(
      fromBase.disks.map(({ writtenBytes }) => writtenBytes),
    );
    expect(report).toMatchObject({ logs: 2 });
    expect(fromBase).toMatchObject({ logs: 0, logBytes: 0 });
    expect(statSync(`${item.lab.directory}/z/disk0.raw`).size).toBe(item.disks[0]!.byteLength);
  });

  it('is chosen by name, by time, by consistency, and by whether it is processed', async () => {
    await begin();
    await item.ship([data(0, 512, 512, 10)], 'app');
    await item.ship([data(0, 1024, 512, 11)]);
    const all = await points(item.session, { name: 'web' });
    expect(all.map(({ processed, consistency }) => [processed, consistency])).toEqual([
      [true, 'crash'],
      [false, 'app'],
      [false, 'crash'],
    ]);
    const chosen = async (point: string): Promise<string> => {
      const outDirectory = `${item.lab.directory}/chosen`;
      mkdirSync(outDirectory);
      try {
        return (await failover(item.session, { name: 'web' }, { point, outDirectory, format: 'raw' })).pointId;
      } finally {
        rmSync(outDirectory, { recursive: true });
      }
    };
    const [first, second, third] = all.map(({ id }) => id) as [string, string, string];
    expect(await chosen('latest')).toBe(third);
    expect(await chosen('latest-processed')).toBe(first);
    expect(await chosen('latest-app-consistent')).toBe(second);
    expect(await chosen(second)).toBe(second);
    expect(await chosen(new Date(all[1]!.timeMs).toISOString())).toBe(
      all.findLast(({ timeMs }) => timeMs <= all[1]!.timeMs)!.id,
    );
    await expect(chosen('p999')).rejects.toMatchObject({ code: 'POINT_NOT_FOUND' });
    await expect(chosen(new Date(0).toISOString())).rejects.toMatchObject({ code: 'POINT_NOT_FOUND' });
    await item.apply();
    expect(await chosen('latest-processed')).toBe(third);
  });
});

describe('a restore with logs that fails at any failpoint', () => {
  it('leaves no file under its final name unless it is whole', async () => {
    await begin();
    await item.ship([data(0, 512, 4096, 10), zeros(1, 0, CHUNK)]);
    await item.ship([data(1, 1024, 512, 11)]);
    const whole = async (outDirectory: string): Promise<unknown> =>
      failover(item.session, { name: 'web' }, { point: 'latest', outDirectory, format: 'raw' });
    const met = await metBy(item.lab, () => whole(`${item.lab.directory}/met`));
    const failures = await everyFault(met, async (name, hit) => {
      const outDirectory = `${item.lab.directory}/fault-${name}-${hit}`;
      item.lab.arm({ name, hit });
      const failed = await fails(whole(outDirectory));
      for (const { name: file } of await item.lab.ports.files.list(outDirectory)) {
        const i = Number(/^disk([01])\.raw$/.exec(file)?.[1]);
        expect(readFileSync(`${outDirectory}/${file}`).equals(item.disks[i]!)).toBe(true);
      }
      return failed;
    });
    expect(failures).toMatchObject({ 'restore.after-data': 2, 'restore.after-logs': 1, 'restore.after-rename': 2 });
    item.lab.arm();
  });
});

describe('a log that was changed in the store', () => {
  async function shipped(): Promise<{ readonly key: string; readonly object: Buffer }> {
    await begin();
    await item.ship([
      data(0, 512, 4096, 10),
      data(1, 0, CHUNK, 11),
      data(1, CHUNK, 512, 12),
      zeros(1, CHUNK + 1024, 512),
    ]);
    const { record, store } = await item.lab.replica();
    const key = logKey(record.root.logs[0]!);
    return { key, object: Buffer.from((await store.get(key, 1 << 24))!.bytes) };
  }

  it('ends the restore and leaves no file, is reported by verify, and stops an apply before it writes', async () => {
    const { key, object } = await shipped();
    const { store } = await item.lab.replica();
    const changes: readonly Buffer[] = [
      object.subarray(0, object.byteLength - 1),
      Buffer.concat([object, Buffer.alloc(1)]),
      Buffer.from(object.map((byte, i) => (i === object.byteLength >> 1 ? byte ^ 1 : byte))),
    ];
    for (const bytes of changes) {
      await store.put(key, bytes);
      await expect(restore('latest')).rejects.toMatchObject({ code: 'REPLICA_LOG' });
      expect(await item.lab.ports.files.list(`${item.lab.directory}/out${outputs}`)).toEqual([]);
      const report = await verify(item.session, { name: 'web' });
      expect(report).toMatchObject({ damage: [], damagedLogs: [{ log: 1 }], logsOpened: 1 });
      await expect(item.apply()).rejects.toMatchObject({ code: 'REPLICA_LOG' });
      expect((await item.lab.replica()).record.root.sync).toBeUndefined();
    }
    await store.delete(key);
    await expect(restore('latest')).rejects.toMatchObject({ code: 'REPLICA_LOG' });
    expect(await verify(item.session, { name: 'web' })).toMatchObject({ damagedLogs: [{ log: 1 }] });
    // The point before it needs no log.
    const [first] = await points(item.session, { name: 'web' });
    await expectRestored(first!.id);
    await store.put(key, object);
    expect(await verify(item.session, { name: 'web' })).toMatchObject({ damage: [], damagedLogs: [] });
  });

  it('is left alone by verify where the newest point does not need it', async () => {
    const { key } = await shipped();
    await item.ship([data(0, 512, 512, 13)]);
    await item.apply();
    const { store } = await item.lab.replica();
    await store.put(key, noise(100, 1));
    expect(await verify(item.session, { name: 'web' })).toMatchObject({ damagedLogs: [], logsOpened: 0 });
    expect(key.startsWith(LOGS_PREFIX)).toBe(true);
    await expect(verify(item.session, { name: 'web' }, { source: true })).resolves.toBeDefined();
  });

  it('does not let verify compare the source with a point that is not processed', async () => {
    await shipped();
    await expect(verify(item.session, { name: 'web' }, { source: true })).rejects.toMatchObject({
      code: 'USAGE',
      hint: expect.stringMatching(/apply/),
    });
  });
});
