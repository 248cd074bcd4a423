/** Months of 20 machines at the published cycle of 15 minutes, by hand: about a minute of a core each. */
import { expect, it } from 'vitest';
import { numberFromEnvironment } from '../../support/dice.ts';
import { runSeed } from './run-seed.ts';
import { storyOf } from './story.ts';

const FIRST = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const SEEDS = numberFromEnvironment('BLOCKFERRY_SEEDS', 20);

for (let seed = FIRST; seed < FIRST + SEEDS; seed += 1) {
  it(`20 machines for 30 days: seed ${seed}`, async () => {
    const { violations, cycles } = await runSeed(storyOf(seed, 'month'));
    expect(violations).toEqual([]);
    expect(cycles).toBeGreaterThan(30_000);
  });
}
