/**
 * Gathering what is known of an item: from its replica, its tracker, its disks and its home. Changes nothing. What cannot be
 * looked at is a fact too: a store that does not answer, a key that is gone, a chain that is broken.
 */
import { type BlockferryError, isBlockferryError } from '../errors.ts';
import { isOwner, outstandingLogs, type Replica, type Root } from '../replica/index.ts';
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
import type { ErrorFacts, ItemFacts, ReplicaFacts, TrackingFacts } from './life/index.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import { withOwn } from './open-item.ts';
import { trackedItem } from './tracking.ts';
import type { Session } from './types.ts';

/** The facts with what they were taken from. */
export interface Observation {
  readonly facts: ItemFacts;
  /** undefined where the home's record of the item is damaged. */
  readonly state?: ItemState;
  /** As it was opened; its store is closed again. */
  readonly replica?: Replica;
  readonly tracker?: TrackerStatus;
}

/** What is known of an item right now. @throws ITEM_NOT_FOUND, ABORTED */
export async function gatherFacts(session: Session, name: string): Promise<ItemFacts> {
  return (await observeItem(session, name)).facts;
}

export async function observeItem(session: Session, name: string): Promise<Observation> {
  const item = new LocalItem(session.home, name, session.ports.files);
  const start = { nowMs: session.ports.clock.nowMs(), item: name };
  const known = await attempt(() => item.load());
  if ('error' in known) return { facts: { ...start, localError: known.error } };
  const state = known.value;
  const tracked = await attempt(() => observeTracking(session, item, state));
  const { tracking, tracker, backlogBytes = 0 } = 'value' in tracked ? tracked.value : {};
  const opened = await attempt(() => withOwn(session, name, async ({ replica }) => replica));
  const source = await attempt(() => openDisks(session, state, tracking?.served ?? false));
  const facts: ItemFacts = {
    ...start,
    ...('error' in tracked ? { localError: tracked.error } : {}),
    ...('error' in opened
      ? { replicaError: opened.error, wasSeen: await wasSeen(item) }
      : { replica: replicaFacts(opened.value.record.root, state, backlogBytes) }),
    ...('error' in source ? { sourceError: source.error } : {}),
    ...(tracking ? { tracking } : {}),
  };
  return {
    facts,
    state,
    ...('value' in opened ? { replica: opened.value } : {}),
    ...(tracker ? { tracker } : {}),
  };
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

function replicaFacts(root: Root, { side }: ItemState, backlogBytes: number): ReplicaFacts {
  const { phase, epoch, point, sinceMs } = root.owner;
  const newest = root.points.at(-1);
  const outstanding = outstandingLogs(root);
  return {
    owner: { isOurs: isOwner(root, side), phase, epoch, ...(point === undefined ? {} : { point }), sinceMs },
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

function servedFacts({ mode, reason, halfFullInMs, disks }: TrackerStatus): ObservedTracking {
  return {
    tracking: {
      mode,
      ...(reason ? { reason } : {}),
      served: true,
      stopped: false,
      ...(halfFullInMs === undefined ? {} : { halfFullInMs }),
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
  const { mode, reason, tracked, clean } = left;
  const ended = clean ? ('in-order' as const) : ('without-warning' as const);
  const facts = { served: false, stopped: false, ...(tracked ? { ended } : {}) };
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
