/** Small promises of a change of sides: what is removed, what is kept, who is kept out, and in which order. */
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { gatherFacts } from '../../src/agent/facts.ts';
import { cancel, commit, failover, failoverPlanned, resync, reverse, ship, track } from '../../src/agent/index.ts';
import { refusal, stateOf, type Verb } from '../../src/agent/life/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { protect } from '../../src/agent/protect.ts';
import type { KeySource, Session } from '../../src/agent/types.ts';
import { lockDirectory, nodePorts } from '../../src/host/index.ts';
import type { FileSystem } from '../../src/ports.ts';
import { generateKeyFile, manifestKey } from '../../src/replica/index.ts';
import { loadTrackingState, trackingDirectory } from '../../src/tracker/index.ts';
import { noise } from '../chunker/support.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let lab: Lab;
let disk: string;
let keys: readonly KeySource[];
let other: Session;
beforeEach(async () => {
  lab = new Lab();
  disk = lab.disk('disk.img', noise(6 * CHUNK, 1));
  const path = join(lab.directory, 'key');
  await generateKeyFile(path, lab.ports);
  keys = [{ type: 'key-file', path }];
  await protect(lab.session, { name: 'web', disks: [disk], url: STORE_URL, chunkBytes: CHUNK, keys });
  other = { ...lab.session, home: '/memory/other' };
});
afterEach(() => lab.close());

const reference = (): { name: string; url: string; keys: readonly KeySource[] } => ({
  name: 'web',
  url: STORE_URL,
  keys,
});
const request = () => ({ point: 'latest', outDirectory: join(lab.directory, 'out'), format: 'raw' }) as const;

/** Another recovery point, on a baseline of its own. */
async function newPoint(seed: number): Promise<void> {
  const content = Buffer.from(noise(6 * CHUNK, 1));
  content.set(noise(CHUNK, seed), 2 * CHUNK);
  lab.disk('disk.img', content);
  await resync(lab.session, 'web');
}

it('with a commit the objects of the points that are given up go, and those that are kept restore', async () => {
  for (const seed of [2, 3]) await newPoint(seed);
  const snapshots = async (): Promise<number> =>
    (await (await lab.replica()).store.pages(manifestKey('d0')).snapshots()).length;
  expect(await snapshots()).toBe(3);
  await failover(other, reference(), request());
  await commit(other, 'web');
  expect(await snapshots()).toBe(1);
  const outDirectory = join(lab.directory, 'again');
  expect(await failover(other, { name: 'web' }, { ...request(), outDirectory, test: true })).toMatchObject({
    item: 'web',
  });
});

it('a home that disks were brought back to keeps the master key from the commit on, as any that replicates', async () => {
  const { disks } = await failover(other, reference(), request());
  await commit(other, 'web');
  rmSync(keys[0]!.path);
  const content = Buffer.from(noise(6 * CHUNK, 1));
  content.set(noise(CHUNK, 9), 0);
  writeFileSync(disks[0]!.path, content);
  expect(await reverse(other, 'web')).toMatchObject({ by: 'compare' });
});

/** A home whose locks are real. */
const homeOf = (name: string, ports: Partial<Session['ports']> = {}): Session => {
  const { lock } = nodePorts();
  return { ...lab.session, home: join(lab.directory, name), ports: { ...lab.ports, lock, ...ports } };
};

/** What `ask` is answered while a failover into `out` is under way. */
async function whileBringing(ask: () => Promise<unknown>): Promise<unknown> {
  let answer: unknown;
  lab.onFailpoint = async (name) => {
    if (name !== 'restore.after-data' || answer !== undefined) return;
    answer = 'asked';
    answer = await ask().catch((error: unknown) => error);
  };
  await failover(homeOf('one'), reference(), request());
  lab.onFailpoint = undefined;
  return answer;
}

it('two homes do not bring disks back into one directory at a time, and nothing is left of who did', async () => {
  const second = await whileBringing(() => failover(homeOf('two'), reference(), request()));
  expect(second).toMatchObject({ code: 'ITEM_LOCKED', message: expect.stringContaining(join(lab.directory, 'out')) });
  expect(readdirSync(join(lab.directory, 'out'))).toEqual(['disk.raw']);
});

it('nor does a planned failover that brings its disks there as well', async () => {
  const { outDirectory, format } = request();
  const { files, lock } = lab.ports;
  // Its home is in memory; of the output directory the lock is real.
  const either: Session['ports']['lock'] = (directory, what) =>
    directory.startsWith(outDirectory) ? lockDirectory(directory, what, files) : lock(directory, what);
  const session = { ...lab.session, ports: { ...lab.ports, lock: either } };
  const planned = await whileBringing(() => failoverPlanned(session, 'web', { outDirectory, format }));
  expect(planned).toMatchObject({ code: 'ITEM_LOCKED' });
});

