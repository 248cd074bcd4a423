/**
 * The ledger of a running disk sync: which windows are settled, and how far writing is allowed.
 *
 * A chunk may be overwritten in the live base only after a committed root names it as suspect; a chunk counts as
 * compared only when its window and all before it are settled. `cursor` is the first chunk that is not settled,
 * `intentEnd` the end of what the last committed root allows. A crash at any instant then leaves a root from which the
 * next run knows what to look at again, and what to send whatever its fingerprint says.
 */
import { type ChunkRun, runsWithin } from './chunk-runs.ts';
import { SUSPECT_RANGES_MAX, type SuspectRange } from './root.ts';

/** Suspects that a run may inherit, and as many of its own: a root can name them all. */
export const INHERITED_SUSPECTS_MAX: number = SUSPECT_RANGES_MAX / 2;
const OWN_SUSPECTS_MAX = SUSPECT_RANGES_MAX / 2;

const ALL_CHUNKS: readonly ChunkRun[] = [{ from: 0, to: Number.POSITIVE_INFINITY }];

interface Window {
  readonly from: number;
  readonly to: number;
  settled: boolean;
}

/**
 * The same suspects, and perhaps chunks between them, as at most `max` ranges: in order, apart, none overlapping. Sending
 * a chunk too many is harmless; a root with more ranges than a reader takes would not be.
 */
export function condenseSuspects(ranges: readonly SuspectRange[], max: number): readonly SuspectRange[] {
  const sorted = [...ranges].sort((a, b) => a.disk - b.disk || a.from - b.from);
  for (let gap = 0; ; gap = gap * 2 + 1) {
    const merged: { disk: number; from: number; to: number }[] = [];
    for (const { disk, from, to } of sorted) {
      const last = merged.at(-1);
      if (last?.disk === disk && from - last.to <= gap) last.to = Math.max(last.to, to);
      else merged.push({ disk, from, to });
    }
    if (merged.length <= max || gap > Number.MAX_SAFE_INTEGER) return merged;
  }
}

export class SyncLedger {
  readonly #disk: number;
  /** The chunks that the run looks at; no other is ever written. */
  readonly #set: readonly ChunkRun[];
  readonly #windows: Window[] = [];
  /** Left by an interrupted run; forgotten as the cursor passes them. */
  readonly #inherited: readonly SuspectRange[];
  #cursor: number;
  #intentEnd: number;

  constructor(disk: number, cursor: number, inherited: readonly SuspectRange[], set: readonly ChunkRun[] = ALL_CHUNKS) {
    this.#disk = disk;
    this.#set = set;
    this.#cursor = cursor;
    this.#intentEnd = cursor;
    this.#inherited = inherited;
  }

  get cursor(): number {
    return this.#cursor;
  }

  /** Whether the committed root allows writing chunks below `to`. */
  allows(to: number): boolean {
    return to <= this.#intentEnd;
  }

  /** Whether the stored bytes of a chunk are in doubt since an interrupted run. */
  isSuspect(chunk: number): boolean {
    return this.#inherited.some((range) => range.disk === this.#disk && chunk >= range.from && chunk < range.to);
  }

  /** Suspect chunks of [from, to), as ranges. */
  suspectWithin(from: number, to: number): readonly { readonly from: number; readonly to: number }[] {
    return this.#inherited
      .filter((range) => range.disk === this.#disk && range.from < to && range.to > from)
      .map((range) => ({ from: Math.max(from, range.from), to: Math.min(to, range.to) }));
  }

  /** A window is being worked on; returns what settles it. Windows must follow one another. */
  open(from: number, to: number): () => void {
    const window: Window = { from, to, settled: false };
    this.#windows.push(window);
    return () => {
      window.settled = true;
      while (this.#windows[0]?.settled) this.#cursor = this.#windows.shift()!.to;
    };
  }

  /** The suspects to commit so that writing is allowed below `intentEnd`. */
  suspects(intentEnd: number): readonly SuspectRange[] {
    const allowed = runsWithin(this.#set, this.#cursor, Math.max(intentEnd, this.#intentEnd));
    const own = Array.from(allowed, (run) => ({ disk: this.#disk, ...run }));
    const left = this.#inherited.filter((range) => range.disk !== this.#disk || range.to > this.#cursor);
    return [...left, ...condenseSuspects(own, OWN_SUSPECTS_MAX)];
  }

  /** A root with `suspects(intentEnd)` was committed. */
  committed(intentEnd: number): void {
    this.#intentEnd = Math.max(this.#intentEnd, intentEnd);
  }
}
