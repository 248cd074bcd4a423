/** Sets of chunks as runs, against sets of numbers. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ChunkRun, chunkRuns, joinRuns, runsWithin } from '../../src/replica/chunk-runs.ts';

const members = (runs: Iterable<ChunkRun>): number[] =>
  [...runs].flatMap(({ from, to }) => Array.from({ length: to - from }, (_, i) => from + i));
const ascending = (numbers: Iterable<number>): number[] => [...new Set(numbers)].sort((a, b) => a - b);

const anyRuns = fc.array(
  fc.tuple(fc.nat(40), fc.nat(6)).map(([from, length]) => ({ from, to: from + length })),
  { maxLength: 12 },
);

describe('runs of chunks', () => {
  it('are made of ascending numbers by joining neighbours', () => {
    expect(chunkRuns([])).toEqual([]);
    expect(chunkRuns([1, 2, 3, 7, 9, 10])).toEqual([
      { from: 1, to: 4 },
      { from: 7, to: 8 },
      { from: 9, to: 11 },
    ]);
  });

  it('in any order become a set: the same chunks, each once, no two runs that touch', () => {
    fc.assert(
      fc.property(anyRuns, (runs) => {
        const set = joinRuns(runs);
        expect(set).toEqual(chunkRuns(ascending(members(runs))));
      }),
    );
  });

  it('inside a range are those of it, cut at both ends', () => {
    fc.assert(
      fc.property(anyRuns, fc.nat(50), fc.nat(50), (runs, from, to) => {
        const set = joinRuns(runs);
        const found = [...runsWithin(set, from, to)];
        expect(found).toEqual(chunkRuns(members(set).filter((chunk) => chunk >= from && chunk < to)));
      }),
    );
  });
});
