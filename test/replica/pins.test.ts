/** Pins: what is being read stays until it was read, whoever drops it when, and nobody without the key holds anything back. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { LocalItem } from '../../src/agent/local-state.ts';
import { BlockferryError } from '../../src/errors.ts';
import { PIN_BYTES_MAX, PINS_LISTED_MAX } from '../../src/limits.ts';
import type { Clock } from '../../src/ports.ts';
import { collectDropped } from '../../src/replica/collect-dropped.ts';
import {
  Committer,
  listPins,
  openReplica,
  PIN_HOLD_MS,
  type RecoveryPoint,
  type Replica,
  retainPoints,
  withPin,
} from '../../src/replica/index.ts';
import { isPinKey, PINS_PREFIX, pinKey } from '../../src/replica/layout.ts';
import { decodePin, encodePin, type Pin, pinOf } from '../../src/replica/pin-record.ts';
import { noise } from '../chunker/support.ts';
import { ApplyLab, type GuestWrite, readPoint } from '../support/apply-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';
import { type BeforeCall, watchStore } from '../support/watched-store.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let item: ApplyLab;
beforeEach(async () => {
  item = new ApplyLab([noise(3 * CHUNK, 1)]);
  await item.protect();
});
afterEach(() => item.close());

let seed = 100;
const write = (): GuestWrite => {
  seed += 1;
  return { disk: 0, offset: (seed % 5) * 4096, lengthBytes: 512, bytes: noise(512, seed) };
};

/** A point that needs an old baseline and a log over it, neither of which any newer point needs. */
async function oldPoint(): Promise<RecoveryPoint> {
  await item.ship([write()]);
  const { id } = (await item.lab.replica()).record.root.points.at(-1)!;
  await item.ship([write()]);
  await item.apply();
  const { points, baselines } = (await item.lab.replica()).record.root;
  const point = points.find((each) => each.id === id)!;
  expect(point.baseline).not.toBe(baselines.at(-1)!.generation);
  return point;
}

async function open(before: BeforeCall = async () => {}): Promise<Replica> {
  return openReplica(watchStore(await item.lab.store(), before), await item.lab.unlock('web'), undefined);
}

async function committerOf(replica: Replica): Promise<{ readonly committer: Committer; readonly side: Uint8Array }> {
  const local = new LocalItem(item.session.home, 'web', item.lab.ports.files);
  const committer = new Committer(replica, 'test', (anchor) => local.saveAnchor(anchor), item.lab.ports);
  return { committer, side: (await local.load()).side };
}

/** Drops all points but the newest, as prune does it. */
async function dropAll(replica: Replica): Promise<void> {
  const { signal } = new AbortController();
  const ids = replica.record.root.points.map(({ id }) => id);
  await retainPoints({ ...(await committerOf(replica)), clock: item.lab.ports.clock, signal }, new Set(ids));
}

async function pinKeys(): Promise<readonly string[]> {
  const keys: string[] = [];
  for await (const key of (await item.lab.store()).list(PINS_PREFIX)) keys.push(key);
  return keys;
}

/** Reads a pinned point back, and compares it with what the guest had. */
async function expectReadable(replica: Replica, point: RecoveryPoint): Promise<void> {
  const found = await readPoint(item.session, replica, point, 0);
  if (!found.equals(item.points.get(point.id)![0]!)) throw new Error(`point ${point.id} reads back differently`);
}

/** Lets two make their calls in a given order; each call is made whole before the next one begins. */
class Turns {
  readonly #waiting: Map<string, () => void> = new Map();
  readonly #ended: Set<string> = new Set();
  #changed: () => void = () => {};

