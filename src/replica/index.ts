/** The door of the replica: its format, and the verbs sync, restore and verify. */
export { type ApplyProgress, type ApplyResult, type ApplySetup, apply } from './apply.ts';
export { BaseLayout, fitsRaw, rawBlobBytes } from './base.ts';
export { type ChunkRun, chunkRuns, joinRuns } from './chunk-runs.ts';
export { collectAfterCommit } from './collect-dropped.ts';
export { collectLogs } from './collect-logs.ts';
export { Committer, type RootChange, type SaveAnchor } from './committer.ts';
export { type Claim, claimPlace, createReplica, foreign, isTaken } from './create-replica.ts';
export {
  type DiskDescription,
  decodeDescription,
  encodeDescription,
  isSafeFileName,
  type Layout,
  type ReplicaDescription,
} from './description.ts';
export type { DiskSyncCounts } from './disk-sync.ts';
export { type DiskState, FrozenDisk, type ReadAccess } from './frozen-disk.ts';
export { canonicalJson, JsonReader } from './json.ts';
export { generateKeyFile, parseKeyFile } from './key-file.ts';
export { type KeyMaterial, type KeySlot, MASTER_KEY_BYTES } from './key-wrap.ts';
export {
  addEpoch,
  addSlot,
  createKeyring,
  decodeKeyring,
  encodeKeyring,
  type Keyring,
  type OpenKeyring,
  openKeyring,
  openWithMaster,
  removeSlot,
} from './keyring.ts';
export { baseKey, DESCRIPTION_KEY, KEYRING_KEY, logKey, manifestKey, ROOT_KEY } from './layout.ts';
export { type MirrorResult, type MirrorSetup, mirror } from './mirror/index.ts';
export { assertReplicating, isOwner, type Owner, SIDE_BYTES } from './owner.ts';
export { askPins, listPins, PIN_HOLD_MS, type PinNotice, type PinOptions, Pins, withPin } from './pins.ts';
export { type PlayCounts, type PlaySetup, playLogs } from './play-logs.ts';
export { checkProof, encodeProof, makeProof, type Proof, type ProvenDisk, proofKey } from './proof.ts';
export { openReplica, type Replica, reopenReplica, type Unlock, workerSetup } from './replica.ts';
export { outputError, type RestoreCounts, type RestoreSetup, restoreDisk } from './restore.ts';
export { POINTS_KEPT, retain } from './retain.ts';
export { type RetainResult, type RetainSetup, retainPoints } from './retain-points.ts';
export {
  type Anchor,
  type Baseline,
  baselineOf,
  type Following,
  isProcessed,
  logsOf,
  newestLog,
  outstandingLogs,
  type PointDisk,
  type RecoveryPoint,
  ROOT_HASH_BYTES,
  type Root,
  type RootRecord,
  type ShippedLog,
  type SuspectRange,
  type SyncState,
} from './root.ts';
export { checkAnchor, decodeRoot, encodeRoot, rootHash } from './root-record.ts';
export { settledRecord } from './settled.ts';
export { type ShipProgress, type ShipResult, type ShipSetup, shipLogs } from './ship.ts';
export { type LogAccess, type LogPiece, readShippedLog } from './shipped-log.ts';
export { sourceStamp } from './source-stamp.ts';
export {
  catchUp,
  completeStage,
  type DeltaSetup,
  discardStage,
  type FillCounts,
  hasStage,
  isHalfLaid,
  type LayCounts,
  type LaySetup,
  layStage,
  type OpenStageOptions,
  openStage,
  type ProofCounts,
  type ProofSetup,
  proveDisk,
  Stage,
  type StageCounts,
  type StagePhase,
  type StagePlace,
  type StageProgressCounts,
  type StageSetup,
  stageDelta,
  stagePlaceFault,
} from './stage/index.ts';
export { type SyncProgress, type SyncResult, type SyncSetup, sync, type TrackedCopy } from './sync.ts';
export type { SyncNotice } from './sync-notices.ts';
export { dataBytes } from './sync-plan.ts';
export { isNewestState, type TakeOver, takeOver } from './take-over.ts';
export {
  type CompareCounts,
  checkShippedLog,
  compareDisk,
  type Damage,
  type VerifyCounts,
  type VerifySetup,
  verifyDisk,
} from './verify.ts';
export { type SessionBlob, WriterSession } from './writer-session.ts';
