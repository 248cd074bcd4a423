/**
 * kill -9 of the real program at random moments, on both kinds of store and in both layouts. After each kill the newest
 * point restores from the store and a key alone to exactly what it was taken of; the next run goes on, and what it
 * commits is the disk as it is now.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { Lineage } from './lineage.ts';

const SEED = Number(process.env['BLOCKFERRY_SEED'] ?? 20_261_121);
const FACTOR = Number(process.env['BLOCKFERRY_KILLS'] ?? 1);
const DISK_MIB = 40;

let azurite: Azurite;
beforeAll(async () => {
  azurite = await startAzurite();
});
afterAll(() => azurite.stop());

const folder = (directory: string): string => `file://${directory}/store`;
const blobs = (): string => `${azurite.account}/crash/${Math.random().toString(36).slice(2)}`;

/** Kills `kills` runs one after the other, then lets one end. A run that was faster than its kill is tried anew. */
async function killThenFinish(lineage: Lineage, verb: 'protect' | 'resync', kills: number): Promise<void> {
  let spanMs = 800;
  for (let killed = 0; killed < kills; ) {
    // Program start alone takes so long: earlier kills would test Node, not us.
    const run = await lineage.run(verb, { killAfterMs: 150 + lineage.dice.below(spanMs) });
    await lineage.check();
    if (run.killed) {
      killed += 1;
      continue;
    }
    expect(run.result.code, run.result.stderr).toBe(0);
    spanMs *= 0.7;
    await lineage.change();
  }
  const { result } = await lineage.run(verb);
  expect(result.code, result.stderr).toBe(0);
  expect(await lineage.isCurrent()).toBe(true);
}

describe.each([
  { store: 'folder', layout: 'sealed', url: folder, first: 3, later: 6 },
  { store: 'folder', layout: 'raw', url: folder, first: 2, later: 4 },
  { store: 'page blobs', layout: 'sealed', url: blobs, first: 2, later: 4 },
  { store: 'page blobs', layout: 'raw', url: blobs, first: 2, later: 4 },
] as const)('killed at random moments: $store, $layout', ({ layout, url, first, later }) => {
  it(`loses no committed point in ${(first + later) * FACTOR} kills (seed ${SEED})`, {
    timeout: FACTOR * 300_000,
  }, async () => {
    const lineage = await Lineage.begin({ url, layout, seed: SEED, diskMib: DISK_MIB });
    try {
      await killThenFinish(lineage, 'protect', first * FACTOR);
      for (let left = later * FACTOR; left > 0; left -= 2) {
        await lineage.change();
        await killThenFinish(lineage, 'resync', Math.min(2, left));
      }
    } finally {
      await lineage.end();
    }
  });
});
