/**
 * What the item-level operations take, report and return. An item is a protected machine: a name, its disks and the
 * relationship to one replica. All sizes in bytes, all times in Unix milliseconds.
 */
import type { Compression, FingerprintAlgorithm } from '../chunker/index.ts';
import type { Ports } from '../ports.ts';
import type { Layout, Proof } from '../replica/index.ts';
import type { TrackerStatus } from '../tracker/index.ts';
import type { OpenStoreOptions } from '../transport/index.ts';
import type { Finding, LifeStateName, Published } from './life/index.ts';
import type { RetentionPolicy } from './policy/index.ts';
import type { Limits } from './transfer-limits.ts';

/** What every operation runs with. */
export interface Session {
  readonly ports: Ports;
  /** Directory of local state: one directory per item below `items`. */
  readonly home: string;
  /** Credentials for stores that the URL does not carry. */
  readonly environment: NonNullable<OpenStoreOptions['environment']>;
  /** Stops the operation cleanly; a later one resumes. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ItemEvent) => void;
  /** Worker threads; default: the machine's parallelism. */
  readonly workers?: number;
  /** Upload lanes, 1 … 32; default 8. */
  readonly lanes?: number;
  readonly bandwidthBytesPerSecond?: number;
  /** Instead of `lanes` and `bandwidthBytesPerSecond`: limits that may change while the operation runs. */
  readonly limits?: Limits;
}

/** Where the key of a replica comes from. A path to a file each. */
export interface KeySource {
  readonly type: 'key-file' | 'passphrase-file' | 'certificate';
  readonly path: string;
}

/** A replica: an item of this home, or found by its URL alone (the source host is gone). */
export type ReplicaReference =
  | { readonly name: string }
  | { readonly name: string; readonly url: string; readonly keys: readonly KeySource[] };

export type ItemEvent =
  | {
      readonly type: 'progress';
      readonly phase: 'initial' | 'resync' | 'restore' | 'verify' | 'ship' | 'apply' | 'prove' | 'failback' | 'mirror';
      readonly disk: string;
      /** Bytes of the disk that are settled, of `totalBytes` that have to be looked at (data, not virtual size). */
      readonly doneBytes: number;
      readonly totalBytes: number;
      /** Bytes that went to the store (or came from it), after compression. */
      readonly transferredBytes: number;
    }
  /** Something the operator should know that is no error: a fall-back with its cause, a retry, a slow-down. */
  | { readonly type: 'notice'; readonly code: string; readonly message: string }
  /** A recovery point was committed. */
  | { readonly type: 'committed'; readonly generation: number; readonly pointId: string };

export interface ProtectRequest {
  readonly name: string;
  readonly disks: readonly string[];
  readonly url: string;
  /** Further stores, each of which follows the one before it; those that are known stay where this is absent. */
  readonly also?: readonly string[];
  readonly layout?: Layout;
  readonly chunkBytes?: number;
  readonly fingerprint?: FingerprintAlgorithm;
  readonly compression?: Compression;
  /** None: a key file is made in the item's home directory, and a notice says to keep a copy elsewhere. */
  readonly keys: readonly KeySource[];
}

/** What a sync did. */
export interface SyncReport {
  readonly item: string;
  readonly pointId: string;
  readonly generation: number;
  /** False if the replica was already equal and nothing had to be sent. */
  readonly changed: boolean;
  readonly disks: readonly DiskSyncReport[];
  readonly elapsedMs: number;
}

export interface DiskSyncReport {
  readonly disk: string;
  readonly virtualSizeBytes: number;
  /** Bytes read from the source. */
  readonly readBytes: number;
  readonly chunksCompared: number;
  readonly chunksSent: number;
  readonly chunksCleared: number;
  /** Bytes handed to the store for chunks. */
  readonly sentBytes: number;
}

export interface TrackRequest {
  /** `unix:/path` or `HOST:PORT` (loopback only); a socket in the item's directory by default. */
  readonly listen?: string;
}

/** A tracker that clients may connect to. */
export interface Listening {
  readonly item: string;
  /** `unix:PATH` or `HOST:PORT`. */
  readonly listen: string;
  /** The empty export name stands for the first. */
  readonly exports: readonly { readonly name: string; readonly sizeBytes: number; readonly uri: string }[];
  readonly tracking: TrackerStatus;
}

export interface ShipRequest {
  /** `app`: the guest's applications are at rest while the logs rotate; default `crash`. */
  readonly consistency?: 'crash' | 'app';
  /** Brings the guest to rest. The signal fires when it takes too long. */
  readonly freeze?: (signal: AbortSignal) => Promise<void>;
  /** Lets it go on; called whatever happens. */
  readonly thaw?: () => Promise<void>;
  /** The longest the guest may stay frozen; default 30 s. */
  readonly freezeTimeoutMs?: number;
}

/** What a cycle did. */
export interface ShipReport {
  readonly item: string;
  readonly pointId: string;
  /** The moment that the point is of. */
  readonly pointTimeMs: number;
  readonly consistency: 'crash' | 'app';
  /** Of the items that share the moment. */
  readonly group?: string;
  readonly generation: number;
  /** Change logs that were shipped. */
  readonly logs: number;
  /** Bytes of the disks in them, each range once, without zeros. */
  readonly dataBytes: number;
  readonly sentBytes: number;
  readonly elapsedMs: number;
}

