/**
 * The root: what a replica is at one moment. Baselines are frozen states of all its bases, shipped logs are change sets, and a
 * recovery point is a baseline with the logs to play over it.
 *
 * Here is what it says; root-record.ts has its bytes. Fields: docs/formats/replica.md.
 */
import { bytesEqual } from '../bytes.ts';
import type { PageReference } from '../chunker/index.ts';
import type { Owner } from './owner.ts';

export const ROOT_HASH_BYTES = 32;
/** Ranges of suspects in a root. */
export const SUSPECT_RANGES_MAX = 1024;

/** Reference to a table page that exists. */
export interface TableReference extends PageReference {
  readonly page: number;
}

/** A disk as a baseline has it. Snapshot names are the store's. */
export interface PointDisk {
  readonly tables: readonly TableReference[];
  readonly manifestSnapshot: string;
  /** Snapshot per segment of the base; segments that were never created are missing. */
  readonly baseSnapshots: readonly { readonly segment: number; readonly snapshot: string }[];
}

/** A frozen state of all bases, that recovery points stand on. */
export interface Baseline {
  /** Generation of the root that committed it; its name. */
  readonly generation: number;
  /** Logs up to this one are in it; 0: none. */
  readonly appliedLog: number;
  /** Name of its content, the same in every store (state-name.ts); absent in roots that are older than names. */
  readonly state?: Uint8Array;
  readonly disks: readonly PointDisk[];
}

/** A change set in the store: what all disks of the item wrote between two moments. */
export interface ShippedLog {
  /** 1, 2 … for the life of the replica. */
  readonly seq: number;
  /** 16 random bytes that stand in every AAD of the log: an object of the same seq but another try does not open. */
  readonly id: Uint8Array;
  readonly frames: number;
  /** Of the object. */
  readonly sizeBytes: number;
  /** Guest bytes in it, each counted once, without zeros. */
  readonly dataBytes: number;
}

export interface RecoveryPoint {
  readonly id: string;
  readonly timeMs: number;
  readonly consistency: 'crash' | 'app';
  /** Generation of the root that committed it. */
  readonly generation: number;
  /** Generation of the baseline that it stands on. */
  readonly baseline: number;
  /** The last log to play over that; the baseline's `appliedLog` where there is nothing to play. */
  readonly log: number;
  /** Id of the group of items that have a point of this very moment; absent where it was made alone. */
  readonly group?: string;
}

/** Chunks [from, to) of a disk whose bytes in the live base may not be what their manifest entry says. */
export interface SuspectRange {
  readonly disk: number;
  readonly from: number;
  readonly to: number;
}

/** An unfinished sync. */
export interface CopyState {
  readonly kind: 'initial' | 'resync';
  /** SHA-256 over the stamps of all source files; another one means that nothing compared so far counts. */
  readonly source: Uint8Array;
  /** Disks before this one, and its chunks below `cursor`, are settled. */
  readonly disk: number;
  readonly cursor: number;
  readonly suspect: readonly SuspectRange[];
}

/** An unfinished apply. */
export interface ApplyState {
  readonly kind: 'apply';
  /** The last log that it folds in: whoever finishes it must fold in at least these. */
  readonly log: number;
  /** Generation of the root that began it: tells one try from the next. */
  readonly begun: number;
  readonly suspect: readonly SuspectRange[];
}

export type SyncState = CopyState | ApplyState;

/** The live state of a disk. */
export interface DiskHead {
  readonly tables: readonly TableReference[];
  /** UniqueId of the last change log of this disk that the replica holds; a fresh GUID where a sync came since. */
  readonly head: string;
}

/** A replica that carries on what another store holds (docs/mirror.md). */
export interface Following {
  /** Generation of the other store's root that was carried last. */
  readonly generation: number;
}

export interface Root {
  readonly generation: number;
  /** SHA-256 of the previous root record; zeros for the first. */
  readonly previous: Uint8Array;
  /** SHA-256 of replica.json. */
  readonly description: Uint8Array;
  readonly keyringCounter: number;
  readonly timeMs: number;
  /** Who wrote it, for people. */
  readonly writer: string;
  readonly owner: Owner;
  /** Absent where the owner itself replicates to this store. */
  readonly follows?: Following;
  /** In the order of the description. The tables are the newest baseline's unless `sync` is there. */
  readonly disks: readonly DiskHead[];
  /** Oldest first. Empty until the first sync ends. */
  readonly baselines: readonly Baseline[];
  /** Oldest first. */
  readonly points: readonly RecoveryPoint[];
  /** Ascending. All that any point or the newest baseline needs; gaps where nobody does. */
  readonly logs: readonly ShippedLog[];
  readonly sync?: SyncState;
}

/** A root with its record's hash. */
export interface RootRecord {
  readonly root: Root;
  readonly hash: Uint8Array;
}

/** What a reader remembers of the last root it saw. */
export interface Anchor {
  readonly generation: number;
  readonly hash: Uint8Array;
}

/** The state that a point stands on. */
export function baselineOf({ baselines }: Pick<Root, 'baselines'>, point: RecoveryPoint): Baseline {
  const found = baselines.find(({ generation }) => generation === point.baseline);
  if (found) return found;
  throw new TypeError(`point ${point.id} is of another root: baseline ${point.baseline} is not there`);
}

/** The logs to play over a point's baseline, oldest first. */
export function logsOf(root: Pick<Root, 'baselines' | 'logs'>, point: RecoveryPoint): readonly ShippedLog[] {
  const { appliedLog } = baselineOf(root, point);
  return root.logs.filter(({ seq }) => seq > appliedLog && seq <= point.log);
}

/** Whether all of a point stands in its baseline. */
export function isProcessed(root: Pick<Root, 'baselines'>, point: RecoveryPoint): boolean {
  return baselineOf(root, point).appliedLog === point.log;
}

/** The logs that the newest baseline lacks, oldest first. */
export function outstandingLogs({ baselines, logs }: Pick<Root, 'baselines' | 'logs'>): readonly ShippedLog[] {
  const applied = baselines.at(-1)?.appliedLog ?? 0;
  return logs.filter(({ seq }) => seq > applied);
}

/** The newest log there ever was; the next one has the number after it. */
export function newestLog({ baselines, logs }: Pick<Root, 'baselines' | 'logs'>): number {
  return Math.max(logs.at(-1)?.seq ?? 0, baselines.at(-1)?.appliedLog ?? 0);
}

/** Whether both are the same pages. */
export function sameTables(a: readonly TableReference[], b: readonly TableReference[]): boolean {
  return a.length === b.length && a.every((table, i) => table.page === b[i]!.page && bytesEqual(table.tag, b[i]!.tag));
}
