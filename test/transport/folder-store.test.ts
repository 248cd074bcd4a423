/** What only a folder does: its plain files, two processes at once, its lock, its lease by wall clock, its failpoints. */
import { describe, expect, it, vi } from 'vitest';
import { BlockferryError } from '../../src/errors.ts';
import type { FailpointName, FileSystem } from '../../src/ports.ts';
import { newUndoHeader } from '../../src/transport/folder-undo.ts';
import { openStore, type PageBlob, type Store } from '../../src/transport/index.ts';
import { errno, memoryFileSystem } from '../support/memory-files.ts';
import { seededRandom, type VirtualClock, virtualClock } from '../support/virtual-clock.ts';
import { collectAll, filled } from './contract.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const LEASE_A = '6c1a5b1e-0d53-4d5c-9a53-2f1d7f1f0a01';
const LEASE_B = '6c1a5b1e-0d53-4d5c-9a53-2f1d7f1f0a02';
const GUARD = { fence: 1 };

function storeOn(
  files: FileSystem,
  clock: VirtualClock = virtualClock(),
  failpoint: (name: FailpointName) => void = () => {},
): Promise<Store> {
  return openStore('file:///store', { ports: { files, clock, random: seededRandom(1), failpoint } });
}

/** Files whose reads go through `through`. */
function readingThrough(
  files: FileSystem,
  through: (path: string, read: () => Promise<number>, position: number) => Promise<number>,
): FileSystem {
  const open: FileSystem['open'] = async (path, mode) => {
    const file = await files.open(path, mode);
    const read = file.read.bind(file);
    return Object.assign(file, {
      read: (into: Uint8Array, position: number) => through(path, () => read(into, position), position),
    });
  };
  return { ...files, open };
}

/** A blob full of ones, with a snapshot of that. */
async function frozenBlob(
  store: Store,
  sizeBytes: number,
): Promise<{ readonly blob: PageBlob; readonly snapshot: string }> {
  const blob = store.pages('base');
  await blob.create(sizeBytes, 1);
  await blob.write(filled(sizeBytes, 1), 0, GUARD);
  return { blob, snapshot: await blob.snapshot(GUARD) };
}

