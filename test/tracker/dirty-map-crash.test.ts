/**
 * Power cuts and dying processes at every file operation of a map, with any part of what was not synced lost, while writers,
 * sweeps, rotations and acknowledgements run across each other. Whatever is left is a superset of the truth. Where a sync
 * is left out, or a caller breaks its promise, it is not: so the test would notice.
 */
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import type { Random, RandomAccessFile } from '../../src/ports.ts';
import { DirtyMap } from '../../src/tracker/dirty-map.ts';
import { type CrashFileSystem, crashFileSystem } from '../support/crash-files.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import { CHUNK, CHUNKS, chunksOf, optionsFor, PAGE_CHUNKS, PATH, RECORD_CHUNKS } from './dirty-map-lab.ts';

const SEEDS = numberFromEnvironment('BLOCKFERRY_MAP_SEEDS', 12);
const TIMEOUT_MS: number = Math.max(120_000, SEEDS * 5_000);
/** Some chunks of each of several records and pages, so that writers meet. */
const PLACES = [
  0,
  1,
  2,
  3,
  9,
  RECORD_CHUNKS - 1,
  RECORD_CHUNKS,
  PAGE_CHUNKS - 1,
  PAGE_CHUNKS,
  PAGE_CHUNKS * 2 + 50,
] as const;

interface Break {
  /** Syncs of the map do nothing. */
  readonly noSync?: boolean;
  /** The sync with which a map is opened does nothing. */
  readonly noSyncAtOpen?: boolean;
  /** Writers say that they have ended before they have. */
  readonly endsEarly?: boolean;
  /** What was active is adopted before it was bridged. */
  readonly adoptsEarly?: boolean;
}

async function ticks(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await Promise.resolve();
}

/** A machine with one disk, its log, its replica, and what is true of their chunks. */
class Machine {
  readonly dice: Dice;
  readonly broken: Break;
  /** Where it writes, and how long its writers pause at most: from crowded to nearly idle. */
  readonly #places: readonly number[];
  readonly #pauseTicks: number;
  files: CrashFileSystem;
  map!: DirtyMap;
  /** Nothing happens any more: the power is off, or the process is gone. */
  isOff = false;
  /** Of each write the chunks, from when it may touch log and disk until both have it durably. */
  readonly uncertain = new Set<{ readonly chunks: readonly number[]; hasEnded: boolean }>();
  current = new Set<number>();
  closed = new Set<number>();
  #underWay = 0;
  #barrier: Promise<void> | undefined;

  constructor(dice: Dice, bytes: Uint8Array, broken: Break) {
    this.dice = dice;
    this.broken = broken;
    const first = dice.below(PLACES.length);
    this.#places = PLACES.slice(first, first + dice.between(2, PLACES.length));
    this.#pauseTicks = dice.pick([30, 100, 300]);
    this.files = this.#machineFiles(bytes);
  }

