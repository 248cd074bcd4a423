/** Random schedules against plain sets: the map says of every chunk what they say. */
import { expect, it } from 'vitest';
import { DirtyMap } from '../../src/tracker/dirty-map.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import { CHUNK, CHUNKS, chunksOf, optionsFor, PAGE_CHUNKS, PATH, RECORD_CHUNKS, sweep } from './dirty-map-lab.ts';

const RUNS = numberFromEnvironment('BLOCKFERRY_MAP_RUNS', 25);
const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 1);

/** Places where something begins or ends, and some between. */
const EDGES = [0, 8, 31, RECORD_CHUNKS, PAGE_CHUNKS, PAGE_CHUNKS + RECORD_CHUNKS, PAGE_CHUNKS * 2, CHUNKS] as const;

function placeOf(dice: Dice): { readonly from: number; readonly count: number } {
  const near = dice.pick(EDGES) + dice.between(-6, 6);
  const from = Math.max(0, Math.min(CHUNKS - 1, dice.oneIn(6) ? dice.below(CHUNKS) : near));
  const count = dice.oneIn(20) ? dice.between(1, 3000) : dice.between(1, 5);
  return { from, count: Math.min(count, CHUNKS - from) };
}

class Model {
  current = new Set<number>();
  closed = new Set<number>();
  everyCurrent = false;
  everyClosed = false;
  /** Touched since the last sweep, and since the one before. */
  touched = new Set<number>();
  touchedBefore = new Set<number>();

  get active(): Set<number> {
    return new Set([...this.touched, ...this.touchedBefore]);
  }

  write(from: number, count: number): void {
    for (let chunk = from; chunk < from + count; chunk += 1) {
      this.current.add(chunk);
      this.touched.add(chunk);
    }
  }

  sweep(): void {
    this.touchedBefore = this.touched;
    this.touched = new Set();
  }

  rotate(): void {
    for (const chunk of this.current) this.closed.add(chunk);
    this.current = new Set();
    this.everyClosed ||= this.everyCurrent;
    this.everyCurrent = false;
  }

  forgetClosed(): void {
    this.closed = new Set();
    this.everyClosed = false;
  }
}

const ALL = Array.from({ length: CHUNKS }, (_, chunk) => chunk);

function sorted(chunks: Iterable<number>, isEvery = false): number[] {
  return isEvery ? ALL : [...new Set(chunks)].sort((a, b) => a - b);
}

function compare(map: DirtyMap, model: Model): void {
  const { current, closed, everyCurrent, everyClosed } = model;
  const isEvery = everyCurrent || everyClosed;
  expect(chunksOf(map, 'current')).toEqual(sorted(current, everyCurrent));
  expect(chunksOf(map, 'closed')).toEqual(sorted(closed, everyClosed));
  expect(chunksOf(map, 'changed')).toEqual(sorted([...current, ...closed], isEvery));
  expect(map.count('changed')).toBe(isEvery ? CHUNKS : new Set([...current, ...closed]).size);
  const active = new Set(chunksOf(map, 'active'));
  for (const chunk of model.active) if (!active.has(chunk)) throw new Error(`chunk ${chunk} is not active`);
  for (const chunk of [0, 7, 8, RECORD_CHUNKS, CHUNKS - 1]) {
    expect(map.isChanged(chunk)).toBe(isEvery || current.has(chunk) || closed.has(chunk));
  }
}

it('a map agrees with plain sets, whatever is done to it', async () => {
  for (let run = 0; run < RUNS; run += 1) {
    const dice = new Dice(SEED, run);
    const files = memoryFileSystem();
    files.put('/state/item.json', new Uint8Array(0));
    let map = await DirtyMap.create(PATH, optionsFor(files));
    const model = new Model();
    const steps: Record<string, () => Promise<void>> = {
      async write() {
        const places = Array.from({ length: dice.between(1, 6) }, () => placeOf(dice));
        await Promise.all(
          places.map(async ({ from, count }) => {
            const { epoch } = map;
            const bytes = from + count === CHUNKS ? count * CHUNK - 512 : count * CHUNK;
            await map.begin(from * CHUNK, bytes);
            map.end(epoch);
          }),
        );
        for (const { from, count } of places) model.write(from, count);
      },
      async sweep() {
        await sweep(map);
        model.sweep();
      },
      async rotate() {
        map.rotate();
        model.rotate();
      },
      async forgetClosed() {
        model.forgetClosed();
        await map.forgetClosed();
      },
      async markAll() {
        if (!dice.oneIn(4)) return;
        model.everyCurrent = true;
        await map.markAll();
      },
      async close() {
        await map.close();
        map = await DirtyMap.open(PATH, optionsFor(files));
        Object.assign(model, { touched: new Set(), touchedBefore: new Set() });
        model.rotate();
      },
      async crash() {
        await map.sync();
        await map.abandon();
        map = await DirtyMap.open(PATH, optionsFor(files));
        model.rotate();
        const active = new Set(chunksOf(map, 'active'));
        for (const chunk of model.active) if (!active.has(chunk)) throw new Error(`chunk ${chunk} is not active`);
        const isEvery = model.everyClosed;
        expect(chunksOf(map, 'changed')).toEqual(sorted([...active, ...model.closed], isEvery));
        // That an active chunk was current may not be in the file yet.
        const { closed } = model;
        model.closed = new Set(isEvery ? closed : chunksOf(map, 'closed'));
        for (const chunk of closed) if (!active.has(chunk)) expect(model.closed.has(chunk)).toBe(true);
        // What was active, ahead of the writes too, is bridged.
        for (const chunk of active) model.current.add(chunk);
        Object.assign(model, { touched: new Set(), touchedBefore: new Set() });
        map.adoptActive();
      },
    };
    const names = ['write', 'write', 'write', 'sweep', 'sweep', ...Object.keys(steps)];
    const taken: string[] = [];
    try {
      for (let i = 0; i < 40; i += 1) {
        taken.push(dice.pick(names));
        await steps[taken.at(-1)!]!();
        compare(map, model);
      }
      await sweep(map, 2);
      expect(map.count('active')).toBe(0);
    } catch (error) {
      throw new Error(`seed ${SEED}, run ${run}: ${taken.join(', ')}`, { cause: error });
    }
    await map.close();
  }
});