  async wait(who: string): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#waiting.set(who, resolve);
      this.#changed();
    });
  }

  end(who: string): void {
    this.#ended.add(who);
    this.#changed();
  }

  /** Gives turns in this order, then to whoever is there. */
  async run(order: readonly string[], all: readonly string[]): Promise<void> {
    for (const who of order) await this.#turn(who);
    while (all.some((who) => !this.#ended.has(who))) for (const who of all) await this.#turn(who);
  }

  async #turn(who: string): Promise<void> {
    await this.#settled(who);
    const go = this.#waiting.get(who);
    if (!go) return;
    this.#waiting.delete(who);
    go();
    await this.#settled(who);
  }

  async #settled(who: string): Promise<void> {
    while (!this.#waiting.has(who) && !this.#ended.has(who)) {
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

/** All orders of `a` calls of one and `b` of another. */
function* orders(a: number, b: number): Generator<readonly string[]> {
  if (a === 0 || b === 0) {
    yield [...Array<string>(a).fill('reader'), ...Array<string>(b).fill('collector')];
    return;
  }
  for (const rest of orders(a - 1, b)) yield ['reader', ...rest];
  for (const rest of orders(a, b - 1)) yield ['collector', ...rest];
}

const READER_CALLS = /^(put pins|get root)/;
const COLLECTOR_CALLS = /^(put root|list pins|get pins|delete)/;

/** One reader and one collector in a given order of their calls; returns what became of the reader. */
async function race(
  order: readonly string[],
  collect: (replica: Replica) => Promise<void>,
): Promise<'read' | 'refused'> {
  const point = await oldPoint();
  const turns = new Turns();
  const watch = (who: string, calls: RegExp): BeforeCall => {
    return async (call) => {
      if (isRacing && calls.test(call)) await turns.wait(who);
    };
  };
  let isRacing = false;
  const readers = await open(watch('reader', READER_CALLS));
  const collectors = await open(watch('collector', COLLECTOR_CALLS));
  isRacing = true;
  const collected = collect(collectors).finally(() => turns.end('collector'));
  const read = withPin(readers, point.id, { ports: item.lab.ports }, async (replica, pinned) => {
    turns.end('reader');
    await collected;
    isRacing = false;
    await expectReadable(replica, pinned);
    return 'read' as const;
  })
    .catch((error) => {
      if (!(error instanceof BlockferryError) || error.code !== 'POINT_NOT_FOUND') throw error;
      return 'refused' as const;
    })
    .finally(() => turns.end('reader'));
  const running = turns.run(order, ['reader', 'collector']);
  const [outcome] = await Promise.all([read, collected, running]);
  return outcome;
}

describe('a reader and a collector', () => {
  it('in any order of their calls: the reader reads all, or is told that the point is gone', async () => {
    const outcomes = new Map<string, number>();
    for (const order of orders(2, 6)) {
      const outcome = await race(order, dropAll);
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    // It reads where both of its calls come before the root that drops the point.
    expect(Object.fromEntries(outcomes)).toEqual({ read: 1, refused: 27 });
    expect(await pinKeys()).toEqual([]);
  });

  it('would lose data if the collector looked at the pins before it commits', async () => {
    const tooEarly = async (replica: Replica): Promise<void> => {
      const pins = await listPins(replica, item.lab.ports.clock);
      const { committer } = await committerOf(replica);
      const before = committer.root;
      const root = await committer.commit(async ({ points }) => ({ points: points.slice(-1) }));
      await collectDropped(before, root, replica.store, async () => pins);
    };
    let lost = 0;
    for (const order of orders(2, 4)) await race(order, tooEarly).catch(() => (lost += 1));
    expect(lost).toBeGreaterThan(0);
  });
});

describe('a pinned point', () => {
  it('keeps its snapshots and logs when the root drops it, and apply removes them when it was read', async () => {
    const point = await oldPoint();
    const replica = await open();
    await withPin(replica, point.id, { ports: item.lab.ports }, async (pinned, at) => {
      expect((await listPins(replica, item.lab.ports.clock)).points).toEqual(new Set([point.id]));
      await dropAll(await open());
      await item.ship([write()]);
      await item.apply();
      expect((await item.lab.replica()).record.root.points.some(({ id }) => id === point.id)).toBe(false);
      await expectReadable(pinned, at);
    });
    const store = await item.lab.store();
    const { snapshots } = pinOf(replica.record.root, point, 0);
    const left = async (): Promise<boolean> => {
      for (const { blob, snapshot } of snapshots) {
        if ((await store.pages(blob).snapshots()).includes(snapshot)) return true;
      }
      return false;
    };
    expect(await left()).toBe(true);
    await item.ship([write()]);
    await item.apply();
    expect(await left()).toBe(false);
    await item.check();
  });

  it('is read as it stands after the pin: an apply between the two is seen', async () => {
    await item.ship([write()]);
    const stale = await open();
    const { id } = stale.record.root.points.at(-1)!;
    await item.apply();
    const after = (await item.lab.replica()).record.root.points.at(-1)!;
    const seen = await withPin(stale, id, { ports: item.lab.ports }, async (replica, point) => {
      await expectReadable(replica, point);
      const [key] = await pinKeys();
      const stored = await replica.store.get(key!, PIN_BYTES_MAX);
      return { point, pin: decodePin(stored!.bytes, key!, replica.keyring.keys.root)! };
    });
    expect(seen.point).toEqual(after);
    expect(seen.pin.logs).toEqual({ after: after.log, last: after.log });
  });

  it('that is gone is refused, and leaves no pin', async () => {
    const point = await oldPoint();
    const stale = await open();
    await dropAll(await open());
    const work = vi.fn();
    await expect(withPin(stale, point.id, { ports: item.lab.ports }, work)).rejects.toMatchObject({
      code: 'POINT_NOT_FOUND',
    });
    expect(work).not.toHaveBeenCalled();
    expect(await pinKeys()).toEqual([]);
  });

  it('is let go when the work fails', async () => {
    const replica = await open();
    const { id } = replica.record.root.points.at(-1)!;
    const failing = withPin(replica, id, { ports: item.lab.ports }, async () => Promise.reject(new Error('broken')));
    await expect(failing).rejects.toThrow('broken');
    expect(await pinKeys()).toEqual([]);
  });

  it('cannot be pinned in a store that takes no writes: a notice says so, and the work runs', async () => {
    const refusing = await open(async (call) => {
      if (call.startsWith('put')) throw new BlockferryError('STORE_REFUSED', 'read only');
    });
    const { id } = refusing.record.root.points.at(-1)!;
    const notices: string[] = [];
    const onNotice = ({ code, message }: { code: string; message: string }): number =>
      notices.push(`${code} ${message}`);
    const done = await withPin(refusing, id, { ports: item.lab.ports, onNotice }, async (_, point) => point.id);
    expect(done).toBe(id);
    expect(notices).toEqual([expect.stringMatching(/^NOT_PINNED .*read only/)]);
  });

  it('does not outlive an abort', async () => {
    const controller = new AbortController();
    controller.abort();
    const replica = await open();
    const { id } = replica.record.root.points.at(-1)!;
    const work = withPin(replica, id, { ports: item.lab.ports, signal: controller.signal }, async () => {});
    await expect(work).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await pinKeys()).toEqual([]);
  });
});

/** Time that passes when it is told to, and lets everything run that waited for it. */
class HandClock implements Clock {
  #nowMs = 0;
  #sleepers: { readonly untilMs: number; readonly wake: () => void }[] = [];

  nowMs(): number {
    return 1_750_000_000_000 + this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const interrupt = (): void => reject(new Error('awake'));
      signal?.addEventListener('abort', interrupt);
      const wake = (): void => {
        signal?.removeEventListener('abort', interrupt);
        resolve();
      };
      this.#sleepers.push({ untilMs: this.#nowMs + ms, wake });
    });
  }

  async pass(ms: number): Promise<void> {
    this.#nowMs += ms;
    for (const { wake } of this.#sleepers.filter(({ untilMs }) => untilMs <= this.#nowMs)) wake();
    this.#sleepers = this.#sleepers.filter(({ untilMs }) => untilMs > this.#nowMs);
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('the time of a pin', () => {
  it('is renewed while the work runs, and ends an hour after a kill', async () => {
    const clock = new HandClock();
    const replica = await open();
    const { id } = replica.record.root.points.at(-1)!;
    const holds = async (): Promise<boolean> => (await listPins(replica, clock)).points.has(id);
    const ports = { ...item.lab.ports, clock };
    const left = await withPin(replica, id, { ports }, async () => {
      for (let minute = 0; minute < 300; minute += 1) {
        await clock.pass(60_000);
        expect(await holds(), `minute ${minute}`).toBe(true);
      }
      const [key] = await pinKeys();
      return { key: key!, bytes: (await replica.store.get(key!, PIN_BYTES_MAX))!.bytes };
    });
    expect(await holds()).toBe(false);
    // What a kill at that moment would have left.
    await replica.store.put(left.key, left.bytes);
    expect(await holds()).toBe(true);
    await clock.pass(PIN_HOLD_MS);
    expect(await holds()).toBe(false);
    // Its reader may only be asleep.
    expect(await pinKeys()).toEqual([left.key]);
    await clock.pass(25 * PIN_HOLD_MS);
    expect(await holds()).toBe(false);
    expect(await pinKeys()).toEqual([]);
  });
});

describe('an object among the pins', () => {
  const key = pinKey(noise(16, 1));
  const pin = (untilMs: number): Pin => ({
    ...{ point: 'p3', untilMs, logs: { after: 0, last: 1 } },
    snapshots: [{ blob: 'disks/d0/base', snapshot: '01' }],
  });

  it('that anybody changed in any byte, or copied, is no pin', async () => {
    const rootKey = noise(32, 2);
    const bytes = Buffer.from(encodePin(pin(5), key, rootKey));
    expect(decodePin(bytes, key, rootKey)).toEqual(pin(5));
    for (let at = 0; at < bytes.byteLength; at += 1) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 1;
      expect(decodePin(changed, key, rootKey), `byte ${at}`).toBeUndefined();
      expect(decodePin(bytes.subarray(0, at), key, rootKey)).toBeUndefined();
    }
    expect(decodePin(bytes, pinKey(noise(16, 3)), rootKey)).toBeUndefined();
    expect(decodePin(bytes, key, noise(32, 4))).toBeUndefined();
  });

  it('that holds nothing back is removed; what is not named as a pin is left alone', async () => {
    const { store, keyring } = await open();
    const { clock } = item.lab.ports;
    const forever = pin(Number.MAX_SAFE_INTEGER);
    await store.put(pinKey(noise(16, 5)), encodePin(forever, pinKey(noise(16, 5)), keyring.keys.root));
    await store.put(pinKey(noise(16, 6)), Buffer.from('{"version":1,"untilMs":9007199254740991}'));
    await store.put(pinKey(noise(16, 7)), Buffer.alloc(PIN_BYTES_MAX + 1));
    await store.put(pinKey(noise(16, 8)), Buffer.alloc(0));
    await store.put(`${PINS_PREFIX}letter`, Buffer.from('dear'));
    expect((await listPins({ store, keyring }, clock)).points.size).toBe(0);
    expect(await pinKeys()).toEqual([`${PINS_PREFIX}letter`]);
  });

  it('is one of too many: nothing is deleted this time, and more of it the next', async () => {
    const { store, keyring } = await open();
    const { clock } = item.lab.ports;
    for (let i = 0; i < PINS_LISTED_MAX + 5; i += 1) await store.put(pinKey(noise(16, 1000 + i)), Buffer.from('{}'));
    const pins = await listPins({ store, keyring }, clock);
    expect([pins.hasLog(1), pins.hasSnapshot('disks/d0/base', '01')]).toEqual([true, true]);
    expect((await pinKeys()).length).toBe(5);
    expect((await listPins({ store, keyring }, clock)).hasLog(1)).toBe(false);
    expect((await pinKeys()).filter(isPinKey)).toEqual([]);
  });
});
