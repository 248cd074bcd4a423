/**
 * kill -9 of the real tracker, shipper, applier and resync at random moments, while a guest writes. After each kill nothing
 * that was flushed is lost, logging goes on without a full read, and every recovery point is what the disks held at one
 * moment (tracked-lineage.ts says it in full).
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { numberFromEnvironment } from '../support/dice.ts';
import { type Figures, TrackedLineage, type TrackedLineageOptions } from './tracked-lineage.ts';

const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 20_261_122);
const FACTOR = numberFromEnvironment('BLOCKFERRY_KILLS', 1);

let azurite: Azurite;
beforeAll(async () => {
  azurite = await startAzurite();
});
afterAll(() => azurite.stop());

const folder = (directory: string): string => `file://${directory}/store`;
const blobs = (): string => `${azurite.account}/tracking/${Math.random().toString(36).slice(2)}`;

/** What is killed, at a moment of what. */
const STEPS: readonly (readonly [string, (lineage: TrackedLineage) => Promise<unknown>])[] = [
  ['the tracker', (lineage) => lineage.killTracker()],
  ['the tracker during ship', (lineage) => lineage.killTracker({ during: 'ship' })],
  ['ship', (lineage) => lineage.run('ship', { kill: true })],
  ['apply', (lineage) => lineage.run('apply', { kill: true })],
  ['the tracker during resync', (lineage) => lineage.killTracker({ during: 'resync' })],
  ['resync', (lineage) => lineage.run('resync', { kill: true })],
  [
    'ship, then the tracker',
    async (lineage) => {
      await lineage.run('ship', { kill: lineage.dice.oneIn(2) });
      await lineage.killTracker();
    },
  ],
  ['the tracker during apply', (lineage) => lineage.killTracker({ during: 'apply' })],
];

/** Steps in an order by dice, each as often as the others, until there were so many kills. */
async function killUntil(lineage: TrackedLineage, kills: number): Promise<void> {
  let left = [...STEPS];
  while (lineage.figures.kills < kills) {
    const [name, step] = lineage.dice.pick(left);
    left = left.filter(([other]) => other !== name);
    if (left.length === 0) left = [...STEPS];
    try {
      lineage.write();
      await step(lineage);
      await lineage.settle();
    } catch (error) {
      throw new Error(`after ${lineage.figures.kills} kills, ${name}: ${lineage.story}`, { cause: error });
    }
  }
}

function tell(name: string, { kills, restored, moments, bridgedBytes, activeBytes }: Figures): void {
  const kib = (bytes: number): number => Math.round(bytes / 1024);
  const sum = bridgedBytes.reduce((total, bytes) => total + bytes, 0);
  const mean = kib(sum / Math.max(1, bridgedBytes.length));
  console.info(
    `${name}: ${kills} kills, lost: 0, ${restored} points restored, ${moments} of them made while the guest wrote; read again in ${bridgedBytes.length} starts: ` +
      `max ${kib(Math.max(0, ...bridgedBytes))} KiB, mean ${mean} KiB of ${kib(Math.max(0, ...activeBytes))} KiB active at most`,
  );
}

describe.concurrent('killed at random moments', () => {
  it.each([
    { store: 'a folder', layout: 'sealed', url: folder, kills: 8 },
    { store: 'a folder', layout: 'raw', url: folder, kills: 6 },
    { store: 'page blobs', layout: 'sealed', url: blobs, kills: 6 },
  ] as const)(
    `nothing is lost: $store, $layout, $kills × ${FACTOR} kills, seed ${SEED}`,
    {
      timeout: FACTOR * 600_000,
    },
    async ({ store, kills, ...options }: Omit<TrackedLineageOptions, 'seed'> & { store: string; kills: number }) => {
      const lineage = await TrackedLineage.begin({ ...options, seed: SEED });
      try {
        await killUntil(lineage, kills * FACTOR);
        await lineage.checkStore();
        tell(`${store}, ${options.layout}`, lineage.figures);
        expect(lineage.figures.bridgedBytes.length).toBeGreaterThan(0);
      } finally {
        await lineage.end();
      }
    },
  );
});
