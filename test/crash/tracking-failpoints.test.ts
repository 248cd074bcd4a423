/**
 * kill -9 of the real program at every failpoint of tracking, shipping and applying, and of a resync under a tracker, on the
 * folder store (which has failpoints of its own). What has to hold afterwards stands in tracked-lineage.ts.
 */
import { describe, expect, it } from 'vitest';
import { FAILPOINT_NAMES, type FailpointName } from '../../src/ports.ts';
import { numberFromEnvironment } from '../support/dice.ts';
import { TrackedLineage, type Verb } from './tracked-lineage.ts';

/** Each failpoint is hit the first time; by hand also the second time, the third … */
const HITS = numberFromEnvironment('BLOCKFERRY_KILLS', 1);

/** Failpoints of the tracker, and how it ended before: after a crash it also closes logs that it finds. */
const OF_TRACKER: readonly (readonly [FailpointName, 'clean' | 'killed', firstHit: number])[] = [
  ['hrl.after-create', 'clean', 1],
  ['hrl.after-create', 'killed', 1],
  // Behind those of the start: at the barrier.
  ['hrl.after-create', 'clean', 3],
  ['hrl.after-block', 'killed', 1],
  ['hrl.after-sync', 'clean', 1],
  ['hrl.after-data', 'killed', 1],
  ['hrl.after-data', 'clean', 1],
  ['hrl.after-close', 'killed', 1],
  ['hrl.after-close', 'clean', 1],
  ['track.before-barrier', 'clean', 1],
  ['track.after-barrier', 'killed', 1],
];
const OF_VERBS: Readonly<Record<Verb, readonly FailpointName[]>> = {
  ship: [
    ...(['ship.after-part', 'ship.after-upload', 'object.after-temporary'] as const),
    ...(['sync.after-root', 'sync.after-anchor', 'ship.before-acknowledge'] as const),
  ],
  apply: [
    ...(['apply.after-intent', 'apply.after-slots', 'apply.after-pages', 'apply.after-snapshots'] as const),
    ...(['folder.after-undo', 'folder.after-write', 'sync.after-root', 'sync.after-anchor'] as const),
  ],
  resync: [
    ...([
      'sync.after-fence',
      'sync.after-intent',
      'sync.after-slots',
      'sync.after-pages',
      'sync.after-snapshots',
    ] as const),
    ...(['sync.after-root', 'ship.after-upload', 'ship.before-acknowledge'] as const),
  ],
};
/** Failpoints of verbs that no tracker has to do with. */
const ELSEWHERE: readonly FailpointName[] = [
  ...(['protect.after-claim', 'protect.after-description', 'protect.after-keyring', 'protect.after-blobs'] as const),
  ...(['restore.after-data', 'restore.after-logs', 'restore.after-rename', 'key.after-keyring'] as const),
  ...(['stage.after-chunks', 'stage.after-index', 'stage.after-complete'] as const),
  ...(['lay.after-write', 'lay.after-sync'] as const),
  ...(['planned.after-stop', 'planned.after-proof', 'commit.after-tracking'] as const),
  ...(['gateway.after-staging', 'gateway.after-queue', 'gateway.after-upload'] as const),
  ...(['mirror.after-intent', 'mirror.after-slots', 'mirror.after-pages', 'mirror.after-snapshots'] as const),
  'mirror.after-log',
];

/** More than one part of a shipped log has, and not what half of a disk is. */
const LARGE = { bytesMax: 3 << 20, sectorsMax: 128, pauseMs: 1, windowBytes: 12 << 20 };
const SMALL = { bytesMax: 256 << 10, sectorsMax: 16, pauseMs: 1 };

async function during(lineage: TrackedLineage, what: string, step: () => Promise<void>): Promise<void> {
  try {
    await step();
    await lineage.settle();
  } catch (error) {
    throw new Error(`${what}: ${lineage.story}`, { cause: error });
  }
}

async function inLineage(layout: 'sealed' | 'raw', work: (lineage: TrackedLineage) => Promise<void>): Promise<void> {
  const url = (directory: string): string => `file://${directory}/store`;
  const lineage = await TrackedLineage.begin({ url, layout, seed: 3 });
  try {
    await work(lineage);
    await lineage.checkStore();
    console.info(`${lineage.figures.kills} kills at failpoints, layout ${layout}, lost: 0`);
  } finally {
    await lineage.end();
  }
}

async function crashVerb(lineage: TrackedLineage, verb: Verb, name: FailpointName, hit: number): Promise<void> {
  await during(lineage, `${verb} at ${name}:${hit}`, async () => {
    // There has to be something to send.
    await lineage.fill(name === 'ship.after-part' ? LARGE : SMALL);
    lineage.write();
    const { signal } = await lineage.run(verb, { failpoints: `${name}:${hit}=kill` });
    if (hit === 1) expect(signal, `${verb} at ${name}`).toBe('SIGKILL');
  });
}

describe.concurrent('killed at every failpoint', { timeout: HITS * 300_000 }, () => {
  it('the tracker goes on', () =>
    inLineage('sealed', async (lineage) => {
      for (const [name, before, firstHit] of OF_TRACKER) {
        for (let hit = firstHit; hit < firstHit + HITS; hit += 1) {
          await during(lineage, `track at ${name}:${hit}`, async () => {
            const killed = await lineage.crashTrackerAt(`${name}:${hit}=kill`, before);
            if (hit === firstHit) expect(killed, `${name}, ${before}`).toBe(true);
          });
        }
      }
    }));

  it.each([
    ['ship', 'sealed'],
    ['apply', 'raw'],
    ['resync', 'sealed'],
  ] as const)('%s is made up for, layout %s', (verb, layout) =>
    inLineage(layout, async (lineage) => {
      // A cycle before the first, so that there is something to apply.
      await during(lineage, 'a first cycle', () => lineage.fill(SMALL));
      for (let hit = 1; hit <= HITS; hit += 1) {
        for (const name of OF_VERBS[verb]) await crashVerb(lineage, verb, name, hit);
      }
    }),
  );

  it('and there is none that no run reaches', () => {
    const reached = new Set([...OF_TRACKER.map(([name]) => name), ...Object.values(OF_VERBS).flat(), ...ELSEWHERE]);
    expect(FAILPOINT_NAMES.filter((name) => !reached.has(name))).toEqual([]);
  });
});
