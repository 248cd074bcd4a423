/**
 * What the parts of the agent say to each other: its configuration, the ports of the engine, what a machine remembers,
 * events and status. All sizes in bytes, all times in Unix milliseconds, all spans in milliseconds.
 */
import type { Compression } from '../../chunker/index.ts';
import type { ErrorCode } from '../../errors.ts';
import type { GatewayConfig } from '../../gateway/index.ts';
import type { Layout } from '../../replica/index.ts';
import type { Finding, ItemFacts, LifeStateName } from '../life/index.ts';
import type {
  BandwidthProfile,
  CycleSummary,
  DailyWindow,
  RetentionPolicy,
  SpaceVerdict,
  StatisticsJson,
} from '../policy/index.ts';
import type { Limits } from '../transfer-limits.ts';
import type { ApplyReport, KeySource, MirrorReport, ShipReport, SyncReport } from '../types.ts';
import type { AgentGatewayStatus, GatewayFinding } from './gateway-health.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** A configuration file, checked, with its defaults filled in. */
export interface AgentConfig {
  /** Where it was read from. */
  readonly path: string;
  /** undefined: who starts the agent says it. */
  readonly home?: string;
  /** IANA name. */
  readonly zone: string;
  readonly lanes: number;
  /** Machines that work at a time. */
  readonly atOnce: number;
  readonly bandwidth: BandwidthProfile;
  readonly metrics?: { readonly host: string; readonly port: number };
  readonly log: LogLevel;
  readonly connectionStringFile?: string;
  /** What lets this agent in at a gateway. */
  readonly gatewayTokenFile?: string;
  readonly gatewayCaFile?: string;
  /** What it is for others. */
  readonly gateway?: GatewayConfig;
  readonly machines: readonly MachineConfig[];
  readonly groups: readonly GroupConfig[];
}

/** Machines that ship together: their points are one moment (docs/tracking.md, Groups). */
export interface GroupConfig {
  readonly name: string;
  /** Names. */
  readonly machines: readonly string[];
  readonly everyMs: number;
  readonly appConsistent?: AppConsistency;
}

/** How the group of a machine stands. */
export interface GroupStanding {
  readonly name: string;
  /** It has failed so often in a row that its machines ship by themselves. */
  readonly isApart: boolean;
  /** Since its last common moment. */
  readonly trouble?: GroupTrouble;
}

/** Why a group has no common moment. */
export interface GroupTrouble {
  /** When the first attempt of this row began. */
  readonly firstMs: number;
  /** When the last one ended. */
  readonly lastMs: number;
  readonly count: number;
  readonly code: ErrorCode;
  /** Names the machine that could not, where it was one. */
  readonly message: string;
}

export interface AppConsistency {
  readonly everyMs: number;
  /** Shell commands. */
  readonly freeze?: string;
  readonly thaw?: string;
  readonly timeoutMs: number;
}

/** One machine as its operator describes it. */
export interface MachineConfig {
  readonly name: string;
  /** Absolute paths. */
  readonly disks: readonly string[];
  readonly url: string;
  /** Further stores, each of which follows the one before it. */
  readonly also?: readonly string[];
  readonly layout?: Layout;
  readonly chunkBytes?: number;
  readonly compression?: Compression;
  readonly keys: readonly KeySource[];
  readonly everyMs: number;
  readonly appConsistent?: AppConsistency;
  readonly firstCopyAtMs?: number;
  readonly resync: 'manual' | DailyWindow;
  readonly retention: RetentionPolicy;
  readonly apply: { readonly logs: number; readonly ageMs: number };
  readonly lanes: { readonly min: number; readonly max: number };
  readonly rpoThresholdMs: number;
  readonly lowSpace: 'act' | 'tell';
  readonly serve?: { readonly listen: string };
  /** Name of the group that it ships with. */
  readonly group?: string;
  /** How it comes home, where nothing else is said. */
  readonly failback?: FailbackConfig;
}

export interface FailbackConfig {
  readonly mode: 'delta' | 'full';
  /** Absolute paths. */
  readonly out?: string;
  readonly retention?: string;
}

/** Part of what all machines may use, of one that is active. */
export interface Share {
  readonly lanes: number;
  /** What it has where all want theirs; undefined: no cap. */
  readonly bandwidthBytesPerSecond: number | undefined;
}

/** What every operation runs with. The share is that of the moment. */
export interface OperationContext extends Share {
  readonly signal: AbortSignal;
  /** What is asked before bytes are sent: the share, and what others leave of theirs. */
  readonly bandwidth: Limits['bandwidth'];
  /** Calls `listener` whenever the share changes, as long as the operation runs. */
  onShare(listener: (share: Share) => void): void;
}

