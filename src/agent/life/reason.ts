/** What a reason is: one thing that can be wrong with a machine, how it is seen, and what mends it. */
import type { ErrorCode } from '../../errors.ts';
import type { BacklogLevel, SpaceVerdict } from '../policy/index.ts';
import type { ItemFacts } from './facts.ts';
import type { LifeState } from './state.ts';

export type Severity = 'warning' | 'critical';

/** What a schedule measured in its monitoring interval (12 hours from 09:00, unless configured); what is unknown is missing. */
export interface CycleFigures {
  /** Cycles that should have been, and those that fell out. */
  readonly due?: number;
  readonly missed?: number;
  readonly averageLatencyMs?: number;
  /** When the last cycle that was done ended. */
  readonly lastSynchronisedMs?: number;
  /** How long what waits will take to upload. */
  readonly upload?: { readonly level: BacklogLevel; readonly minutes: number };
  /** Of the fullest volume that replication writes to. */
  readonly space?: { readonly verdict: SpaceVerdict; readonly freeBytes: number; readonly totalBytes: number };
  /** What is wrong with the folder that is kept for its way home. */
  readonly retention?: string;
  /** Its further stores. */
  readonly stores?: readonly {
    readonly url: string;
    readonly behindMs?: number;
    readonly trouble?: {
      readonly firstMs: number;
      readonly count: number;
      readonly code: ErrorCode;
      readonly message: string;
    };
  }[];
  /** Its group has no common moment any more, since then; the message names who could not. */
  readonly apart?: {
    readonly group: string;
    readonly firstMs: number;
    readonly count: number;
    readonly message: string;
  };
}

export interface HealthThresholds {
  /** Share of the cycles of an interval that may be missed. */
  readonly missedShare: number;
  /** Since the last cycle. */
  readonly behindMs: number;
  readonly averageLatencyMs: number;
  /** Age of the newest recovery point; undefined: nobody is told. */
  readonly rpoMs?: number;
  /** A log that will be half of its disk so soon is told. */
  readonly halfFullMs: number;
  /** … unless they hold less than this share of what they may: a burst behind a cycle is no trend. */
  readonly halfFullShare: number;
}

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

/** As published for Hyper-V Replica; the forecast of the logs is ours. */
export const HEALTH_THRESHOLDS: HealthThresholds = {
  missedShare: 0.2,
  behindMs: HOUR_MS,
  averageLatencyMs: 5 * MINUTE_MS,
  halfFullMs: HOUR_MS,
  halfFullShare: 0.25,
};

/** All that a reason may look at. */
export interface Seen {
  readonly facts: ItemFacts;
  readonly state: LifeState;
  readonly figures: CycleFigures;
  readonly thresholds: HealthThresholds;
}

export interface Reason {
  readonly severity: Severity;
  /** The cause with its numbers; undefined if this is not the case. */
  readonly cause: (seen: Seen) => string | undefined;
  /** The operator's next step. NAME stands for the item. */
  readonly next: (seen: Seen) => string;
}

/** Deltas of these disks should reach the replica, or would if nothing were in the way. */
export function isFollowed({ facts: { replica } }: Seen): boolean {
  return replica === undefined || (replica.owner.isOurs && replica.owner.phase === 'replicating');
}
