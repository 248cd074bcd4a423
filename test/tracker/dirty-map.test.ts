/** What a dirty map promises while nothing crashes, and what it costs. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeEach, describe, expect, it } from 'vitest';
import { TIB } from '../../src/bytes.ts';
import { DirtyMap } from '../../src/tracker/dirty-map.ts';
import { type MemoryFileSystem, memoryFileSystem } from '../support/memory-files.ts';
import {
  CHUNK,
  CHUNKS,
  chunksOf,
  DISK_BYTES,
  observe,
  optionsFor,
  PAGE_CHUNKS,
  PATH,
  RECORD_CHUNKS,
  sweep,
  type Traffic,
  write,
} from './dirty-map-lab.ts';

let files: MemoryFileSystem;
let traffic: Traffic;
let map: DirtyMap;

beforeEach(async () => {
  files = memoryFileSystem();
  files.put('/state/item.json', new Uint8Array(0));
  traffic = observe(files);
  map = await DirtyMap.create(PATH, optionsFor(files));
  Object.assign(traffic, { writes: 0, syncs: 0 });
});

async function reopen(): Promise<DirtyMap> {
  return await DirtyMap.open(PATH, optionsFor(files));
}

describe('a write', () => {
  it('of a resting chunk waits for one write and one sync, and those behind it for nothing', async () => {
    for (let i = 0; i < 1000; i += 1) {
      const { epoch } = map;
      const covering = map.begin(7 * CHUNK + i * 64, 64);
      expect(covering === undefined).toBe(i > 0);
      await covering;
      map.end(epoch);
    }
    expect(traffic).toMatchObject({ writes: 1, syncs: 1 });
    expect([chunksOf(map, 'active'), chunksOf(map, 'current'), chunksOf(map, 'closed')]).toEqual([[7], [7], []]);
  });

  it('begins when its chunks are durably in the file, and not before', async () => {
    let release = (): void => {};
    traffic.beforeSync = () =>
      new Promise((resolve) => {
        release = resolve;
      });
    let isCovered = false;
    const covering = map.begin(0, CHUNK)!.then(() => {
      isCovered = true;
    });
    while (traffic.syncs === 0) await Promise.resolve();
    for (let i = 0; i < 20; i += 1) await Promise.resolve();
    expect([isCovered, chunksOf(map, 'active')]).toEqual([false, []]);
    release();
    await covering;
    expect(chunksOf(map, 'active')).toEqual([0]);
  });

  it('touches every chunk that it has a part of, also the last one of the disk', async () => {
    await map.begin(2 * CHUNK - 512, CHUNK + 1024);
    await map.begin(DISK_BYTES - 512, 512);
    expect(chunksOf(map, 'active')).toEqual([1, 2, 3, CHUNKS - 1]);
    expect(map.count('changed')).toBe(4);
  });

  it('over the edge of records and pages is one group', async () => {
    await map.begin((RECORD_CHUNKS - 2) * CHUNK, 4 * CHUNK);
    await map.begin((PAGE_CHUNKS - 2) * CHUNK, 4 * CHUNK);
    expect(traffic).toMatchObject({ writes: 3, syncs: 2 });
    expect([...map.runs('current')]).toEqual([
      { from: RECORD_CHUNKS - 2, to: RECORD_CHUNKS + 2 },
      { from: PAGE_CHUNKS - 2, to: PAGE_CHUNKS + 2 },
    ]);
  });

  it('shares its sync with those that come together', async () => {
    await Promise.all(Array.from({ length: 100 }, (_, i) => map.begin(i * 50 * CHUNK, CHUNK)));
    expect(traffic).toMatchObject({ writes: 1, syncs: 1 });
    expect(chunksOf(map, 'active')).toHaveLength(100);
  });

  it('that comes while a sync runs shares that one if it brings its chunks, and else the next', async () => {
    let release = (): void => {};
    traffic.beforeSync = () =>
      traffic.syncs > 1
        ? undefined
        : new Promise((resolve) => {
            release = resolve;
          });
    const first = [map.begin(0, CHUNK), map.begin(500 * CHUNK, CHUNK)];
    while (traffic.syncs === 0) await Promise.resolve();
    const same = Array.from({ length: 50 }, () => map.begin(500 * CHUNK, CHUNK));
    const others = Array.from({ length: 50 }, (_, i) => map.begin((1000 + i * 10) * CHUNK, CHUNK));
    release();
    await Promise.all([...first, ...same]);
    expect(traffic.syncs).toBe(1);
    await Promise.all(others);
    expect(traffic).toMatchObject({ writes: 2, syncs: 2 });
    expect(chunksOf(map, 'active')).toHaveLength(52);
  });

  it('in a row with others finds its chunk active already, and only what was written is current', async () => {
    const { length } = Array.from({ length: 3000 });
    for (let chunk = 0; chunk < length; chunk += 1) {
      await write(map, chunk);
      const lead = chunksOf(map, 'active', chunk + 1).length;
      expect(lead).toBeLessThanOrEqual(Math.min(chunk + 1, 256));
    }
    // 1, 2, 4 … 256 chunks ahead, then 257 chunks a sync: 16 MiB.
    expect(traffic.syncs).toBe(8 + Math.ceil((3000 - 255) / 257));
    expect([...map.runs('current')]).toEqual([{ from: 0, to: 3000 }]);
    await sweep(map, 2);
    expect([...map.runs('changed')]).toEqual([{ from: 0, to: 3000 }]);
  });

  it('in a row never goes beyond the end of the disk', async () => {
    for (let chunk = CHUNKS - 20; chunk < CHUNKS; chunk += 1) await write(map, chunk);
    expect([...map.runs('active')]).toEqual([{ from: CHUNKS - 20, to: CHUNKS }]);
  });
});

describe('a sweep', () => {
  it('lets chunks rest that nobody touched since the sweep before', async () => {
    await write(map, 1);
    await write(map, 500);
    await sweep(map);
    expect(chunksOf(map, 'active')).toEqual([1, 500]);
    await write(map, 500);
    await sweep(map);
    expect(chunksOf(map, 'active')).toEqual([500]);
    await sweep(map);
    expect(chunksOf(map, 'active')).toEqual([]);
    expect(chunksOf(map, 'current')).toEqual([1, 500]);
    expect(map.begin(CHUNK, 512)).toBeInstanceOf(Promise);
  });

  it('needs no sync of its own, and asks for none of log and disk unless something comes to rest', async () => {
    let asked = 0;
    const settle = (): Promise<void> =>
      map.settle(async () => {
        asked += 1;
      });
    await settle();
    await write(map, 1);
    await settle();
    expect(asked).toBe(0);
    await settle();
    expect(asked).toBe(1);
    await settle();
    expect(asked).toBe(1);
    expect(traffic).toMatchObject({ writes: 2, syncs: 1 });
  });

  it('lets nothing rest that is touched while log and disk are made durable', async () => {
    await write(map, 1);
    await write(map, 500);
    await sweep(map);
    await map.settle(() => write(map, 500));
    expect(chunksOf(map, 'active')).toEqual([500]);
  });

  it('lets nothing rest that waits for its first write while all others of its page come to rest', async () => {
    await write(map, 1);
    await sweep(map);
    let release = (): void => {};
    traffic.beforeSync = () =>
      new Promise((resolve) => {
        release = resolve;
      });
    const { syncs } = traffic;
    let covering: Promise<void> | undefined;
    const settled = map.settle(async () => {
      covering = map.begin(500 * CHUNK, 512);
      while (traffic.syncs === syncs) await Promise.resolve();
    });
    while (chunksOf(map, 'active').length > 0) await Promise.resolve();
    release();
    await covering;
    await settled;
    await sweep(map);
    expect(chunksOf(map, 'active')).toEqual([500]);
  });

  it('lets nothing rest while a write is under way that began before the sweep before', async () => {
    await write(map, 500);
    const { epoch } = map;
    await map.begin(CHUNK, 512);
    await sweep(map, 5);
    expect(chunksOf(map, 'active')).toEqual([1, 500]);
    // Others, which come and go, change nothing of that.
    await write(map, 900);
    await sweep(map, 2);
    expect(chunksOf(map, 'active')).toEqual([1, 500, 900]);
    map.end(epoch);
    await sweep(map);
    expect(chunksOf(map, 'active')).toEqual([]);
  });

  it('lets nothing rest if log and disk cannot be made durable', async () => {
    await write(map, 1);
    await sweep(map);
    await expect(map.settle(() => Promise.reject(new Error('disk')))).rejects.toThrow('disk');
    expect(chunksOf(map, 'active')).toEqual([1]);
    await sweep(map);
    expect(chunksOf(map, 'active')).toEqual([]);
  });

  it('is shared by those who ask for it at once', async () => {
    const asked: number[] = [];
    await write(map, 1);
    await sweep(map);
    await Promise.all([1, 2, 3].map((n) => map.settle(async () => void asked.push(n))));
    expect(asked).toEqual([1]);
    expect(chunksOf(map, 'active')).toEqual([]);
  });
});

describe('the sets', () => {
  it('follow the logs: written, closed, acknowledged', async () => {
    await write(map, 1);
    map.rotate();
    await write(map, 2);
    const sets = () => [chunksOf(map, 'closed'), chunksOf(map, 'current'), chunksOf(map, 'changed')];
    expect(sets()).toEqual([[1], [2], [1, 2]]);
    map.rotate();
    await write(map, 1);
    expect(sets()).toEqual([[1, 2], [1], [1, 2]]);
    await sweep(map, 2);
    await map.forgetClosed();
    expect(sets()).toEqual([[], [1], [1]]);
    expect([map.isChanged(1), map.isChanged(2)]).toEqual([true, false]);
  });

  it('cost a rotation no write, and the chunks that are active no wait behind it', async () => {
    await write(map, 1);
    map.rotate();
    expect(map.begin(CHUNK, 512)).toBeUndefined();
    expect(traffic).toMatchObject({ writes: 1, syncs: 1 });
    expect([chunksOf(map, 'closed'), chunksOf(map, 'current')]).toEqual([[1], [1]]);
  });

  it('are not rotated under a write', async () => {
    const { epoch } = map;
    await map.begin(0, 512);
    expect(() => map.rotate()).toThrow('no write is under way');
    map.end(epoch);
    map.rotate();
  });

  it('can be everything, until that is acknowledged', async () => {
    await write(map, 5);
    await map.markAll();
    expect(traffic.writtenBytes).toBeLessThan(20_000);
    expect([...map.runs('changed', 3)]).toEqual([{ from: 3, to: CHUNKS }]);
    expect([map.count('current'), map.count('closed'), map.count('active')]).toEqual([CHUNKS, 0, 1]);
    expect(map.isChanged(9)).toBe(true);
    await map.forgetClosed();
    expect(map.count('changed')).toBe(CHUNKS);
    map.rotate();
    await write(map, 6);
    expect([map.count('current'), map.count('closed')]).toEqual([1, CHUNKS]);
    await sweep(map, 2);
    await map.forgetClosed();
    expect(chunksOf(map, 'changed')).toEqual([6]);
    await map.close();
    expect(chunksOf(await reopen(), 'changed')).toEqual([6]);
  });

  it('come in runs from any chunk on', async () => {
    for (const chunk of [3, 4, 5, 8, 15, 16, RECORD_CHUNKS, PAGE_CHUNKS * 2, CHUNKS - 1]) await write(map, chunk);
    const all = chunksOf(map, 'current');
    for (const from of [0, 3, 4, 6, 16, 17, RECORD_CHUNKS, RECORD_CHUNKS + 1, PAGE_CHUNKS, CHUNKS - 1, CHUNKS]) {
      expect(chunksOf(map, 'current', from)).toEqual(all.filter((chunk) => chunk >= from));
    }
    expect([...map.runs('current', 4)].slice(0, 2)).toEqual([
      { from: 4, to: 6 },
      { from: 8, to: 9 },
    ]);
  });
});

describe('a map that is opened again', () => {
  it('has nothing active after a clean end, and what was current is closed', async () => {
    await write(map, 1);
    map.rotate();
    await write(map, 2);
    await map.close();
    const again = await reopen();
    expect([chunksOf(again, 'active'), chunksOf(again, 'current'), chunksOf(again, 'closed')]).toEqual([
      [],
      [],
      [1, 2],
    ]);
    await again.forgetClosed();
    await again.abandon();
    expect(chunksOf(await reopen(), 'changed')).toEqual([]);
    expect(
      Buffer.from(files.get(PATH)!)
        .subarray(4096)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  it('has what was active after a crash, until that was adopted', async () => {
    await write(map, 1);
    await sweep(map, 2);
    await write(map, 500);
    await map.abandon();
    const again = await reopen();
    expect(chunksOf(again, 'active')).toEqual([500]);
    await sweep(again, 3);
    expect(chunksOf(again, 'active')).toEqual([500]);
    await again.abandon();
    const third = await reopen();
    third.adoptActive();
    expect([chunksOf(third, 'current'), chunksOf(third, 'closed')]).toEqual([[500], [1, 500]]);
    await sweep(third, 2);
    expect(chunksOf(third, 'active')).toEqual([]);
    expect(chunksOf(third, 'changed')).toEqual([1, 500]);
  });

  it('keeps what is active if it ends under a write, or before it was adopted', async () => {
    await map.begin(0, 512);
    await map.close();
    const again = await reopen();
    expect(chunksOf(again, 'active')).toEqual([0]);
    await again.close();
    expect(chunksOf(await reopen(), 'active')).toEqual([0]);
  });

  it('can be made anew with everything in it, in place of one that is there', async () => {
    await write(map, 1);
    await map.abandon();
    const full = await DirtyMap.create(PATH, { ...optionsFor(files), everything: true });
    expect([full.count('closed'), full.count('active')]).toEqual([CHUNKS, 0]);
    await full.close();
    expect((await reopen()).count('changed')).toBe(CHUNKS);
    expect((await files.list('/state')).map(({ name }) => name)).toEqual(['d0.map', 'item.json']);
  });
});

describe('a map that cannot be written', () => {
  it.each(['write', 'sync'] as const)('makes nothing active any more after a %s failed', async (failNext) => {
    await write(map, 1);
    traffic.failNext = failNext;
    const together = [map.begin(500 * CHUNK, 512), map.begin(600 * CHUNK, 512)];
    for (const covering of together) await expect(covering).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    await expect(map.begin(500 * CHUNK, 512)).rejects.toMatchObject({
      code: 'OUTPUT_FAILED',
      cause: { code: 'ENOSPC' },
    });
    expect(map.begin(CHUNK, 512)).toBeUndefined();
    expect(chunksOf(map, 'active')).toEqual([1]);
    await expect(map.markAll()).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    await expect(map.close()).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
  });

  it('is not made', async () => {
    const create = DirtyMap.create('/none/d0.map', optionsFor(files));
    await expect(create).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    for (const change of [
      { chunkBytes: 1000 },
      { sizeBytes: -1 },
      { sizeBytes: 65 * TIB },
      { diskGuid: new Uint8Array(15) },
    ]) {
      await expect(DirtyMap.create(PATH, optionsFor(files, change))).rejects.toThrow(RangeError);
    }
  });
});

describe('the map of 64 TiB', () => {
  it('is made, opened and gone through soon, in memory for what was written', async () => {
    const options = { ...optionsFor(files), sizeBytes: 64 * TIB };
    const before = process.memoryUsage();
    const start = performance.now();
    const large = await DirtyMap.create(PATH, options);
    Object.assign(traffic, { writes: 0, writtenBytes: 0, syncs: 0 });
    await Promise.all(Array.from({ length: 100 }, (_, i) => large.begin(i * 640 * 2 ** 30, 4096)));
    expect(traffic).toMatchObject({ writes: 100, writtenBytes: 100 * 4096, syncs: 1 });
    expect([large.count('changed'), large.count('closed')]).toEqual([100, 0]);
    await large.abandon();
    const again = await DirtyMap.open(PATH, options);
    expect([...again.runs('active')][99]).toEqual({ from: 99 * 640 * 16_384, to: 99 * 640 * 16_384 + 1 });
    again.adoptActive();
    await sweep(again, 2);
    await again.markAll();
    expect(again.count('changed')).toBe(2 ** 30);
    const after = process.memoryUsage();
    const grownBytes = after.heapUsed + after.external - before.heapUsed - before.external;
    expect(performance.now() - start).toBeLessThan(5_000);
    expect(grownBytes).toBeLessThan(48 * 2 ** 20);
  });

  it('gives the memory back of what was acknowledged', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const PAGES = 4000;
    const heldBytes = (): number => {
      collect();
      return process.memoryUsage().arrayBuffers;
    };
    const large = await DirtyMap.create(PATH, { ...optionsFor(files), sizeBytes: 64 * TIB });
    const before = heldBytes();
    const { epoch } = large;
    await Promise.all(Array.from({ length: PAGES }, (_, i) => large.begin(i * PAGE_CHUNKS * CHUNK, 512)));
    for (let i = 0; i < PAGES; i += 1) large.end(epoch);
    await sweep(large, 2);
    // The pages of the file are in memory too, in this test.
    const fileBytes = PAGES * 4096;
    const held = heldBytes() - before - fileBytes;
    large.rotate();
    await large.forgetClosed();
    expect(large.count('changed')).toBe(0);
    expect(held).toBeGreaterThan((PAGES * 4096) / 2);
    await expect.poll(() => heldBytes() - before - fileBytes, { timeout: 10_000 }).toBeLessThan(held / 10);
  });
});
