/**
 * What may go wrong between two steps of a gateway: answers that come late, files and directories that vanish, volumes that fail, and
 * what a client that was half through makes of it. The store never holds a root that names a log it lacks.
 */
import { readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { gatewayHealth } from '../../src/agent/daemon/gateway-health.ts';
import { GatewayKeeper } from '../../src/agent/daemon/gateway-keeper.ts';
import { Shares } from '../../src/agent/daemon/shares.ts';
import { BlockferryError } from '../../src/errors.ts';
import type { GatewayStatus } from '../../src/gateway/index.ts';
import type { Ports } from '../../src/ports.ts';
import { openStore, Retry, RetryingStore, type Store } from '../../src/transport/index.ts';
import { filled } from '../transport/contract.ts';
import { GatewayLab, type LabOptions, roomyPorts } from './support.ts';

type Around = (name: string, args: readonly unknown[], run: () => Promise<unknown>) => Promise<unknown>;

/** What happens to each call of the gateway to its store, and where that is asked for to opening one. */
const line = vi.hoisted((): { around: Around | undefined; isUnknown: boolean } => ({
  around: undefined,
  isUnknown: false,
}));

vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  const watched = <T extends object>(target: T): T =>
    new Proxy(target, {
      get(_, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => {
          const run = (): unknown => value.apply(target, args);
          if (name === 'pages' || name === 'stage') return watched(run() as object);
          if (line.around === undefined || ['list', 'ranges', 'close'].includes(String(name))) return run();
          return line.around(String(name), args, async () => run());
        };
      },
    });
  return {
    ...real,
    openStore: async (url: string, options: Parameters<typeof real.openStore>[1]) => {
      if (!url.startsWith('file:')) return real.openStore(url, options);
      if (line.isUnknown) throw new BlockferryError('STORE_AUTHENTICATION', 'no credential');
      return watched(await real.openStore(url, options));
    },
  };
});

