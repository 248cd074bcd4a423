/**
 * ship: a point for what the logs hold, refusals that cost nothing, ends at every failpoint, two that ship at once. The replica
 * is a real one, made by protect; its store is in memory, the change logs are real files.
 */
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { protect } from '../../src/agent/index.ts';
import { NIL_GUID, randomGuid } from '../../src/guid.ts';
import { ChangeLog, type LogWrite, LogWriter } from '../../src/hrl/index.ts';
import { collectLogs } from '../../src/replica/collect-logs.ts';
import {
  Committer,
  logKey,
  logsOf,
  type Replica,
  type Root,
  type RootChange,
  readShippedLog,
  type ShipSetup,
  shipLogs,
  workerSetup,
} from '../../src/replica/index.ts';
import { Pins } from '../../src/replica/pins.ts';
import { Lanes } from '../../src/transport/index.ts';
import type { WorkerPool } from '../../src/workers/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { countRequests, requests } from '../support/counting-store.ts';
import { InProcessPool } from '../support/in-process-pool.ts';
import { apply } from '../support/log-lab.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

const noPins = async (): Promise<Pins> => new Pins([]);

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));
vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  return {
    ...real,
    openStore: async (...args: Parameters<typeof real.openStore>) => countRequests(await real.openStore(...args)),
  };
});

const MIB = 1024 * 1024;
/** Disk 1 is large enough for logs of several parts. */
const SIZES = [8 * CHUNK, 320 * CHUNK] as const;
const TIME = 1_700_000_000_000;

let lab: Lab;
let committer: Committer;
let pool: WorkerPool;
let lanes: Lanes;
let opened: ChangeLog[];
let names = 0;

beforeEach(async () => {
  lab = new Lab();
  opened = [];
  const disks = [
    lab.disk('d0.img', noise(SIZES[0], 1)),
    lab.sparseDisk('d1.img', SIZES[1] / CHUNK, [[0, noise(512, 2)]]),
  ];
  await protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, keys: [] });
  committer = await freshCommitter();
  pool = new InProcessPool(workerSetup(committer.replica)) as unknown as WorkerPool;
  lanes = new Lanes({ clock: lab.ports.clock, limit: 8 });
});
afterEach(async () => {
  for (const log of opened) await log.close();
  lab.close();
});

async function freshCommitter(): Promise<Committer> {
  return new Committer(await lab.replica(), 'test', async () => {}, lab.ports);
}

const heads = (root: Root = committer.root): string[] => root.disks.map(({ head }) => head);

/** A closed log; it follows the disk's head unless told otherwise. Returns its path. */
async function logFile(writes: readonly LogWrite[], previousUniqueId: string, closed = true): Promise<string> {
  names += 1;
  const path = join(lab.directory, `log-${names}.hrl`);
  const writer = await LogWriter.create(path, { ports: lab.ports, previousUniqueId });
  for (const write of writes) await writer.append([write]);
  if (closed) await writer.close();
  else {
    await writer.sync();
    await writer.abandon();
  }
  return path;
}

async function open(path: string): Promise<ChangeLog> {
  const log = await ChangeLog.open(path, { ports: lab.ports });
  opened.push(log);
  return log;
}

async function changeLog(writes: readonly LogWrite[], previousUniqueId: string = heads()[0]!): Promise<ChangeLog> {
  return open(await logFile(writes, previousUniqueId));
}

function setup(logs: readonly (readonly ChangeLog[])[], change: Partial<ShipSetup> = {}): ShipSetup {
  const { root } = change.committer ?? committer;
  const now = heads(root);
  return {
    ...{ committer, side: root.owner.side, pool, lanes, logs, ports: lab.ports, timeMs: TIME, consistency: 'crash' },
    heads: logs.map((chain, i) => chain.at(-1)?.header.uniqueId ?? now[i]!),
    signal: new AbortController().signal,
    ...change,
  };
}

/** What the store holds under logs/. */
async function stored(): Promise<string[]> {
  const found: string[] = [];
  for await (const key of (await lab.store()).list('logs/')) found.push(key);
  return found;
}

