/**
 * Sets of chunks as runs of neighbours: ascending, apart, none empty. A set of a few dirty chunks costs the same on a
 * disk of any size. Pure arithmetic.
 */

/** Chunks [from, to). */
export interface ChunkRun {
  readonly from: number;
  readonly to: number;
}

/** Ascending chunk numbers as runs. */
export function chunkRuns(chunks: readonly number[]): readonly ChunkRun[] {
  return joined(chunks.map((chunk) => ({ from: chunk, to: chunk + 1 })));
}

/** Runs in any order, also such as overlap or touch, as a set. */
export function joinRuns(runs: readonly ChunkRun[]): readonly ChunkRun[] {
  return joined(runs.toSorted((a, b) => a.from - b.from));
}

/** The runs of a set inside chunks [from, to), cut at both ends. The runs before `from` cost a binary search. */
export function* runsWithin(set: readonly ChunkRun[], from: number, to: number): Generator<ChunkRun> {
  for (let i = firstEndingAfter(set, from); i < set.length; i += 1) {
    const run = { from: Math.max(set[i]!.from, from), to: Math.min(set[i]!.to, to) };
    if (run.from >= run.to) return;
    yield run;
  }
}

/** Index of the first run that ends behind `chunk`: the one that has it, or the next. */
function firstEndingAfter(set: readonly ChunkRun[], chunk: number): number {
  let low = 0;
  let high = set.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (set[middle]!.to > chunk) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Runs in order of `from`, as a set. */
function joined(sorted: readonly ChunkRun[]): readonly ChunkRun[] {
  const set: { from: number; to: number }[] = [];
  for (const { from, to } of sorted) {
    if (to <= from) continue;
    const last = set.at(-1);
    if (last !== undefined && from <= last.to) last.to = Math.max(last.to, to);
    else set.push({ from, to });
  }
  return set;
}
