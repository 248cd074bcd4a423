/**
 * A machine that writes while it is shipped, applied, resynced and restarted, by dice: each recovery point must restore to
 * the disks as they were at one moment between the call and the answer of its cycle, across all disks.
 */
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { apply, failover, points, protect, resync, ship, status } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { trackedItem } from '../../src/agent/tracking.ts';
import type { Session } from '../../src/agent/types.ts';
import { isBlockferryError } from '../../src/errors.ts';
import {
  ControlServer,
  controlPath,
  diskStamp,
  type ItemTracker,
  openTracker,
  type TrackedItem,
} from '../../src/tracker/index.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const SCHEDULES = numberFromEnvironment('BLOCKFERRY_SCHEDULES', 100);
const SECTOR = 512;
const SIZES = [1024 * 1024, 640 * 1024 + SECTOR];

interface Write {
  readonly disk: number;
  readonly offset: number;
  readonly bytes: Buffer;
}

/** What a point may be: this state, and behind it any number of these writes, in their order. */
interface Moment {
  readonly base: readonly Buffer[];
  readonly during: readonly Write[];
}

const open: Machine[] = [];
afterEach(async () => {
  for (const machine of open.splice(0)) await machine.end();
});

class Machine {
  readonly lab = new Lab();
  readonly dice: Dice;
  readonly session: Session;
  readonly moments: Map<string, Moment> = new Map();
  readonly events: string[] = [];
  #tracker: ItemTracker | undefined;
  #control: ControlServer | undefined;
  #writes = 0;

  constructor(seed: number) {
    open.push(this);
    this.dice = new Dice(seed);
    this.session = {
      ...this.lab.session,
      home: join(this.lab.directory, 'home'),
      onEvent: (event) => {
        if (event.type === 'notice') this.events.push(`${event.code}: ${event.message}`);
      },
    };
  }

  async protect(layout: 'sealed' | 'raw'): Promise<void> {
    const disks = SIZES.map((size, i) => this.lab.disk(`disk${i}.img`, this.dice.bytes(size)));
    await protect(this.session, { name: 'web', disks, url: STORE_URL, layout, chunkBytes: CHUNK, keys: [] });
  }

  async start(): Promise<void> {
    const item = await this.#item();
    this.#tracker = await openTracker(item);
    this.#control = new ControlServer(this.#tracker, this.lab.ports.clock);
    await this.#control.listen(controlPath(item.directory), this.session.ports.files);
  }

  /** Ends the tracker in order, or as a kill would. */
  async stop(how: 'clean' | 'hard'): Promise<void> {
    await this.#control?.close();
    const { ports } = this.session;
    if (how === 'clean') await this.#tracker?.close(({ source }) => diskStamp(source, ports));
    else await this.#tracker?.abandon();
    this.#tracker = undefined;
    this.#control = undefined;
  }

  async end(): Promise<void> {
    await this.stop('hard');
    this.lab.close();
  }

  /** Writes, zeros and flushes, many at a time and over one another. */
  async burst(): Promise<void> {
    const { dice } = this;
    await Promise.all(
      Array.from({ length: dice.between(1, 12) }, () => {
        const { disk, offset, bytes } = this.#write(64);
        const device = this.#tracker!.devices[disk]!;
        if (dice.oneIn(5)) return device.zero(offset, bytes.length, { unmap: dice.oneIn(2), fua: false });
        if (dice.oneIn(8)) return device.flush();
        return device.write(bytes, offset, dice.oneIn(6));
      }),
    );
  }

