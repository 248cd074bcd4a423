/**
 * What tracking remembers of an item over restarts: `<item>/tracking/state.json`, replaced in one durable step.
 *
 * A log is named here before it may hold the only record of a write, and taken off before it is removed. So a log that is
 * named and not there was lost, and one that is there and not named holds nothing.
 */
import { join } from 'node:path';
import { BlockferryError } from '../errors.ts';
import { normalizeGuid } from '../guid.ts';
import { DISKS_PER_ITEM_MAX, TRACKED_LOGS_MAX } from '../limits.ts';
import type { FileSystem } from '../ports.ts';
import { canonicalJson, JsonReader } from '../replica/index.ts';

const STATE_BYTES_MAX = 16 << 20;
const COUNT_MAX = Number.MAX_SAFE_INTEGER;

/**
 * `logging`: every write since the replica's last log is in a log. `resyncing`: every write since a resync began is.
 * `resync-required`: only the dirty map knows.
 */
export type TrackingMode = 'logging' | 'resyncing' | 'resync-required';

const REASONS = [
  'NOT_SYNCED',
  'LOG_HALF_FULL',
  'LOG_FAILED',
  'NO_SPACE',
  'LOG_LOST',
  'LOG_CHAIN',
  'EDITED_OFFLINE',
  'MAP_LOST',
  'RESYNC_INTERRUPTED',
] as const;

/** Why a resync is required. */
export interface ResyncReason {
  readonly code: (typeof REASONS)[number];
  readonly message: string;
  readonly sinceMs: number;
}

export interface NamedLog {
  readonly path: string;
  readonly uniqueId: string;
}

export interface DiskTracking {
  /** What the first log follows: the last one that the replica has. */
  readonly head: string;
  /** Oldest first. While tracking runs, or after a crash, the last one is open. */
  readonly logs: readonly NamedLog[];
  /** DataWriteGuid of a VHDX as tracking left it; '' for others. */
  readonly contentId: string;
  /** DataWriteGuid that it may have instead: a tracker was about to start, which changes it. */
  readonly nextContentId?: string;
  /** What the files said of themselves when tracking ended; '' while it runs. */
  readonly stamp: string;
}

export interface TrackingState {
  readonly mode: TrackingMode;
  readonly reason?: ResyncReason;
  /** A tracker served the disks since the last copy at rest: only then do its maps count as knowledge. */
  readonly tracked: boolean;
  /** Tracking ended in order: logs are closed, nothing is uncertain. */
  readonly clean: boolean;
  /** Guest writes are refused. */
  readonly stopped?: boolean;
  readonly disks: readonly DiskTracking[];
}

/** Directory of an item's tracking state. */
export function trackingDirectory(itemDirectory: string): string {
  return join(itemDirectory, 'tracking');
}

/** Path of a disk's dirty map. */
export function mapPath(directory: string, diskId: string): string {
  return join(directory, `${diskId}.map`);
}

/** undefined if the item was never tracked nor synced. @throws LOCAL_STATE */
export async function loadTrackingState(directory: string, files: FileSystem): Promise<TrackingState | undefined> {
  const path = join(directory, 'state.json');
  const bytes = await files.readSmall(path, STATE_BYTES_MAX);
  if (!bytes) return undefined;
  const json = JsonReader.parse(bytes, path, 'LOCAL_STATE');
  const reason = json.optional('reason');
  return {
    mode: json.field('mode').oneOf(['logging', 'resyncing', 'resync-required']),
    ...(reason ? { reason: readReason(reason) } : {}),
    tracked: json.field('tracked').boolean(),
    clean: json.field('clean').boolean(),
    ...(json.optional('stopped')?.boolean() ? { stopped: true } : {}),
    disks: json.field('disks').list(DISKS_PER_ITEM_MAX).map(readDisk),
  };
}

export async function saveTrackingState(directory: string, state: TrackingState, files: FileSystem): Promise<void> {
  const { reason, ...rest } = state;
  const disks = state.disks.map((disk) => ({ ...disk, logs: disk.logs.map((log) => ({ ...log })) }));
  const body = { ...rest, disks, reason: reason && { ...reason } };
  await files.replace(join(directory, 'state.json'), Buffer.from(`${canonicalJson(body)}\n`), { ownerOnly: true });
}

/** The error of whoever needs logs where a resync is required. */
export function resyncRequired({ code, message }: Omit<ResyncReason, 'sinceMs'>): BlockferryError {
  return new BlockferryError('RESYNC_REQUIRED', `a resync is required: ${message}`, {
    facts: { reason: code },
    hint: 'run blockferry resync; it reads only what may differ, while the guest writes on',
  });
}

function readReason(json: JsonReader): ResyncReason {
  return {
    code: json.field('code').oneOf(REASONS),
    message: json.field('message').string(4096),
    sinceMs: json.field('sinceMs').integer(0, COUNT_MAX),
  };
}

function readDisk(json: JsonReader): DiskTracking {
  const nextContentId = json.optional('nextContentId');
  return {
    head: readGuid(json.field('head')),
    logs: json
      .field('logs')
      .list(TRACKED_LOGS_MAX)
      .map((log) => ({ path: log.field('path').string(4096), uniqueId: readGuid(log.field('uniqueId')) })),
    contentId: json.field('contentId').string(64),
    ...(nextContentId ? { nextContentId: readGuid(nextContentId) } : {}),
    stamp: json.field('stamp').string(256),
  };
}

function readGuid(json: JsonReader): string {
  return normalizeGuid(json.string(64)) ?? json.fail('is a GUID');
}
