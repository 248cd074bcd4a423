/**
 * Staged objects in a folder: what they leave beside the key, whose leftovers are removed when, and power cuts at every file
 * operation between the first part and the end of the commit.
 */
import { describe, expect, it } from 'vitest';
import { BlockferryError } from '../../src/errors.ts';
import type { FailpointName, FileSystem } from '../../src/ports.ts';
import { openStore, Retry, RetryingStore, type Store } from '../../src/transport/index.ts';
import { type CrashOptions, crashFileSystem } from '../support/crash-files.ts';
import { errno, memoryFileSystem } from '../support/memory-files.ts';
import { seededRandom, type VirtualClock, virtualClock } from '../support/virtual-clock.ts';
import { collectAll, filled } from './contract.ts';

const PART = 2048;
const HOUR_MS = 3_600_000;

let seed = 0;

/** Each store is another process: its stagings have names of their own. */
function storeOn(
  files: FileSystem,
  clock: VirtualClock = virtualClock(Date.now()),
  failpoint: (name: FailpointName) => void = () => {},
): Promise<Store> {
  seed += 1;
  return openStore('file:///store', { ports: { files, clock, random: seededRandom(seed), failpoint } });
}

async function stagings(files: FileSystem, directory = '/store/logs'): Promise<string[]> {
  const names = (await files.list(directory)).map(({ name }) => name);
  return names.filter((name) => name.includes('@stage-')).map((name) => name.slice(0, name.indexOf('@')));
}

describe('a staged object in a folder', () => {
  it('grows in one file beside its key that no listing shows', async () => {
    const files = memoryFileSystem();
    const store = await storeOn(files);
    const staged = store.stage('logs/1', PART);
    await Promise.all([staged.put(1, filled(10, 2)), staged.put(0, filled(PART, 1))]);
    expect(await stagings(files)).toEqual(['1']);
    expect(await collectAll(store.list(''))).toEqual([]);
    await staged.commit(2);
    expect(await stagings(files)).toEqual([]);
    expect(files.get('/store/logs/1')?.byteLength).toBe(PART + 10);
  });

  it('of a process that died goes with the next commit of its key', async () => {
    const files = memoryFileSystem();
    await (await storeOn(files)).stage('logs/1', PART).put(0, filled(1, 1));
    await (await storeOn(files)).stage('logs/2', PART).put(0, filled(1, 1));
    const next = (await storeOn(files)).stage('logs/1', PART);
    await next.put(0, filled(PART, 2));
    expect(await stagings(files)).toEqual(['1', '1', '2']);
    await next.commit(1);
    expect(await stagings(files)).toEqual(['2']);
  });

  it('of a process that died goes after an hour, one that is alive stays', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock(Date.now());
    await (await storeOn(files, clock)).stage('logs/1', PART).put(0, filled(1, 1));
    await clock.run(clock.sleep(HOUR_MS / 2));
    await (await storeOn(files, clock)).stage('logs/2', PART).put(0, filled(1, 1));
    expect(await stagings(files)).toEqual(['1', '2']);
    await clock.run(clock.sleep(HOUR_MS));
    await (await storeOn(files, clock)).stage('logs/3', PART).put(0, filled(1, 1));
    expect(await stagings(files)).toEqual(['3']);
  });

  it('that slept through its removal does not commit', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock(Date.now());
    const store = await storeOn(files, clock);
    await store.put('logs/1', filled(1, 9));
    const slow = store.stage('logs/1', PART);
    await slow.put(0, filled(1, 1));
    await clock.run(clock.sleep(2 * HOUR_MS));
    await (await storeOn(files, clock)).stage('logs/2', PART).put(0, filled(1, 1));
    await expect(slow.commit(1)).rejects.toMatchObject({ code: 'STORE_CONDITION', retryable: false });
    expect(files.get('/store/logs/1')?.[0]).toBe(9);
  });

  it('does not replace a page blob', async () => {
    const store = await storeOn(memoryFileSystem());
    await store.pages('base').create(4096, 1);
    const staged = store.stage('base', PART);
    await staged.put(0, filled(1, 1));
    await expect(staged.commit(1)).rejects.toMatchObject({ code: 'STORE_REFUSED' });
    expect(await store.pages('base').state()).toEqual({ sizeBytes: 4096, fence: 1 });
  });

  it('that did not get durable is never committed', async () => {
    const files = memoryFileSystem();
    let broken = true;
    const open: FileSystem['open'] = async (path, mode) => {
      const file = await files.open(path, mode);
      const sync = file.sync.bind(file);
      return Object.assign(file, {
        sync: () => (broken && path.includes('@stage-') ? Promise.reject(errno('EIO', path)) : sync()),
      });
    };
    const staged = (await storeOn({ ...files, open })).stage('logs/1', PART);
    await staged.put(0, filled(1, 1));
    await expect(staged.commit(1)).rejects.toMatchObject({ code: 'STORE_REFUSED' });
    broken = false;
    // A second sync would say that all is well.
    await expect(staged.commit(1)).rejects.toMatchObject({ code: 'STORE_REFUSED' });
    await staged.abort();
    expect(await files.list('/store/logs')).toEqual([]);
  });

  it('is tried again where a call fails for a moment, the file being made included', async () => {
    const files = memoryFileSystem();
    const clock = virtualClock(Date.now());
    let failures = 0;
    const failing = (path: string): void => {
      failures += 1;
      if (failures % 2 === 1) throw errno('ESTALE', path);
    };
    const once: FileSystem = {
      ...files,
      async open(path, mode) {
        if (path.includes('@stage-')) failing(path);
        return files.open(path, mode);
      },
      async rename(from, to) {
        failing(from);
        await files.rename(from, to);
      },
      async syncDirectory(path) {
        failing(path);
      },
    };
    const store = new RetryingStore(await storeOn(once, clock), new Retry({ clock, random: seededRandom(1) }));
    const staged = store.stage('logs/1', PART);
    await clock.run(staged.put(0, filled(PART, 1)));
    await clock.run(staged.put(1, filled(5, 1)));
    await clock.run(staged.commit(2));
    await clock.run(staged.abort());
    expect(failures).toBeGreaterThan(5);
    expect(files.get('/store/logs/1')?.byteLength).toBe(PART + 5);
  });
});

