/**
 * Reasons that an error tells: the replica cannot be opened, a disk neither, or what runs on schedule failed. Each error code
 * belongs to one reason; an error that knows a better next step than the catalogue says it itself.
 */
import type { ErrorCode } from '../../errors.ts';
import { nextAttempt } from '../policy/index.ts';
import type { ErrorFacts } from './facts.ts';
import { isFollowed, type Reason, type Seen, type Severity } from './reason.ts';
import { remedyOf } from './remedies.ts';
import { isNotThereYet } from './state.ts';
import { timeText } from './texts.ts';

const RETRY_NOW = 'the agent tries again by itself; blockferry agent retry NAME does it now';

export type FailureCode =
  | 'REPLICA_ROLLED_BACK'
  | 'REPLICA_UNREADABLE'
  | 'REPLICA_DAMAGED'
  | 'REPLICA_GONE'
  | 'STORE_GONE'
  | 'LOCAL_STATE_DAMAGED'
  | 'SOURCE_GONE'
  | 'CHAIN_BROKEN'
  | 'SOURCE_DAMAGED'
  | 'SOURCE_UNREADABLE'
  | 'SOURCE_CHANGED'
  | 'SPLIT_BRAIN'
  | 'CREDENTIALS_REFUSED'
  | 'KEY_MISSING'
  | 'KEY_REFUSED'
  | 'STORE_REFUSED'
  | 'STORE_FULL'
  | 'STORE_UNREACHABLE'
  | 'STORE_THROTTLED'
  | 'STORE_CORRUPTS'
  | 'REPLICA_HELD'
  | 'REPLICA_FULL'
  | 'LOGS_UNUSABLE'
  | 'REPLICATION_FAILED'
  | 'FREEZE_FAILED'
  | 'RETRYING';

/** Worst first. */
export const FAILURE_REASONS: Readonly<Record<FailureCode, Reason>> = {
  REPLICA_ROLLED_BACK: reason(
    'critical',
    'somebody put old objects back into the store: find out who; restore knowingly with --from URL, from another home',
  ),
  REPLICA_UNREADABLE: reason(
    'critical',
    'do not write to it: put the object that the message names back from a backup of the store; without one, protect to another URL',
  ),
  REPLICA_DAMAGED: reason(
    'critical',
    'blockferry verify NAME names what is damaged; blockferry resync NAME --verify-target sends it again',
  ),
  REPLICA_GONE: reason(
    'critical',
    'check the URL; a replica that was there once has to be restored from a backup of the store',
  ),
  STORE_GONE: reason(
    'critical',
    'check the URL, and that nobody removed the container or folder; blockferry verify NAME',
  ),
  LOCAL_STATE_DAMAGED: reason(
    'critical',
    "move the item's directory away; --from URL brings the disks back without local state",
  ),
  SOURCE_GONE: reason(
    'critical',
    'put the disk back where it was, or bring it back: blockferry failover NAME --out DIR',
  ),
  CHAIN_BROKEN: reason('critical', 'put the parent back, or merge the checkpoints with the tools of the hypervisor'),
  SOURCE_DAMAGED: reason('critical', 'blockferry check DISK names each fault; blockferry failover NAME brings it back'),
  SOURCE_UNREADABLE: reason('critical', 'check permissions of the disk, and the drive it lies on'),
  SOURCE_CHANGED: reason('critical', 'see who changed the disk; blockferry resync NAME brings the replica up to date'),
  SPLIT_BRAIN: reason('critical', 'two sides have written: decide which one counts, see docs/life.md'),
  CREDENTIALS_REFUSED: reason(
    'critical',
    'check AZURE_STORAGE_CONNECTION_STRING, or give a new SAS: blockferry protect NAME DISK… --to URL',
  ),
  KEY_MISSING: reason('critical', 'put the key file back; without any of its keys a replica can never be opened'),
  KEY_REFUSED: reason(
    'critical',
    'give the key that the replica was protected with; blockferry key list shows their kinds',
  ),
  STORE_REFUSED: reason('critical', 'see that account and container are of a kind that holds page blobs'),
  STORE_FULL: reason('critical', 'free space in the store; replication goes on where it stopped'),
  STORE_UNREACHABLE: reason('critical', 'check network, name and firewall of the store; replication goes on by itself'),
  STORE_THROTTLED: reason('critical', 'lower lanes or bandwidth, or spread machines over more storage accounts'),
  STORE_CORRUPTS: reason(
    'critical',
    'something between here and the store changes data: check proxies and network hardware',
  ),
  REPLICA_HELD: reason('critical', 'see that one host only writes this replica; replication goes on by itself'),
  REPLICA_FULL: reason('critical', 'blockferry apply NAME folds the shipped logs into the base, which makes room'),
  LOGS_UNUSABLE: reason('critical', 'blockferry resync NAME'),
  REPLICATION_FAILED: reason('critical', 'mend what the message names, then: blockferry agent retry NAME'),
  FREEZE_FAILED: reason('warning', 'run the freeze command by hand; crash-consistent points go on'),
  RETRYING: reason('warning', RETRY_NOW),
};

