/**
 * Power cuts in a folder store: a run of writes, clears, snapshots and deletions is stopped after each of its file
 * operations, and what a cut there may leave is opened again. Every snapshot that was promised must read as it was taken,
 * every flushed byte must be there, an object must be whole.
 */
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import type { FileSystem } from '../../src/ports.ts';
import { openStore, type PageBlob, type Store, type StorePorts } from '../../src/transport/index.ts';
import { type CrashFileSystem, type CrashOptions, crashFileSystem } from '../support/crash-files.ts';
import { seededRandom, type VirtualClock, virtualClock } from '../support/virtual-clock.ts';

const KIB = 1024;
const SIZE = 320 * KIB;
const KEY = 'base';
const DRAWS = Number(process.env['BLOCKFERRY_DRAWS'] ?? 4);
const GUARD = { fence: 1 };

/** What has been promised so far. */
interface Promised {
  /** Live bytes that were flushed, and the sectors that changed since. */
  flushed: Buffer;
  readonly touched: Set<number>;
  readonly snapshots: Map<string, Buffer>;
  /** First byte of the object: the last acknowledged, and the one under way. */
  object: number;
  objectNext: number;
}

function portsOver(files: FileSystem, clock: VirtualClock): StorePorts {
  return { files, clock, random: seededRandom(1), failpoint: () => {} };
}

async function everything(files: FileSystem): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  const walk = async (path: string): Promise<void> => {
    for (const { name, kind } of await files.list(path)) {
      const child = `${path === '/' ? '' : path}/${name}`;
      if (kind === 'directory') await walk(child);
      else found.set(child, (await files.readSmall(child, 1 << 30)) as Uint8Array);
    }
  };
  await walk('/');
  return found;
}

/** A folder with a blob whose first three granules hold ones, all durable. */
async function startImage(clock: VirtualClock): Promise<Map<string, Uint8Array>> {
  const files = crashFileSystem(new Map());
  const store = await openStore('file:///store', { ports: portsOver(files, clock) });
  await clock.run(
    (async () => {
      const blob = store.pages(KEY);
      await store.prepare();
      await blob.create(SIZE, 1);
      await blob.write(new Uint8Array(192 * KIB).fill(1), 0, GUARD);
      await blob.flush();
      await store.put('root', new Uint8Array(3000).fill(1));
    })(),
  );
  return await everything(files);
}

/** The run that is cut. Each step notes what it promises when it has been answered. */
async function scenario(store: Store, promised: Promised): Promise<void> {
  const blob = store.pages(KEY);
  const live = Buffer.from(promised.flushed);

  const change = async (value: number, offset: number, lengthBytes: number): Promise<void> => {
    for (let at = offset; at < offset + lengthBytes; at += 512) promised.touched.add(at);
    live.fill(value, offset, offset + lengthBytes);
    if (value === 0) await blob.clear(offset, lengthBytes, GUARD);
    else await blob.write(new Uint8Array(lengthBytes).fill(value), offset, GUARD);
  };
  const flush = async (): Promise<void> => {
    await blob.flush();
    promised.flushed = Buffer.from(live);
    promised.touched.clear();
  };
  const snapshot = async (): Promise<string> => {
    const content = Buffer.from(live);
    const name = await blob.snapshot(GUARD);
    promised.snapshots.set(name, content);
    promised.flushed = content;
    promised.touched.clear();
    return name;
  };
  const forget = async (name: string): Promise<void> => {
    promised.snapshots.delete(name);
    await blob.deleteSnapshot(name);
  };

  const first = await snapshot();
  await Promise.all([change(2, 512, 1024), change(3, 60 * KIB, 8 * KIB), change(4, 200 * KIB, 2048)]);
  await change(0, 64 * KIB, 66 * KIB);
  const second = await snapshot();
  await Promise.all([change(5, 0, 128 * KIB), change(6, 256 * KIB, 512)]);
  await flush();
  const third = await snapshot();
  await Promise.all([change(7, 64 * KIB, 64 * KIB), change(8, 130 * KIB, 512)]);
  await forget(second);
  await change(9, 0, 4096);
  await forget(third);
  await change(10, 132 * KIB, 512);
  await forget(first);
  const etag = (await store.get('root', 3000))?.etag as string;
  promised.objectNext = 2;
  await store.put('root', new Uint8Array(3000).fill(2), { ifMatch: etag });
  promised.object = 2;
}