/** What the engine can do with one machine. Failures are BlockferryErrors. */
export interface MachineOperations {
  /** What is the case, from the replica and the tracker. A store that is down is an answer too (`replicaError`). */
  observe(context: OperationContext): Promise<ItemFacts>;
  protect(context: OperationContext): Promise<SyncReport>;
  ship(context: OperationContext & { readonly consistency: 'crash' | 'app' }): Promise<ShipReport>;
  apply(context: OperationContext): Promise<ApplyReport>;
  resync(context: OperationContext): Promise<SyncReport>;
  prune(context: OperationContext & { readonly policy: RetentionPolicy }): Promise<{ readonly dropped: number }>;
  /** What is wrong with the folder that it keeps for its way home; absent where it has none. */
  readonly retention?: () => Promise<string | undefined>;
  /** Of the fullest volume that replication writes to. */
  space(): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
}

/** What the engine can do with one further store of a machine. */
export interface FollowOperations {
  /** When the newest point there was made; undefined where there is none. */
  look(context: OperationContext): Promise<number | undefined>;
  mirror(context: OperationContext): Promise<MirrorReport>;
}

/** Why a further store is not carried to. */
export interface StoreTrouble {
  /** When the first attempt of this row began. */
  readonly firstMs: number;
  /** When the last one ended. */
  readonly lastMs: number;
  readonly count: number;
  readonly code: ErrorCode;
  readonly message: string;
}

/** How one further store of a machine is. */
export interface FollowerStatus {
  readonly url: string;
  readonly running: boolean;
  /** As of the last time that something was carried, since this process began. */
  readonly newestPointMs?: number;
  /** How much older that is than the newest point of the first store. */
  readonly behindMs?: number;
  readonly trouble?: StoreTrouble;
}

/** What the engine can do with one group. */
export interface GroupOperations {
  /** Ships all of them at one moment; reports in the order of the machines. The error says in `facts.item` whose it is. */
  ship(context: OperationContext & { readonly consistency: 'crash' | 'app' }): Promise<readonly ShipReport[]>;
}

/** Where machines remember; `save` is atomic and durable. */
export interface AgentStateStore {
  load(name: string): Promise<MachineRecord | undefined>;
  save(name: string, record: MachineRecord): Promise<void>;
}

/** A failure that has not been followed by a success. */
export interface Failure {
  readonly verb: AgentVerb;
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
  /** When the first attempt of this row began. */
  readonly firstMs: number;
  /** When the last one ended. */
  readonly lastMs: number;
  readonly count: number;
  readonly recoverable: boolean;
}

/** What the agent does by itself. */
export const AGENT_VERBS = ['observe', 'protect', 'ship', 'apply', 'resync', 'prune'] as const;
export type AgentVerb = (typeof AGENT_VERBS)[number];

/** What it does when an operator asks for it (operator-verbs.ts). */
export const OPERATOR_VERBS = ['failover', 'failover-planned', 'failback', 'commit', 'cancel', 'reverse'] as const;
export type OperatorVerb = (typeof OPERATOR_VERBS)[number];

/** What can be under way. */
export type RunningVerb = AgentVerb | OperatorVerb;

/** What a machine remembers over restarts. */
export interface MachineRecord {
  readonly lastCycle?: { readonly startedMs: number; readonly endedMs: number };
  readonly lastAppMs?: number;
  /** End of the last first copy or resync. */
  readonly lastCopyMs?: number;
  readonly lastApplyMs?: number;
  readonly lastPruneMs?: number;
  readonly suspendedSinceMs?: number;
  /** Somebody asked for a resync now. */
  readonly resyncAsked?: boolean;
  readonly failure?: Failure;
  /** Of what follows a cycle; cycles go on. */
  readonly upkeepFailure?: Failure;
  readonly totals: MachineTotals;
  readonly lastMs: Readonly<Partial<Record<AgentVerb, number>>>;
  readonly statistics: StatisticsJson;
}

export interface MachineTotals {
  readonly done: number;
  readonly missed: number;
  readonly failed: number;
  readonly sentBytes: number;
}

interface OfMachine {
  readonly machine: string;
}

interface OfGroup {
  readonly group: string;
}

