/** The door of the item-level operations: what an embedding program and the CLI call. */

export { apply } from './apply.ts';
export { estimateResync } from './estimate.ts';
export { failover } from './failover.ts';
export { points, status, verify } from './inspect.ts';
export { addKey, listKeys, removeKey, rotateKey } from './keys.ts';
export { protect } from './protect.ts';
export { type ResyncRequest, resync } from './resync.ts';
export { ship } from './ship.ts';
export { track } from './track.ts';
export type {
  ApplyReport,
  DiskSyncReport,
  FailoverReport,
  FailoverRequest,
  ItemEvent,
  ItemStatus,
  KeyInfo,
  KeySource,
  Listening,
  PointInfo,
  ProtectRequest,
  ReplicaReference,
  ResyncEstimate,
  Session,
  ShipReport,
  ShipRequest,
  SyncReport,
  TrackRequest,
  VerifyReport,
  VerifyRequest,
} from './types.ts';