/** What a prune did. */
export interface PruneReport {
  readonly item: string;
  readonly generation: number;
  /** Ids of the points that are gone, oldest first. */
  readonly dropped: readonly string[];
  /** How many are left. */
  readonly points: number;
  readonly elapsedMs: number;
}

/** What an apply did. */
export interface ApplyReport {
  readonly item: string;
  /** The newest point, if it became a processed one. */
  readonly pointId?: string;
  readonly generation: number;
  readonly appliedLogs: number;
  readonly chunksWritten: number;
  readonly fetchedBytes: number;
  readonly sentBytes: number;
  readonly elapsedMs: number;
}

/** `resync --dry-run`: what a resync would do. */
export interface ResyncEstimate {
  readonly item: string;
  readonly disks: readonly {
    readonly disk: string;
    readonly differingChunks: number;
    readonly differingBytes: number;
  }[];
  readonly differingBytes: number;
  /** Bytes of data in the disks. */
  readonly fullCopyBytes: number;
  /** Bytes that the compare read: of all data, or of the chunks that may differ where these are known. */
  readonly readBytes: number;
  /** Time of the resync, and of a full copy, at the rates of the last transfers; undefined before there were any. */
  readonly estimatedMs?: number;
  readonly fullCopyMs?: number;
  /** `resync` where neither is better. */
  readonly cheaper: 'resync' | 'full';
}

export interface ItemStatus {
  readonly item: string;
  readonly url: string;
  /** docs/health.md has all of them. `unknown`: the replica could not be opened; `cause` says why. */
  readonly state: LifeStateName;
  /** Number and name that Hyper-V Replica publishes for it, where there is one. */
  readonly replicationState?: Published;
  readonly health: 'normal' | 'warning' | 'critical';
  /** Cause and next step of the worst finding. */
  readonly cause?: string;
  readonly action?: string;
  /** All that is wrong, worst first. */
  readonly findings: readonly Finding[];
  readonly layout?: Layout;
  readonly disks: readonly { readonly disk: string; readonly path?: string; readonly virtualSizeBytes?: number }[];
  readonly generation?: number;
  readonly lastPointMs?: number;
  /** Age of the newest recovery point. */
  readonly rpoMs?: number;
  /** Shipped logs that the base does not have yet, and their bytes in the store. */
  readonly backlog?: { readonly logs: number; readonly bytes: number };
  /** The stores behind the first, where it has any. */
  readonly also?: readonly FurtherStore[];
  /** What the item's tracker says, where one runs. */
  readonly tracking?: TrackerStatus;
  /** Share of an unfinished sync that is done, 0 … 1. */
  readonly syncProgress?: number;
  /** Whether the root was checked against a local anchor. */
  readonly freshness: 'proven' | 'not-proven';
}

export interface PointInfo {
  readonly id: string;
  readonly timeMs: number;
  readonly consistency: 'crash' | 'app';
  readonly processed: boolean;
  readonly generation: number;
  /** Items of one group share the moment of points that have this in common. */
  readonly group?: string;
}

export interface KeyInfo {
  readonly id: string;
  readonly type: 'key-file' | 'passphrase' | 'certificate';
  /** SHA-256 of a certificate, in hexadecimal. */
  readonly thumbprint?: string;
}

export interface VerifyRequest {
  /** 1 … 100; default 100. */
  readonly subsetPercent?: number;
  /** Compare the fingerprints with the live disks as well. */
  readonly source?: boolean;
}

export interface VerifyReport {
  readonly item: string;
  readonly pointId: string;
  readonly chunksOpened: number;
  /** Shipped logs that the point needs over its baseline. */
  readonly logsOpened: number;
  readonly bytesRead: number;
  /** Chunks that differ from the live disk (only with `source`). */
  readonly sourceDifferences: number;
  /** What does not verify; empty if the replica is whole. */
  readonly damage: readonly { readonly disk: string; readonly chunk: number; readonly message: string }[];
  readonly damagedLogs: readonly { readonly log: number; readonly message: string }[];
  readonly freshness: 'proven' | 'not-proven';
}

export interface FailoverRequest {
  /** latest, latest-processed, latest-app-consistent, a point id, or a time (ISO 8601). */
  readonly point: string;
  readonly outDirectory: string;
  readonly format?: 'vhdx' | 'vhd' | 'raw';
  /** The files are for a test: nothing waits for a commit. */
  readonly test?: boolean;
  /** Only at the point at which the owner has stopped; `point` does not count then. */
  readonly planned?: boolean;
}

export interface PlannedRequest {
  /** Where to bring the disks back; nowhere by default: the other side does it. */
  readonly outDirectory?: string;
  readonly format?: 'vhdx' | 'vhd' | 'raw';
}

export interface PlannedReport {
  readonly item: string;
  readonly pointId: string;
  readonly pointTimeMs: number;
  /** Absent where the owner had stopped before: it is kept in the item's directory and in the store. */
  readonly proof?: Proof;
  readonly failover?: FailoverReport;
}

