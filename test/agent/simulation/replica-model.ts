/**
 * The replica of one simulated machine: a root as the real one is, and contents as version numbers per chunk. What a root keeps,
 * and what is deleted after it, is decided by the real code; here it is only checked that every point can be restored.
 */

import { retain } from '../../../src/replica/retain.ts';
import {
  type Baseline,
  isProcessed,
  logsOf,
  outstandingLogs,
  type RecoveryPoint,
  type ShippedLog,
} from '../../../src/replica/root.ts';

/** Chunk → version; 0 is a disk's first content. */
export type Versions = Int32Array;

export interface ModelRoot {
  readonly generation: number;
  /** The last change log that the replica holds. */
  readonly head: string;
  readonly baselines: readonly Baseline[];
  readonly points: readonly RecoveryPoint[];
  readonly logs: readonly ShippedLog[];
  readonly sync?: 'initial' | 'resync';
}

/** A point as it was when it was made. */
interface Truth {
  readonly versions: Versions;
  readonly point: RecoveryPoint;
}

const NO_ID = new Uint8Array(16);
const OWNER = { side: NO_ID, epoch: 1, phase: 'replicating', sinceMs: 0 } as const;

export class ReplicaModel {
  root: ModelRoot | undefined;
  /** Chunks of the live base; a mixture of moments while a copy runs. */
  readonly live: Versions;
  /** Every point that was ever made, with what it holds; content is dropped where nobody may ask for it any more. */
  readonly made: RecoveryPoint[] = [];
  readonly pins: Map<string, number> = new Map();
  /** How many points there had been when points were dropped last, and who was read then. */
  prunedAt = 0;
  keptByPins: ReadonlySet<string> = new Set();
  readonly #name: string;
  readonly #forgetsReaders: boolean;
  readonly #truths: Map<string, Truth> = new Map();
  readonly #baselines: Map<number, Versions> = new Map();
  readonly #logs: Map<number, ReadonlyMap<number, number>> = new Map();

  constructor(name: string, chunks: number, forgetsReaders = false) {
    this.#name = name;
    this.#forgetsReaders = forgetsReaders;
    this.live = new Int32Array(chunks);
  }

  /** Claims the replica. */
  create(): void {
    this.root ??= { generation: 1, head: '', baselines: [], points: [], logs: [], sync: 'initial' };
  }

  get outstanding(): readonly ShippedLog[] {
    return this.root ? outstandingLogs(this.root) : [];
  }

  get pinned(): ReadonlySet<string> {
    return new Set(this.pins.keys());
  }