  #machineFiles(bytes: Uint8Array): CrashFileSystem {
    const files = crashFileSystem(new Map([[PATH, bytes]]), this.broken.noSync ? { ignoreSyncOf: /\.map$/ } : {});
    const open = files.open.bind(files);
    files.open = async (path, mode) => {
      const file = await open(path, mode);
      const look = (): void => {
        if (files.operations >= files.stopAt) this.isOff = true;
      };
      return {
        ...file,
        write(from, position) {
          look();
          return file.write(from, position);
        },
        sync() {
          look();
          return file.sync();
        },
      } satisfies RandomAccessFile;
    };
    return files;
  }

  /** Everything until the machine stops at `stopAt` operations, or its time is over. */
  async live(stopAt: number): Promise<void> {
    this.files.stopAt = this.files.operations + stopAt;
    this.isOff = false;
    try {
      if (this.broken.noSyncAtOpen) this.files.skipNextSyncOf = /\.map$/;
      this.map = await DirtyMap.open(PATH, optionsFor(this.files));
      await this.#recover();
    } catch (error) {
      this.#endedBy(error);
      return;
    }
    const tasks = [
      ...Array.from({ length: 4 }, (_, n) => this.#writer(new Dice(this.dice.next(), n))),
      this.#sweeper(),
      this.#shipper(),
    ];
    for (const end of await Promise.allSettled(tasks)) if (end.status === 'rejected') this.#endedBy(end.reason);
  }

  #endedBy(error: unknown): void {
    if (!isBlockferryError(error, 'OUTPUT_FAILED', 'LOCAL_STATE')) throw error;
    this.isOff = true;
  }

  /** The next start finds what the power cut left. */
  cutPower(random: Random): void {
    this.files = this.#machineFiles(this.files.powerCut(random).get(PATH)!);
  }

  /** What the map that is found lacks of the truth. */
  async lacks(random: Random): Promise<number> {
    const map = await DirtyMap.open(PATH, optionsFor(this.files.powerCut(random)));
    const [active, changed] = [new Set(chunksOf(map, 'active')), new Set(chunksOf(map, 'changed'))];
    let count = 0;
    for (const { chunks } of this.uncertain) for (const chunk of chunks) if (!active.has(chunk)) count += 1;
    for (const chunk of [...this.current, ...this.closed]) if (!changed.has(chunk)) count += 1;
    return count;
  }

  /** Reads what was active and logs it again, as a tracker does. */
  async #recover(): Promise<void> {
    for (const chunk of this.current) this.closed.add(chunk);
    this.current = new Set();
    for (const write of this.uncertain) write.hasEnded = true;
    if (this.broken.adoptsEarly) {
      this.map.adoptActive();
      await this.map.settle(async () => {});
    }
    const active = chunksOf(this.map, 'active');
    for (let i = 0; i < 3; i += 1) {
      await this.map.settle(async () => {});
      await ticks(this.dice.below(20));
    }
    if (this.isOff) return;
    for (const chunk of active) this.current.add(chunk);
    this.uncertain.clear();
    this.map.adoptActive();
  }

  async #writer(dice: Dice): Promise<void> {
    for (let i = 0; i < 12; i += 1) {
      while (this.#barrier !== undefined) await this.#barrier;
      const from = dice.pick(this.#places);
      const chunks = Array.from({ length: dice.between(1, 3) }, (_, n) => from + n);
      this.#underWay += 1;
      const { epoch } = this.map;
      let hasEnded = false;
      try {
        await this.map.begin(from * CHUNK, chunks.length * CHUNK);
        if (this.broken.endsEarly) {
          this.map.end(epoch);
          hasEnded = true;
        }
        await this.#change(chunks, dice);
      } finally {
        if (!hasEnded) this.map.end(epoch);
        this.#underWay -= 1;
      }
      await ticks(dice.below(this.#pauseTicks));
    }
  }

  async #change(chunks: readonly number[], dice: Dice): Promise<void> {
    const write = { chunks, hasEnded: false };
    if (!this.isOff) {
      this.uncertain.add(write);
      for (const chunk of chunks) this.current.add(chunk);
    }
    await ticks(dice.oneIn(4) ? dice.below(400) : dice.below(20));
    if (!this.isOff) write.hasEnded = true;
  }

  async #sweeper(): Promise<void> {
    for (let i = 0; i < 14; i += 1) {
      await this.map.settle(async () => {
        const ended = [...this.uncertain].filter(({ hasEnded }) => hasEnded);
        await ticks(this.dice.below(30));
        if (!this.isOff) for (const write of ended) this.uncertain.delete(write);
      });
      await ticks(this.dice.below(60));
    }
  }

  async #shipper(): Promise<void> {
    for (let i = 0; i < 5; i += 1) {
      await ticks(this.dice.below(150));
      let resume = (): void => {};
      this.#barrier = new Promise((resolve) => {
        resume = resolve;
      });
      while (this.#underWay > 0) await ticks(1);
      this.map.rotate();
      if (!this.isOff) {
        for (const chunk of this.current) this.closed.add(chunk);
        this.current = new Set();
      }
      this.#barrier = undefined;
      resume();
      if (this.dice.oneIn(2)) await this.map.sync();
      await ticks(this.dice.below(100));
      if (!this.isOff) this.closed = new Set();
      await this.map.forgetClosed();
    }
  }
}