const REASON_OF: Readonly<Record<ErrorCode, FailureCode>> = {
  USAGE: 'REPLICATION_FAILED',
  UNSUPPORTED: 'REPLICATION_FAILED',
  ILLEGAL_STATE: 'REPLICATION_FAILED',
  CONFIG_INVALID: 'REPLICATION_FAILED',
  ITEM_NOT_FOUND: 'REPLICATION_FAILED',
  POINT_NOT_FOUND: 'REPLICATION_FAILED',
  OUTPUT_EXISTS: 'REPLICATION_FAILED',
  DISK_NOT_FOUND: 'SOURCE_GONE',
  DISK_UNREADABLE: 'SOURCE_UNREADABLE',
  DISK_TRUNCATED: 'SOURCE_DAMAGED',
  VHD_FOOTER: 'SOURCE_DAMAGED',
  VHD_HEADER: 'SOURCE_DAMAGED',
  VHD_BAT: 'SOURCE_DAMAGED',
  VHD_BLOCK: 'SOURCE_DAMAGED',
  VHD_LOCATOR: 'SOURCE_DAMAGED',
  VHDX_IDENTIFIER: 'SOURCE_DAMAGED',
  VHDX_HEADER: 'SOURCE_DAMAGED',
  VHDX_REGION: 'SOURCE_DAMAGED',
  VHDX_METADATA: 'SOURCE_DAMAGED',
  VHDX_BAT: 'SOURCE_DAMAGED',
  VHDX_BITMAP: 'SOURCE_DAMAGED',
  VHDX_LOG: 'SOURCE_DAMAGED',
  VHDX_LOCATOR: 'SOURCE_DAMAGED',
  CHAIN_PARENT_NOT_FOUND: 'CHAIN_BROKEN',
  CHAIN_PARENT_MISMATCH: 'CHAIN_BROKEN',
  CHAIN_OUTSIDE_ROOT: 'CHAIN_BROKEN',
  CHAIN_TOO_DEEP: 'CHAIN_BROKEN',
  CHAIN_CYCLE: 'CHAIN_BROKEN',
  SOURCE_CHANGED: 'SOURCE_CHANGED',
  HRL_HEADER: 'LOGS_UNUSABLE',
  HRL_BLOCK: 'LOGS_UNUSABLE',
  HRL_ENTRY: 'LOGS_UNUSABLE',
  HRL_TORN: 'LOGS_UNUSABLE',
  HRL_CHAIN: 'LOGS_UNUSABLE',
  RESYNC_REQUIRED: 'LOGS_UNUSABLE',
  STORE_UNREACHABLE: 'STORE_UNREACHABLE',
  STORE_TIMEOUT: 'STORE_UNREACHABLE',
  STORE_THROTTLED: 'STORE_THROTTLED',
  STORE_CORRUPT_TRANSFER: 'STORE_CORRUPTS',
  STORE_CONDITION: 'REPLICA_HELD',
  STORE_FULL: 'STORE_FULL',
  STORE_REFUSED: 'STORE_REFUSED',
  STORE_NOT_FOUND: 'STORE_GONE',
  STORE_AUTHENTICATION: 'CREDENTIALS_REFUSED',
  ITEM_LOCKED: 'RETRYING',
  REPLICA_LEASED: 'REPLICA_HELD',
  REPLICA_FENCED: 'REPLICA_HELD',
  REPLICA_OTHER_SIDE: 'RETRYING',
  SPLIT_BRAIN: 'SPLIT_BRAIN',
  WRITES_STOPPED: 'REPLICATION_FAILED',
  KEY_WRONG: 'KEY_REFUSED',
  KEY_MISSING: 'KEY_MISSING',
  KEY_INVALID: 'KEY_REFUSED',
  REPLICA_NOT_FOUND: 'REPLICA_GONE',
  REPLICA_FOREIGN: 'REPLICA_GONE',
  REPLICA_ROOT: 'REPLICA_UNREADABLE',
  REPLICA_ROLLED_BACK: 'REPLICA_ROLLED_BACK',
  REPLICA_MANIFEST: 'REPLICA_DAMAGED',
  REPLICA_SLOT: 'REPLICA_DAMAGED',
  REPLICA_LOG: 'REPLICA_DAMAGED',
  REPLICA_KEYRING: 'REPLICA_UNREADABLE',
  REPLICA_DESCRIPTION: 'REPLICA_UNREADABLE',
  REPLICA_FULL: 'REPLICA_FULL',
  REPLICA_BEHIND: 'RETRYING',
  OUTPUT_FAILED: 'RETRYING',
  DISK_DIFFERS: 'RETRYING',
  ABORTED: 'RETRYING',
  LOCAL_STATE: 'LOCAL_STATE_DAMAGED',
  TRACKER_GONE: 'RETRYING',
  AGENT_GONE: 'RETRYING',
  FREEZE_FAILED: 'FREEZE_FAILED',
  BARRIER_LOST: 'RETRYING',
  NBD_PROTOCOL: 'RETRYING',
  GATEWAY_CACHE: 'RETRYING',
  WORKER_FAILED: 'RETRYING',
  UNEXPECTED: 'RETRYING',
  FAILPOINT: 'RETRYING',
};