  /** Commits a change set (none: nothing was written) and the point that it makes. */
  commitLog(
    writes: ReadonlyMap<number, number>,
    made: { timeMs: number; consistency: 'crash' | 'app'; head: string; truth: Versions },
  ): RecoveryPoint {
    const root = this.#root();
    const last = Math.max(root.logs.at(-1)?.seq ?? 0, root.baselines.at(-1)?.appliedLog ?? 0);
    const seq = writes.size === 0 ? last : last + 1;
    const log: ShippedLog = { seq, id: NO_ID, frames: 1, sizeBytes: writes.size, dataBytes: writes.size };
    if (writes.size > 0) this.#logs.set(seq, writes);
    const baseline = root.baselines.at(-1)!.generation;
    const point = this.#newPoint(made, baseline, seq);
    this.#commit({
      ...root,
      head: made.head,
      points: [...root.points, point],
      logs: writes.size === 0 ? root.logs : [...root.logs, log],
    });
    return point;
  }

  /** Folds outstanding logs into the base. */
  commitApply(): { readonly applied: number; readonly point: RecoveryPoint | undefined } {
    const root = this.#root();
    const logs = outstandingLogs(root);
    const newest = root.baselines.at(-1);
    if (logs.length === 0 || !newest) return { applied: 0, point: undefined };
    const content = this.#baselines.get(newest.generation)!.slice();
    for (const { seq } of logs) for (const [chunk, version] of this.#logs.get(seq)!) content[chunk] = version;
    const appliedLog = logs.at(-1)!.seq;
    this.live.set(content);
    this.#commitBaseline(root, content, appliedLog, root.head);
    const point = this.root!.points.at(-1);
    return { applied: logs.length, point };
  }

  beginSync(): void {
    this.#commit({ ...this.#root(), sync: this.#root().points.length === 0 ? 'initial' : 'resync' });
  }

  /** Makes the live base a baseline; a static copy is a point, too. */
  commitSync(head: string, made?: { timeMs: number; truth: Versions }): RecoveryPoint | undefined {
    const { sync: _sync, ...root } = this.#root();
    const appliedLog = Math.max(root.logs.at(-1)?.seq ?? 0, root.baselines.at(-1)?.appliedLog ?? 0);
    const generation = this.#commitBaseline(root, this.live.slice(), appliedLog, head);
    if (!made) return undefined;
    const point = this.#newPoint({ ...made, consistency: 'crash' }, generation, appliedLog);
    this.#commit({ ...this.#root(), points: [...this.#root().points, point] });
    return point;
  }

  /** Gives up points, and deletes what nobody needs. */
  dropPoints(drop: ReadonlySet<string>): void {
    this.prunedAt = this.made.length;
    this.keptByPins = this.pinned;
    const root = this.#root();
    if (drop.size > 0) this.#commit({ ...root, points: root.points.filter(({ id }) => !drop.has(id)) });
  }

  /** What a restore of a point gives. @throws Error if it is not what was there */
  restore(id: string): void {
    const { point, versions } = this.#truths.get(id) ?? this.#lost(id, 'nobody made it');
    const root = this.#root();
    const isListed = root.points.some((listed) => listed.id === id);
    const content = this.#baselines.get(point.baseline)?.slice() ?? this.#lost(id, 'its baseline was deleted');
    const logs = isListed ? logsOf(root, point).map(({ seq }) => seq) : this.#pinnedLogs(point);
    for (const seq of logs) {
      const writes = this.#logs.get(seq) ?? this.#lost(id, `log ${seq} was deleted`);
      for (const [chunk, version] of writes) content[chunk] = version;
    }
    const wrong = content.findIndex((version, chunk) => version !== versions[chunk]);
    if (wrong >= 0) this.#lost(id, `chunk ${wrong} is of version ${content[wrong]}, not ${versions[wrong]}`);
    if (isListed && isProcessed(root, point) !== (logs.length === 0)) this.#lost(id, 'processed, or not?');
  }

  restoreAll(): void {
    for (const { id } of this.#root().points) this.restore(id);
  }

  #pinnedLogs({ baseline, log }: RecoveryPoint): readonly number[] {
    const applied = this.#applied.get(baseline)!;
    return [...Array(log - applied).keys()].map((i) => applied + 1 + i);
  }

  readonly #applied: Map<number, number> = new Map();

  #newPoint(
    made: { timeMs: number; consistency: 'crash' | 'app'; truth: Versions },
    baseline: number,
    log: number,
  ): RecoveryPoint {
    const id = `${this.#name}-${this.made.length + 1}`;
    const generation = this.#root().generation + 1;
    const point: RecoveryPoint = { id, timeMs: made.timeMs, consistency: made.consistency, generation, baseline, log };
    this.made.push(point);
    this.#truths.set(id, { versions: made.truth, point });
    return point;
  }

  #commitBaseline(root: ModelRoot, content: Versions, appliedLog: number, head: string): number {
    const generation = root.generation + 1;
    this.#baselines.set(generation, content);
    this.#applied.set(generation, appliedLog);
    const last = root.points.at(-1);
    // Applying makes the newest point a processed one.
    const points =
      last && last.log === appliedLog ? [...root.points.slice(0, -1), { ...last, baseline: generation }] : root.points;
    const isResync = head !== root.head;
    this.#commit({
      ...root,
      head,
      points: isResync ? root.points : points,
      baselines: [...root.baselines, { generation, appliedLog, disks: [] }],
    });
    return generation;
  }

  /** Replaces the root; then deletes what neither it nor a pinned point needs. */
  #commit(next: ModelRoot): void {
    const kept = retain({ ...next, owner: OWNER });
    this.root = { ...next, ...kept, generation: next.generation + 1 };
    for (const { id, baseline } of kept.points) {
      const truth = this.#truths.get(id)!;
      if (truth.point.baseline !== baseline) this.#truths.set(id, { ...truth, point: { ...truth.point, baseline } });
    }
    const pinned = (this.#forgetsReaders ? [] : [...this.pins.keys()]).map((id) => this.#truths.get(id)!.point);
    const baselines = new Set([
      ...kept.baselines.map(({ generation }) => generation),
      ...pinned.map(({ baseline }) => baseline),
    ]);
    const logs = new Set(kept.logs.map(({ seq }) => seq));
    for (const point of pinned) for (const seq of this.#pinnedLogs(point)) logs.add(seq);
    for (const generation of this.#baselines.keys()) if (!baselines.has(generation)) this.#baselines.delete(generation);
    for (const seq of this.#logs.keys()) if (!logs.has(seq)) this.#logs.delete(seq);
    const listed = new Set(kept.points.map(({ id }) => id));
    for (const id of this.#truths.keys()) if (!listed.has(id) && !this.pins.has(id)) this.#truths.delete(id);
  }

  #root(): ModelRoot {
    if (!this.root) throw new Error(`${this.#name} has no replica`);
    return this.root;
  }

  #lost(id: string, why: string): never {
    throw new Error(`${id} does not restore: ${why}`);
  }
}