export interface FailbackRequest {
  /** `delta`: the disks that are there get what differs. `full`: new files. */
  readonly mode: 'delta' | 'full';
  /** Of new files: where; a folder beside the old disks by default. */
  readonly outDirectory?: string;
  /** Of new files; that of the old disks by default. */
  readonly format?: 'vhdx' | 'vhd' | 'raw';
  /** Of a delta: a folder on a volume of its own for what is fetched; beside each disk by default. */
  readonly retention?: string;
}

export interface FailbackDiskReport {
  readonly disk: string;
  readonly path: string;
  /** Chunks in which the disk differed, and in which the owner changed it meanwhile. */
  readonly differingChunks: number;
  /** Bytes of the disk that were read to compare it. */
  readonly readBytes: number;
  /** Bytes that came from the store. */
  readonly fetchedBytes: number;
  readonly writtenBytes: number;
}

export interface FailbackReport {
  readonly item: string;
  readonly mode: 'delta' | 'full';
  /** `ready`: commit or cancel is next. `waiting-for-owner`: what differs is staged; the owner elsewhere has to stop. */
  readonly state: 'ready' | 'waiting-for-owner';
  readonly pointId: string;
  readonly disks: readonly FailbackDiskReport[];
  readonly elapsedMs: number;
}

export interface CommitRequest {
  /** Give up what the owner has shipped since the failover was begun. */
  readonly discardNewer?: boolean;
  /** End protection: nobody replicates this item any more. */
  readonly end?: boolean;
}

export interface CommitReport {
  readonly item: string;
  readonly generation: number;
  readonly epoch: number;
  readonly phase: 'replicating' | 'synced' | 'failed-over' | 'ended';
  readonly pointId: string;
  readonly disks: readonly string[];
  /** `logging`: what the guest writes under a tracker from now on is the next delta. */
  readonly tracking: 'logging' | 'resync-required' | 'ended';
}

export interface MirrorRequest {
  /** The store to carry to; by default all that the item has besides its first, one after the other. */
  readonly to?: string;
  /** Give up what a side that lost has made since in that store. */
  readonly discardNewer?: boolean;
  /** Of an item of this home: the store to carry from; by default the one before `to` on its list. */
  readonly from?: string;
  /** Drops points of the follower that this policy has no use for. */
  readonly retention?: RetentionPolicy;
  /** Fold carried logs once there are so many; default 1. */
  readonly applyFrom?: number;
}

export interface MirrorReport {
  readonly item: string;
  /** Both without secrets. */
  readonly from: string;
  readonly to: string;
  /** `nothing`: the follower had it all. `owner`: only who owns it has changed. */
  readonly by: 'logs' | 'copy' | 'owner' | 'nothing';
  readonly generation: number;
  /** The newest point of the follower. */
  readonly pointId?: string;
  readonly pointTimeMs?: number;
  /** Points that were carried. */
  readonly points: number;
  /** Logs that were carried, and their bytes. */
  readonly logs: number;
  readonly logBytes: number;
  readonly chunksCopied: number;
  readonly chunksCleared: number;
  /** Bytes of chunks that came from the one store, and went to the other. */
  readonly fetchedBytes: number;
  readonly sentBytes: number;
  readonly appliedLogs: number;
  readonly elapsedMs: number;
}

/** A further store of an item, as it was found. */
export interface FurtherStore {
  readonly url: string;
  /** Its newest point; absent where it has none, or could not be looked at. */
  readonly pointId?: string;
  readonly lastPointMs?: number;
  /** How much older that is than the newest point of the first store. */
  readonly behindMs?: number;
  /** Why it could not be looked at. */
  readonly code?: string;
  readonly message?: string;
}

export interface CancelRequest {
  /** Remove the files of test failovers. */
  readonly test?: boolean;
}

export interface CancelReport {
  readonly item: string;
  /** Files that were removed; of a failback its disks, which stay. */
  readonly removed: readonly string[];
  /** The owner of this home had stopped, and goes on. */
  readonly resumed: boolean;
}

export interface ReverseReport {
  readonly item: string;
  /** `logs`: what was tracked was shipped. `compare`: the disks were compared with the replica. */
  readonly by: 'logs' | 'compare';
  readonly pointId: string;
  readonly generation: number;
  readonly sentBytes: number;
  /** Bytes of the disks in the logs, or that the compare read. */
  readonly readBytes: number;
}

export interface FailoverReport {
  readonly item: string;
  readonly pointId: string;
  readonly pointTimeMs: number;
  readonly generation: number;
  readonly freshness: 'proven' | 'not-proven';
  readonly disks: readonly {
    readonly disk: string;
    readonly path: string;
    readonly virtualSizeBytes: number;
    /** Bytes written to the output. */
    readonly writtenBytes: number;
    readonly transferredBytes: number;
  }[];
  /** Shipped logs that were played over the base, and their bytes in the store. */
  readonly logs: number;
  readonly logBytes: number;
  readonly elapsedMs: number;
}
