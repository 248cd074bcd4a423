/**
 * The ledger against a model of the store: at every instant of every run, also of runs that follow a crash, a chunk whose
 * stored bytes may differ from its committed entry is named as suspect by the committed root.
 */
import { describe, expect, it } from 'vitest';
import { chunkRuns, joinRuns } from '../../src/replica/chunk-runs.ts';
import { SUSPECT_RANGES_MAX, type SuspectRange } from '../../src/replica/root.ts';
import { condenseSuspects, INHERITED_SUSPECTS_MAX, SyncLedger } from '../../src/replica/sync-ledger.ts';
import { seededRandom } from '../support/virtual-clock.ts';

const CHUNKS = 24;
const ALL: readonly number[] = Array.from({ length: CHUNKS }, (_, i) => i);

interface Committed {
  readonly cursor: number;
  readonly suspect: readonly SuspectRange[];
  readonly entries: readonly number[];
}

interface OpenWindow {
  readonly to: number;
  /** Chunks that are not done yet. */
  readonly left: number[];
  readonly settle: () => void;
}

const covers = (ranges: readonly SuspectRange[], chunk: number): boolean =>
  ranges.some(({ disk, from, to }) => disk === 0 && chunk >= from && chunk < to);

const inRuns = (runs: readonly { readonly from: number; readonly to: number }[], chunk: number): boolean =>
  runs.some(({ from, to }) => chunk >= from && chunk < to);

/** One store over several runs, each ended by a crash at a random step. */
class Simulation {
  readonly stored: number[] = new Array(CHUNKS).fill(0);
  readonly #random: ReturnType<typeof seededRandom>;
  readonly #forgetSuspects: boolean;
  committed: Committed = { cursor: 0, suspect: [], entries: new Array(CHUNKS).fill(0) };
  #version = 0;
  steps = 0;

  constructor(seed: number, forgetSuspects = false) {
    this.#random = seededRandom(seed);
    this.#forgetSuspects = forgetSuspects;
  }

  #pick(count: number): number {
    return Math.floor(this.#random.fraction() * count);
  }

  /** Chunks that would be read back wrong, or not at all, and that no next run would look at. */
  unnamed(): number[] {
    const { entries, suspect } = this.committed;
    return this.stored.flatMap((value, chunk) => (value !== entries[chunk] && !covers(suspect, chunk) ? [chunk] : []));
  }

