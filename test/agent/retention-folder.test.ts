/** A failback that keeps what it fetches on another volume: which folders it takes, and that whoever needs a stage finds it there. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { cancel, commit, failback, failover, failoverPlanned, reverse, track } from '../../src/agent/index.ts';
import { protect } from '../../src/agent/protect.ts';
import { type RetentionFacts, retentionFacts, retentionFault } from '../../src/agent/sides/retention-folder.ts';
import type { Session } from '../../src/agent/types.ts';
import type { FileSystem } from '../../src/ports.ts';
import { generateKeyFile } from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let lab: Lab;
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab.close());

const GOOD: RetentionFacts = {
  directory: '/mnt/retention',
  volume: { identity: '7', kind: 'other' },
  isWritable: true,
  totalBytes: 1000,
  others: [
    { what: 'the program', volume: { identity: '1', kind: 'other' } },
    { what: 'the home', volume: { identity: '2', kind: 'other' } },
    { what: 'disk /vm/a.raw', volume: { identity: '3', kind: 'other' } },
  ],
};
const on = (identity: string): Partial<RetentionFacts> => ({ volume: { identity, kind: 'other' } });

describe('a retention folder', () => {
  it('that keeps every rule is taken, also where the system does not say what its file system is', () => {
    expect(retentionFault(GOOD)).toBeUndefined();
    expect(retentionFault({ ...GOOD, volume: { identity: '7', kind: 'unknown' } })).toBeUndefined();
  });

  it.each<[string, Partial<RetentionFacts>, RegExp]>([
    ['own-volume', on('1'), /same volume as the program/],
    ['own-volume', on('2'), /same volume as the home/],
    ['own-volume', on('3'), /same volume as disk \/vm\/a.raw/],
    ['file-system', { volume: { identity: '7', kind: 'fat' } }, /FAT/],
    ['writable', { isWritable: false }, /cannot be written/],
    ['capacity', { totalBytes: 0 }, /no capacity/],
  ])('is refused by the rule "%s": %j', (rule, change, message) => {
    expect(retentionFault({ ...GOOD, ...change })).toMatchObject({ rule, message: expect.stringMatching(message) });
  });

  it('that is not there is refused', () => {
    const { volume: _, ...none } = GOOD;
    expect(retentionFault(none)).toMatchObject({ rule: 'exists' });
  });

  it('is looked at where it is: of a real one all is known, and nothing is left in it', async () => {
    const directory = join(lab.directory, 'r');
    mkdirSync(directory);
    const facts = await retentionFacts(directory, { home: lab.directory, disks: [] }, lab.ports.files);
    expect(facts).toMatchObject({ isWritable: true, volume: { identity: expect.any(String) } });
    expect(facts.others.map(({ what }) => what)).toEqual(['the program', 'the home']);
    expect(facts.volume).toEqual(facts.others[1]!.volume);
    expect(readdirSync(directory)).toEqual([]);
    const files: FileSystem = { ...lab.ports.files, replace: async () => Promise.reject(new Error('EROFS')) };
    expect(await retentionFacts(directory, { home: lab.directory, disks: [] }, files)).toMatchObject({
      isWritable: false,
    });
  });
});

interface Away {
  readonly home: Session;
  readonly other: Session;
  readonly disk: string;
  readonly retention: string;
  /** What the machine has on the other side. */
  readonly content: Buffer;
  freeBytes: number;
}

/** A machine that replicates from the other side; three of its eight chunks differ from the disk at home. */
async function away(): Promise<Away> {
  const content = Buffer.from(noise(8 * CHUNK, 1));
  const disk = lab.disk('disk.img', content);
  const key = join(lab.directory, 'key');
  await generateKeyFile(key, lab.ports);
  const keys = [{ type: 'key-file', path: key }] as const;
  await protect(lab.session, { name: 'web', disks: [disk], url: STORE_URL, chunkBytes: CHUNK, keys });
  const other: Session = { ...lab.session, home: '/memory/other' };
  const reference = { name: 'web', url: STORE_URL, keys };
  const outDirectory = join(lab.directory, 'out');
  const { disks } = await failover(other, reference, { point: 'latest', outDirectory, format: 'raw' });
  await commit(other, 'web');
  for (const chunk of [1, 4, 6]) content.set(noise(CHUNK, 10 + chunk), chunk * CHUNK);
  writeFileSync(disks[0]!.path, content);
  await reverse(other, 'web');
  const retention = join(lab.directory, 'retention');
  mkdirSync(retention);
  const machine = { other, disk, retention, content, freeBytes: 2 ** 40 };
  const files: FileSystem = {
    ...lab.ports.files,
    volume: async (path) => ({ identity: path.startsWith(retention) ? 'r' : 'd', kind: 'other' }),
    freeBytes: async () => machine.freeBytes,
  };
  return Object.assign(machine, { home: { ...lab.session, ports: { ...lab.session.ports, files } } });
}

