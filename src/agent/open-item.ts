/**
 * Opening what an operation works on: the store and replica of an item of this home or of a URL, the disks, and, for
 * operations that write, the item's lock and a writer session.
 */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import type { ProcessLock } from '../ports.ts';
import {
  Committer,
  openReplica,
  type PinNotice,
  type ReadAccess,
  type RecoveryPoint,
  type Replica,
  reopenReplica,
  type SaveAnchor,
  WriterSession,
  withPin,
  workerSetup,
} from '../replica/index.ts';
import { FIRST_CONTACT_POLICY, Lanes, openStore, Retry, type RetryEvent, RetryingStore } from '../transport/index.ts';
import { type DiskFormat, openDisk, type VirtualDisk } from '../vhd/index.ts';
import { WorkerPool } from '../workers/index.ts';
import { loadKeys } from './key-sources.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import { LANES_MAX, type Limits, TransferLimits } from './transfer-limits.ts';
import type { ReplicaReference, Session } from './types.ts';

/** The signal of a session; one that never fires if it has none. */
export function sessionSignal(session: Session): AbortSignal {
  return session.signal ?? new AbortController().signal;
}

/** Makes the lanes of one blob; all lanes of an operation share its bound on requests and its bandwidth. */
export function sessionLanes(session: Session): () => Lanes {
  const { ports, lanes, bandwidthBytesPerSecond } = session;
  const { clock } = ports;
  const { requests: limit, bandwidth }: Limits =
    session.limits ?? new TransferLimits(clock, lanes, bandwidthBytesPerSecond);
  return () => new Lanes({ clock, limit, bandwidth, ...(session.limits ? { limitMax: LANES_MAX } : {}) });
}

/** How an operation reads the store. */
export function readAccess(session: Session): ReadAccess {
  return { lanes: sessionLanes(session)(), ports: session.ports, signal: sessionSignal(session) };
}

/** A store's URL without what may be secret: a SAS is a query. */
export function publicUrl(url: string): string {
  return url.split('?', 1)[0]!;
}

