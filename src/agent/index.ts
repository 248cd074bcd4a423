/** The door of the item-level operations: what an embedding program and the CLI call. */

import type * as daemon from './daemon/index.ts';

/** The agent brings YAML and metrics along, which no single operation needs: it is loaded when it is called. */
const loadDaemon = (): Promise<typeof daemon> => import('./daemon/index.ts');

/** Starts an agent in this process (docs/agent.md). */
export const startAgent: typeof daemon.startAgent = async (...args) => (await loadDaemon()).startAgent(...args);
/** Talks to the agent of a home. */
export const connectAgent: typeof daemon.connectAgent = async (...args) => (await loadDaemon()).connectAgent(...args);
/** Reads the text of a configuration. @throws CONFIG_INVALID with every mistake */
export const loadConfig = async (...args: Parameters<typeof daemon.loadConfig>): Promise<daemon.AgentConfig> =>
  (await loadDaemon()).loadConfig(...args);
/** Reads a configuration file. @throws CONFIG_INVALID with every mistake */
export const readConfig: typeof daemon.readConfig = async (...args) => (await loadDaemon()).readConfig(...args);

export { apply } from './apply.ts';
export type {
  Agent,
  AgentConfig,
  AgentControl,
  AgentEvent,
  AgentProcesses,
  AgentStatus,
  AgentVerb,
  ConfigChanges,
  MachineConfig,
  MachineStatus,
  StartAgentOptions,
} from './daemon/index.ts';
export { estimateResync } from './estimate.ts';
export { points, status, verify } from './inspect.ts';
export { addKey, listKeys, removeKey, rotateKey } from './keys.ts';
export type {
  Finding,
  Health,
  ItemFacts,
  LifeState,
  LifeStateName,
  Published,
  ReasonCode,
  Severity,
  Verb,
} from './life/index.ts';
export { mirror } from './mirror.ts';
export { protect } from './protect.ts';
export { type PruneChoice, prune } from './prune.ts';
export { type ResyncRequest, resync } from './resync.ts';
export { ship } from './ship.ts';
export { shipTogether } from './ship-together.ts';
export { cancel, commit, failback, failover, failoverPlanned, reverse } from './sides/index.ts';
export { track } from './track.ts';
export type {
  ApplyReport,
  CancelReport,
  CancelRequest,
  CommitReport,
  CommitRequest,
  DiskSyncReport,
  FailbackDiskReport,
  FailbackReport,
  FailbackRequest,
  FailoverReport,
  FailoverRequest,
  FurtherStore,
  ItemEvent,
  ItemStatus,
  KeyInfo,
  KeySource,
  Listening,
  MirrorReport,
  MirrorRequest,
  PlannedReport,
  PlannedRequest,
  PointInfo,
  ProtectRequest,
  PruneReport,
  ReplicaReference,
  ResyncEstimate,
  ReverseReport,
  Session,
  ShipReport,
  ShipRequest,
  SyncReport,
  TrackRequest,
  VerifyReport,
  VerifyRequest,
} from './types.ts';