describe('a page blob in a folder', () => {
  it('is a plain file with nothing of ours in it', async () => {
    const files = memoryFileSystem();
    const store = await storeOn(files);
    const blob = store.pages('disks/d0/base');
    await blob.create(64 * KIB, 1);
    await blob.write(filled(512, 1), 512, GUARD);
    await blob.snapshot(GUARD);
    await blob.write(filled(512, 2), 1024, GUARD);
    const plain = Buffer.alloc(64 * KIB);
    plain.fill(1, 512, 1024).fill(2, 1024, 1536);
    expect(Buffer.from(files.get('/store/disks/d0/base') ?? []).equals(plain)).toBe(true);
  });

  it('keeps nothing beside it while there is no snapshot', async () => {
    const files = memoryFileSystem();
    const store = await storeOn(files);
    const blob = store.pages('base');
    await blob.create(1 * MIB, 1);
    await blob.write(filled(64 * KIB, 1), 0, GUARD);
    const name = await blob.snapshot(GUARD);
    await blob.write(filled(64 * KIB, 2), 0, GUARD);
    await blob.deleteSnapshot(name);
    await blob.write(filled(64 * KIB, 3), 0, GUARD);
    const beside = (await files.list('/store/base@blob')).map((entry) => entry.name);
    expect(beside).toEqual(['map', 'state']);
  });

  it('keeps old content once a granule, whole, and zeros as a mark', async () => {
    const files = memoryFileSystem();
    const store = await storeOn(files);
    const blob = store.pages('base');
    await blob.create(8 * MIB, 1);
    await blob.write(filled(64 * KIB, 1), 0, GUARD);
    const name = await blob.snapshot(GUARD);
    for (let i = 0; i < 10; i += 1) await blob.write(filled(512, i), i * 512, GUARD);
    await blob.write(filled(1 * MIB, 5), 4 * MIB, GUARD);
    // File header, one record of a granule, one record without bytes.
    expect(files.get(`/store/base@blob/undo-${name}`)?.byteLength).toBe(4096 + (4096 + 64 * KIB) + 4096);
  });

  it('shows a reader in another process a snapshot that stays as it was while the blob changes', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const { blob, snapshot } = await frozenBlob(await storeOn(files, clock), 2 * MIB);
    const reader = (await storeOn(files, clock)).pages('base');
    expect((await reader.read(0, 1, { snapshot }))[0]).toBe(1);
    for (let i = 0; i < 32; i += 1) {
      const [read] = await Promise.all([
        reader.read(0, 2 * MIB, { snapshot }),
        blob.write(filled(64 * KIB, i + 2), i * 64 * KIB, GUARD),
      ]);
      expect(Buffer.from(read).equals(filled(2 * MIB, 1))).toBe(true);
      if (i === 15) await blob.snapshot(GUARD);
      if (i === 20) await blob.deleteSnapshot(await blob.snapshot(GUARD));
    }
  });

  it('lets many readers in another process go on while snapshots come and go', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const { blob, snapshot } = await frozenBlob(await storeOn(files, clock), 1 * MIB);
    const reader = (await storeOn(files, clock)).pages('base');
    for (let i = 0; i < 20; i += 1) {
      const reads = Array.from({ length: 6 }, (_, lane) => reader.read(lane * 64 * KIB, 64 * KIB, { snapshot }));
      const [, ...found] = await Promise.all([
        (async () => {
          const passing = await blob.snapshot(GUARD);
          await blob.write(filled(64 * KIB, i + 2), (i % 16) * 64 * KIB, GUARD);
          await blob.deleteSnapshot(passing);
        })(),
        ...reads,
      ]);
      for (const bytes of found) expect(Buffer.from(bytes).equals(filled(64 * KIB, 1))).toBe(true);
    }
  });

  it('reads live bytes again where they were overtaken between the undo file and the read', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const { blob, snapshot } = await frozenBlob(await storeOn(files, clock), 128 * KIB);
    let overtakes = 1;
    const open: FileSystem['open'] = async (path, mode) => {
      const file = await files.open(path, mode);
      if (path !== '/store/base') return file;
      const read: typeof file.read = async (into, position) => {
        if (overtakes-- > 0) await blob.write(filled(512, 9), 0, GUARD);
        return await file.read(into, position);
      };
      return Object.assign(Object.create(file) as typeof file, {
        read,
        sizeBytes: () => file.sizeBytes(),
        close: () => file.close(),
      });
    };
    const reader = (await storeOn({ ...files, open }, clock)).pages('base');
    expect((await reader.read(0, 1, { snapshot }))[0]).toBe(1);
    expect(overtakes).toBeLessThan(1);
  });

  it('does not take a look that began before a read had ended for one that tells of it', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const { blob, snapshot } = await frozenBlob(await storeOn(files, clock), 128 * KIB);
    let holdsLooks = false;
    let letGo: () => void = () => {};
    const slow = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const looks: string[] = [];
    const reader = (
      await storeOn(
        readingThrough(files, async (path, read) => {
          const got = await read();
          if (!holdsLooks || !path.endsWith(`undo-${snapshot}`)) return got;
          looks.push(path);
          await slow;
          return got;
        }),
        clock,
      )
    ).pages('base');
    expect((await reader.read(0, 1, { snapshot }))[0]).toBe(1);
    holdsLooks = true;
    const first = reader.read(0, 1, { snapshot });
    await vi.waitFor(() => expect(looks).toHaveLength(1));
    await blob.write(filled(512, 9), 64 * KIB, GUARD);
    const second = reader.read(64 * KIB, 1, { snapshot });
    await new Promise((resolve) => setTimeout(resolve, 20));
    letGo();
    expect([(await first)[0], (await second)[0]]).toEqual([1, 1]);
  });

  it('reads a run of a snapshot in one call, with one look for all that is read at the same time, to where it is asked to', async () => {
    const files = memoryFileSystem();
    const blob = (await storeOn(files)).pages('base');
    await blob.create(8 * MIB, 1);
    await blob.write(filled(4 * MIB, 1), 0, GUARD);
    await blob.write(filled(4 * MIB, 2), 4 * MIB, GUARD);
    const snapshot = await blob.snapshot(GUARD);
    const calls = new Map<string, number>();
    const reader = (
      await storeOn(
        readingThrough(files, (path, read) => {
          calls.set(path, (calls.get(path) ?? 0) + 1);
          return read();
        }),
      )
    ).pages('base');
    await reader.read(0, 512, { snapshot });
    calls.clear();
    const into = new Uint8Array(8 * MIB);
    const reads = Array.from({ length: 8 }, (_, i) =>
      reader.read(i * MIB, MIB, { snapshot, into: into.subarray(i * MIB, (i + 1) * MIB) }),
    );
    for (const bytes of await Promise.all(reads)) expect(bytes.buffer).toBe(into.buffer);
    expect(Buffer.from(into).equals(Buffer.concat([filled(4 * MIB, 1), filled(4 * MIB, 2)]))).toBe(true);
    expect(calls.get('/store/base')).toBe(8);
    expect(calls.get('/store/base@blob/state')).toBeLessThanOrEqual(2);
    const short = reader.read(0, MIB, { snapshot, into: new Uint8Array(512) });
    await expect(short).rejects.toThrow('a place of 512 bytes does not take a read of 1048576');
  });

  it('has nothing under way any more when a read of it has failed: its place may be used for another try', async () => {
    const files = memoryFileSystem();
    const { blob, snapshot } = await frozenBlob(await storeOn(files), 192 * KIB);
    // What is kept of the granule in the middle parts the live bytes into two runs.
    await blob.write(filled(512, 9), 64 * KIB, GUARD);
    const events: string[] = [];
    const through = async (path: string, read: () => Promise<number>, position: number): Promise<number> => {
      if (path !== '/store/base') return await read();
      if (position > 0) throw errno('EIO', path);
      await new Promise((resolve) => setTimeout(resolve, 30));
      events.push('the slow run has ended');
      return await read();
    };
    const reader = (await storeOn(readingThrough(files, through))).pages('base');
    const failed = reader.read(0, 192 * KIB, { snapshot }).catch(() => events.push('the read has failed'));
    await failed;
    expect(events).toEqual(['the slow run has ended', 'the read has failed']);
  });

  it('is not read any more from its snapshots when another process removed it, also where it was created anew', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const { blob, snapshot } = await frozenBlob(await storeOn(files, clock), 1 * MIB);
    const reader = (await storeOn(files, clock)).pages('base');
    expect((await reader.read(0, 1, { snapshot }))[0]).toBe(1);
    await blob.remove();
    await expect(reader.read(0, 1, { snapshot })).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
    await blob.create(1 * MIB, 1);
    await expect(reader.read(0, 1, { snapshot })).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
    await blob.write(filled(1 * MIB, 2), 0, GUARD);
    expect(await blob.snapshot(GUARD)).toBe(snapshot);
    expect((await reader.read(0, 1, { snapshot }))[0]).toBe(2);
    await blob.remove();
    await blob.create(2 * MIB, 1);
    await blob.write(filled(1 * MIB, 3), 1 * MIB, GUARD);
    expect(await blob.snapshot(GUARD)).toBe(snapshot);
    expect((await reader.read(1 * MIB, 1, { snapshot }))[0]).toBe(3);
  });

  it('lets no neighbour in a granule write before its old content is durable', async () => {
    const files = memoryFileSystem();
    const events: string[] = [];
    let letGo: () => void = () => {};
    const slow = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const open: FileSystem['open'] = async (path, mode) => {
      const file = await files.open(path, mode);
      const [write, sync] = [file.write.bind(file), file.sync.bind(file)];
      return Object.assign(file, {
        async write(from: Uint8Array, position: number) {
          if (path === '/store/base') events.push(`write at ${position}`);
          await write(from, position);
        },
        async sync() {
          if (path.endsWith('undo-0000000001') && events.length > 0) {
            await slow;
            events.push('undo is durable');
          }
          await sync();
        },
      });
    };
    const blob = (await storeOn({ ...files, open })).pages('base');
    await blob.create(1 * MIB, 1);
    await blob.write(filled(1 * MIB, 1), 0, GUARD);
    const snapshot = await blob.snapshot(GUARD);
    // Opens the undo file, in another granule.
    events.length = 0;
    const writes = [blob.write(filled(512, 2), 0, GUARD)];
    await new Promise((resolve) => setTimeout(resolve, 20));
    events.push('a keeper is at work');
    writes.push(blob.write(filled(512, 3), 128 * KIB, GUARD), blob.write(filled(512, 4), 129 * KIB, GUARD));
    await new Promise((resolve) => setTimeout(resolve, 20));
    writes.push(blob.write(filled(512, 5), 130 * KIB, GUARD));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(events).toEqual(['write at 0', 'a keeper is at work']);
    letGo();
    await Promise.all(writes);
    expect(events[2]).toBe('undo is durable');
    expect(files.get(`/store/base@blob/undo-${snapshot}`)?.byteLength).toBe(4096 + 2 * (4096 + 64 * KIB));
    expect(Buffer.from(await blob.read(0, 1 * MIB, { snapshot })).equals(filled(1 * MIB, 1))).toBe(true);
  });

  it('hands down what was kept while a deletion waited for the lock', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const blob = (await storeOn(files, clock)).pages('base');
    await blob.create(1 * MIB, 1);
    await blob.write(filled(1 * MIB, 1), 0, GUARD);
    const older = await blob.snapshot(GUARD);
    const newer = await blob.snapshot(GUARD);
    await blob.write(filled(512, 2), 0, GUARD);
    files.put('/store/@lock/1001', new Uint8Array());
    const deleted = blob.deleteSnapshot(newer);
    const wrote = clock.sleep(5000).then(() => blob.write(filled(512, 3), 512 * KIB, GUARD));
    await clock.run(Promise.all([deleted, wrote]));
    expect(await blob.snapshots()).toEqual([older]);
    expect(Buffer.from(await blob.read(0, 1 * MIB, { snapshot: older })).equals(filled(1 * MIB, 1))).toBe(true);
  });

  it('completes a snapshot whose creation was cut short before other processes could learn of it', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const { snapshot } = await frozenBlob(await storeOn(files, clock), 1 * MIB);
    const reader = (await storeOn(files, clock)).pages('base');
    expect((await reader.read(0, 1, { snapshot }))[0]).toBe(1);
    files.put('/store/base@blob/undo-0000000002', newUndoHeader(2, 1 * MIB));
    const next = (await storeOn(files, clock)).pages('base');
    await next.write(filled(512, 2), 0, GUARD);
    expect((await reader.read(0, 1, { snapshot }))[0]).toBe(1);
    expect(await next.snapshot(GUARD)).toBe('0000000003');
  });

  it('stops a writer whose fence was raised, or whose blob was removed, by another process', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const blob = (await storeOn(files, clock)).pages('base');
    const other = (await storeOn(files, clock)).pages('base');
    await blob.create(1 * MIB, 1);
    await blob.write(filled(512, 1), 0, GUARD);
    await other.raiseFence(2, undefined);
    await expect(blob.write(filled(512, 2), 0, GUARD)).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
    await other.remove();
    await expect(blob.write(filled(512, 2), 0, { fence: 2 })).rejects.toMatchObject({ code: 'STORE_NOT_FOUND' });
    await other.create(2 * MIB, 7);
    expect(await blob.state()).toEqual({ sizeBytes: 2 * MIB, fence: 7 });
  });

  it('knows after a take-over what another process wrote and froze', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const blob = (await storeOn(files, clock)).pages('base');
    const other = (await storeOn(files, clock)).pages('base');
    await blob.create(16 * MIB, 1);
    await blob.write(filled(512, 1), 0, GUARD);
    await other.raiseFence(2, undefined);
    await other.write(filled(512, 2), 8 * MIB, { fence: 2 });
    const snapshot = await other.snapshot({ fence: 2 });
    await blob.raiseFence(3, undefined);
    await blob.clear(8 * MIB, 512, { fence: 3 });
    expect((await blob.read(8 * MIB, 1))[0]).toBe(0);
    expect((await other.read(8 * MIB, 1, { snapshot }))[0]).toBe(2);
  });

  it('ends a lease by the wall clock, and tells how long it lasts', async () => {
    const clock = virtualClock();
    const files = memoryFileSystem();
    const blob = (await storeOn(files, clock)).pages('base');
    await blob.create(1 * MIB, 1);
    await blob.acquireLease(LEASE_A, 15);
    await clock.run(clock.sleep(10_000));
    await expect(blob.acquireLease(LEASE_B, 15)).rejects.toMatchObject({ facts: { expiresInMs: 5000 } });
    await blob.renewLease(LEASE_A);
    await clock.run(clock.sleep(15_000));
    await expect(blob.write(filled(512, 1), 0, { fence: 1, leaseId: LEASE_A })).rejects.toMatchObject({
      code: 'REPLICA_LEASED',
    });
    await blob.acquireLease(LEASE_B, 15);
    await expect(blob.renewLease(LEASE_A)).rejects.toMatchObject({ code: 'REPLICA_LEASED' });
  });

  it('is refused when its file was cut, its state is damaged, or it is a plain file', async () => {
    const files = memoryFileSystem();
    await (await storeOn(files)).pages('base').create(1 * MIB, 1);
    const whole = files.get('/store/base@blob/state') as Uint8Array;
    files.put('/store/base', filled(512 * KIB, 0));
    const refused = { code: 'STORE_REFUSED' };
    await expect((await storeOn(files)).pages('base').state()).rejects.toMatchObject(refused);
    files.put('/store/base', filled(1 * MIB, 0));
    files.put('/store/base@blob/state', filled(8192, 0));
    await expect((await storeOn(files)).pages('base').state()).rejects.toMatchObject(refused);
    files.put('/store/base@blob/state', whole);
    expect(await (await storeOn(files)).pages('base').state()).toBeDefined();
    files.put('/store/plain', filled(512, 0));
    await expect((await storeOn(files)).pages('plain').state()).rejects.toMatchObject(refused);
    await expect((await storeOn(files)).put('base', filled(1, 1))).rejects.toMatchObject(refused);
    await expect((await storeOn(files)).delete('base')).rejects.toMatchObject(refused);
  });

  it('refuses to go on after a sync that failed', async () => {
    const files = memoryFileSystem();
    let failing = false;
    const open: FileSystem['open'] = async (path, mode) => {
      const file = await files.open(path, mode);
      const sync = async (): Promise<void> => {
        if (failing && path === '/store/base') throw errno('EIO', path);
      };
      return Object.assign(file, { sync });
    };
    const blob = (await storeOn({ ...files, open })).pages('base');
    await blob.create(1 * MIB, 1);
    await blob.write(filled(512, 1), 0, GUARD);
    failing = true;
    await expect(blob.flush()).rejects.toMatchObject({ code: 'STORE_REFUSED' });
    failing = false;
    await expect(blob.flush()).rejects.toMatchObject({ code: 'STORE_REFUSED' });
    await expect(blob.write(filled(512, 1), 0, GUARD)).rejects.toMatchObject({ code: 'STORE_REFUSED' });
  });
});

