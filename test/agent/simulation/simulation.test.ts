/**
 * The engine of the agent over modelled machines, in virtual time and with seeded faults: what befalls them is in story.ts, what must
 * hold in watch.ts, retention-check.ts and replica-model.ts. A seed that fails is told again line by line with
 * BLOCKFERRY_SEED=its number BLOCKFERRY_SEEDS=1.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { numberFromEnvironment } from '../../support/dice.ts';
import { type Outcome, runSeed } from './run-seed.ts';
import { HOUR, type Size, storyOf } from './story.ts';

const FIRST = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const SEEDS = numberFromEnvironment('BLOCKFERRY_SEEDS', 10_000);
const AT_ONCE = 500;

const sizeOf = (seed: number): Size => (seed % 100 === 0 ? 'day' : 'short');

/** Errors are made by the million here, and nobody reads where. */
const { stackTraceLimit } = Error;
beforeAll(() => {
  Error.stackTraceLimit = 0;
});
afterAll(() => {
  Error.stackTraceLimit = stackTraceLimit;
});

type Counts = Omit<Outcome, 'violations'>;
const total: { -readonly [Key in keyof Counts]: number } = {
  ...{ cycles: 0, points: 0, resyncs: 0, fullCopies: 0, processes: 0, failures: 0, dropped: 0, read: 0 },
};

describe('seeds of one to three machines for about an hour until they are at rest, every hundredth for half a day', () => {
  for (let first = FIRST; first < FIRST + SEEDS; first += AT_ONCE) {
    const end = Math.min(first + AT_ONCE, FIRST + SEEDS);
    it(`${first} to ${end - 1}: nobody is stuck, nothing is lost, every rule is kept`, async () => {
      for (let seed = first; seed < end; seed += 1) {
        const story = storyOf(seed, sizeOf(seed));
        if (SEEDS === 1) console.log(JSON.stringify(story, undefined, 1));
        const { violations, ...counts } = await runSeed(story, {}, SEEDS === 1 ? console.log : undefined);
        expect(violations, `again with BLOCKFERRY_SEED=${seed} BLOCKFERRY_SEEDS=1`).toEqual([]);
        for (const key of Object.keys(total) as (keyof Counts)[]) total[key] += counts[key];
      }
    });
  }

  it.runIf(SEEDS >= 1000)('have seen enough of everything', () => {
    expect(total.processes).toBeGreaterThan(SEEDS * 1.1);
    for (const count of [total.cycles, total.points, total.failures, total.dropped])
      expect(count).toBeGreaterThan(SEEDS);
    for (const count of [total.resyncs, total.read]) expect(count).toBeGreaterThan(SEEDS / 10);
    expect(total.fullCopies).toBeGreaterThan(SEEDS / 100);
  });
});

it.runIf(SEEDS >= 1000)('20 machines for 30 days, with a cycle every two hours', async () => {
  const { violations, points, processes } = await runSeed(storyOf(FIRST, 'month', 2 * HOUR));
  expect(violations).toEqual([]);
  expect(points).toBeGreaterThan(20 * 30 * 6);
  expect(processes).toBeGreaterThan(10);
});
