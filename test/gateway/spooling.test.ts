/** What a gateway holds: durability, order, one view, refusal, damage, limits. The real store can be cut off and is looked at directly. */
import { openSync, readdirSync, statSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BlockferryError } from '../../src/errors.ts';
import type { Store } from '../../src/transport/index.ts';
import { filled } from '../transport/contract.ts';
import { GatewayLab, type LabOptions, roomyPorts } from './support.ts';

/** Whether the real store answers. */
const line = vi.hoisted(() => ({ isCut: false }));

vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  const cut = (): BlockferryError => new BlockferryError('STORE_UNREACHABLE', 'the line is cut', { retryable: true });
  const cuttable = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(_, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        if (name === 'close') return value.bind(target);
        return (...args: unknown[]) => {
          if (name === 'pages' || name === 'stage') return cuttable(value.apply(target, args) as object);
          if (!line.isCut) return value.apply(target, args);
          if (name === 'list' || name === 'ranges') throw cut();
          return Promise.reject(cut());
        };
      },
    });
  return {
    ...real,
    openStore: async (url: string, options: Parameters<typeof real.openStore>[1]) => {
      const store = await real.openStore(url, options);
      return url.startsWith('file:') && !url.includes('direct') ? cuttable(store) : store;
    },
  };
});

const PLACE = 'main/host1/web1';
const MIB = 1024 * 1024;
let root: string;
let lab: GatewayLab;
let client: Store;
/** The real store, past the gateway and whatever happens to its line. */
let direct: Store;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'blockferry-spool-'));
  await begin();
});
afterEach(async () => {
  line.isCut = false;
  await client.close();
  await lab.close();
  await rm(root, { recursive: true });
});

async function begin(options: Partial<LabOptions> = {}): Promise<void> {
  lab = await GatewayLab.start({ url: pathToFileURL(root).href, ...options });
  client = await lab.open(PLACE);
  const { openStore: open } = await vi.importActual<typeof import('../../src/transport/open-store.ts')>(
    '../../src/transport/open-store.ts',
  );
  direct = await open(`${pathToFileURL(root).href}/host1/web1`, { ports: roomyPorts() });
}

/** A first root at the store, as a first copy leaves it. Returns its etag. */
async function firstRoot(): Promise<string> {
  return await client.put('root', filled(100, 1), { ifMatch: null });
}

/** A cycle: a log, then the root that names it. Returns the etag of the root. */
async function cycle(number: number, ifMatch: string, logBytes = 1000): Promise<string> {
  await client.put(`logs/${number}`, filled(logBytes, number));
  return await client.put('root', filled(100, number), { ifMatch, early: true });
}

async function rootAt(store: Store): Promise<number | undefined> {
  return (await store.get('root', 1000))?.bytes[0];
}

async function settled(): Promise<number | undefined> {
  return (await client.settled?.('root', 1000))?.bytes[0];
}