const PLACE = 'main/host1/web1';
const MIB = 1024 * 1024;
let root: string;
let lab: GatewayLab;
let client: Store;
/** The real store, past the gateway. */
let direct: Store;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'blockferry-hostile-'));
});
afterEach(async () => {
  line.around = undefined;
  line.isUnknown = false;
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

async function restart(between: () => void = () => {}): Promise<void> {
  await client.close();
  await lab.stop();
  between();
  await lab.start();
  client = await lab.open(PLACE);
}

const away: Around = async () => {
  throw new BlockferryError('STORE_UNREACHABLE', 'the line is cut', { retryable: true });
};

function firstRoot(): Promise<string> {
  return client.put('root', filled(100, 1), { ifMatch: null });
}

async function rootAt(store: Store): Promise<number | undefined> {
  return (await store.get('root', 1000))?.bytes[0];
}

async function until(isIt: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await isIt()); tries += 1) {
    if (tries === 600) throw new Error('it did not come to be in 30 s');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function drained(): Promise<boolean> {
  return (await lab.gateway.status()).replicas.every(({ queuedBytes }) => queuedBytes === 0);
}

function refusals(): readonly unknown[] {
  return lab.events.filter(({ type }) => type === 'refused');
}

/** The directory of the replica in the cache. */
function cacheOf(): string {
  return join(lab.cacheDirectory, readdirSync(lab.cacheDirectory)[0]!);
}

function writesIn(directory: string): readonly string[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.write'))
    .map((name) => join(directory, name));
}

describe('a log that was answered for and is lost before its root comes', () => {
  it('keeps the root away when its file is damaged', async () => {
    await begin();
    const etag = await firstRoot();
    let tries = 0;
    // An upload that tries again by itself would go on with what it read before the damage.
    line.around = async () => {
      tries += 1;
      throw new BlockferryError('STORE_UNREACHABLE', 'the line is cut');
    };
    await client.put('logs/2', filled(1000, 2));
    await until(() => tries > 0);
    truncateSync(writesIn(cacheOf())[0]!, 500);
    line.around = undefined;
    await until(() => refusals().length > 0);
    await expect(client.put('root', filled(100, 2), { ifMatch: etag, early: true })).rejects.toMatchObject({
      code: 'STORE_CONDITION',
    });
    await expect(client.put('root', filled(100, 2), { ifMatch: etag })).rejects.toMatchObject({
      code: 'STORE_CONDITION',
    });
    expect(await rootAt(direct)).toBe(1);
    // Whoever looks again ships again.
    const again = (await client.get('root', 1000))!.etag;
    await client.put('logs/2', filled(1000, 2));
    await client.put('root', filled(100, 2), { ifMatch: again, early: true });
    await until(drained);
    expect((await direct.get('logs/2', 2000))?.bytes[0]).toBe(2);
    expect(await rootAt(direct)).toBe(2);
  });

  it.each([
    ['when its file was damaged while the gateway was down', () => truncateSync(writesIn(cacheOf())[0]!, 500)],
    ['when the gateway comes back without its cache', () => rmSync(lab.cacheDirectory, { recursive: true })],
  ])('keeps the root away %s', async (_, between) => {
    await begin();
    const etag = await firstRoot();
    line.around = away;
    await client.put('logs/2', filled(1000, 2));
    await restart(between);
    line.around = undefined;
    await expect(client.put('root', filled(100, 2), { ifMatch: etag, early: true })).rejects.toMatchObject({
      code: 'STORE_CONDITION',
    });
    expect(await rootAt(direct)).toBe(1);
  });

  it('keeps the root away when a person took its file', async () => {
    await begin();
    const etag = await firstRoot();
    line.around = away;
    await client.put('logs/2', filled(1000, 2));
    await client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    await until(() => lab.events.some(({ type }) => type === 'upload-failed'));
    rmSync(writesIn(cacheOf())[0]!);
    line.around = undefined;
    await until(() => refusals().length > 0);
    await until(drained);
    expect(await rootAt(direct)).toBe(1);
  });
});

describe('a write of ours that took effect late', () => {
  it('is no root of somebody else', async () => {
    await begin();
    const etag = await firstRoot();
    let late: (() => Promise<unknown>) | undefined;
    let puts = 0;
    line.around = async (name, args, run) => {
      if (name !== 'put' || args[0] !== 'root') return run();
      puts += 1;
      if (puts === 1) {
        // It is on its way; nobody hears of it.
        late = run;
        throw new BlockferryError('STORE_TIMEOUT', 'no answer', { facts: { mayStillApply: true } });
      }
      // It arrives between our look and our next put.
      await late?.();
      late = undefined;
      return run();
    };
    await client.put('logs/2', filled(1000, 2));
    const second = await client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    await until(drained);
    expect(refusals()).toEqual([]);
    expect(await rootAt(direct)).toBe(2);
    await client.put('root', filled(100, 3), { ifMatch: second });
    expect(await rootAt(direct)).toBe(3);
  });

  it('is no end of the queue where it took the parts of the next try away', async () => {
    await begin();
    await firstRoot();
    let commits = 0;
    line.around = async (name, _, run) => {
      if (name !== 'commit') return run();
      commits += 1;
      if (commits === 1) throw new BlockferryError('STORE_TIMEOUT', 'no answer', { facts: { mayStillApply: true } });
      if (commits === 2) throw new BlockferryError('STORE_CONDITION', 'another staging of the key was committed first');
      return run();
    };
    const staged = client.stage('logs/2', MIB);
    for (let i = 0; i < 3; i += 1) await staged.put(i, filled(MIB, i + 1));
    await staged.commit(3);
    await until(drained);
    expect(refusals()).toEqual([]);
    expect((await direct.get('logs/2', 4 * MIB))?.bytes.byteLength).toBe(3 * MIB);
  });
});

describe('a cache', () => {
  it('that does not say whose its writes are is not emptied', async () => {
    await begin();
    const etag = await firstRoot();
    line.around = away;
    await client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    const directory = cacheOf();
    const place = readFileSync(join(directory, 'place'));
    await restart(() => writeFileSync(join(directory, 'place'), ''));
    await expect(client.get('root', 1000)).rejects.toMatchObject({ code: 'GATEWAY_CACHE' });
    expect(writesIn(directory)).toHaveLength(1);
    const status = await lab.gateway.status();
    expect(status.replicas).toMatchObject([{ place: directory, failure: { code: 'GATEWAY_CACHE' } }]);
    expect(gatewayHealth(status, Date.now()).level).not.toBe('normal');
    line.around = undefined;
    await restart(() => writeFileSync(join(directory, 'place'), place));
    await until(drained);
    expect(await rootAt(direct)).toBe(2);
  });

  it('whose store cannot be opened at the start is told, and goes on when it can', async () => {
    let sleeps = 0;
    const real = roomyPorts();
    const sleep: Ports['clock']['sleep'] = (ms, signal) => {
      if (ms === 30_000) sleeps += 1;
      return real.clock.sleep(Math.min(ms, 200), signal);
    };
    await begin({ ports: { ...real, clock: { ...real.clock, sleep } } });
    const etag = await firstRoot();
    line.around = away;
    await client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    line.isUnknown = true;
    await restart();
    line.around = undefined;
    const { replicas } = await lab.gateway.status();
    expect(replicas).toMatchObject([{ failure: { code: 'STORE_AUTHENTICATION' } }]);
    await until(() => sleeps >= 2);
    expect(lab.events.filter(({ type }) => type === 'fault')).toHaveLength(1);
    line.isUnknown = false;
    // Nobody asks for it: its machine may be gone.
    await until(async () => (await rootAt(direct)) === 2);
    await until(async () => (await lab.gateway.status()).replicas.every(({ failure }) => failure === undefined));
  });

  it('keeps what was refused, and says so after a restart', async () => {
    await begin();
    const etag = await firstRoot();
    line.around = away;
    await client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    await direct.put('root', filled(100, 99));
    line.around = undefined;
    await until(() => refusals().length > 0);
    const directory = cacheOf();
    await restart();
    const status = await lab.gateway.status();
    expect(status.replicas[0]?.refused).toHaveLength(1);
    expect(gatewayHealth(status, Date.now()).findings[0]?.code).toBe('GATEWAY_REFUSED');
    // Not even for another store of that name.
    await restart(() =>
      writeFileSync(join(directory, 'place'), JSON.stringify({ place: PLACE, url: 'file:///other' })),
    );
    await client.get('root', 1000);
    expect((await lab.gateway.status()).replicas[0]?.refused).toHaveLength(1);
  });
});

describe('a volume that fails', () => {
  /** Ports whose file system fails where `fails` says so. */
  function failing(fails: (name: string, path: string) => boolean): Ports {
    const ports = roomyPorts();
    const files = new Proxy(ports.files, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        return async (...args: unknown[]) => {
          if (fails(String(name), String(args[0]))) throw Object.assign(new Error('EMFILE'), { code: 'EMFILE' });
          return value.apply(target, args);
        };
      },
    });
    return { ...ports, files };
  }

  it('leaves nothing of a root that was not answered for', async () => {
    let isFailing = false;
    const isWrite = (path: string): boolean => path.endsWith('.write');
    await begin({ ports: failing((name, path) => isFailing && name === 'open' && isWrite(path)) });
    const etag = await firstRoot();
    line.around = away;
    isFailing = true;
    const failed = client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    await expect(failed).rejects.toMatchObject({ code: 'STORE_UNREACHABLE' });
    isFailing = false;
    await client.put('root', filled(100, 3), { ifMatch: etag, early: true });
    await restart();
    line.around = undefined;
    await until(drained);
    expect(refusals()).toEqual([]);
    expect(await rootAt(direct)).toBe(3);
  });

  it('holds the queue up for as long as it fails, and no longer', async () => {
    let failures = 0;
    await begin({
      ports: failing((name, path) => name === 'syncDirectory' && path.includes('/cache/') && failures-- > 0),
    });
    const etag = await firstRoot();
    line.around = away;
    await client.put('logs/2', filled(1000, 2));
    const second = await client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    failures = 1;
    line.around = undefined;
    await until(drained);
    await client.put('root', filled(100, 3), { ifMatch: second, early: true });
    await until(drained);
    expect(await rootAt(direct)).toBe(3);
    expect(refusals()).toEqual([]);
  });

  it('moves a refused queue aside when it can again', async () => {
    let failures = 0;
    await begin({
      ports: failing((name, path) => name === 'makeDirectory' && path.includes('refused') && failures-- > 0),
    });
    const etag = await firstRoot();
    line.around = away;
    await client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    await direct.put('root', filled(100, 99));
    failures = 1;
    line.around = undefined;
    await until(() => refusals().length > 0);
    expect(await rootAt(client)).toBe(99);
  });

  it('takes the room of a part once, however often it is put', async () => {
    await begin();
    const staged = client.stage('logs/2', 1000);
    for (let tries = 0; tries < 3; tries += 1) await staged.put(0, filled(1000, 2));
    expect((await lab.gateway.status()).cache.usedBytes).toBe(1000);
    await staged.abort();
    expect((await lab.gateway.status()).cache.usedBytes).toBe(0);
  });

  it('takes no room for parts whose commit failed', async () => {
    let isFailing = false;
    await begin({ ports: failing((name, path) => isFailing && name === 'rename' && path.includes('staging-')) });
    const staged = client.stage('logs/2', 1000);
    await staged.put(0, filled(1000, 2));
    isFailing = true;
    await expect(staged.commit(1)).rejects.toMatchObject({ code: 'STORE_UNREACHABLE' });
    expect((await lab.gateway.status()).cache.usedBytes).toBe(0);
    expect(readdirSync(cacheOf()).filter((name) => name.startsWith('staging-'))).toEqual([]);
  });
});