it('a failover that is refused leaves no directory that it made, and those that were there', async () => {
  const full = { ...lab.ports.files, freeBytes: async () => 0 };
  const session = homeOf('one', { files: full });
  const outDirectory = join(lab.directory, 'a', 'b', 'out');
  const refused = { code: 'OUTPUT_FAILED', message: expect.stringContaining('free') };
  await expect(failover(session, reference(), { ...request(), outDirectory })).rejects.toMatchObject(refused);
  expect(existsSync(join(lab.directory, 'a'))).toBe(false);
  mkdirSync(join(lab.directory, 'a'));
  await expect(failover(session, reference(), { ...request(), outDirectory })).rejects.toMatchObject(refused);
  expect(readdirSync(join(lab.directory, 'a'))).toEqual([]);
});

it('a place that is a file, or below one, is told as what it is', async () => {
  for (const outDirectory of [disk, join(disk, 'below')]) {
    const refused = failover(homeOf('one'), reference(), { ...request(), outDirectory, test: true });
    await expect(refused).rejects.toMatchObject({ code: 'OUTPUT_FAILED', message: expect.stringContaining(disk) });
  }
});

it('what else lies where disks are brought back to stays: a home, and what its owner keeps there', async () => {
  const home = join(lab.directory, '.blockferry');
  let meanwhile: readonly string[] = [];
  lab.onFailpoint = (name) => {
    if (name === 'restore.after-data') meanwhile = readdirSync(home);
  };
  await failover(homeOf('.blockferry'), reference(), { ...request(), outDirectory: lab.directory, test: true });
  expect(meanwhile).toEqual(['items']);
  expect(readdirSync(home)).toEqual(['items']);
  expect(existsSync(join(lab.directory, '.blockferry-out'))).toBe(false);
  expect(existsSync(disk)).toBe(true);
});

it('a place that takes no lock gets its disks all the same', async () => {
  const { lock } = nodePorts();
  const noLinks: Session['ports']['lock'] = async (directory, what) => {
    if (!directory.endsWith('.blockferry-out')) return lock(directory, what);
    throw Object.assign(new Error('operation not permitted, link'), { code: 'EPERM' });
  };
  expect(await failover(homeOf('one', { lock: noLinks }), reference(), request())).toMatchObject({ item: 'web' });
  expect(readdirSync(join(lab.directory, 'out'))).toEqual(['disk.raw']);
});

it('what the state of an item does not allow is refused in its words, by whichever verb', async () => {
  await failover(other, reference(), request());
  await commit(other, 'web');
  const home = lab.session;
  const again = { name: 'web', disks: [disk], url: STORE_URL, chunkBytes: CHUNK, keys };
  const verbs = {
    ship: () => ship(home, 'web'),
    resync: () => resync(home, 'web'),
    protect: () => protect(home, again),
    reverse: () => reverse(home, 'web'),
    'failover-planned': () => failoverPlanned(other, 'web'),
  } as const;
  for (const [verb, run] of Object.entries(verbs)) {
    const error: unknown = await run().catch((thrown: unknown) => thrown);
    const session = verb === 'failover-planned' ? other : home;
    const words = refusal(stateOf(await gatherFacts(session, 'web')), verb as Verb, 'web');
    expect(error, verb).toMatchObject({ code: words?.code, message: words?.message, hint: words?.hint });
  }
});

it('a guest may write again only when the replica says that its owner goes on', async () => {
  await failoverPlanned(lab.session, 'web');
  const isStopped = async (): Promise<boolean> => {
    const item = new LocalItem(lab.session.home, 'web', lab.ports.files);
    return (await loadTrackingState(trackingDirectory(item.directory), lab.ports.files))!.stopped ?? false;
  };
  const store = fileURLToPath(STORE_URL);
  const { files } = lab.ports;
  const refuse = async (path: string): Promise<void> => {
    if (path.startsWith(store)) throw Object.assign(new Error('as the test says'), { code: 'EACCES' });
  };
  const readOnly: FileSystem = {
    ...files,
    replace: (path, ...rest) => refuse(path).then(() => files.replace(path, ...rest)),
    createExclusive: (path, ...rest) => refuse(path).then(() => files.createExclusive(path, ...rest)),
    rename: (from, to) => refuse(to).then(() => files.rename(from, to)),
  };
  const refusing: Session = { ...lab.session, ports: { ...lab.ports, files: readOnly } };
  expect(await isStopped()).toBe(true);
  await expect(cancel(refusing, 'web')).rejects.toMatchObject({ area: 'store' });
  expect(await isStopped()).toBe(true);
  expect(await cancel(lab.session, 'web')).toMatchObject({ resumed: true });
  expect(await isStopped()).toBe(false);
  expect((await lab.replica()).record.root.owner).toMatchObject({ phase: 'replicating' });
});

it('a tracker serves no disks that another process gave up before it had the item', async () => {
  const item = new LocalItem(lab.session.home, 'web', lab.ports.files);
  const ports: Session['ports'] = {
    ...lab.ports,
    // Between what it read and the lock that it waits for, a commit of other disks ends.
    lock: async (directory, what) => {
      const state = await item.load();
      if (directory.includes('tracking'))
        await item.save({ ...state, side: new Uint8Array(state.side.length).fill(7) });
      return lab.ports.lock(directory, what);
    },
  };
  const served = track({ ...lab.session, ports }, 'web', {}, () => {});
  await expect(served).rejects.toMatchObject({
    code: 'ILLEGAL_STATE',
    message: expect.stringContaining('took over just now'),
  });
  expect(existsSync(disk)).toBe(true);
});
