/** The door of the item-level operations: what an embedding program and the CLI call. */

export { apply } from './apply.ts';
export { estimateResync } from './estimate.ts';
export { points, status, verify } from './inspect.ts';
export { addKey, listKeys, removeKey, rotateKey } from './keys.ts';
export { protect } from './protect.ts';
export { type ResyncRequest, resync } from './resync.ts';
export { ship } from './ship.ts';
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
  ItemEvent,
  ItemStatus,
  KeyInfo,
  KeySource,
  Listening,
  PlannedReport,
  PlannedRequest,
  PointInfo,
  ProtectRequest,
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