  /** Runs `work` while the guest writes one after the other; what it commits as a point is kept. */
  async whileWriting(work: () => Promise<{ readonly pointId: string }>): Promise<void> {
    const base = await this.contents();
    const during: Write[] = [];
    let ended = false;
    const guest = (async () => {
      while (!ended && during.length < 40) {
        const write = this.#write(16);
        during.push(write);
        await this.#tracker!.devices[write.disk]!.write(write.bytes, write.offset, this.dice.oneIn(5));
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    try {
      const { pointId } = await work();
      this.moments.set(pointId, { base, during: [...during] });
    } catch (error) {
      // Logs of disks as small as these fill up; the next step finds the mark.
      if (!isBlockferryError(error, 'RESYNC_REQUIRED')) throw error;
    } finally {
      ended = true;
      await guest;
    }
  }

  /** Restores a point and says what is wrong with it; undefined if it is one moment of its cycle. */
  async check(pointId: string): Promise<string | undefined> {
    const outDirectory = join(this.lab.directory, `out-${pointId}`);
    await mkdir(outDirectory);
    await failover(this.session, { name: 'web' }, { point: pointId, outDirectory, format: 'raw' });
    const found = SIZES.map((_, i) => readFileSync(join(outDirectory, `disk${i}.raw`)));
    const { base, during } = this.moments.get(pointId)!;
    const state = base.map((content) => Buffer.from(content));
    const isFound = (): boolean => state.every((content, i) => content.equals(found[i]!));
    if (isFound()) return undefined;
    for (const { disk, offset, bytes } of during) {
      bytes.copy(state[disk]!, offset);
      if (isFound()) return undefined;
    }
    return `point ${pointId} is no moment of its cycle`;
  }

  async contents(): Promise<Buffer[]> {
    const contents = SIZES.map((size) => Buffer.alloc(size));
    for (const [i, content] of contents.entries()) {
      if (this.#tracker) await this.#tracker.devices[i]!.read(content, 0);
      else readFileSync(join(this.lab.directory, `disk${i}.img`)).copy(content);
    }
    return contents;
  }

  #write(sectorsMax: number): Write {
    const disk = this.dice.below(SIZES.length);
    const lengthBytes = SECTOR * this.dice.between(1, sectorsMax);
    const offset = this.dice.below((SIZES[disk]! - lengthBytes) / SECTOR + 1) * SECTOR;
    this.#writes += 1;
    return { disk, offset, bytes: Buffer.alloc(lengthBytes, `write ${this.#writes} `) };
  }

  async #item(): Promise<TrackedItem> {
    const item = new LocalItem(this.session.home, 'web', this.session.ports.files);
    return trackedItem(this.session, item, await item.load(), (await item.loadDescription())!);
  }
}

async function play(machine: Machine, seed: number): Promise<void> {
  const { dice, session } = machine;
  await machine.protect(seed % 4 === 0 ? 'raw' : 'sealed');
  await machine.start();
  for (let step = 0; step < 6; step += 1) {
    const choice = dice.below(20);
    const [item] = await status(session, 'web');
    const needsResync = item!.state === 'resync-required';
    if (choice < 6) await machine.burst();
    else if (choice < 8) await apply(session, { name: 'web' });
    else if (choice < 9) {
      await machine.stop(dice.oneIn(2) ? 'clean' : 'hard');
      await machine.start();
    } else if (choice < 11 || needsResync) await machine.whileWriting(() => resync(session, 'web'));
    else await machine.whileWriting(() => ship(session, 'web'));
  }
}

describe('recovery points under load', () => {
  it(`equal the disks at one moment of their cycle: ${SCHEDULES} schedules`, { timeout: 900_000 }, async () => {
    let checked = 0;
    for (let seed = 1; seed <= SCHEDULES; seed += 1) {
      const machine = new Machine(seed);
      await play(machine, seed);
      const known = (await points(machine.session, { name: 'web' })).filter(({ id }) => machine.moments.has(id));
      // The newest, and one of the others: each that is restored costs as much as a cycle.
      const chosen = [known.at(-1), machine.dice.pick(known.slice(0, -1))];
      for (const id of new Set(chosen.flatMap((point) => point?.id ?? []))) {
        expect(await machine.check(id), `seed ${seed}\n${machine.events.join('\n')}`).toBeUndefined();
        checked += 1;
      }
      open.splice(open.indexOf(machine), 1);
      await machine.end();
    }
    console.info(`${checked} points of ${SCHEDULES} schedules restored`);
    expect(checked).toBeGreaterThan(SCHEDULES);
  });
});
