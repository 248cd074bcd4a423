/**
 * Gathering what is known of an item: from its replica, its tracker, its disks and its home. Changes nothing. What cannot be
 * looked at is a fact too: a store that does not answer, a key that is gone, a chain that is broken.
 */
import { type BlockferryError, isBlockferryError } from '../errors.ts';
import { isOwner, outstandingLogs, type Replica, type Root, settledRecord } from '../replica/index.ts';
import {
  ControlClient,
  controlPath,
  loadTrackingState,
  offlineEdit,
  type TrackerStatus,
  type TrackingState,
  trackingDirectory,
} from '../tracker/index.ts';
import { openDisk } from '../vhd/index.ts';
import type { ErrorFacts, ItemFacts, ReplicaFacts, TrackingFacts, WaitingFacts } from './life/index.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import { publicUrl, sessionSignal, withOwn, withReplica } from './open-item.ts';
import { type FailoverRecord, loadFailover } from './sides/record.ts';
import { trackedItem } from './tracking.ts';
import type { Session } from './types.ts';

/** The facts with what they were taken from. */
export interface Observation {
  readonly facts: ItemFacts;
  /** undefined where the home's record of the item is damaged, or disks were only brought back here. */
  readonly state?: ItemState;
  /** Where those disks were brought back from. */
  readonly url?: string;
  /** As it was opened; its store is closed again. */
  readonly replica?: Replica;
  readonly tracker?: TrackerStatus;
}

/** What is known of an item right now. @throws ITEM_NOT_FOUND, ABORTED */
export async function gatherFacts(session: Session, name: string): Promise<ItemFacts> {
  return (await observeItem(session, name)).facts;
}

export async function observeItem(session: Session, name: string): Promise<Observation> {
  const { files, clock } = session.ports;
  const item = new LocalItem(session.home, name, files);
  const start = { nowMs: clock.nowMs(), item: name };
  const known = await attempt(() => item.find());
  if ('error' in known) return { facts: { ...start, localError: known.error } };
  const recorded = await attempt(() => loadFailover(item, files));
  const record = 'value' in recorded ? recorded.value : undefined;
  const state = known.value ?? (record ? undefined : await item.load());
  const tracked = await attempt(async () => (state ? await observeTracking(session, item, state) : {}));
  const { tracking, tracker, backlogBytes = 0 } = 'value' in tracked ? tracked.value : {};
  const opened = await attempt(() => openReplicaOf(session, name, state, record));
  const source = await attempt(async () => state && openDisks(session, state, tracking?.served ?? false));
  const local = [recorded, tracked].find((look) => 'error' in look);
  const facts: ItemFacts = {
    ...start,
    ...(local && 'error' in local ? { localError: local.error } : {}),
    ...('error' in opened
      ? { replicaError: atStore(opened.error, state?.url ?? record?.url ?? ''), wasSeen: await wasSeen(item) }
      : { replica: replicaFacts(opened.value, state?.side, backlogBytes) }),
    ...('error' in source ? { sourceError: source.error } : {}),
    ...(tracking ? { tracking } : {}),
    ...(record ? { waiting: waitingFacts(record) } : {}),
  };
  return {
    facts,
    ...(state ? { state } : {}),
    ...(record ? { url: record.url } : {}),
    ...('value' in opened ? { replica: opened.value.replica } : {}),
    ...(tracker ? { tracker } : {}),
  };
}

interface Opened {
  readonly replica: Replica;
  /** The same root, or the one where it belongs: points that only a gateway has are not safe yet. */
  readonly settled: Root;
}

/** The replica of an item, or the one that disks were brought back from to a home that has no item of the name. */
function openReplicaOf(
  session: Session,
  name: string,
  state: ItemState | undefined,
  record: FailoverRecord | undefined,
): Promise<Opened> {
  const signal = sessionSignal(session);
  const open = async (replica: Replica): Promise<Opened> => ({
    replica,
    settled: (await settledRecord(replica, { signal })).root,
  });
  if (state || !record) return withOwn(session, name, ({ replica }) => open(replica));
  return withReplica(session, { name, url: record.url, keys: record.keys }, open);
}

/** What went wrong, as a fact. An item that is not there, or an interrupted look, is none. */
async function attempt<T>(look: () => Promise<T>): Promise<{ readonly value: T } | { readonly error: ErrorFacts }> {
  try {
    return { value: await look() };
  } catch (error) {
    if (!isBlockferryError(error) || error.area === 'aborted' || error.code === 'ITEM_NOT_FOUND') throw error;
    return { error: errorFacts(error) };
  }
}

/** An error as state and health look at it. */
export function errorFacts({ code, message, hint }: BlockferryError): ErrorFacts {
  return { code, message, ...(hint === undefined ? {} : { hint }) };
}

function waitingFacts({ kind, point, sinceMs, isComplete }: FailoverRecord): WaitingFacts {
  return { kind, pointId: point.id, sinceMs, isComplete };
}