/** What happens; `timeMs` is added where it is told. */
export type AgentHappening =
  | { readonly type: 'agent-started' | 'agent-stopped'; readonly machines: number }
  | {
      readonly type: 'config-reloaded';
      readonly added: readonly string[];
      readonly removed: readonly string[];
      readonly changed: readonly string[];
    }
  | { readonly type: 'config-refused'; readonly message: string }
  /** `reason`: why a resync is required, where nobody asked for it. */
  | (OfMachine & { readonly type: 'operation-started'; readonly verb: RunningVerb; readonly reason?: string })
  | (OfMachine & {
      readonly type: 'operation-ended';
      readonly verb: RunningVerb;
      readonly elapsedMs: number;
      readonly sentBytes?: number;
      readonly pointId?: string;
    })
  | (OfMachine & {
      readonly type: 'operation-failed';
      readonly verb: RunningVerb;
      readonly code: ErrorCode;
      readonly message: string;
      readonly hint?: string;
      readonly recoverable: boolean;
      readonly nextAttemptMs?: number;
    })
  | (OfMachine & { readonly type: 'operation-stopped'; readonly verb: RunningVerb; readonly reason: string })
  | (OfMachine & { readonly type: 'state-changed'; readonly from: LifeStateName; readonly to: LifeStateName })
  | (OfMachine & {
      readonly type: 'health-changed';
      readonly level: HealthLevel;
      readonly findings: readonly Finding[];
    })
  | (OfMachine & { readonly type: 'cycles-missed'; readonly missed: number })
  | (OfMachine & {
      readonly type: 'space';
      readonly verdict: SpaceVerdict;
      readonly freeBytes: number;
      readonly totalBytes: number;
    })
  | (OfMachine & {
      readonly type: 'tracker';
      readonly what: 'started' | 'found' | 'ended' | 'failed';
      readonly message: string;
    })
  | (OfMachine & {
      readonly type: 'store-carried';
      readonly url: string;
      readonly by: MirrorReport['by'];
      readonly points: number;
      readonly sentBytes: number;
      readonly elapsedMs: number;
      readonly pointId?: string;
    })
  | (OfMachine & {
      readonly type: 'store-failed';
      readonly url: string;
      readonly code: ErrorCode;
      readonly message: string;
      readonly hint?: string;
      readonly nextAttemptMs: number;
    })
  | (OfMachine & { readonly type: 'notice'; readonly code: string; readonly message: string })
  | (OfGroup & { readonly type: 'group-shipped'; readonly pointTimeMs: number; readonly consistency: 'crash' | 'app' })
  | (OfGroup & {
      readonly type: 'group-failed';
      readonly code: ErrorCode;
      readonly message: string;
      readonly nextAttemptMs: number;
      /** From now on its machines ship by themselves. */
      readonly isApart: boolean;
    })
  | (OfGroup & { readonly type: 'group-notice'; readonly code: string; readonly message: string })
  /** `place`: of the replica behind the gateway that it is about. */
  | {
      readonly type: 'gateway';
      readonly what: 'started' | 'upload-failed' | 'refused' | 'fault';
      readonly place?: string;
      readonly message: string;
    }
  | { readonly type: 'gateway-health'; readonly level: HealthLevel; readonly findings: readonly GatewayFinding[] };

export type AgentEvent = AgentHappening & { readonly timeMs: number };

export type HealthLevel = 'normal' | 'warning' | 'critical';

/** How one machine is. */
export interface MachineStatus {
  readonly name: string;
  readonly state: LifeStateName;
  /** Published number of the state. */
  readonly stateCode?: number;
  readonly health: { readonly level: HealthLevel; readonly findings: readonly Finding[] };
  readonly running?: RunningVerb;
  /** What comes next, and when; nothing while it waits for a person. */
  readonly next?: { readonly verb: AgentVerb; readonly dueMs: number };
  readonly failure?: Failure;
  readonly upkeepFailure?: Failure;
  readonly suspendedSinceMs?: number;
  readonly newestPointMs?: number;
  readonly rpoMs?: number;
  readonly points: number;
  readonly outstandingLogs: number;
  readonly backlogBytes: number;
  readonly totals: MachineTotals;
  readonly statistics: CycleSummary;
  readonly lastMs: MachineRecord['lastMs'];
  readonly space?: { readonly verdict: SpaceVerdict; readonly freeBytes: number; readonly totalBytes: number };
  readonly share?: Share;
  /** Name of its group. */
  readonly group?: string;
  /** Its further stores. */
  readonly also?: readonly FollowerStatus[];
}

/** How one group is. */
export interface GroupStatus {
  readonly name: string;
  readonly machines: readonly string[];
  /** When its next cycle, or attempt, begins. */
  readonly nextMs: number;
  /** Since this process began. */
  readonly lastMomentMs?: number;
  readonly isApart: boolean;
  readonly trouble?: GroupTrouble;
}

export interface AgentStatus {
  readonly home: string;
  readonly config: string;
  readonly startedMs: number;
  /** URL of the metrics. */
  readonly metrics?: string;
  readonly gateway?: AgentGatewayStatus;
  readonly machines: readonly MachineStatus[];
  readonly groups: readonly GroupStatus[];
}

/** Runs what a machine's owner wrote as shell commands, and the trackers that the agent starts: processes are not the library's. */
export interface AgentProcesses {
  /** Ends well with exit code 0. @throws FREEZE_FAILED */
  shell(what: 'freeze' | 'thaw', command: string, signal?: AbortSignal): Promise<void>;
  /** Starts `track`, which outlives this process. Resolves when it ended, with why. */
  track(name: string, home: string, listen: string, onTalk: (line: string) => void): Promise<string>;
}
