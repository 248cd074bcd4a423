/** The door of the item-level operations: what an embedding program and the CLI call. */
export { estimateResync } from './estimate.ts';
export { failover } from './failover.ts';
export { points, status, verify } from './inspect.ts';
export { addKey, listKeys, removeKey, rotateKey } from './keys.ts';
export { protect } from './protect.ts';
export { type ResyncRequest, resync } from './resync.ts';
export type {
  DiskSyncReport,
  FailoverReport,
  FailoverRequest,
  ItemEvent,
  ItemStatus,
  KeyInfo,
  KeySource,
  PointInfo,
  ProtectRequest,
  ReplicaReference,
  ResyncEstimate,
  Session,
  SyncReport,
  VerifyReport,
  VerifyRequest,
} from './types.ts';
