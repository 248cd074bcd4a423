/**
 * Stores that answer with other bytes: whichever object of either one is damaged, a mirror ends with an error that has a name or with
 * points that are what the guest had, and never harms one that the follower had.
 */
import { afterEach, expect, it, vi } from 'vitest';
import { prune } from '../../src/agent/index.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { noise, prose } from '../chunker/support.ts';
import { FIRST_URL, MirrorLab, SECOND_URL } from '../support/mirror-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const items: MirrorLab[] = [];
afterEach(() => {
  for (const item of items.splice(0)) item.close();
});

async function begin(layout: 'sealed' | 'raw'): Promise<MirrorLab> {
  const item = new MirrorLab([Buffer.concat([noise(CHUNK, 1), prose(CHUNK, 2), Buffer.alloc(CHUNK), noise(CHUNK, 3)])]);
  items.push(item);
  await item.protect(layout);
  await item.write(10);
  await item.mirror();
  return item;
}

/** The next mirror has a copy, and a log behind it. */
async function goOn(item: MirrorLab, seed: number): Promise<void> {
  await item.write(seed);
  await item.apply();
  await prune(item.session, 'web', { drop: new Set((await item.pointsAt(FIRST_URL)).slice(0, -1)) });
  await item.write(seed + 5);
}

/** Files of a store, by their paths in it. */
async function filesOf(item: MirrorLab, url: string, path = ''): Promise<readonly string[]> {
  const { files } = item.lab.ports;
  const all: string[] = [];
  for (const { name, kind } of await files.list(`${url.slice('file://'.length)}/${path}`)) {
    const inside = path === '' ? name : `${path}/${name}`;
    if (kind === 'directory') all.push(...(await filesOf(item, url, inside)));
    else if (!path.startsWith('@lock')) all.push(inside);
  }
  return all;
}

/** The code of an error that has a name, or what was carried. */
async function outcome(work: () => Promise<unknown>): Promise<string> {
  try {
    const done = await work();
    return String((done as { readonly by?: string } | undefined)?.by);
  } catch (error) {
    if (isBlockferryError(error) && error.code !== 'UNEXPECTED') return error.code;
    throw error;
  }
}

/** Live blobs, what their snapshots stand on, logs, and what names them all. */
const OBJECTS = [
  ...['disks/d0/base', 'disks/d0/base@blob/map', 'disks/d0/base@blob/undo', 'disks/d0/base@blob/state'],
  ...['disks/d0/manifest', 'disks/d0/manifest@blob/map', 'disks/d0/manifest@blob/undo'],
  ...['logs/', 'keyring.json', 'replica.json', 'root'],
] as const;

it.each(['sealed', 'raw'] as const)(
  'whatever is damaged in the first store, layout %s',
  { timeout: 60_000 },
  async (layout) => {
    const item = await begin(layout);
    await goOn(item, 20);
    const outcomes = new Map<string, string>();
    for (const [n, object] of OBJECTS.entries()) {
      const points = await item.pointsAt();
      const path = (await filesOf(item, FIRST_URL)).find((each) => each.startsWith(object))!;
      const mend = await item.damage(FIRST_URL, path);
      const became = await outcome(() => item.mirror());
      await mend();
      outcomes.set(object, became);
      expect((await item.checkAt()).slice(0, points.length), path).toEqual(points);
      if (became === 'copy') await goOn(item, 100 + 10 * n);
    }
    expect(Object.fromEntries(outcomes)).toMatchObject({
      'disks/d0/base': 'REPLICA_SLOT',
      'disks/d0/manifest': 'REPLICA_MANIFEST',
      'logs/': 'REPLICA_LOG',
      'keyring.json': 'REPLICA_KEYRING',
      'replica.json': 'REPLICA_DESCRIPTION',
      root: 'REPLICA_ROOT',
    });
    expect(await outcome(() => item.mirror())).toBe('copy');
  },
);

it.each(['disks/d0/base', 'disks/d0/manifest', 'keyring.json', 'root'])(
  '%s that is damaged in the second store comes back as an error',
  async (path) => {
    const item = await begin('sealed');
    await goOn(item, 20);
    await item.damage(SECOND_URL, path);
    const mirrored = await outcome(() => item.mirror());
    expect(await outcome(() => item.checkAt())).toMatch(/^REPLICA_/);
    expect(mirrored).toMatch(path.endsWith('base') ? /^copy$/ : /^REPLICA_/);
  },
);