/** Faults of what a cut left; empty if all promises hold. */
async function faultsOf(blob: PageBlob, store: Store, promised: Promised): Promise<string[]> {
  const faults: string[] = [];
  const check = async (): Promise<void> => {
    for (const [snapshot, content] of promised.snapshots) {
      const read = await blob.read(0, SIZE, { snapshot }).catch((error: unknown) => error);
      if (!(read instanceof Uint8Array) || !content.equals(read))
        faults.push(`snapshot ${snapshot}: ${String(read).slice(0, 80)}`);
    }
  };
  await check();
  const live = Buffer.from(await blob.read(0, SIZE));
  for (let at = 0; at < SIZE; at += 512) {
    if (promised.touched.has(at)) continue;
    if (!live.subarray(at, at + 512).equals(promised.flushed.subarray(at, at + 512))) faults.push(`live at ${at}`);
  }
  const object = (await store.get('root', 3000))?.bytes;
  const values = new Set(object);
  const value = object?.[0];
  if (
    object?.byteLength !== 3000 ||
    values.size !== 1 ||
    (value !== promised.object && value !== promised.objectNext)
  ) {
    faults.push(`object of ${object?.byteLength} bytes, ${value}`);
  }
  // Life goes on: whatever is written now, the snapshots stay.
  const write = await blob.write(new Uint8Array(SIZE).fill(99), 0, GUARD).catch((error: unknown) => error);
  if (write !== undefined) faults.push(`snapshots keep the blob from being written: ${String(write)}`);
  await check();
  return faults;
}

/** What happens at the cut: the power fails; or the process is killed, another one writes a little, then it fails. */
interface Cut extends CrashOptions {
  readonly kill?: boolean;
  /** After the kill the first sync of a path that matches does nothing. */
  readonly skipFirstSyncOf?: RegExp;
}

/** Another process takes over what the killed one left, unsynced bytes included, and writes into one granule. */
async function goOnAfterKill(
  files: CrashFileSystem,
  clock: VirtualClock,
  promised: Promised,
  cut: Cut,
  granule: number,
): Promise<void> {
  files.stopAt = Number.POSITIVE_INFINITY;
  files.skipNextSyncOf = cut.skipFirstSyncOf;
  const store = await openStore('file:///store', { ports: portsOver(files, clock) });
  const offset = granule * 64 * KIB;
  for (let at = offset; at < offset + 64 * KIB; at += 512) promised.touched.add(at);
  await clock.run(store.pages(KEY).write(new Uint8Array(64 * KIB).fill(77), offset, GUARD));
}

/** Runs the scenario, cuts before operation `cutAt`, and counts what is broken afterwards. */
async function cutAfter(
  cutAt: number,
  before: Map<string, Uint8Array>,
  cut: Cut,
): Promise<{ faults: string[]; files: CrashFileSystem }> {
  const clock = virtualClock();
  const files = crashFileSystem(before, cut);
  files.stopAt = cutAt;
  const promised: Promised = {
    flushed: Buffer.concat([Buffer.alloc(192 * KIB, 1), Buffer.alloc(SIZE - 192 * KIB)]),
    touched: new Set(),
    snapshots: new Map(),
    object: 1,
    objectNext: 1,
  };
  const store = await openStore('file:///store', { ports: portsOver(files, clock) });
  await clock.run(
    scenario(store, promised).catch((error: unknown) => {
      if (!isBlockferryError(error) || !error.message.includes('power is off')) throw error;
    }),
  );
  if (cut.kill) await goOnAfterKill(files, clock, promised, cut, cutAt % 5);
  const faults: string[] = [];
  for (let draw = 1; draw <= DRAWS; draw += 1) {
    const image = files.powerCut(seededRandom(cutAt * 1000 + draw));
    const after = await openStore('file:///store', { ports: portsOver(image, clock) });
    const found = await clock.run(faultsOf(after.pages(KEY), after, promised));
    faults.push(...found.map((fault) => `cut at ${cutAt}, draw ${draw}: ${fault}`));
    await after.close();
  }
  return { faults, files };
}