/** The disks as a point leaves them: the base as it was protected, with its logs played. */
async function disksOf(replica: Replica, pointId: string): Promise<Buffer[]> {
  const { root } = replica.record;
  const point = root.points.find(({ id }) => id === pointId)!;
  const disks = [Buffer.from(noise(SIZES[0], 1)), Buffer.alloc(SIZES[1])];
  disks[1]!.set(noise(512, 2));
  const access = { lanes, pool, ports: lab.ports, signal: new AbortController().signal };
  for (const log of logsOf(root, point)) {
    for await (const { disk, offset, lengthBytes, bytes } of readShippedLog(replica, log, access)) {
      disks[disk]!.set(bytes ?? new Uint8Array(lengthBytes), offset);
    }
  }
  return disks;
}

const write = (byteOffset: number, bytes: Uint8Array): LogWrite => ({ byteOffset, bytes });

describe('ship', () => {
  it('commits a point with what the logs of all disks hold', async () => {
    const model = await disksOf(committer.replica, committer.root.points[0]!.id);
    const writes = [
      [write(512, prose(4096, 1)), write(1024, noise(512, 3)), { byteOffset: 0, zeroBytes: 512 }],
      [write(MIB, noise(512, 4))],
      [write(5 * MIB, prose(2 * MIB, 5)), { byteOffset: 6 * MIB, zeroBytes: MIB }],
    ] as const;
    const first = await changeLog(writes[0]);
    const second = await changeLog(
      writes[1].map((w) => ({ ...w, byteOffset: 7 * CHUNK })),
      first.header.uniqueId,
    );
    const other = await changeLog(writes[2], heads()[1]);
    for (const w of writes[0]) apply(model[0]!, w);
    model[0]!.set(noise(512, 4), 7 * CHUNK);
    for (const w of writes[2]) apply(model[1]!, w);

    const seen: number[] = [];
    const result = await shipLogs(
      setup([[first, second], [other]], {
        consistency: 'app',
        onProgress: ({ doneBytes }) => void seen.push(doneBytes),
      }),
    );
    const { log, point, root } = result;
    expect(log).toMatchObject({ seq: 1, frames: 2 });
    expect(root.logs).toEqual([log]);
    expect(heads(root)).toEqual([second.header.uniqueId, other.header.uniqueId]);
    expect(point).toEqual({
      id: `p${root.generation}`,
      timeMs: TIME,
      consistency: 'app',
      generation: root.generation,
      baseline: root.baselines[0]!.generation,
      log: 1,
    });
    expect(result).toMatchObject({ sentBytes: log!.sizeBytes, dataBytes: 4096 + 512 + MIB });
    expect(seen.at(-1)).toBe(4096 + 512 + 512 + 512 + 3 * MIB);
    const found = await disksOf(await lab.replica(), point.id);
    expect(found.map((content, i) => content.equals(model[i]!))).toEqual([true, true]);
  });

  it('goes on where the last one ended, and each point is what it was', async () => {
    const ids: string[] = [];
    const models: Buffer[] = [];
    const model = Buffer.from(noise(SIZES[0], 1));
    for (let i = 0; i < 3; i += 1) {
      const w = write(i * 4096, prose(8192, i));
      apply(model, w);
      models.push(Buffer.from(model));
      committer = i === 1 ? await freshCommitter() : committer;
      ids.push((await shipLogs(setup([[await changeLog([w])], []]))).point.id);
    }
    expect(committer.root.logs.map(({ seq }) => seq)).toEqual([1, 2, 3]);
    const replica = await lab.replica();
    for (const [i, id] of ids.entries()) expect((await disksOf(replica, id))[0]!.equals(models[i]!)).toBe(true);
  });

  it('of nothing makes a point and no object', async () => {
    const empty = await changeLog([]);
    requests.clear();
    const { point, root, log, ...counts } = await shipLogs(setup([[empty], []]));
    expect(Object.fromEntries(requests)).toEqual({ 'root put': 1 });
    expect(log).toBeUndefined();
    expect(counts).toEqual({ sentBytes: 0, dataBytes: 0 });
    expect([point.log, root.logs, heads(root)[0]]).toEqual([0, [], empty.header.uniqueId]);
    const again = await shipLogs(setup([[], []]));
    expect(again.root.points).toHaveLength(3);
    expect(heads(again.root)).toEqual(heads(root));
  });

  it('of a little takes two requests: the object and the root', async () => {
    const log = await changeLog([write(0, noise(4096, 1))]);
    requests.clear();
    await shipLogs(setup([[log], []]));
    expect(Object.fromEntries(requests)).toEqual({ 'log put': 1, 'root put': 1 });
  });

  it('of more takes one for each 4 MiB, one to commit them, and the root', async () => {
    const log = await changeLog([write(0, noise(9 * MIB, 1))], heads()[1]);
    requests.clear();
    await shipLogs(setup([[], [log]]));
    expect(Object.fromEntries(requests)).toEqual({ 'log part put': 3, 'log commit': 1, 'root put': 1 });
  });
});