async function until(isIt: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await isIt()); tries += 1) {
    if (tries === 400) throw new Error('it did not come to be in 20 s');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function drained(): Promise<boolean> {
  return (await lab.gateway.status()).replicas.every(({ queuedBytes }) => queuedBytes === 0);
}

function cacheFiles(): readonly string[] {
  const names = readdirSync(lab.cacheDirectory, { recursive: true, encoding: 'utf8' });
  return names.filter((name) => name.endsWith('.write')).map((name) => join(lab.cacheDirectory, name));
}

/** A gateway that another process would start after a kill: nothing is closed, nothing is told. */
async function restart(): Promise<void> {
  await client.close();
  await lab.stop();
  await lab.start();
  client = await lab.open(PLACE);
}

describe('while the store is away', () => {
  it('cycles go on, seen by all clients, and reach the store in order when it is back', async () => {
    let etag = await firstRoot();
    await client.put('replica.json', filled(10, 9));
    await client.get('replica.json', 100);
    line.isCut = true;
    for (let i = 2; i <= 5; i += 1) etag = await cycle(i, etag);
    const other = await lab.open(PLACE);
    expect(await rootAt(other)).toBe(5);
    expect((await other.get('root', 1000))?.etag).toBe(etag);
    expect((await other.read('logs/3', 10, 10))[0]).toBe(3);
    expect((await other.get('replica.json', 100))?.bytes[0]).toBe(9);
    await other.close();
    expect(await rootAt(direct)).toBe(1);
    expect(await settled()).toBe(1);
    const [replica] = (await lab.gateway.status()).replicas;
    expect(replica).toMatchObject({ place: PLACE, points: 4 });

    line.isCut = false;
    await until(drained);
    expect(await rootAt(direct)).toBe(5);
    for (let i = 2; i <= 5; i += 1) expect((await direct.get(`logs/${i}`, 2000))?.bytes[0]).toBe(i);
    expect(await settled()).toBe(5);
    // The etag that a client held through all of it is still the one of this root.
    await client.put('root', filled(100, 6), { ifMatch: etag });
    expect(await rootAt(direct)).toBe(6);
  });

  it('a root is swapped against what waits, not against what the store has', async () => {
    const first = await firstRoot();
    line.isCut = true;
    const second = await cycle(2, first);
    for (const early of [true, false]) {
      const late = client.put('root', filled(100, 3), { ifMatch: first, early });
      await expect(late).rejects.toMatchObject({ code: early ? 'STORE_CONDITION' : 'STORE_THROTTLED' });
    }
    const both = await Promise.allSettled([cycle(3, second), cycle(4, second)]);
    expect(both.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('what was answered for outlives the process', async () => {
    const etag = await firstRoot();
    line.isCut = true;
    const second = await cycle(2, etag);
    const staged = client.stage('logs/3', 64 * 1024);
    for (let i = 0; i < 5; i += 1) await staged.put(i, filled(i < 4 ? 64 * 1024 : 77, i + 10));
    await staged.commit(5);
    await restart();
    expect(await rootAt(client)).toBe(2);
    expect((await client.read('logs/3', 4 * 64 * 1024, 77))[76]).toBe(14);
    await client.put('root', filled(100, 3), { ifMatch: second, early: true });
    await restart();
    line.isCut = false;
    await until(drained);
    expect(await rootAt(direct)).toBe(3);
    expect((await direct.get('logs/3', MIB))?.bytes.byteLength).toBe(4 * 64 * 1024 + 77);
  });

  it('any other write, and any listing, waits for what came before it, and says so', async () => {
    const etag = await firstRoot();
    line.isCut = true;
    await cycle(2, etag);
    await until(async () => (await lab.gateway.status()).replicas[0]?.failure !== undefined);
    const throttled = { code: 'STORE_THROTTLED', retryable: true, facts: { retryAfterMs: 2000 } };
    await expect(client.delete('logs/2')).rejects.toMatchObject(throttled);
    await expect(client.put('pins/1', filled(1, 1))).rejects.toMatchObject(throttled);
    await expect(client.pages('disks/d0/base').raiseFence(2, undefined)).rejects.toMatchObject(throttled);
    await expect(client.list('pins/')[Symbol.asyncIterator]().next()).rejects.toMatchObject(throttled);
    line.isCut = false;
    await until(drained);
    await client.delete('logs/2');
    expect(await direct.get('logs/2', 2000)).toBeUndefined();
  });
});

describe('a barrier', () => {
  it('lets nothing past what was answered for before it', async () => {
    let etag = await firstRoot();
    for (let i = 2; i <= 20; i += 1) {
      etag = await cycle(i, etag);
      await client.put('keyring.json', filled(4, i));
      expect(await rootAt(direct)).toBe(i);
    }
  });
});

describe('a root of somebody else at the store', () => {
  it('ends the queue: it is kept aside and told, and the store is the view again', async () => {
    const etag = await firstRoot();
    line.isCut = true;
    expect(await rootAt(client)).toBe(1);
    await cycle(3, await cycle(2, etag));
    const there = await direct.get('root', 1000);
    await direct.put('root', filled(100, 99), { ifMatch: there!.etag });
    line.isCut = false;
    await until(async () => lab.events.some(({ type }) => type === 'refused'));
    // At once, though the store was away a moment ago.
    expect(await rootAt(client)).toBe(99);
    expect(await settled()).toBe(99);
    expect(await rootAt(direct)).toBe(99);
    const [replica] = (await lab.gateway.status()).replicas;
    expect(replica).toMatchObject({ queuedBytes: 0, points: 0 });
    expect(replica?.refused).toHaveLength(1);
    const kept = readdirSync(replica!.refused[0]!);
    expect(kept).toHaveLength(4 - (await keptAtStore()));
    // Whoever goes on from there is taken again.
    const now = await client.get('root', 1000);
    await cycle(100, now!.etag);
    await until(drained);
    expect(await rootAt(direct)).toBe(100);
  });

  /** Logs may have gone before the root was refused. */
  async function keptAtStore(): Promise<number> {
    return (await direct.get('logs/2', 2000)) ? 1 : 0;
  }

  it('is none if it is ours: a root whose answer was lost is there', async () => {
    const etag = await firstRoot();
    line.isCut = true;
    const second = await cycle(2, etag);
    await cycle(3, second);
    // As after a kill between upload and removal.
    const there = await direct.get('root', 1000);
    await direct.put('root', filled(100, 2), { ifMatch: there!.etag });
    line.isCut = false;
    await until(drained);
    expect(await rootAt(direct)).toBe(3);
    expect(lab.events.filter(({ type }) => type === 'refused')).toEqual([]);
  });
});

describe('a damaged file of the cache', () => {
  it.each([
    ['in its body', 1024 + 5],
    ['in its header', 70],
    ['in its table', -3],
  ])('%s is never sent, and told', async (_, at) => {
    const etag = await firstRoot();
    line.isCut = true;
    await cycle(2, etag);
    const [log] = [...cacheFiles()].sort();
    const fd = openSync(log!, 'r+');
    writeSync(fd, Buffer.from([0xff]), 0, 1, at < 0 ? statSync(log!).size + at : at);
    await restart();
    line.isCut = false;
    await until(async () => lab.events.some(({ type }) => type === 'refused'));
    expect(lab.events.find(({ type }) => type === 'refused')).toMatchObject({
      reason: expect.stringMatching(/checksum|kind/),
    });
    expect(await rootAt(direct)).toBe(1);
    expect(await direct.get('logs/2', 2000)).toBeUndefined();
    expect(await rootAt(client)).toBe(1);
  });
});

describe('a full cache', () => {
  it('begins nothing more, and takes it again when there is room', async () => {
    await client.close();
    await lab.close();
    await begin({ cache: { limitBytes: 3 * MIB } });
    let etag = await firstRoot();
    line.isCut = true;
    etag = await cycle(2, etag, 2 * MIB);
    etag = await cycle(3, etag, 2 * MIB);
    const throttled = { code: 'STORE_THROTTLED', retryable: true, facts: { retryAfterMs: 5000 } };
    await expect(client.put('logs/4', filled(10, 4))).rejects.toMatchObject(throttled);
    await expect(client.stage('logs/4', 10).put(0, filled(10, 4))).rejects.toMatchObject(throttled);
    line.isCut = false;
    await until(drained);
    await cycle(4, etag, 2 * MIB);
    await until(drained);
    expect(await rootAt(direct)).toBe(4);
  });

  it('takes nothing while its volume has less than a fifth free', async () => {
    await client.close();
    await lab.close();
    const ports = roomyPorts();
    let freeBytes = 199;
    const files = { ...ports.files, freeBytes: async () => freeBytes };
    await begin({ ports: { ...ports, files } });
    await expect(client.put('logs/2', filled(10, 4))).rejects.toMatchObject({ code: 'STORE_THROTTLED' });
    expect((await lab.gateway.status()).cache.verdict).toBe('stop');
    freeBytes = 200;
    await client.put('logs/2', filled(10, 4));
  });
});

describe('the line', () => {
  it('carries no more than its cap', async () => {
    await client.close();
    await lab.close();
    await begin({ bandwidthBytesPerSecond: 2 * MIB });
    const etag = await firstRoot();
    const startedMs = performance.now();
    await cycle(3, await cycle(2, etag, 2 * MIB), 2 * MIB);
    expect(performance.now() - startedMs).toBeLessThan(900);
    await until(drained);
    expect(performance.now() - startedMs).toBeGreaterThan(900);
  });
});
