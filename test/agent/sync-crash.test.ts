/**
 * The n-th hit of every failpoint fails, for n = 1, 2, 3 … until a run completes. After each failure every committed
 * point still reads back exactly, and the next run ends with a point equal to the source, whatever the source did
 * meanwhile. The control forgets the suspects of the committed root and must then be caught with a broken replica.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { failover, protect, resync } from '../../src/agent/index.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { baselineOf, encodeRoot, ROOT_KEY, rootHash, type SuspectRange } from '../../src/replica/index.ts';
import { SUSPECT_RANGES_MAX } from '../../src/replica/root.ts';
import { noise, prose } from '../chunker/support.ts';
import { everyFault, fails, metBy } from '../support/every-fault.ts';
import { CHUNK, Lab, readReplicaDisk, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

type Disks = readonly [Buffer, Buffer];

/** A chunk by a letter: `.` zeros, a lower-case letter compressible, an upper-case one not. */
function chunk(letter: string): Buffer {
  if (letter === '.') return Buffer.alloc(CHUNK);
  const seed = letter.charCodeAt(0);
  return letter === letter.toLowerCase() ? prose(CHUNK, seed) : noise(CHUNK, seed);
}

/** Two disks from letters; the first ends in a short chunk. */
function disks(first: string, second: string): Disks {
  const whole = Buffer.concat([...first].map(chunk));
  return [whole.subarray(0, whole.length - CHUNK + 1536), Buffer.concat([...second].map(chunk))];
}

const BEFORE = disks('ab.CD..efg', 'xX.y');
const AFTER = disks('aB.Cd.hef.', 'xY.y');
/** Neither before nor after: some chunks go back, some go on, some become zeros. */
const OTHER = disks('ab.cD.h..i', '.YZy');

const open: Lab[] = [];
afterEach(() => {
  for (const lab of open.splice(0)) lab.close();
});

class Item {
  readonly lab: Lab = new Lab();
  /** What each committed point must read back as. */
  readonly points: Map<string, Disks> = new Map();
  source: Disks;

  constructor(source: Disks) {
    open.push(this.lab);
    this.source = source;
    this.write(source);
  }

  write(source: Disks): void {
    this.source = source;
    for (const [i, content] of source.entries()) this.lab.disk(`disk${i}.img`, content);
  }

  /** Keeps everything but the source as it is now: what it returns brings it back. */
  keep(): () => void {
    const bringBack = this.lab.keep();
    const points = [...this.points];
    return () => {
      bringBack();
      this.points.clear();
      for (const [id, content] of points) this.points.set(id, content);
    };
  }

  protect(): Promise<unknown> {
    const paths = [0, 1].map((i) => `${this.lab.directory}/disk${i}.img`);
    return protect(this.lab.session, { name: 'web', disks: paths, url: STORE_URL, chunkBytes: CHUNK, keys: [] });
  }

  resync(): Promise<unknown> {
    return resync(this.lab.session, 'web');
  }

  /** Reads every committed point back; one that is new was committed from the source as it is. */
  async check(): Promise<number> {
    try {
      const replica = await this.lab.replica();
      for (const point of replica.record.root.points) {
        const expected = this.points.get(point.id) ?? this.source;
        this.points.set(point.id, expected);
        for (const [i, content] of expected.entries()) {
          const found = await readReplicaDisk(
            replica,
            i,
            baselineOf(replica.record.root, point).disks[i]!,
            this.lab.ports,
          );
          if (!found.equals(content)) throw new Error(`disk ${i} of point ${point.id} reads back differently`);
        }
      }
      return replica.record.root.points.length;
    } catch (error) {
      if (isBlockferryError(error, 'REPLICA_NOT_FOUND')) return 0;
      throw error;
    }
  }

  /** The newest point is the source, and so is the live base: the next point is made of what stands there. */
  async checkNewest(): Promise<void> {
    await this.check();
    const replica = await this.lab.replica();
    const { root } = replica.record;
    expect(this.points.get(root.points.at(-1)!.id)).toBe(this.source);
    for (const [i, content] of this.source.entries()) {
      const { tables } = root.disks[i]!;
      const found = await readReplicaDisk(replica, i, { tables, live: true }, this.lab.ports);
      if (!found.equals(content)) throw new Error(`the live base of disk ${i} reads back differently`);
    }
  }
}

const MEANWHILE: readonly (readonly [string, Disks | undefined])[] = [
  ['the same source', undefined],
  ['a source that went back', BEFORE],
  ['a source that went on', OTHER],
];

describe('a first replication that fails at any failpoint', () => {
  it.each(MEANWHILE)('ends with %s', async (_, meanwhile) => {
    const whole = new Item(AFTER);
    const met = await metBy(whole.lab, () => whole.protect());
    const failures = await everyFault(met, async (name, hit) => {
      const item = new Item(AFTER);
      item.lab.arm({ name, hit });
      if (!(await fails(item.protect()))) return false;
      await item.check();
      if (meanwhile) item.write(meanwhile);
      item.lab.arm();
      await item.protect();
      await item.checkNewest();
      item.lab.close();
      return true;
    });
    expect(failures).toMatchObject({
      'protect.after-description': 1,
      'protect.after-keyring': 1,
      'protect.after-blobs': 1,
      'sync.after-fence': 1,
      'sync.after-snapshots': 1,
    });
    for (const name of ['sync.after-intent', 'sync.after-slots', 'sync.after-pages', 'sync.after-root'] as const) {
      expect(failures[name], name).toBeGreaterThanOrEqual(2);
    }
    expect(failures['folder.after-write']).toBeGreaterThan(10);
  });
});

