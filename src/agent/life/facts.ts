/**
 * What is known of a machine at one moment: from its replica, its tracker, its disks, and what its home remembers. State
 * and health are functions of this alone; nothing here is a judgement. Times are Unix milliseconds, sizes bytes.
 */
import type { ErrorCode } from '../../errors.ts';
import type { ResyncReason, TrackingMode } from '../../tracker/index.ts';

/** What an operator, or the agent for one, can ask for. */
export const VERBS = [
  'protect',
  'ship',
  'apply',
  'resync',
  'failover',
  'failover-test',
  'failover-planned',
  'commit',
  'cancel',
  'failback',
  'reverse',
  'end',
  'pause',
  'resume',
] as const;

export type Verb = (typeof VERBS)[number];

/** An error, as far as state and health look at it. */
export interface ErrorFacts {
  readonly code: ErrorCode;
  readonly message: string;
  /** The next step, where the error names one. */
  readonly hint?: string;
}

/** Whose disks the replica follows (docs/life.md). */
export interface OwnerFacts {
  /** It follows those of this home. */
  readonly isOurs: boolean;
  readonly phase: 'replicating' | 'synced' | 'failed-over' | 'ended';
  readonly epoch: number;
  readonly point?: string;
  readonly sinceMs: number;
}

/** What the replica says of itself. */
export interface ReplicaFacts {
  readonly owner: OwnerFacts;
  /** What was begun in the base and has not ended, whoever began it. */
  readonly sync?: 'initial' | 'resync' | 'apply';
  readonly points: number;
  /** Of the newest that is where it belongs: what waits at a gateway is not safe yet. */
  readonly newestPointMs?: number;
  /** Shipped logs that the base lacks, and their bytes in the store. */
  readonly outstandingLogs: number;
  readonly outstandingBytes?: number;
  /** Written by the guest and not shipped yet, as far as tracking knows. */
  readonly backlogBytes: number;
}

/** What tracking says, or what its last run left. */
export interface TrackingFacts {
  readonly mode: TrackingMode;
  readonly reason?: ResyncReason;
  /** A tracker runs. */
  readonly served: boolean;
  /** Guest writes are refused, for a planned failover. */
  readonly stopped: boolean;
  /** No tracker runs though one did since the last copy: how it ended. */
  readonly ended?: 'in-order' | 'without-warning';
  /** When half of a disk will be in its logs, if the guest goes on as it does. */
  readonly halfFullInMs?: number;
  /** Of what the logs of a disk may take, the share that is taken; of the fullest. */
  readonly logShare?: number;
}

/** Disks that were brought back and wait for `commit` or `cancel`. */
export interface WaitingFacts {
  readonly kind: 'failover' | 'failback';
  readonly pointId: string;
  readonly sinceMs: number;
  /** false: bringing them back was interrupted, and nothing can be committed. */
  readonly isComplete?: boolean;
}

export interface ItemFacts {
  readonly nowMs: number;
  /** For next steps; without it they say NAME. */
  readonly item?: string;
  readonly replica?: ReplicaFacts;
  /** Why there is no `replica`. */
  readonly replicaError?: ErrorFacts;
  /** This home has seen the replica before: one that is not there was lost. */
  readonly wasSeen?: boolean;
  /** A disk, or one of its parents, cannot be opened. */
  readonly sourceError?: ErrorFacts;
  /** A file of local state cannot be believed. */
  readonly localError?: ErrorFacts;
  readonly tracking?: TrackingFacts;
  readonly waiting?: WaitingFacts;
  /** The operator paused it. */
  readonly suspendedSinceMs?: number;
  /** The first copy is to begin then. */
  readonly firstCopyAtMs?: number;
  readonly running?: Verb;
  /** Failures since the last success of what runs on schedule. */
  readonly lastFailure?: ErrorFacts & {
    readonly firstMs: number;
    readonly count: number;
    /** When the last of them ended. */
    readonly lastMs?: number;
  };
}