describe('nothing is uploaded of', () => {
  async function refused(work: () => Promise<unknown>, error: object): Promise<void> {
    requests.clear();
    await expect(work()).rejects.toMatchObject(error);
    expect(Object.fromEntries(requests)).toEqual({});
    expect(await stored()).toEqual([]);
  }

  const good = (): Promise<string> => logFile([write(0, noise(4096, 1)), write(8192, noise(512, 2))], heads()[0]!);

  it('a log with a flipped byte, in data, block or header', async () => {
    const bytes = readFileSync(await good());
    for (const [offset, code] of [
      [8192 + 100, 'HRL_ENTRY'],
      [8192 + 4096 + 512 + 40, 'HRL_ENTRY'],
      [8192 + 4096 + 512 + 2, 'HRL_BLOCK'],
      [60, 'HRL_HEADER'],
    ] as const) {
      const path = join(lab.directory, `flipped-${offset}.hrl`);
      const flipped = Buffer.from(bytes);
      flipped[offset]! ^= 1;
      writeFileSync(path, flipped);
      await refused(async () => shipLogs(setup([[await open(path)], []])), {
        code,
        area: 'source',
        facts: { source: path },
      });
    }
  });

  it('a log that was cut', async () => {
    const path = await good();
    truncateSync(path, 8192 + 2048);
    await refused(async () => shipLogs(setup([[await open(path)], []])), { code: 'HRL_TORN', facts: { source: path } });
  });

  it('a log that is cut between its verification and its upload', async () => {
    const path = await good();
    const log = await open(path);
    const sealFrame: WorkerPool['sealFrame'] = (task) => {
      truncateSync(path, 8192 + 2048);
      return pool.sealFrame(task);
    };
    const cutting = { threads: 1, sealFrame } as unknown as WorkerPool;
    await refused(() => shipLogs(setup([[log], []], { pool: cutting })), { code: 'HRL_TORN' });
  });

  it('a log that was not closed', async () => {
    const path = await logFile([write(0, noise(512, 1))], heads()[0]!, false);
    await refused(async () => shipLogs(setup([[await open(path)], []])), {
      code: 'HRL_TORN',
      facts: { source: path, offset: 44 },
    });
  });

  it('a chain with a gap, one out of order twice, one that begins elsewhere, a log of another disk', async () => {
    const one = await changeLog([write(0, noise(512, 1))]);
    const two = await changeLog([write(0, noise(512, 2))], one.header.uniqueId);
    const three = await changeLog([write(0, noise(512, 3))], two.header.uniqueId);
    const copy = join(lab.directory, 'copy.hrl');
    copyFileSync(two.path, copy);
    for (const chain of [[one, three], [two], [one, two, await open(copy)], [await changeLog([], NIL_GUID)]]) {
      await refused(() => shipLogs(setup([chain, []])), { code: 'HRL_CHAIN', area: 'source' });
    }
    await refused(() => shipLogs(setup([[], [one]])), { code: 'HRL_CHAIN' });
  });

  it('a log that does not end at the head that is given', async () => {
    const log = await changeLog([write(0, noise(512, 1))]);
    const other = randomGuid(noise(16, 9));
    await refused(() => shipLogs(setup([[log], []], { heads: [other, heads()[1]!] })), { code: 'HRL_CHAIN' });
    await refused(() => shipLogs(setup([[], []], { heads: [other, heads()[1]!] })), { code: 'HRL_CHAIN' });
  });

  it('a log that writes outside its disk', async () => {
    const log = await changeLog([write(SIZES[0], noise(512, 1))]);
    await refused(() => shipLogs(setup([[log], []])), { code: 'HRL_ENTRY' });
  });

  it('an item whose copy has not ended; an apply that has not ended is no hindrance', async () => {
    const log = await changeLog([write(0, noise(512, 1))]);
    const suspect = [{ disk: 0, from: 0, to: 1 }];
    const copy = { kind: 'resync', source: noise(32, 1), disk: 0, cursor: 0, suspect } as const;
    await committer.commit(async () => ({ sync: copy }));
    await refused(() => shipLogs(setup([[log], []])), { code: 'RESYNC_REQUIRED', area: 'source' });
    await committer.commit(async () => ({ sync: null }));
    await shipLogs(setup([[log], []]));
    await committer.commit(async () => ({ sync: { kind: 'apply', log: 1, begun: 3, suspect } }));
    const next = await changeLog([write(0, noise(512, 2))]);
    const { root } = await shipLogs(setup([[next], []]));
    expect(root.logs.map(({ seq }) => seq)).toEqual([1, 2]);
    expect(root.sync?.kind).toBe('apply');
  });
});