/** The reason that an error is told as. */
export function reasonOfError(code: ErrorCode): FailureCode {
  return REASON_OF[code];
}

function reason(severity: Severity, next: string): Reason {
  return {
    severity,
    cause(seen) {
      const error = errorOfReason(seen, this);
      return error && `${error.message}${triesText(seen, error)}`;
    },
    next(seen) {
      return errorOfReason(seen, this)?.hint ?? next;
    },
  };
}

function errorOfReason(seen: Seen, self: Reason): ErrorFacts | undefined {
  return errorsOf(seen).find(({ code }) => FAILURE_REASONS[REASON_OF[code]] === self);
}

/** What is wrong now, before what was wrong at the last try. Disks and schedule count only where these disks are followed. */
function errorsOf(seen: Seen): readonly ErrorFacts[] {
  const { localError, replicaError, sourceError, lastFailure, tracking } = seen.facts;
  // Nearly always, and asked for every reason in every turn.
  if (!(localError || replicaError || sourceError || lastFailure)) return [];
  const ofDisks = isFollowed(seen) ? [sourceError, lastFailure] : [];
  // What tracking knows of a resync is told as that.
  const isTold = (error: ErrorFacts): boolean =>
    remedyOf(error.code) === 'resync' && tracking !== undefined && tracking.mode !== 'logging';
  const lost = isNotThereYet(seen.facts) ? undefined : replicaError;
  return [localError, lost, ...ofDisks].filter((error) => error !== undefined).filter((error) => !isTold(error));
}

/** How often it was tried since when, and when next; nothing for what is seen right now. */
function triesText({ facts: { lastFailure } }: Seen, error: ErrorFacts): string {
  if (!lastFailure || lastFailure.code !== error.code) return '';
  const { count, firstMs, lastMs, code } = lastFailure;
  const tries = `; ${count} ${count === 1 ? 'try' : 'tries'} since ${timeText(firstMs)}`;
  return remedyOf(code) === 'retry' ? `${tries}, next at ${timeText(nextAttempt(firstMs, count, lastMs))}` : tries;
}
