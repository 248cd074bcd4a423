/**
 * Copies of disks that are being written: over the chunks that may differ, interrupted anywhere, and exact together with
 * the log of what was written meanwhile. The control leaves one dirty chunk out and must then be caught.
 */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import type { FailpointName } from '../../src/ports.ts';
import { CopyLab, sameContents } from '../support/copy-lab.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const SEEDS = numberFromEnvironment('BLOCKFERRY_CASES', 100);
/** Rounds with one replica, before a new one is made. */
const ROUNDS = 10;
/** Chunks of the first disk: few, or of which scattered ones are more than a window takes. The last one is short. */
const [FEW_CHUNKS, MANY_CHUNKS] = [24, 300];
const SECOND_CHUNKS = 12;

const open: CopyLab[] = [];
afterEach(() => {
  for (const lab of open.splice(0)) lab.close();
});

function contents(seed: number, chunks: number): readonly Buffer[] {
  const dice = new Dice(seed, 1_000_000);
  const first = Buffer.alloc(chunks * CHUNK - CHUNK + 1536);
  const second = Buffer.alloc(SECOND_CHUNKS * CHUNK);
  for (let chunk = 0; chunk < chunks; chunk += 1) {
    if (dice.oneIn(4))
      first.fill(dice.bytes(dice.pick([1, 64, 4096])), chunk * CHUNK, Math.min((chunk + 1) * CHUNK, first.byteLength));
  }
  second.fill(dice.bytes(70_000), 0, 8 * CHUNK);
  return [first, second];
}

const FAULTS: readonly FailpointName[] = [
  'sync.after-fence',
  'sync.after-intent',
  'sync.after-slots',
  'sync.after-pages',
  'sync.after-snapshots',
  'sync.after-root',
  'sync.after-anchor',
  'folder.after-write',
  'folder.after-undo',
  'folder.after-write',
];

/** Whether the armed fault was met. */
async function fails(work: Promise<unknown>): Promise<boolean> {
  try {
    await work;
    return false;
  } catch (error) {
    if (isBlockferryError(error, 'FAILPOINT')) return true;
    throw error;
  }
}

interface Tally {
  interrupted: number;
  mixtures: number;
  anew: number;
}

/** One copy with a guest that writes, until it is through; then it must be exact together with the log. */
async function round(lab: CopyLab, dice: Dice, tally: Tally, first: readonly Buffer[]): Promise<void> {
  for (let n = dice.below(20); n > 0; n -= 1) lab.writeAnything(dice, first);
  const chunks = Math.ceil(first[0]!.byteLength / CHUNK);
  if (dice.oneIn(3)) for (let n = chunks / 2; n > 0; n -= 1) lab.dirty[0]!.add(dice.below(chunks));
  lab.begin();
  const before = lab.contents.map((content) => Buffer.from(content));
  let busy = dice.pick([0, 3, 30]);
  const guest = (): void => {
    if (busy === 0 || dice.oneIn(2)) return;
    busy -= 1;
    lab.writeAnything(dice, first);
  };
  lab.lab.onFailpoint = guest;
  const all = dice.oneIn(6);
  for (;;) {
    lab.lab.arm(dice.oneIn(2) ? { name: dice.pick(FAULTS), hit: dice.between(1, 12) } : undefined);
    const { heads } = lab.tracked;
    if (!(await fails(lab.copy({ onExtents: guest, ...(all ? { only: undefined } : {}) })))) {
      const { root } = (await lab.lab.replica()).record;
      expect(root.sync).toBeUndefined();
      expect(root.disks.map(({ head }) => head)).toEqual(heads);
      break;
    }
    tally.interrupted += 1;
    const replica = await lab.lab.replica();
    const [point] = replica.record.root.points;
    if (!sameContents(await lab.point(replica, point!), first)) throw new Error('the recovery point was changed');
    // Had the commit been made, the dirty chunks of this copy would not be dirty any more; a tracker that cannot know keeps them.
    if (replica.record.root.sync === undefined || dice.oneIn(3)) {
      tally.anew += 1;
      lab.begin();
    }
  }
  lab.lab.arm();
  lab.lab.onFailpoint = undefined;
  const after = await lab.baseline();
  if (!sameContents(after, before) && !sameContents(after, lab.contents)) tally.mixtures += 1;
  if (!sameContents(lab.replayed(after), lab.contents)) throw new Error('copy and log do not give the disk');
}

describe.each(['sealed', 'raw'] as const)('a copy while the guest writes, layout %s', (layout) => {
  it(`is exact with its log, however often it is interrupted (${SEEDS} cases)`, async () => {
    const tally: Tally = { interrupted: 0, mixtures: 0, anew: 0 };
    let first: readonly Buffer[] = [];
    for (let seed = 0; seed < SEEDS; seed += 1) {
      if (seed % ROUNDS === 0) {
        for (const lab of open.splice(0)) lab.close();
        first = contents(seed, seed % (4 * ROUNDS) === 0 ? MANY_CHUNKS : FEW_CHUNKS);
        open.push(await CopyLab.create(layout, first));
      }
      try {
        await round(open[0]!, new Dice(seed), tally, first);
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
    }
    expect(tally.interrupted).toBeGreaterThan(SEEDS / 4);
    expect(tally.mixtures).toBeGreaterThan(SEEDS / 4);
    expect(tally.anew).toBeGreaterThan(SEEDS / 20);
  });
});

describe('a set of dirty chunks', () => {
  it('CONTROL: that lacks one is caught', async () => {
    const first = contents(1, FEW_CHUNKS);
    const lab = await CopyLab.create('sealed', first);
    open.push(lab);
    lab.write(0, 5 * CHUNK, Buffer.alloc(512, 1));
    lab.write(0, 9 * CHUNK, Buffer.alloc(512, 2));
    lab.begin();
    lab.dirty[0]!.delete(9);
    await lab.copy();
    expect(sameContents(lab.replayed(await lab.baseline()), lab.contents)).toBe(false);
  });
});