describe('a log that was shipped', () => {
  it('is not shipped again', async () => {
    const log = await changeLog([write(0, noise(512, 1))]);
    await shipLogs(setup([[log], []]));
    await expect(shipLogs(setup([[log], []]))).rejects.toMatchObject({ code: 'HRL_CHAIN' });
    const next = await changeLog([write(0, noise(512, 2))]);
    await expect(shipLogs(setup([[log, next], []]))).rejects.toMatchObject({ code: 'HRL_CHAIN' });
    expect((await shipLogs(setup([[next], []]))).log?.seq).toBe(2);
  });
});

describe('a ship that ends early', () => {
  const parts = (): Promise<ChangeLog> => changeLog([write(0, noise(9 * MIB, 1))], heads()[1]);

  it('among its parts leaves nothing', async () => {
    const log = await parts();
    for (const hit of [1, 2, 3]) {
      lab.arm({ name: 'ship.after-part', hit });
      await expect(shipLogs(setup([[], [log]]))).rejects.toMatchObject({ code: 'FAILPOINT' });
      expect(lab.hits.has('ship.after-upload')).toBe(false);
      expect(await stored()).toEqual([]);
    }
    expect((await shipLogs(setup([[], [log]]))).log?.seq).toBe(1);
  });

  it('before its root leaves an object that means nothing, and is removed once its number is taken', async () => {
    const log = await parts();
    const before = committer.root;
    lab.arm({ name: 'ship.after-upload', hit: 1 });
    await expect(shipLogs(setup([[], [log]]))).rejects.toMatchObject({ code: 'FAILPOINT' });
    const [orphan] = await stored();
    expect((await lab.replica()).record.root).toEqual(before);
    committer = await freshCommitter();
    // Not yet: for all anybody knows it is being shipped right now.
    await collectLogs(committer.root, committer.replica.store, noPins);
    expect(await stored()).toEqual([orphan]);
    const shipped = await shipLogs(setup([[], [log]]));
    expect(shipped.log?.seq).toBe(1);
    expect(await stored()).toHaveLength(2);
    await collectLogs(shipped.root, committer.replica.store, noPins);
    expect(await stored()).toEqual([logKey(shipped.log!)]);
    expect(
      (await disksOf(await lab.replica(), shipped.point.id))[1]!.subarray(0, 9 * MIB).equals(noise(9 * MIB, 1)),
    ).toBe(true);
  });

  it('behind its root has shipped: the head says so', async () => {
    const log = await changeLog([write(0, noise(512, 1))]);
    for (const name of ['sync.after-root', 'sync.after-anchor'] as const) {
      lab.arm({ name, hit: 1 });
      const next = name === 'sync.after-root' ? log : await changeLog([write(0, noise(512, 2))]);
      await expect(shipLogs(setup([[next], []]))).rejects.toMatchObject({ code: 'FAILPOINT' });
      committer = await freshCommitter();
      expect(heads()[0]).toBe(next.header.uniqueId);
      await expect(shipLogs(setup([[next], []]))).rejects.toMatchObject({ code: 'HRL_CHAIN' });
    }
    expect(committer.root.logs.map(({ seq }) => seq)).toEqual([1, 2]);
  });
});