/** Runs a staging, cuts the power before operation `cutAt`, and looks at the object in several images of what may be left. */
async function cutAfter(cutAt: number, options: CrashOptions): Promise<{ faults: string[]; operations: number }> {
  const clock = virtualClock();
  const files = crashFileSystem(new Map([['/store/logs/1', filled(100, 1)]]), options);
  files.stopAt = cutAt;
  let isCommitted = false;
  const run = async (): Promise<void> => {
    const staged = (await storeOn(files, clock)).stage('logs/1', PART);
    await Promise.all([1, 0, 2].map((part) => staged.put(part, filled(part === 2 ? 700 : PART, 2))));
    await staged.put(3, filled(PART, 7));
    await staged.commit(3);
    isCommitted = true;
  };
  await clock.run(
    run().catch((error: unknown) => {
      if (!(error instanceof BlockferryError) || !error.message.includes('power is off')) throw error;
    }),
  );
  const faults: string[] = [];
  for (let draw = 1; draw <= 12; draw += 1) {
    const after = await storeOn(files.powerCut(seededRandom(cutAt * 1000 + draw)), clock);
    const bytes = Buffer.from((await clock.run(after.get('logs/1', 1 << 20)))?.bytes ?? []);
    const isOld = bytes.equals(filled(100, 1));
    const isNew = bytes.equals(filled(2 * PART + 700, 2));
    if (!isNew && (isCommitted || !isOld)) faults.push(`cut at ${cutAt}, draw ${draw}: ${bytes.byteLength} bytes`);
    if ((await clock.run(collectAll(after.list('')))).length !== 1) faults.push(`cut at ${cutAt}: listed`);
  }
  return { faults, operations: files.operations };
}

async function cutEverywhere(options: CrashOptions = {}): Promise<string[]> {
  const whole = await cutAfter(Number.MAX_SAFE_INTEGER, options);
  expect(whole.operations).toBeGreaterThan(8);
  const faults = [...whole.faults];
  for (let cutAt = 0; cutAt < whole.operations; cutAt += 1) faults.push(...(await cutAfter(cutAt, options)).faults);
  return faults;
}

describe('a power cut at any file operation of a staging', () => {
  it('leaves the old object or the new one, and the new one after its commit', async () => {
    expect(await cutEverywhere()).toEqual([]);
  });

  it('tears the object where the parts are not synced', async () => {
    expect((await cutEverywhere({ ignoreSyncOf: /@stage-/ })).length).toBeGreaterThan(0);
  });
});