describe('a folder store', () => {
  it('says which error of the system means what', async () => {
    const files = memoryFileSystem();
    for (const [code, expected] of [
      ['ENOSPC', 'STORE_FULL'],
      ['EACCES', 'STORE_REFUSED'],
      ['ESTALE', 'STORE_UNREACHABLE'],
      ['EIO', 'STORE_REFUSED'],
    ] as const) {
      const rename: FileSystem['rename'] = async (from) => {
        throw errno(code, from);
      };
      const store = await storeOn({ ...files, rename });
      await expect(store.put('root', filled(1, 1))).rejects.toMatchObject({
        code: expected,
        retryable: expected === 'STORE_UNREACHABLE',
      });
    }
  });

  it('leaves the old object when it is stopped before the rename, and cleans up at the next put', async () => {
    const files = memoryFileSystem();
    const failpoint = (name: FailpointName): void => {
      if (name === 'object.after-temporary') throw new BlockferryError('FAILPOINT', name);
    };
    await (await storeOn(files)).put('root', filled(10, 1));
    await expect((await storeOn(files, virtualClock(), failpoint)).put('root', filled(10, 2))).rejects.toMatchObject({
      code: 'FAILPOINT',
    });
    const store = await storeOn(files);
    expect((await store.get('root', 10))?.bytes[0]).toBe(1);
    expect(await collectAll(store.list(''))).toEqual(['root']);
    await store.put('root', filled(10, 3));
    expect(files.get('/store/root@new')).toBeUndefined();
  });

  it('stands at its failpoints in the order undo, write', async () => {
    const names: FailpointName[] = [];
    const store = await storeOn(memoryFileSystem(), virtualClock(), (name) => names.push(name));
    const blob = store.pages('base');
    await blob.create(1 * MIB, 1);
    await blob.write(filled(512, 1), 0, GUARD);
    await blob.clear(0, 512, GUARD);
    expect(names).toEqual(['folder.after-undo', 'folder.after-write', 'folder.after-undo', 'folder.after-write']);
  });

  it('lets one of two processes win that compare and swap the same object', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const stores = await Promise.all([storeOn(files, clock), storeOn(files, clock), storeOn(files, clock)]);
    let etag = await (stores[0] as Store).put('root', filled(8, 0));
    for (let round = 1; round <= 20; round += 1) {
      const puts = stores.map((store, i) => store.put('root', filled(8, round * 3 + i), { ifMatch: etag }));
      const results = await clock.run(Promise.allSettled(puts));
      const won = results.filter((result) => result.status === 'fulfilled');
      expect(won).toHaveLength(1);
      etag = won[0]?.value as string;
    }
  });

  it('does not take the lock for free because it looked too early', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    await files.makeDirectory('/store/@lock');
    files.put('/store/@lock/7', new Uint8Array());
    let early = true;
    const list: FileSystem['list'] = async (path) => {
      if (!early || !path.endsWith('@lock')) return await files.list(path);
      early = false;
      return [{ name: '4', kind: 'file' }];
    };
    await clock.run((await storeOn({ ...files, list }, clock)).put('root', filled(1, 1)));
    expect(clock.monotonicMs()).toBeGreaterThanOrEqual(15_000);
  });

  it('takes over the lock of a process that died, but not of one that is alive', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    await files.makeDirectory('/store/@lock');
    files.put('/store/@lock/7', new Uint8Array());
    const store = await storeOn(files, clock);
    const startMs = clock.monotonicMs();
    await clock.run(store.put('root', filled(1, 1)));
    expect(clock.monotonicMs() - startMs).toBeGreaterThanOrEqual(15_000);
    const againMs = clock.monotonicMs();
    await clock.run(store.put('root', filled(1, 2)));
    expect(clock.monotonicMs()).toBe(againMs);
  });

  it('does not replace an object after its lock was taken over', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    const slow = await openStore('file:///store', {
      ports: {
        files,
        clock,
        random: seededRandom(1),
        failpoint: async (name) => {
          if (name === 'object.after-temporary') await clock.sleep(60_000);
        },
      },
    });
    const etag = await (await storeOn(files, clock)).put('root', filled(1, 0));
    const put = slow.put('root', filled(1, 1), { ifMatch: etag });
    const other = clock
      .sleep(1000)
      .then(async () => (await storeOn(files, clock)).put('root', filled(1, 2), { ifMatch: etag }));
    const results = await clock.run(Promise.allSettled([put, other]));
    expect(results).toMatchObject([
      { status: 'rejected', reason: { code: 'STORE_UNREACHABLE', retryable: true } },
      { status: 'fulfilled' },
    ]);
    expect((await slow.get('root', 1))?.bytes[0]).toBe(2);
  });

  it('stops waiting for the lock when its caller aborts', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock();
    await files.makeDirectory('/store/@lock');
    files.put('/store/@lock/1', new Uint8Array());
    const controller = new AbortController();
    void clock.sleep(500).then(() => controller.abort());
    const put = (await storeOn(files, clock)).put('root', filled(1, 1), { signal: controller.signal });
    await expect(clock.run(put)).rejects.toMatchObject({ code: 'ABORTED' });
  });
});