/** An error of a store says at which one. */
function atStore(error: ErrorFacts, url: string): ErrorFacts {
  const { code, message } = error;
  const place = publicUrl(url);
  const isKnown = !code.startsWith('STORE_') || place === '' || message.includes(place);
  return isKnown ? error : { ...error, message: `${message}, at ${place}` };
}

function replicaFacts({ replica, settled }: Opened, side: Uint8Array | undefined, backlogBytes: number): ReplicaFacts {
  const { root } = replica.record;
  const { phase, epoch, point, sinceMs } = root.owner;
  const newest = settled.points.at(-1);
  const outstanding = outstandingLogs(root);
  return {
    owner: {
      isOurs: side !== undefined && isOwner(root, side),
      phase,
      epoch,
      ...(point === undefined ? {} : { point }),
      sinceMs,
    },
    ...(root.sync ? { sync: root.sync.kind } : {}),
    points: root.points.length,
    ...(newest ? { newestPointMs: newest.timeMs } : {}),
    outstandingLogs: outstanding.length,
    outstandingBytes: outstanding.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    backlogBytes,
  };
}

/** A damaged anchor was one. */
async function wasSeen(item: LocalItem): Promise<boolean> {
  const anchor = await attempt(() => item.loadAnchor());
  return 'error' in anchor || anchor.value !== undefined;
}

interface ObservedTracking {
  readonly tracking?: TrackingFacts;
  readonly tracker?: TrackerStatus;
  readonly backlogBytes?: number;
}

async function observeTracking(session: Session, item: LocalItem, state: ItemState): Promise<ObservedTracking> {
  const directory = trackingDirectory(item.directory);
  const tracker = await askTracker(directory);
  if (tracker) return { tracker, ...servedFacts(tracker) };
  const { files } = session.ports;
  const left = await loadTrackingState(directory, files);
  if (!left) return {};
  let backlogBytes = 0;
  for (const { path } of left.disks.flatMap(({ logs }) => logs)) backlogBytes += await storedBytes(session, path);
  return { tracking: await restingFacts(session, item, state, left), backlogBytes };
}

/** undefined where no tracker runs, or it ends just now. */
async function askTracker(directory: string): Promise<TrackerStatus | undefined> {
  const client = await ControlClient.connect(controlPath(directory));
  if (!client) return undefined;
  try {
    return await client.call('status', {});
  } catch (error) {
    if (isBlockferryError(error, 'TRACKER_GONE')) return undefined;
    throw error;
  } finally {
    client.close();
  }
}

function servedFacts({ mode, reason, stopped, halfFullInMs, disks }: TrackerStatus): ObservedTracking {
  return {
    tracking: {
      mode,
      ...(reason ? { reason } : {}),
      served: true,
      stopped: stopped === true,
      ...(halfFullInMs === undefined ? {} : { halfFullInMs }),
      logShare: Math.max(0, ...disks.map(({ logBytes, logBytesMax }) => logBytes / logBytesMax)),
    },
    backlogBytes: disks.reduce((sum, { logBytes }) => sum + logBytes, 0),
  };
}

/** What the last tracker left. An edit since then is told before a cycle finds it. */
async function restingFacts(
  session: Session,
  item: LocalItem,
  state: ItemState,
  left: TrackingState,
): Promise<TrackingFacts> {
  const { mode, reason, tracked, clean, stopped = false } = left;
  const ended = clean ? ('in-order' as const) : ('without-warning' as const);
  const facts = { served: false, stopped, ...(tracked ? { ended } : {}) };
  const edited = tracked && mode === 'logging' ? await editedDisk(session, item, state, left) : undefined;
  if (!edited) return { ...facts, mode, ...(reason ? { reason } : {}) };
  return { ...facts, mode: 'resync-required', reason: { ...edited, sinceMs: session.ports.clock.nowMs() } };
}

async function editedDisk(session: Session, item: LocalItem, state: ItemState, left: TrackingState) {
  const description = await item.loadDescription();
  if (!description) return undefined;
  const { disks, ports } = trackedItem(session, item, state, description);
  for (const [i, disk] of disks.entries()) {
    const known = left.disks[i];
    if (!known) continue;
    // A disk that cannot be opened is told as that.
    const looked = await attempt(() => offlineEdit(disk, left, known, ports));
    if ('value' in looked && looked.value) return looked.value;
  }
  return undefined;
}

/** Bytes that a file takes; 0 if it is not there. */
async function storedBytes({ ports: { files } }: Session, path: string): Promise<number> {
  if (!(await files.exists(path))) return 0;
  const file = await files.open(path, 'read');
  try {
    return (await file.stamp()).allocatedBytes;
  } finally {
    await file.close();
  }
}

/** Opens each disk with its parents; of disks that a tracker serves, who has them open, only whether they are there. */
async function openDisks({ ports }: Session, { disks, formats }: ItemState, isServed: boolean): Promise<void> {
  for (const [i, path] of disks.entries()) {
    if (isServed && (await ports.files.exists(path))) continue;
    await (await openDisk(path, { ports, format: formats[i]! })).close();
  }
}