describe('a resync that fails at any failpoint', () => {
  it.each(MEANWHILE)('ends with %s', async (_, meanwhile) => {
    const item = new Item(BEFORE);
    await item.protect();
    await item.check();
    const anew = item.keep();
    item.write(AFTER);
    const met = await metBy(item.lab, () => item.resync());
    const failures = await everyFault(met, async (name, hit) => {
      anew();
      item.write(AFTER);
      item.lab.arm({ name, hit });
      if (!(await fails(item.resync()))) return false;
      expect(await item.check()).toBeGreaterThanOrEqual(1);
      if (meanwhile) item.write(meanwhile);
      item.lab.arm();
      await item.resync();
      await item.checkNewest();
      return true;
    });
    for (const name of ['sync.after-intent', 'sync.after-slots', 'sync.after-pages', 'sync.after-root'] as const) {
      expect(failures[name], name).toBeGreaterThanOrEqual(2);
    }
    expect(failures['folder.after-undo']).toBeGreaterThan(2);
  });

  it('and fails again, twice in a row, is still healed', async () => {
    for (let hit = 1; hit <= 24; hit += 1) {
      const item = new Item(BEFORE);
      await item.protect();
      await item.check();
      item.write(AFTER);
      item.lab.arm({ name: 'folder.after-write', hit });
      await fails(item.resync());
      await item.check();
      item.write(OTHER);
      item.lab.arm({ name: 'folder.after-write', hit: 1 + ((hit * 7) % 11) });
      await fails(item.resync());
      await item.check();
      item.write(BEFORE);
      item.lab.arm();
      await item.resync();
      await item.checkNewest();
      item.lab.close();
    }
  });
});

/** Rewrites the committed root, with the replica's key, so that its unfinished sync names these suspects. */
async function rewriteSuspects(item: Item, suspect: readonly SuspectRange[]): Promise<void> {
  const { store, keyring, record } = await item.lab.replica();
  const { sync, ...settled } = record.root;
  const root = sync ? { ...settled, sync: { ...sync, suspect } } : settled;
  const bytes = encodeRoot(root, keyring.keys.root);
  await store.put(ROOT_KEY, bytes);
  const anchor = JSON.stringify({ generation: root.generation, hash: Buffer.from(rootHash(bytes)).toString('hex') });
  await item.lab.ports.files.replace(`${item.lab.session.home}/items/web/anchor.json`, Buffer.from(anchor));
}

describe('a slot that was overwritten while its entry was not committed', () => {
  async function interrupted(): Promise<Item> {
    const item = new Item(BEFORE);
    await item.protect();
    await item.check();
    item.write(AFTER);
    // The first flush belongs to the intent; at the second the slots of disk 0 are there, their entries not committed.
    item.lab.arm({ name: 'sync.after-slots', hit: 2 });
    expect(await fails(item.resync())).toBe(true);
    item.write(BEFORE);
    item.lab.arm();
    return item;
  }

  it('is sent again although the source went back to what its entry says', async () => {
    const item = await interrupted();
    await item.resync();
    await item.checkNewest();
  });

  it('CONTROL: would be left broken if the root did not name it as suspect', async () => {
    const item = await interrupted();
    await rewriteSuspects(item, []);
    await item.resync();
    await expect(item.checkNewest()).rejects.toMatchObject({ code: 'REPLICA_SLOT' });
  });
});

describe('a root with as many suspects as it may name', () => {
  it('is followed by one that can be read, and by a whole replica', async () => {
    const item = new Item(BEFORE);
    await item.protect();
    await item.check();
    item.write(AFTER);
    item.lab.arm({ name: 'sync.after-slots', hit: 2 });
    expect(await fails(item.resync())).toBe(true);
    const { suspect } = (await item.lab.replica()).record.root.sync!;
    const more = Array.from({ length: SUSPECT_RANGES_MAX - suspect.length }, (_, i) => ({
      disk: 1,
      from: i * 2,
      to: i * 2 + 1,
    }));
    await rewriteSuspects(item, [...suspect, ...more]);
    item.write(OTHER);
    item.lab.arm({ name: 'sync.after-intent', hit: 1 });
    expect(await fails(item.resync())).toBe(true);
    item.lab.arm();
    await item.resync();
    await item.checkNewest();
  });
});

describe('a failover that fails at any failpoint', () => {
  it('leaves no file under its final name unless it is whole, and can be repeated', async () => {
    const item = new Item(BEFORE);
    await item.protect();
    const restore = (outDirectory: string): Promise<unknown> =>
      failover(item.lab.session, { name: 'web' }, { point: 'latest', outDirectory, format: 'raw' });
    const met = await metBy(item.lab, () => restore(`${item.lab.directory}/whole`));
    const failures = await everyFault(met, async (name, hit) => {
      const outDirectory = `${item.lab.directory}/out-${name}-${hit}`;
      item.lab.arm({ name, hit });
      const failed = await fails(restore(outDirectory));
      const { files } = item.lab.ports;
      for (const [i, content] of BEFORE.entries()) {
        const bytes = await files.readSmall(`${outDirectory}/disk${i}.raw`, 1 << 24);
        if (bytes) expect(Buffer.from(bytes).equals(content)).toBe(true);
        else expect(failed).toBe(true);
      }
      const left = (await files.list(outDirectory)).map((entry) => entry.name);
      expect(left.filter((file) => !/^disk[01]\.raw$/.test(file))).toEqual([]);
      return failed;
    });
    expect(failures).toEqual({
      // A pin that cannot be put fails nothing.
      'object.after-temporary': 0,
      'restore.after-data': 2,
      'restore.after-logs': 1,
      'restore.after-rename': 2,
    });
  });
});