/** A store whose calls are tried again, closed whatever happens. */
export async function withStore<T>(
  session: Session,
  url: string,
  work: (store: RetryingStore) => Promise<T>,
): Promise<T> {
  const { ports, environment } = session;
  const onRetry = ({ operation, tries, waitMs, error }: RetryEvent): void => {
    const message = `${operation}: try ${tries} failed (${error.message}), again in ${waitMs} ms`;
    session.onEvent?.({ type: 'notice', code: 'RETRY', message });
  };
  const retry = new Retry({ clock: ports.clock, random: ports.random, firstContact: FIRST_CONTACT_POLICY, onRetry });
  const store = new RetryingStore(await openStore(url, { ports, environment }), retry);
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

/** Runs `work` with the item's lock held. */
export async function withLock<T>(session: Session, item: LocalItem, work: () => Promise<T>): Promise<T> {
  await session.ports.files.makeDirectory(item.directory);
  const lock: ProcessLock = await session.ports.lock(item.directory, `item "${item.name}"`);
  try {
    return await work();
  } finally {
    await lock.release();
  }
}

/** How long a command that changes sides waits for a cycle that is under way. */
const LOCK_WAIT_MS = 30_000;
const LOCK_POLL_MS = 250;

/** The same for commands that a person gives once: a cycle of the agent that is under way is waited for. */
export function withLockSoon<T>(session: Session, item: LocalItem, work: () => Promise<T>): Promise<T> {
  return withLockAt(session, item.directory, `item "${item.name}"`, work);
}

/** Runs `work` with a lock held, which is waited for. @throws ITEM_LOCKED if it stays with somebody else */
export async function withLockAt<T>(
  session: Session,
  directory: string,
  what: string,
  work: () => Promise<T>,
): Promise<T> {
  const { clock, files, lock } = session.ports;
  await files.makeDirectory(directory);
  const untilMs = clock.monotonicMs() + LOCK_WAIT_MS;
  let held: ProcessLock | undefined;
  for (let hasTold = false; !held; hasTold = true) {
    try {
      held = await lock(directory, what);
    } catch (error) {
      if (!isBlockferryError(error, 'ITEM_LOCKED') || clock.monotonicMs() >= untilMs) throw error;
      if (!hasTold) session.onEvent?.({ type: 'notice', code: 'WAITING', message: `${error.message}; waiting for it` });
      await clock.sleep(LOCK_POLL_MS, sessionSignal(session));
    }
  }
  try {
    return await work();
  } finally {
    await held.release();
  }
}

/** A replica that may be written. */
export interface WritableReplica {
  readonly replica: Replica;
  readonly leaseId: string;
  readonly saveAnchor: SaveAnchor;
}

/** An item of this home, with its replica opened by the master key that the home keeps. */
export interface OwnReplica extends WritableReplica {
  readonly item: LocalItem;
  readonly state: ItemState;
}

/** Opens the replica of an item of this home. */
export async function withOwn<T>(session: Session, name: string, work: (own: OwnReplica) => Promise<T>): Promise<T> {
  const item = new LocalItem(session.home, name, session.ports.files);
  const state = await item.load();
  return withStore(session, state.url, async (store) => work(await openOwn(session, item, state, store)));
}

export async function openOwn(
  session: Session,
  item: LocalItem,
  state: ItemState,
  store: RetryingStore,
): Promise<OwnReplica> {
  const master = await item.loadMaster();
  const unlock = master ? { master } : { materials: await loadKeys(state.keys, session.ports) };
  const replica = await openReplica(store, unlock, await item.loadAnchor(), { signal: sessionSignal(session) });
  await item.saveDescription(replica.description);
  return { item, state, replica, leaseId: state.leaseId, saveAnchor: (anchor) => item.saveAnchor(anchor) };
}

/** The same with the root that is there now. */
export async function reopenOwn(session: Session, own: OwnReplica): Promise<OwnReplica> {
  const replica = await reopenReplica(own.replica, { signal: sessionSignal(session) }, await own.item.loadAnchor());
  return { ...own, replica };
}

/** Opens a replica by whichever reference. By its URL there is no anchor: its freshness cannot be proven. */
export async function withReplica<T>(
  session: Session,
  reference: ReplicaReference,
  work: (replica: Replica) => Promise<T>,
): Promise<T> {
  if (!('url' in reference)) return withOwn(session, reference.name, ({ replica }) => work(replica));
  const { url, name, keys } = reference;
  if (keys.length === 0) {
    throw new BlockferryError('KEY_MISSING', 'opening a replica by its URL needs its key', {
      hint: 'give --key-file, --passphrase-file or --certificate',
    });
  }
  const materials = await loadKeys(keys, session.ports);
  return withStore(session, url, async (store) => {
    const replica = await openReplica(store, { materials }, undefined, { signal: sessionSignal(session) });
    const { item } = replica.description;
    if (item === name) return work(replica);
    throw new BlockferryError('REPLICA_FOREIGN', `${store.url} holds item "${item}", not "${name}"`, {
      facts: { url: store.url, item },
      hint: 'give the name that the replica was protected under, or another URL',
    });
  });
}

/** The newest recovery point. @throws POINT_NOT_FOUND if the first sync never ended. */
export function latestPoint(replica: Replica): RecoveryPoint {
  const point = replica.record.root.points.at(-1);
  if (point) return point;
  throw new BlockferryError('POINT_NOT_FOUND', `item "${replica.description.item}" has no recovery point yet`, {
    facts: { item: replica.description.item },
    hint: 'its first replication never ended; run protect again on the source to resume it',
  });
}

/** Opens disks and gives them to `work`; closes them whatever happens. Without `formats` they are told by content. */
export async function withDisks<T>(
  session: Session,
  { disks: paths, formats }: { readonly disks: readonly string[]; readonly formats?: readonly DiskFormat[] },
  work: (disks: readonly VirtualDisk[]) => Promise<T>,
): Promise<T> {
  const disks: VirtualDisk[] = [];
  try {
    for (const [i, path] of paths.entries()) {
      disks.push(await openDisk(path, { ports: session.ports, format: formats?.[i] ?? 'auto' }));
    }
    return await work(disks);
  } finally {
    for (const disk of disks) await disk.close();
  }
}

/** Runs `work` with a point pinned, as long as the store takes pins; with the replica as it is then. */
export function withPinned<T>(
  session: Session,
  replica: Replica,
  point: RecoveryPoint,
  work: (replica: Replica, point: RecoveryPoint) => Promise<T>,
): Promise<T> {
  const onNotice = (notice: PinNotice): void => session.onEvent?.({ type: 'notice', ...notice });
  return withPin(replica, point.id, { ports: session.ports, signal: sessionSignal(session), onNotice }, work);
}

/** A pool of workers that know the replica; closed whatever happens. */
export async function withWorkers<T>(
  session: Session,
  replica: Replica,
  work: (pool: WorkerPool) => Promise<T>,
): Promise<T> {
  const pool = new WorkerPool(workerSetup(replica), { threads: session.workers, signal: session.signal });
  try {
    return await work(pool);
  } finally {
    await pool.close();
  }
}

/** One pool of workers for many steps: made when it is first asked for, and anew where the keys of the replica were changed since. */
export class KeptWorkers {
  readonly #session: Session;
  #keyring: Replica['keyring'] | undefined;
  #pool: WorkerPool | undefined;

  constructor(session: Session) {
    this.#session = session;
  }

  async of(replica: Replica): Promise<WorkerPool> {
    if (this.#pool && this.#keyring === replica.keyring) return this.#pool;
    await this.close();
    const { workers: threads, signal } = this.#session;
    this.#keyring = replica.keyring;
    this.#pool = new WorkerPool(workerSetup(replica), { threads, signal });
    return this.#pool;
  }

  async close(): Promise<void> {
    await this.#pool?.close();
    this.#pool = undefined;
  }
}

/** A writer session and the committer that saves the anchor; the leases are given back whatever happens. */
export async function withWriter<T>(
  session: Session,
  { replica, leaseId, saveAnchor }: WritableReplica,
  work: (writer: { readonly committer: Committer; readonly session: WriterSession }) => Promise<T>,
): Promise<T> {
  const { ports } = session;
  const writer = new WriterSession({
    store: replica.store,
    leaseId,
    lanes: sessionLanes(session),
    ports,
    signal: sessionSignal(session),
  });
  const committer = new Committer(replica, 'blockferry', saveAnchor, ports);
  try {
    return await work({ committer, session: writer });
  } catch (error) {
    // An abort that a lost lease caused is reported as what it is.
    if (isBlockferryError(error, 'ABORTED') && writer.signal.aborted && isBlockferryError(writer.signal.reason)) {
      throw writer.signal.reason;
    }
    throw error;
  } finally {
    await writer.close();
  }
}
