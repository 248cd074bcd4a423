/**
 * What heals an error: time, a resync, or a person. Published systems retry what may pass (network, space, memory) and wait for an
 * administrator where it cannot: a broken chain, refused credentials, an invalid replica, a source that is gone.
 *
 * Every code stands here, so that one that is added does not compile until somebody has thought about it.
 */
import type { ErrorCode } from '../../errors.ts';

/** `retry`: the same again may succeed. `resync`: deltas cannot go on, a compare can. `person`: nothing will change by itself. */
export type Remedy = 'retry' | 'resync' | 'person';

const REMEDIES: Readonly<Record<ErrorCode, Remedy>> = {
  USAGE: 'person',
  UNSUPPORTED: 'person',
  ILLEGAL_STATE: 'person',
  CONFIG_INVALID: 'person',
  ITEM_NOT_FOUND: 'person',
  POINT_NOT_FOUND: 'person',
  OUTPUT_EXISTS: 'person',
  DISK_NOT_FOUND: 'person',
  DISK_UNREADABLE: 'person',
  DISK_TRUNCATED: 'person',
  VHD_FOOTER: 'person',
  VHD_HEADER: 'person',
  VHD_BAT: 'person',
  VHD_BLOCK: 'person',
  VHD_LOCATOR: 'person',
  VHDX_IDENTIFIER: 'person',
  VHDX_HEADER: 'person',
  VHDX_REGION: 'person',
  VHDX_METADATA: 'person',
  VHDX_BAT: 'person',
  VHDX_BITMAP: 'person',
  VHDX_LOG: 'person',
  VHDX_LOCATOR: 'person',
  CHAIN_PARENT_NOT_FOUND: 'person',
  CHAIN_PARENT_MISMATCH: 'person',
  CHAIN_OUTSIDE_ROOT: 'person',
  CHAIN_TOO_DEEP: 'person',
  CHAIN_CYCLE: 'person',
  SOURCE_CHANGED: 'person',
  HRL_HEADER: 'resync',
  HRL_BLOCK: 'resync',
  HRL_ENTRY: 'resync',
  HRL_TORN: 'resync',
  HRL_CHAIN: 'resync',
  RESYNC_REQUIRED: 'resync',
  STORE_UNREACHABLE: 'retry',
  STORE_TIMEOUT: 'retry',
  STORE_THROTTLED: 'retry',
  STORE_CORRUPT_TRANSFER: 'retry',
  STORE_CONDITION: 'retry',
  STORE_FULL: 'retry',
  STORE_REFUSED: 'person',
  STORE_NOT_FOUND: 'person',
  STORE_AUTHENTICATION: 'person',
  ITEM_LOCKED: 'retry',
  REPLICA_LEASED: 'retry',
  REPLICA_FENCED: 'retry',
  // The state says whose turn it is; when these disks are followed again, so they are at the next try.
  REPLICA_OTHER_SIDE: 'retry',
  SPLIT_BRAIN: 'person',
  WRITES_STOPPED: 'person',
  KEY_WRONG: 'person',
  KEY_MISSING: 'person',
  KEY_INVALID: 'person',
  REPLICA_NOT_FOUND: 'person',
  REPLICA_FOREIGN: 'person',
  REPLICA_ROOT: 'person',
  REPLICA_ROLLED_BACK: 'person',
  REPLICA_MANIFEST: 'person',
  REPLICA_SLOT: 'person',
  REPLICA_LOG: 'person',
  REPLICA_KEYRING: 'person',
  REPLICA_DESCRIPTION: 'person',
  // Applying and dropping points make room, and both go on beside the cycles.
  REPLICA_FULL: 'retry',
  REPLICA_BEHIND: 'retry',
  OUTPUT_FAILED: 'retry',
  DISK_DIFFERS: 'retry',
  ABORTED: 'retry',
  LOCAL_STATE: 'person',
  TRACKER_GONE: 'retry',
  AGENT_GONE: 'retry',
  BARRIER_LOST: 'retry',
  FREEZE_FAILED: 'retry',
  NBD_PROTOCOL: 'retry',
  // Lack of memory looks like this.
  GATEWAY_CACHE: 'retry',
  WORKER_FAILED: 'retry',
  UNEXPECTED: 'retry',
  FAILPOINT: 'retry',
};

export function remedyOf(code: ErrorCode): Remedy {
  return REMEDIES[code];
}

/** Whether trying again may help; what is not recoverable waits for a resync or for a person. */
export function isRecoverable(code: ErrorCode): boolean {
  return REMEDIES[code] === 'retry';
}
