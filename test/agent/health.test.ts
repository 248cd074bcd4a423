/**
 * Each thing that the page of health documents, done to a real item (files, folder store, emulator, tracker): status names the
 * right reason with what and where, and the step that mends it; and where the step is quick, it does mend it.
 */
import { mkdtemp, readdir, readFile, rename, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { connectAgent, loadConfig, startAgent } from '../../src/agent/daemon/index.ts';
import {
  apply,
  cancel,
  commit,
  failback,
  failover,
  failoverPlanned,
  protect,
  resync,
  reverse,
  ship,
  status,
} from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { trackedItem } from '../../src/agent/tracking.ts';
import type { ItemStatus, Session } from '../../src/agent/types.ts';
import { BlockferryError } from '../../src/errors.ts';
import { nodePorts } from '../../src/host/index.ts';
import type { FailpointName, Ports } from '../../src/ports.ts';
import { ControlServer, controlPath, diskStamp, type ItemTracker, openTracker } from '../../src/tracker/index.ts';
import { noise } from '../chunker/support.ts';
import { startAzurite } from '../support/azurite.ts';
import { buildVhd } from '../support/vhd-builder.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const CHUNK = 65_536;
const DISK_BYTES = 16 * CHUNK;
const HOUR_MS = 3_600_000;

/** What is wrong with the machine below the item: nothing, unless a test says so. */
class Faults {
  armed: FailpointName | undefined;
  /** What the operating system says when a change log is written. */
  logError: string | undefined;
  aheadMs = 0;
}

let directory: string;
let faults: Faults;
let session: Session;
let disk: string;
let url: string;
const ended: (() => Promise<void>)[] = [];

/** The real thing, but that waits are short, logs can fail, and a step can be interrupted. */
function portsWith(state: Faults): Ports {
  const real = nodePorts();
  const through = <T extends object>(target: T, own: Partial<T>): T =>
    new Proxy(target, {
      get: (_, key) => {
        const value: unknown = key in own ? own[key as keyof T] : Reflect.get(target, key);
        return typeof value === 'function' && !(key in own) ? value.bind(target) : value;
      },
    });
  return {
    ...real,
    clock: through(real.clock, {
      nowMs: () => real.clock.nowMs() + state.aheadMs,
      // Waits between two tries; what is longer bounds a try.
      sleep: (ms, signal) => real.clock.sleep(ms > 2000 ? ms : Math.min(ms, 5), signal),
    }),
    files: through(real.files, {
      // However full the machine is that tests run on.
      freeBytes: (path) => real.files.volumeBytes(path),
      open: async (path, mode) => {
        const file = await real.files.open(path, mode);
        if (!path.endsWith('.hrl')) return file;
        const fault = (code: string): Error => Object.assign(new Error(`${code}: write`), { code });
        return through(file, {
          write: (bytes, position) =>
            state.logError === undefined ? file.write(bytes, position) : Promise.reject(fault(state.logError)),
          writeNow: (pieces, position) => {
            if (state.logError !== undefined) throw fault(state.logError);
            file.writeNow!(pieces, position);
          },
        });
      },
    }),
    failpoint: (name) => {
      if (name !== state.armed) return;
      throw new BlockferryError('FAILPOINT', `failpoint ${name}`);
    },
  };
}

const sessionOf = (home: string): Session => ({
  ports: portsWith(faults),
  home: join(directory, home),
  environment: {},
  workers: 2,
});

async function protectDisk(): Promise<void> {
  await protect(session, { name: 'vm', disks: [disk], url, chunkBytes: CHUNK, keys: [] });
}

async function look(from: Session = session): Promise<ItemStatus> {
  const [item] = await status(from, 'vm');
  return item!;
}

/** The reasons, worst first. */
async function reasons(from?: Session): Promise<readonly string[]> {
  return (await look(from)).findings.map(({ code }) => code);
}

async function expectNormal(): Promise<void> {
  expect(await look()).toMatchObject({ state: 'protected', health: 'normal', findings: [] });
}

interface Expected {
  readonly state: ItemStatus['state'];
  readonly code: string;
  readonly cause: RegExp;
  readonly action: RegExp;
}

/** The worst reason, and that everything else of the record agrees with it. */
async function expectCritical(expected: Expected, from?: Session): Promise<void> {
  await expectWorst('critical', expected, from);
}

async function expectWorst(severity: string, { state, code, cause, action }: Expected, from?: Session): Promise<void> {
  const item = await look(from);
  expect(item).toMatchObject({ state, health: severity });
  const [worst] = item.findings;
  expect(worst).toMatchObject({ code, severity });
  expect(worst!.cause).toMatch(cause);
  expect(worst!.action).toMatch(action);
  expect(item).toMatchObject({ cause: worst!.cause, action: worst!.action });
}

/** A tracker of this process, and a guest that writes through its device. */
class Served {
  readonly tracker: ItemTracker;
  readonly #control: ControlServer;
  #isOver = false;

  private constructor(tracker: ItemTracker) {
    this.tracker = tracker;
    this.#control = new ControlServer(tracker, session.ports.clock);
  }

  static async start(): Promise<Served> {
    const item = new LocalItem(session.home, 'vm', session.ports.files);
    const tracked = trackedItem(session, item, await item.load(), (await item.loadDescription())!);
    const served = new Served(await openTracker(tracked));
    ended.push(() => served.crash());
    await served.#control.listen(controlPath(tracked.directory), session.ports.files);
    return served;
  }

  write(offset: number, lengthBytes: number): Promise<void> {
    return this.tracker.devices[0]!.write(Buffer.alloc(lengthBytes, 7), offset, true);
  }

  async stop(): Promise<void> {
    if (!(await this.#leave())) return;
    await this.tracker.close(({ source }) => diskStamp(source, session.ports));
  }

  /** As kill -9 leaves it. */
  async crash(): Promise<void> {
    if (await this.#leave()) await this.tracker.abandon();
  }

  async #leave(): Promise<boolean> {
    if (this.#isOver) return false;
    this.#isOver = true;
    await this.#control.close();
    return true;
  }
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'bf-health-'));
  faults = new Faults();
  session = sessionOf('home');
  disk = join(directory, 'disk.raw');
  url = pathToFileURL(join(directory, 'store')).href;
  await writeFile(disk, noise(DISK_BYTES, 1));
});
afterEach(async () => {
  for (const end of ended.splice(0).reverse()) await end();
  await rm(directory, { recursive: true, force: true });
});

describe('the store', () => {
  it('that does not answer, and one that refuses the credentials', async () => {
    const azurite = await startAzurite();
    let isRunning = true;
    ended.push(async () => {
      if (isRunning) await azurite.stop();
    });
    url = `${azurite.account}/health/vm`;
    await protectDisk();
    await expectNormal();
    const AccountKey = Buffer.alloc(64, 1).toString('base64');
    const refused = `DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=${AccountKey};BlobEndpoint=${azurite.account};`;
    const wrong = { ...session, environment: { connectionString: refused } };
    const credentials = {
      code: 'CREDENTIALS_REFUSED',
      cause: /403|authentic/i,
      action: /AZURE_STORAGE_CONNECTION_STRING|SAS/,
    };
    await expectCritical({ state: 'unknown', ...credentials }, wrong);
    await expectNormal();
    await azurite.stop();
    isRunning = false;
    const silent = {
      code: 'STORE_UNREACHABLE',
      cause: /ECONNREFUSED.*, at http:\/\/127\.0\.0\.1:\d+\/devstoreaccount1\/health\/vm$/,
      action: /network|firewall|address|URL/i,
    };
    await expectCritical({ state: 'unknown', ...silent });
    expect(JSON.stringify(await look())).not.toContain(AccountKey);
  }, 60_000);

  it('whose folder is gone', async () => {
    await protectDisk();
    await rename(join(directory, 'store'), join(directory, 'elsewhere'));
    await expectCritical({ state: 'unknown', code: 'REPLICA_GONE', cause: /store holds no replica/, action: /URL/ });
    await rename(join(directory, 'elsewhere'), join(directory, 'store'));
    await expectNormal();
  });

  it('that was never written to is no loss', async () => {
    faults.armed = 'protect.after-claim';
    await expect(protectDisk()).rejects.toMatchObject({ code: 'FAILPOINT' });
    faults.armed = undefined;
    expect(await look()).toMatchObject({ state: 'initial-replication', replicationState: { code: 2 } });
    await protectDisk();
    await expectNormal();
  });
});

describe('the replica', () => {
  const root = () => join(directory, 'store', 'root');

  it('whose commit record is damaged', async () => {
    await protectDisk();
    const whole = await readFile(root());
    const damaged = Buffer.from(whole);
    damaged[damaged.byteLength >> 1]! ^= 1;
    await writeFile(root(), damaged);
    await expectCritical({
      state: 'unknown',
      code: 'REPLICA_UNREADABLE',
      cause: /root/,
      action: /do not write to it.*backup of the store|restore/,
    });
    await writeFile(root(), whole);
    await expectNormal();
  });

  it('that was put back to an earlier state', async () => {
    await protectDisk();
    const before = await readFile(root());
    await writeFile(disk, noise(DISK_BYTES, 2));
    await resync(session, 'vm');
    await writeFile(root(), before);
    const cause = /generation \d+/;
    await expectCritical({ state: 'unknown', code: 'REPLICA_ROLLED_BACK', cause, action: /put|older|backup|restore/ });
  });

  it('whose key is missing, and whose key is another one', async () => {
    await protectDisk();
    const item = join(session.home, 'items', 'vm');
    await rename(join(item, 'master.key'), join(directory, 'master.key'));
    await expectNormal();
    await rename(join(item, 'vm.key'), join(directory, 'vm.key'));
    await expectCritical({
      state: 'unknown',
      code: 'KEY_MISSING',
      cause: /vm\.key: there is no such file/,
      action: /key/,
    });
    await writeFile(join(item, 'vm.key'), `blockferry-key-1 ${Buffer.alloc(32, 3).toString('base64')}\n`);
    await expectCritical({ state: 'unknown', code: 'KEY_REFUSED', cause: /opens none of its 1 slots/, action: /key/ });
    await rename(join(directory, 'vm.key'), join(item, 'vm.key'));
    await expectNormal();
  });

  it('that follows another side, whose disks were brought back, waited, and took over', async () => {
    await protectDisk();
    const there = sessionOf('there');
    const keys = [{ type: 'key-file', path: join(session.home, 'items', 'vm', 'vm.key') }] as const;
    const outDirectory = join(directory, 'out');
    const request = { point: 'latest', outDirectory, format: 'raw' } as const;
    await failover(there, { name: 'vm', url, keys }, request);
    const waits = { code: 'FAILOVER_WAITING', cause: /point p\d+ .* since 20/, action: /commit vm.*cancel vm/ };
    await expectWorst('warning', { state: 'failover-waiting', ...waits }, there);
    expect(await look(there)).toMatchObject({ url, disks: [{ disk: 'd0' }] });
    await expectNormal();
    await commit(there, 'vm');
    const reverse = { code: 'REVERSE_MISSING', cause: /took over from point p\d+/, action: /blockferry reverse vm/ };
    await expectWorst('warning', { state: 'failed-over', ...reverse }, there);
    await expectWorst('warning', { state: 'other-side', ...reverse });
    expect(await reasons()).toEqual(['REVERSE_MISSING', 'OTHER_SIDE']);
    const served = await Served.start();
    const astray = {
      code: 'WRITES_NOT_FOLLOWED',
      cause: /does not follow since/,
      action: /stop the machine.*failback vm/,
    };
    await expectCritical({ state: 'other-side', ...astray });
    await served.stop();
  });

  it('whose machine was stopped for a planned failover', async () => {
    await protectDisk();
    const served = await Served.start();
    await served.write(0, 4096);
    await failoverPlanned(session, 'vm');
    expect(await look()).toMatchObject({ state: 'synced', replicationState: { code: 4 }, health: 'warning' });
    expect(await reasons()).toEqual(['PLANNED_FAILOVER_WAITING', 'GUEST_WRITES_STOPPED']);
  });
});

describe('what is not possible', () => {
  it('is refused with the state that the machine is in, and with what is possible instead', async () => {
    await protectDisk();
    await expect(commit(session, 'vm')).rejects.toMatchObject({
      code: 'ILLEGAL_STATE',
      message: 'nothing waits for commit: it replicates',
      hint: 'nothing was brought back here: begin with blockferry failover vm --out DIR',
    });
    await expect(cancel(session, 'vm')).rejects.toMatchObject({ code: 'ILLEGAL_STATE' });
    const outDirectory = join(directory, 'out');
    await failover(session, { name: 'vm' }, { point: 'latest', outDirectory, format: 'raw' });
    await expect(failback(session, 'vm', { mode: 'delta' })).rejects.toMatchObject({ code: 'ILLEGAL_STATE' });
    await commit(session, 'vm');
    await expect(cancel(session, 'vm')).rejects.toMatchObject({
      code: 'ILLEGAL_STATE',
      message: expect.stringMatching(/^nothing can be cancelled: it took over from point p\d+ at 20/),
      hint: expect.stringContaining('blockferry reverse vm'),
    });
    for (const verb of [ship, resync]) {
      await expect(verb(session, 'vm')).rejects.toMatchObject({ code: 'REPLICA_OTHER_SIDE' });
    }
    await reverse(session, 'vm');
    await expectNormal();
  });
});

describe('the source', () => {
  it('that is gone, at rest and under a tracker', async () => {
    await protectDisk();
    const gone = { state: 'error', code: 'SOURCE_GONE', cause: /disk\.raw/, action: /put|check|failover vm/ } as const;
    const served = await Served.start();
    await rename(disk, `${disk}.away`);
    await expectCritical(gone);
    await rename(`${disk}.away`, disk);
    await expectNormal();
    await served.stop();
    await rename(disk, `${disk}.away`);
    await expectCritical(gone);
  });

  it('whose chain is broken', async () => {
    const [parentId, childId] = [Buffer.alloc(16, 1), Buffer.alloc(16, 2)];
    const shape = { virtualSize: DISK_BYTES, blockSize: 8 * CHUNK };
    const block = (seed: number) => ({ index: 0, gapSectors: 0, data: Buffer.from(noise(8 * CHUNK, seed)) });
    const parent = join(directory, 'parent.vhd');
    disk = join(directory, 'child.vhd');
    await writeFile(parent, buildVhd({ ...shape, uniqueId: parentId, blocks: [block(1)] }));
    const link = { uniqueId: parentId, fileName: 'parent.vhd' };
    await writeFile(disk, buildVhd({ ...shape, uniqueId: childId, parent: link, blocks: [] }));
    await protectDisk();
    await expectNormal();
    await rename(parent, `${parent}.away`);
    const broken = { state: 'error', code: 'CHAIN_BROKEN', action: /parent/ } as const;
    await expectCritical({ ...broken, cause: /parent\.vhd/ });
    await writeFile(parent, buildVhd({ ...shape, uniqueId: Buffer.alloc(16, 9), blocks: [block(2)] }));
    await expectCritical({ ...broken, cause: /parent/ });
    await rename(`${parent}.away`, parent);
    await expectNormal();
  });

  it('that is damaged', async () => {
    disk = join(directory, 'disk.vhd');
    const data = Buffer.from(noise(8 * CHUNK, 1));
    const blocks = [{ index: 0, gapSectors: 0, data }];
    const bytes = buildVhd({ virtualSize: DISK_BYTES, blockSize: 8 * CHUNK, uniqueId: Buffer.alloc(16, 1), blocks });
    await writeFile(disk, bytes);
    await protectDisk();
    await writeFile(disk, bytes.fill(0, 512, 1536));
    await expectCritical({ state: 'error', code: 'SOURCE_DAMAGED', cause: /disk\.vhd/, action: /check/ });
  });
});

describe('the logs', () => {
  const required = { state: 'resync-required', action: /blockferry resync vm/ } as const;

  it('that reach half of the disk', async () => {
    await protectDisk();
    const served = await Served.start();
    await served.write(0, 10 * CHUNK);
    await expectCritical({
      ...required,
      code: 'RESYNC_LOG_HALF_FULL',
      cause: /reached \d+ bytes, half of its 1048576/,
    });
    await resync(session, 'vm');
    await expectNormal();
  });

  it.each([
    ['ENOSPC', 'RESYNC_NO_SPACE', /free space on the volume of the disks, then blockferry resync vm/],
    ['EIO', 'RESYNC_LOG_FAILED', /check the volume of the disks, then blockferry resync vm/],
  ] as const)('that cannot be written: %s', async (logError, code, action) => {
    await protectDisk();
    const served = await Served.start();
    faults.logError = logError;
    await served.write(CHUNK, 4096);
    await expectCritical({
      ...required,
      code,
      cause: new RegExp(`log of d0 cannot be written: .*${logError}.*, since 20`),
      action,
    });
    faults.logError = undefined;
    await resync(session, 'vm');
    await expectNormal();
  });

  it('that are damaged when a cycle comes for them', async () => {
    await protectDisk();
    const served = await Served.start();
    await served.write(CHUNK, 4096);
    const log = (await readdir(directory)).find((name) => name.endsWith('.hrl'))!;
    const bytes = await readFile(join(directory, log));
    await writeFile(join(directory, log), bytes.fill(0x99, 8192 + 4096, 8192 + 4104));
    await expect(ship(session, 'vm')).rejects.toMatchObject({ area: 'source' });
    await expectCritical({ ...required, code: 'RESYNC_LOG_LOST', cause: /\.hrl: offset/ });
    await resync(session, 'vm');
    await expectNormal();
  });

  it('of a disk that somebody edited while nobody tracked it, before a cycle finds out', async () => {
    await protectDisk();
    const served = await Served.start();
    await served.stop();
    await writeFile(disk, noise(DISK_BYTES, 5));
    await utimes(disk, 1, 1);
    await expectCritical({
      ...required,
      code: 'RESYNC_EDITED_OFFLINE',
      cause: /disk\.raw was changed while nobody tracked it/,
    });
    await expect(ship(session, 'vm')).rejects.toMatchObject({ code: 'RESYNC_REQUIRED' });
    await expectCritical({ ...required, code: 'RESYNC_EDITED_OFFLINE', cause: /disk\.raw/ });
    await resync(session, 'vm');
    await expectNormal();
  });

  it('that nobody writes: the tracker ended, in order or without warning', async () => {
    await protectDisk();
    await expectNormal();
    const stopped = { state: 'protected', code: 'TRACKER_NOT_RUNNING', action: /^blockferry track vm$/ } as const;
    const first = await Served.start();
    await expectNormal();
    await first.stop();
    await expectWorst('warning', { ...stopped, cause: /what is written to them now is not logged/ });
    const second = await Served.start();
    await second.write(0, 4096);
    await second.crash();
    await expectWorst('warning', { ...stopped, cause: /ended without warning/ });
    await Served.start();
    await expectNormal();
  });
});

describe('a copy', () => {
  it('that was interrupted: the first one, and a resync', async () => {
    faults.armed = 'sync.after-slots';
    await expect(protectDisk()).rejects.toMatchObject({ code: 'FAILPOINT' });
    const first = { state: 'initial-replication', code: 'INITIAL_INCOMPLETE', cause: /no recovery point/ } as const;
    await expectWorst('warning', { ...first, action: /^blockferry protect vm goes on with it$/ });
    faults.armed = undefined;
    await protectDisk();
    await expectNormal();
    await writeFile(disk, noise(DISK_BYTES, 2));
    faults.armed = 'sync.after-slots';
    await expect(resync(session, 'vm')).rejects.toMatchObject({ code: 'FAILPOINT' });
    const again = {
      state: 'resync-required',
      code: 'RESYNC_INTERRUPTED',
      cause: /was begun and has not ended/,
    } as const;
    await expectCritical({ ...again, action: /^blockferry resync vm; it goes on where it stopped$/ });
    faults.armed = undefined;
    await resync(session, 'vm');
    await expectNormal();
  });

  it('of the logs into the base that was interrupted', async () => {
    await protectDisk();
    const served = await Served.start();
    await served.write(0, 4096);
    await ship(session, 'vm');
    faults.armed = 'apply.after-slots';
    await expect(apply(session, { name: 'vm' })).rejects.toMatchObject({ code: 'FAILPOINT' });
    const half = {
      state: 'protected',
      code: 'APPLY_UNFINISHED',
      cause: /has not ended/,
      action: /^blockferry apply vm/,
    } as const;
    await expectWorst('warning', half);
    faults.armed = undefined;
    await apply(session, { name: 'vm' });
    await expectNormal();
  });

  it('that nobody made for two hours', async () => {
    await protectDisk();
    faults.aheadMs = 2 * HOUR_MS;
    const late = {
      state: 'protected',
      code: 'BEHIND',
      cause: /the last cycle was 2 h 00 min ago/,
      action: /^blockferry ship vm/,
    } as const;
    await expectWorst('warning', late);
    const served = await Served.start();
    await served.write(0, 4096);
    await ship(session, 'vm');
    await expectNormal();
  });
});

describe('the home', () => {
  it('whose files cannot be believed: told of that item, and the others are still listed', async () => {
    await protectDisk();
    const other = join(directory, 'other.raw');
    await writeFile(other, noise(CHUNK, 3));
    await protect(session, { name: 'web', disks: [other], url: `${url}2`, chunkBytes: CHUNK, keys: [] });
    const item = join(session.home, 'items', 'vm');
    const record = await readFile(join(item, 'item.json'));
    await writeFile(join(item, 'item.json'), '{');
    const damaged = { code: 'LOCAL_STATE_DAMAGED', cause: /item\.json/, action: /--from URL/ };
    await expectCritical({ state: 'unknown', ...damaged });
    expect((await status(session)).map(({ item: name, health }) => [name, health])).toEqual([
      ['vm', 'critical'],
      ['web', 'normal'],
    ]);
    await writeFile(join(item, 'item.json'), record);
    await writeFile(join(item, 'tracking', 'state.json'), '{');
    await expectCritical({ state: 'error', ...damaged, cause: /state\.json/ });
  });
});

describe('an agent that runs', () => {
  it('is asked what only it knows: a pause, and what it measured', async () => {
    await protectDisk();
    const text = `home: ${session.home}\nmachines:\n  - { name: vm, disks: [${disk}], to: "${url}", every: 1h, chunk-size: 64KiB, rpo-threshold: 2h }\n`;
    const config = loadConfig(text, join(directory, 'agent.yaml'));
    const agent = await startAgent({ config: await config, ports: session.ports, environment: {} });
    ended.push(() => agent.stop());
    await expectNormal();
    const control = await connectAgent(session.home);
    ended.push(async () => control.close());
    await control.pause('vm');
    const paused = { code: 'SUSPENDED', cause: /paused it at 20/, action: /^blockferry agent resume vm/ };
    await expectWorst('warning', { state: 'suspended', ...paused });
    expect((await look()).replicationState).toEqual({ code: 7, name: 'Suspended' });
    faults.aheadMs = 3 * HOUR_MS;
    expect(await reasons()).toEqual(['SUSPENDED', 'BEHIND', 'RPO_EXCEEDED']);
    await control.resume('vm');
    const from = Date.now();
    while ((await look()).health !== 'normal' && Date.now() - from < 20_000) await sleep(50);
    await expectNormal();
  }, 60_000);
});