describe('two that ship at once', () => {
  it('never touch each other: the root decides, and the other one is removed', async () => {
    const log = await changeLog([write(0, noise(4096, 1))]);
    const rival = await freshCommitter();
    const rivalLog = await changeLog([write(0, noise(4096, 2))]);
    // Both have uploaded before either commits.
    let first: Root | undefined;
    lab.onFailpoint = async (name) => {
      if (name !== 'ship.after-upload' || first) return;
      lab.onFailpoint = undefined;
      first = (await shipLogs(setup([[rivalLog], []], { committer: rival }))).root;
    };
    await expect(shipLogs(setup([[log], []]))).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
    const replica = await lab.replica();
    expect(replica.record.root).toEqual(first);
    expect(await stored()).toHaveLength(2);
    expect((await disksOf(replica, first!.points.at(-1)!.id))[0]!.subarray(0, 4096).equals(noise(4096, 2))).toBe(true);
    await collectLogs(replica.record.root, replica.store, noPins);
    expect(await stored()).toEqual(first!.logs.map(logKey));
  });

  it('through one committer: the second is told that its number is taken', async () => {
    const log = await changeLog([write(0, noise(4096, 1))]);
    lab.onFailpoint = async (name) => {
      if (name !== 'ship.after-upload') return;
      lab.onFailpoint = undefined;
      await shipLogs(setup([[], [await changeLog([write(0, noise(512, 2))], heads()[1])]]));
    };
    await expect(shipLogs(setup([[log], []]))).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
  });
});

describe('a root that somebody else commits during the upload', () => {
  async function shipDuring(
    change: (root: Root) => RootChange | Promise<RootChange>,
  ): Promise<ReturnType<typeof shipLogs>> {
    const log = await changeLog([write(0, noise(512, 1))]);
    const other = await freshCommitter();
    lab.onFailpoint = async (name) => {
      if (name !== 'ship.after-upload') return;
      lab.onFailpoint = undefined;
      await other.commit(async (root) => change(root));
    };
    return shipLogs(setup([[log], []]));
  }

  it('is gone on from where it is one of an apply', async () => {
    const suspect = [{ disk: 0, from: 0, to: 1 }];
    await shipLogs(setup([[await changeLog([write(0, noise(512, 2))])], []]));
    const { root } = await shipDuring(() => ({ sync: { kind: 'apply', log: 1, begun: 3, suspect } }));
    expect(root.logs.map(({ seq }) => seq)).toEqual([1, 2]);
    expect(root.sync).toMatchObject({ kind: 'apply', log: 1 });
    expect(root.points.at(-1)).toMatchObject({ log: 2, generation: root.generation });
  });

  it('is not where the log is gone from the store since', async () => {
    const change = async (root: Root): Promise<RootChange> => {
      const store = await lab.store();
      for (const key of await stored()) await store.delete(key);
      return { sync: null, points: root.points };
    };
    await expect(shipDuring(change)).rejects.toMatchObject({ code: 'STORE_CONDITION', retryable: true });
    expect((await lab.replica()).record.root.logs).toEqual([]);
  });

  it('is not where logs began anew since', async () => {
    const anew = ({ disks }: Root): RootChange => ({
      disks: disks.map((disk, i) => ({ ...disk, head: randomGuid(noise(16, 60 + i)) })),
    });
    await expect(shipDuring(anew)).rejects.toMatchObject({ code: 'REPLICA_FENCED' });
    expect((await lab.replica()).record.root.logs).toEqual([]);
  });
});

describe('logs that no root names', () => {
  it('are removed, and nothing else that lies there', async () => {
    const kept = (await shipLogs(setup([[await changeLog([write(0, noise(512, 1))])], []]))).log!;
    const { store } = committer.replica;
    const put = async (key: string): Promise<string> => {
      await store.put(key, noise(10, 1));
      return key;
    };
    await put(logKey({ seq: 1, id: noise(16, 50) }));
    const later = await put(logKey({ seq: 2, id: noise(16, 51) }));
    const foreign = [await put('logs/readme'), await put('logs/00000000000000000001')];
    await collectLogs(committer.root, store, noPins);
    expect(await stored()).toEqual([foreign[1], logKey(kept), later, foreign[0]]);
  });
});