describe('a gateway', () => {
  it('takes logs while all that goes through waits for its store', async () => {
    await begin();
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const blob = client.pages('disk');
    await blob.create(64 * MIB, 1);
    line.around = async (name, _, run) => {
      if (name === 'write') await gate;
      return run();
    };
    const passing = Array.from({ length: 40 }, (_, i) =>
      blob.write(filled(4 * MIB, 1), (i % 16) * 4 * MIB, { fence: 1 }),
    );
    await new Promise((resolve) => setTimeout(resolve, 500));
    const other = await lab.open(PLACE);
    const startedMs = performance.now();
    await other.put('logs/2', filled(MIB, 2));
    expect(performance.now() - startedMs).toBeLessThan(2_000);
    go();
    await Promise.all(passing);
    await other.close();
  });

  it('answers a cycle though its store says nothing', async () => {
    const real = roomyPorts();
    const sleep: Ports['clock']['sleep'] = (ms, signal) => real.clock.sleep(ms === 10_000 ? 300 : ms, signal);
    await begin({ ports: { ...real, clock: { ...real.clock, sleep } } });
    const etag = await firstRoot();
    line.around = (_, args) =>
      new Promise((_resolve, reject) => {
        const { signal } = args.at(-1) as { readonly signal: AbortSignal };
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    const startedMs = performance.now();
    // More of them than there would be room for, were each to wait.
    const roots = await Promise.all(Array.from({ length: 20 }, () => client.get('root', 16 * MIB)));
    expect(roots.every((found) => found?.etag === etag)).toBe(true);
    await client.put('logs/2', filled(1000, 2));
    await client.put('root', filled(100, 2), { ifMatch: etag, early: true });
    expect(performance.now() - startedMs).toBeLessThan(5_000);
  });

  it('serves one store while another one says nothing', async () => {
    await begin();
    const { tokenFile } = lab;
    const config = {
      listen: { host: '127.0.0.1', port: 0 },
      cache: { directory: join(lab.directory, 'other-cache'), limitBytes: 1 << 30, lowSpace: 'tell' as const },
      stores: ['a', 'b'].map((name) => ({ name, url: pathToFileURL(join(root, name)).href })),
      clients: [{ name: 'one', tokenFile, may: ['a', 'b'] }],
    };
    const ports = roomyPorts();
    const keeper = await GatewayKeeper.start({
      config,
      ports,
      environment: {},
      shares: new Shares(ports.clock, 4),
      tell: () => {},
    });
    const options = { ports, environment: { gateway: { tokenFile } } };
    const [a, b] = await Promise.all(
      ['a/x', 'b/x'].map((place) => openStore(`${keeper.status.url}/${place}`, options)),
    );
    await b!.put('object', filled(10, 1));
    await a!.pages('disk').create(MIB, 1);
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    line.around = async (name, _, run) => {
      if (name === 'write') await gate;
      return run();
    };
    const hung = Array.from({ length: 12 }, () => a!.pages('disk').write(filled(512, 1), 0, { fence: 1 }));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect((await b!.read('object', 0, 10))[0]).toBe(1);
    go();
    await Promise.all(hung);
    for (const store of [a!, b!]) await store.close();
    await keeper.close();
  });

  it('gives the room of what a client left half done to others', async () => {
    const real = roomyPorts();
    let laterMs = 0;
    const clock = { ...real.clock, monotonicMs: () => real.clock.monotonicMs() + laterMs };
    await begin({ ports: { ...real, clock }, cache: { limitBytes: MIB } });
    await client.stage('logs/1', MIB).put(0, filled(MIB, 1));
    await expect(client.put('logs/2', filled(10, 2))).rejects.toMatchObject({ code: 'STORE_THROTTLED' });
    laterMs = 3_600_001;
    await client.put('logs/2', filled(10, 2));
  });

  it('cuts off who does not get to the point', { timeout: 30_000 }, async () => {
    await begin();
    const { port } = new URL(lab.gateway.url.replace('gateway+', ''));
    const socket = connect(Number(port), '127.0.0.1', () => socket.write('POST /v1/main/a HTTP/1.1\r\nhost: x\r\n'));
    socket.on('data', () => {}).on('error', () => {});
    const startedMs = performance.now();
    await new Promise<void>((resolve) => socket.on('close', () => resolve()));
    expect(performance.now() - startedMs).toBeLessThan(20_000);
  });

  it('that was started anew in the middle of an upload says that its parts are gone', async () => {
    await begin();
    const staged = client.stage('logs/2', 1000);
    await staged.put(0, filled(1000, 2));
    await lab.stop();
    await lab.start();
    await staged.put(1, filled(1000, 2));
    await expect(staged.commit(2)).rejects.toMatchObject({ code: 'STORE_CONDITION' });
  });

  it('that is full keeps its clients waiting, and nothing of theirs fails for good', async () => {
    await begin({ cache: { limitBytes: MIB } });
    line.around = away;
    await client.put('logs/1', filled(2 * MIB, 1));
    const real = roomyPorts();
    const clock = { ...real.clock, sleep: (ms: number, signal?: AbortSignal) => real.clock.sleep(ms / 20, signal) };
    const waits: number[] = [];
    const onRetry = ({ waitMs }: { readonly waitMs: number }): void => void waits.push(waitMs);
    const patient = new RetryingStore(client, new Retry({ clock, random: real.random, onRetry }));
    const put = patient.put('logs/2', filled(10, 2));
    await until(() => waits.length >= 2);
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(5_000);
    line.around = undefined;
    await put;
    await until(drained);
    expect((await direct.get('logs/2', 100))?.bytes[0]).toBe(2);
  });

  it('says that nothing is taken in only where that is so', () => {
    const at = (lowSpace: 'act' | 'tell'): GatewayStatus => ({
      url: '',
      cache: {
        directory: '/c',
        usedBytes: 1,
        limitBytes: 9,
        lowSpace,
        freeBytes: 19,
        totalBytes: 100,
        verdict: 'stop',
      },
      denied: 0,
      replicas: [],
    });
    const [acting] = gatewayHealth(at('act'), 0).findings;
    const [telling] = gatewayHealth(at('tell'), 0).findings;
    expect(acting).toMatchObject({
      code: 'GATEWAY_SPACE',
      cause: '19 % of the volume of /c is free; nothing is taken in',
    });
    expect(telling).toMatchObject({ code: 'GATEWAY_SPACE', cause: '19 % of the volume of /c is free' });
  });

  it('is critical when nothing got through for a quarter of an hour, though nothing failed', () => {
    const nowMs = 10_000_000;
    const at = (movedMs: number): GatewayStatus => ({
      url: '',
      cache: {
        directory: '',
        usedBytes: 1,
        limitBytes: 9,
        lowSpace: 'act',
        freeBytes: 9,
        totalBytes: 10,
        verdict: 'ok',
      },
      denied: 0,
      replicas: [{ place: PLACE, url: '', queuedBytes: 1, points: 1, oldestMs: 0, movedMs, refused: [] }],
    });
    expect(gatewayHealth(at(nowMs - 899_000), nowMs).level).toBe('normal');
    expect(gatewayHealth(at(nowMs - 900_000), nowMs).findings).toMatchObject([
      { code: 'GATEWAY_STORE_AWAY', severity: 'critical' },
    ]);
  });
});
