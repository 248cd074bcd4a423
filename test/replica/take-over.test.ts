/** Taking a replica over: what is refused, and that what comes out is a root that readers take and points that restore. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { randomGuid } from '../../src/guid.ts';
import { baselineOf, isNewestState, logsOf, type Root, type TakeOver, takeOver } from '../../src/replica/index.ts';
import { retain } from '../../src/replica/retain.ts';
import { decodeRoot, encodeRoot } from '../../src/replica/root-record.ts';
import { noise } from '../chunker/support.ts';
import { seededRandom } from '../support/virtual-clock.ts';

const KEY = noise(32, 1);
const random = seededRandom(1);
const HEAD = randomGuid(noise(16, 2));
const TABLE = { page: 0, generation: 2, epoch: 1, copy: 0 as const, tag: noise(16, 3) };
const FROZEN = { tables: [TABLE], manifestSnapshot: 's', baseSnapshots: [] };

const baseline = (generation: number, appliedLog: number) => ({ generation, appliedLog, disks: [FROZEN] });
const log = (seq: number) => ({ seq, id: noise(16, seq), frames: 1, sizeBytes: 100, dataBytes: 50 });
const point = (generation: number, on: number, upTo: number) => ({
  ...{ id: `p${generation}`, timeMs: generation, consistency: 'crash' as const, generation, baseline: on, log: upTo },
});

const ROOT: Root = {
  ...{ generation: 9, previous: noise(32, 4), description: noise(32, 5), keyringCounter: 1, timeMs: 1, writer: 'w' },
  owner: { side: noise(16, 6), epoch: 3, phase: 'replicating', sinceMs: 1 },
  disks: [{ tables: [TABLE], head: HEAD }],
  baselines: [baseline(2, 0), baseline(6, 3)],
  points: [point(3, 2, 1), point(5, 2, 3), point(7, 6, 4), point(9, 6, 5)],
  logs: [1, 2, 3, 4, 5].map(log),
};

const take = (change: Partial<TakeOver> = {}): TakeOver => ({
  ...{ side: noise(16, 7), point: 'p9', epoch: 3, newestGeneration: 9, planned: false, discardNewer: false },
  ...{ nowMs: 5, random, ...change },
});

/** The root that is committed. */
function after(root: Root, change: ReturnType<typeof takeOver>): Root {
  const { sync = root.sync, follows: _following, ...rest } = change;
  const merged = { ...root, ...rest };
  const { sync: _, ...settled } = merged;
  return { ...settled, ...retain(merged), ...(sync ? { sync } : {}), generation: root.generation + 1 };
}

it('of the newest point keeps the heads: what is written next is the next delta', () => {
  const taken = after(ROOT, takeOver(ROOT, take()));
  expect(taken.owner).toEqual({ side: noise(16, 7), epoch: 4, phase: 'failed-over', point: 'p9', sinceMs: 5 });
  expect(taken).toMatchObject({ disks: ROOT.disks, points: [{ id: 'p9' }], logs: [{ seq: 4 }, { seq: 5 }] });
});

it('of an older point lets no log of either side go on', () => {
  for (const [id, logs] of [
    ['p7', [4]],
    ['p3', [1]],
  ] as const) {
    const taken = after(ROOT, takeOver(ROOT, take({ point: id })));
    expect(taken.points.map((each) => each.id)).toEqual([id]);
    expect(taken.logs.map(({ seq }) => seq)).toEqual(logs);
    expect(taken.disks[0]!.head).not.toBe(HEAD);
  }
});

it.each([
  ['an owner that changed', { epoch: 2 }, 'SPLIT_BRAIN'],
  ['points made since', { newestGeneration: 7 }, 'SPLIT_BRAIN'],
  ['a planned one whose owner goes on', { planned: true }, 'SPLIT_BRAIN'],
  ['a point that is gone', { point: 'p4' }, 'POINT_NOT_FOUND'],
] as const)('is refused with %s', (_, change, code) => {
  expect(() => takeOver(ROOT, take(change))).toThrow(expect.objectContaining({ code }));
});

it('gives up points made since when told to, and takes a stopped owner at its point only', () => {
  expect(takeOver(ROOT, take({ point: 'p7', newestGeneration: 7, discardNewer: true })).points).toHaveLength(1);
  const synced: Root = { ...ROOT, owner: { ...ROOT.owner, phase: 'synced', point: 'p9' } };
  expect(takeOver(synced, take({ planned: true })).points).toHaveLength(1);
  expect(() => takeOver(synced, take({ planned: true, point: 'p7' }))).toThrow('has not stopped');
  const ended: Root = { ...ROOT, owner: { ...ROOT.owner, phase: 'ended' } };
  expect(() => takeOver(ended, take())).toThrow('ended');
});

it('leaves a root that readers take, with all that its point needs, whatever was under way', () => {
  const suspect = [{ disk: 0, from: 1, to: 3 }];
  const syncs: (Root['sync'] | undefined)[] = [
    undefined,
    { kind: 'apply', log: 5, begun: 8, suspect },
    { kind: 'resync', source: noise(32, 8), disk: 0, cursor: 7, suspect },
  ];
  fc.assert(
    fc.property(fc.constantFrom(...syncs), fc.constantFrom(...ROOT.points), (sync, wanted) => {
      const before: Root = { ...ROOT, ...(sync ? { sync } : {}) };
      const taken = after(before, takeOver(before, take({ point: wanted.id })));
      const record = encodeRoot(taken, KEY);
      const read = decodeRoot(record, KEY, 'root').root;
      expect(encodeRoot(read, KEY)).toEqual(record);
      const kept = read.points[0]!;
      expect(baselineOf(read, kept).disks).toEqual(baselineOf(before, wanted).disks);
      expect(logsOf(read, kept)).toEqual(logsOf(before, wanted));
      expect(read.sync?.suspect).toEqual(sync?.suspect);
      if (!isNewestState(before, wanted)) expect(read.sync?.kind).not.toBe('apply');
    }),
  );
});