  run(stepsMax: number): readonly number[] {
    const inherited = this.#forgetSuspects ? [] : this.committed.suspect;
    // At the cursor if the source is still the same, else from the front.
    const start = this.#pick(2) === 0 ? this.committed.cursor : 0;
    // All chunks, or some; those in doubt are always among them.
    const only = this.#pick(2) === 0 ? [{ from: 0, to: CHUNKS }] : chunkRuns(ALL.filter(() => this.#pick(3) === 0));
    const set = joinRuns([...only, ...inherited]);
    const ledger = new SyncLedger(0, start, inherited, set);
    const entries = [...this.committed.entries];
    const windows: OpenWindow[] = [];
    let next = start;
    let underWay: (Committed & { readonly intentEnd: number }) | undefined;
    for (let step = 0; step < stepsMax; step += 1) {
      this.steps += 1;
      const choice = this.#pick(4);
      if (choice === 0 && next < CHUNKS && windows.length < 3) {
        const to = Math.min(CHUNKS, next + 1 + this.#pick(5));
        const left = ALL.slice(next, to).filter((chunk) => inRuns(set, chunk));
        windows.push({ to, left, settle: ledger.open(next, to) });
        next = to;
      } else if (choice === 1 && windows.length > 0) {
        const window = windows[this.#pick(windows.length)]!;
        if (window.left.length > 0) this.#work(ledger, window, entries);
        if (window.left.length === 0) {
          window.settle();
          windows.splice(windows.indexOf(window), 1);
        }
      } else if (choice === 2 && !underWay) {
        const intentEnd = Math.max(next, ledger.cursor);
        underWay = { cursor: ledger.cursor, suspect: ledger.suspects(intentEnd), entries: [...entries], intentEnd };
      } else if (choice === 3 && underWay) {
        this.committed = underWay;
        ledger.committed(underWay.intentEnd);
        underWay = undefined;
      }
      const unnamed = this.unnamed();
      if (unnamed.length > 0) return unnamed;
      const strangers = ALL.filter((chunk) => covers(this.committed.suspect, chunk) && !inRuns(set, chunk));
      if (strangers.length > 0 && !this.#forgetSuspects) throw new Error(`named though never looked at: ${strangers}`);
    }
    return [];
  }

  /** One chunk of a window: compared, and written where it differs or is in doubt. */
  #work(ledger: SyncLedger, window: OpenWindow, entries: number[]): void {
    const chunk = window.left[0]!;
    const differs = ledger.isSuspect(chunk) || this.#pick(2) === 0;
    if (differs) {
      if (!ledger.allows(window.to)) return;
      this.#version += 1;
      this.stored[chunk] = this.#version;
      entries[chunk] = this.#version;
    }
    window.left.shift();
  }
}

describe('a sync ledger', () => {
  it('has every chunk in doubt named by the committed root, in 2,000 stores over six crashes each', () => {
    let steps = 0;
    for (let seed = 1; seed <= 2000; seed += 1) {
      const simulation = new Simulation(seed);
      for (let run = 0; run < 6; run += 1)
        expect(simulation.run(5 + ((seed * 7 + run) % 40)), `seed ${seed}`).toEqual([]);
      steps += simulation.steps;
    }
    expect(steps).toBeGreaterThan(200_000);
  });

  it('CONTROL: a run that forgets what it inherited is caught', () => {
    const caught = Array.from({ length: 200 }, (_, seed) => {
      const simulation = new Simulation(seed, true);
      for (let run = 0; run < 6; run += 1) if (simulation.run(30).length > 0) return true;
      return false;
    });
    expect(caught.filter(Boolean).length).toBeGreaterThan(20);
  });

  it('moves its cursor over settled windows in order only', () => {
    const ledger = new SyncLedger(0, 10, []);
    const [a, b, c] = [ledger.open(10, 20), ledger.open(20, 30), ledger.open(30, 40)];
    b();
    expect(ledger.cursor).toBe(10);
    a();
    expect(ledger.cursor).toBe(30);
    c();
    expect(ledger.cursor).toBe(40);
  });

  it('keeps what other disks inherited, and what lies ahead, and cuts what a window asks for', () => {
    const inherited = [
      { disk: 0, from: 0, to: 10 },
      { disk: 0, from: 30, to: 40 },
      { disk: 1, from: 5, to: 6 },
    ];
    const ledger = new SyncLedger(0, 0, inherited);
    expect(ledger.suspectWithin(5, 35)).toEqual([
      { from: 5, to: 10 },
      { from: 30, to: 35 },
    ]);
    expect([4, 10, 35, 40].map((chunk) => ledger.isSuspect(chunk))).toEqual([true, false, true, false]);
    ledger.open(0, 20)();
    expect(ledger.suspects(25)).toEqual([inherited[1], inherited[2], { disk: 0, from: 20, to: 25 }]);
  });
});

describe('a sync ledger over some chunks', () => {
  const scattered = (count: number): readonly number[] => Array.from({ length: count }, (_, i) => i * 10);

  it('names these alone as suspects, and all of them that writing is allowed to', () => {
    const ledger = new SyncLedger(0, 0, [], chunkRuns([3, 4, 9, 20, 2 ** 29]));
    expect(ledger.suspects(9)).toEqual([{ disk: 0, from: 3, to: 5 }]);
    ledger.open(0, 4)();
    expect(ledger.suspects(2 ** 30)).toEqual([
      { disk: 0, from: 4, to: 5 },
      { disk: 0, from: 9, to: 10 },
      { disk: 0, from: 20, to: 21 },
      { disk: 0, from: 2 ** 29, to: 2 ** 29 + 1 },
    ]);
  });

  it('names them exactly while a root has room, and never more ranges than a root may hold', () => {
    const inherited = scattered(INHERITED_SUSPECTS_MAX).map((from) => ({ disk: 1, from, to: from + 1 }));
    for (const count of [INHERITED_SUSPECTS_MAX, 100_000]) {
      const set = chunkRuns(scattered(count));
      const ledger = new SyncLedger(0, 0, inherited, set);
      const named = ledger.suspects(2 ** 30);
      expect(named.length).toBeLessThanOrEqual(SUSPECT_RANGES_MAX);
      const own = named.filter(({ disk }) => disk === 0);
      if (count === INHERITED_SUSPECTS_MAX) expect(own).toEqual(set.map((run) => ({ disk: 0, ...run })));
      expect(set.every(({ from }) => inRuns(own, from))).toBe(true);
    }
  });
});

describe('condensed suspects', () => {
  it('cover all they are made of, in order and apart, in no more than the limit', () => {
    for (let seed = 1; seed <= 300; seed += 1) {
      const random = seededRandom(seed);
      const pick = (n: number): number => Math.floor(random.fraction() * n);
      const ranges = Array.from({ length: pick(60) }, () => {
        const from = pick(300);
        return { disk: pick(3), from, to: from + 1 + pick(5) };
      });
      const condensed = condenseSuspects(ranges, 8);
      expect(condensed.length).toBeLessThanOrEqual(8);
      for (const { disk, from, to } of ranges) {
        expect(condensed.some((range) => range.disk === disk && range.from <= from && range.to >= to)).toBe(true);
      }
      for (const [i, range] of condensed.entries()) {
        const before = condensed[i - 1];
        if (before?.disk === range.disk) expect(range.from).toBeGreaterThan(before.to);
      }
    }
  });

  it('name no chunk too many while there is room', () => {
    const ranges = [
      { disk: 0, from: 4, to: 6 },
      { disk: 0, from: 0, to: 2 },
      { disk: 0, from: 1, to: 3 },
      { disk: 1, from: 3, to: 4 },
    ];
    expect(condenseSuspects(ranges, 3)).toEqual([
      { disk: 0, from: 0, to: 3 },
      { disk: 0, from: 4, to: 6 },
      { disk: 1, from: 3, to: 4 },
    ]);
    expect(condenseSuspects([], 3)).toEqual([]);
  });
});