async function emptyMap(): Promise<Uint8Array> {
  const files = memoryFileSystem();
  files.put('/state/item.json', new Uint8Array(0));
  await (await DirtyMap.create(PATH, optionsFor(files))).close();
  return files.get(PATH)!;
}

/** Three lives, the first of which ends behind `stopAt` operations; how much their maps lacked. */
async function lacking(seed: number, stopAt: number, broken: Break): Promise<number> {
  const dice = new Dice(seed, stopAt);
  const random: Random = { bytes: (n) => dice.bytes(n), fraction: () => dice.next() / 2 ** 32 };
  const machine = new Machine(dice, await emptyMap(), broken);
  let count = 0;
  for (let life = 0; life < 3; life += 1) {
    await machine.live(life === 0 ? stopAt : dice.below(60));
    for (let draw = 0; draw < 3; draw += 1) count += await machine.lacks(random);
    // Sometimes only the process dies: then what it wrote is there, and still not durable.
    if (dice.oneIn(2)) machine.cutPower(random);
  }
  return count;
}

async function operationsOf(seed: number): Promise<number> {
  const machine = new Machine(new Dice(seed, 0), await emptyMap(), {});
  await machine.live(Number.POSITIVE_INFINITY);
  return machine.files.operations;
}

async function lackingInAll(broken: Break, step = 1): Promise<number> {
  let [count, all] = [0, 0];
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const operations = await operationsOf(seed);
    all += operations;
    for (let stopAt = 0; stopAt <= operations; stopAt += step) count += await lacking(seed, stopAt, broken);
  }
  expect(all).toBeGreaterThan(SEEDS * 25);
  return count;
}

describe('a crash at any file operation', () => {
  it('leaves a superset of the chunks that may differ, life after life', { timeout: TIMEOUT_MS }, async () => {
    expect(await lackingInAll({})).toBe(0);
  });

  it.each<[string, Break]>([
    ['the map is not synced', { noSync: true }],
    ['what another process wrote is believed to be durable', { noSyncAtOpen: true }],
    ['writers say too early that they have ended', { endsEarly: true }],
    ['what was active is adopted before it is bridged', { adoptsEarly: true }],
  ])('leaves less where %s', { timeout: TIMEOUT_MS }, async (_, broken) => {
    expect(await lackingInAll(broken, 2)).toBeGreaterThan(0);
  });

  it('finds every chunk changed once that was said', async () => {
    const dice = new Dice(5);
    const random: Random = { bytes: (n) => dice.bytes(n), fraction: () => dice.next() / 2 ** 32 };
    const files = crashFileSystem(new Map([[PATH, await emptyMap()]]));
    const map = await DirtyMap.open(PATH, optionsFor(files));
    await map.markAll();
    for (let draw = 0; draw < 20; draw += 1) {
      const found = await DirtyMap.open(PATH, optionsFor(files.powerCut(random)));
      expect(found.count('changed')).toBe(CHUNKS);
    }
  });

  it('while the map is made leaves none, or an empty one', async () => {
    for (let stopAt = 0; stopAt <= 7; stopAt += 1) {
      for (let draw = 0; draw < 20; draw += 1) {
        const dice = new Dice(stopAt, draw);
        const files = crashFileSystem(new Map([['/state/item.json', new Uint8Array(0)]]));
        files.stopAt = stopAt;
        const made = await DirtyMap.create(PATH, optionsFor(files)).then(
          () => true,
          () => false,
        );
        const found = files.powerCut({ bytes: (n) => dice.bytes(n), fraction: () => dice.next() / 2 ** 32 });
        expect(made).toBe(stopAt >= 6);
        if (!(await found.exists(PATH))) expect(made).toBe(false);
        else expect((await DirtyMap.open(PATH, optionsFor(found))).count('changed')).toBe(0);
      }
    }
  });
});