/** Cuts after each operation, the last one first; stops at a fault that contains `until`. */
async function cutEverywhere(cut: Cut, until?: string): Promise<{ faults: string[]; cuts: number }> {
  const before = await startImage(virtualClock());
  const { files } = await cutAfter(Number.MAX_SAFE_INTEGER, before, { ...cut, kill: false });
  const faults: string[] = [];
  for (let cutAt = files.operations; cutAt >= 0; cutAt -= 1) {
    faults.push(...(await cutAfter(cutAt, before, cut)).faults);
    if (until !== undefined && faults.some((fault) => fault.includes(until))) break;
  }
  return { faults, cuts: files.operations };
}

describe('a power cut at any file operation of a folder store', () => {
  it('leaves every promised snapshot, every flushed byte and whole objects', async () => {
    const { faults, cuts } = await cutEverywhere({});
    expect(faults).toEqual([]);
    expect(cuts).toBeGreaterThan(100);
  });

  it('and a kill before it, after which another process went on, leave them too', async () => {
    const { faults } = await cutEverywhere({ kill: true });
    expect(faults).toEqual([]);
  });

  it('breaks snapshots where what a killed process left is taken for durable', async () => {
    const { faults } = await cutEverywhere({ kill: true, skipFirstSyncOf: /undo-\d+$/ }, 'snapshot');
    expect(faults.join('\n')).toContain('snapshot');
  });

  /** A snapshot is deleted by another process than the one that was killed while it wrote into the next older one. */
  async function mergedAfterKill(skipNextSyncOf?: RegExp): Promise<boolean> {
    const ones = Buffer.alloc(64 * KIB, 1);
    for (let killAt = 0; killAt < 8; killAt += 1) {
      const clock = virtualClock();
      const files = crashFileSystem(await startImage(clock));
      const reopened = async (over: FileSystem): Promise<PageBlob> =>
        (await openStore('file:///store', { ports: portsOver(over, clock) })).pages(KEY);
      const killed = await reopened(files);
      const older = await clock.run(killed.snapshot(GUARD));
      files.stopAt = files.operations + killAt;
      await clock.run(killed.write(Buffer.alloc(64 * KIB, 2), 0, GUARD).catch(() => {}));
      files.stopAt = Number.POSITIVE_INFINITY;
      const blob = await reopened(files);
      const newer = await clock.run(blob.snapshot(GUARD));
      await clock.run(blob.write(Buffer.alloc(64 * KIB, 3), 0, GUARD));
      files.skipNextSyncOf = skipNextSyncOf;
      await clock.run(blob.deleteSnapshot(newer));
      for (let draw = 0; draw < 8; draw += 1) {
        const after = await reopened(files.powerCut(seededRandom(killAt * 10 + draw)));
        const read = await clock.run(after.read(0, 64 * KIB, { snapshot: older }));
        if (!ones.equals(read)) return false;
      }
    }
    return true;
  }

  it('keeps a snapshot whole whose newer neighbour was deleted after a kill', async () => {
    expect(await mergedAfterKill()).toBe(true);
  });

  it('breaks snapshots where old content is not synced before the live bytes change', async () => {
    const { faults } = await cutEverywhere({ ignoreSyncOf: /undo-\d+$/ }, 'snapshot');
    expect(faults.join('\n')).toContain('snapshot');
  });

  it('loses flushed bytes where the live file is not synced', async () => {
    const { faults } = await cutEverywhere({ ignoreSyncOf: /\/base$/ }, 'live at');
    expect(faults.join('\n')).toContain('live at');
  });

  it('tears objects that are not synced before they get their name', async () => {
    const { faults } = await cutEverywhere({ ignoreSyncOf: /root@new$/ }, 'object of');
    expect(faults.join('\n')).toContain('object of');
  });
});