it('a delta failback keeps there what it fetched, goes on with it whatever is named next, and leaves nothing', async () => {
  const { home, other, disk, retention, content } = await away();
  const first = await failback(home, 'web', { mode: 'delta', retention });
  expect(first).toMatchObject({ state: 'waiting-for-owner', disks: [{ differingChunks: 3 }] });
  expect(existsSync(join(retention, 'web', 'd0', 'stage.json'))).toBe(true);
  expect(existsSync(`${disk}.failback`)).toBe(false);
  await failoverPlanned(other, 'web');
  const back = await failback(home, 'web', { mode: 'delta' });
  expect(back).toMatchObject({ state: 'ready', disks: [{ readBytes: 0, fetchedBytes: 0 }] });
  expect(readFileSync(disk).equals(content)).toBe(true);
  expect(existsSync(join(retention, 'web', 'd0'))).toBe(false);
  expect(existsSync(`${disk}.failback`)).toBe(false);
});

it('a disk whose stage lies there half laid is served by nobody, and the next failback ends it', async () => {
  const { home, other, disk, retention, content } = await away();
  await failoverPlanned(other, 'web');
  const ports = {
    ...home.ports,
    failpoint: async (name: string) => {
      if (name === 'lay.after-write') throw new Error('killed');
    },
  };
  await expect(failback({ ...home, ports }, 'web', { mode: 'delta', retention })).rejects.toThrow('killed');
  await expect(track(home, 'web', {}, () => {})).rejects.toMatchObject({
    code: 'ILLEGAL_STATE',
    message: expect.stringContaining('may be half written'),
  });
  expect(await failback(home, 'web', { mode: 'delta' })).toMatchObject({ state: 'ready' });
  expect(readFileSync(disk).equals(content)).toBe(true);
});

it('cancel removes what lies there, and the disk was never touched', async () => {
  const { home, disk, retention } = await away();
  const before = readFileSync(disk);
  await failback(home, 'web', { mode: 'delta', retention });
  expect(await cancel(home, 'web')).toMatchObject({ removed: [join(retention, 'web', 'd0')] });
  expect(existsSync(join(retention, 'web', 'd0'))).toBe(false);
  expect(readFileSync(disk).equals(before)).toBe(true);
  // Named no more, it is not used any more.
  await failback(home, 'web', { mode: 'delta' });
  expect(existsSync(`${disk}.failback`)).toBe(true);
});

it('a folder on the volume of the disks is refused before anything is staged', async () => {
  const { home, disk } = await away();
  const shared = join(lab.directory, 'shared');
  mkdirSync(shared);
  await expect(failback(home, 'web', { mode: 'delta', retention: shared })).rejects.toMatchObject({
    code: 'OUTPUT_FAILED',
    facts: { rule: 'own-volume' },
  });
  expect(existsSync(`${disk}.failback`)).toBe(false);
});

it('where not all would fit, what really differs decides, and lack of space is known before anything is fetched', async () => {
  const machine = await away();
  const { home, disk } = machine;
  let fetched = 0;
  const ports = {
    ...home.ports,
    failpoint: (name: string) => {
      if (name === 'stage.after-chunks') fetched += 1;
    },
  };
  machine.freeBytes = 3 * CHUNK - 1;
  await expect(failback({ ...home, ports }, 'web', { mode: 'delta' })).rejects.toMatchObject({
    code: 'OUTPUT_FAILED',
    facts: { neededBytes: 3 * CHUNK },
  });
  expect(fetched).toBe(0);
  machine.freeBytes = 3 * CHUNK;
  expect(await failback({ ...home, ports }, 'web', { mode: 'delta' })).toMatchObject({ state: 'waiting-for-owner' });
  expect(fetched).toBeGreaterThan(0);
  expect(existsSync(`${disk}.failback`)).toBe(true);
});
