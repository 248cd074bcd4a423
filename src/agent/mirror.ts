/**
 * mirror: what one store has of an item is carried to another (docs/mirror.md). Needs the key, neither disks nor tracker, and not the
 * lock of the item: cycles to the first store go on beside it.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { BlockferryError } from '../errors.ts';
import { randomGuid } from '../guid.ts';
import {
  apply as applyLogs,
  type Committer,
  claimPlace,
  createReplica,
  listPins,
  mirror as mirrorReplica,
  openReplica,
  outstandingLogs,
  type RecoveryPoint,
  type Replica,
  retainPoints,
  type WriterSession,
  withPin,
} from '../replica/index.ts';
import type { RetryingStore } from '../transport/index.ts';
import type { WorkerPool } from '../workers/index.ts';
import { createBlobs } from './create-blobs.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import {
  latestPoint,
  publicUrl,
  readAccess,
  sessionLanes,
  sessionSignal,
  withOwn,
  withReplica,
  withStore,
  withWorkers,
  withWriter,
} from './open-item.ts';
import { pointsToDrop, type RetentionPolicy } from './policy/index.ts';
import type { MirrorReport, MirrorRequest, ReplicaReference, Session } from './types.ts';

/** Carries an item to a store, or to all its further stores one after the other: a report for each. */
export async function mirror(
  session: Session,
  reference: ReplicaReference,
  request: MirrorRequest = {},
): Promise<readonly MirrorReport[]> {
  if ('url' in reference) {
    const { to } = request;
    if (to === undefined) throw noTarget(reference.name);
    const leaseId = randomGuid(session.ports.random.bytes(16)).toLowerCase();
    return [await withReplica(session, reference, (source) => carry(session, source, { ...request, to, leaseId }))];
  }
  const item = new LocalItem(session.home, reference.name, session.ports.files);
  const state = await item.load();
  const reports: MirrorReport[] = [];
  for (const { from, to } of routes(state, request)) {
    reports.push(
      await withTargetLock(session, item, to, () => carryOwn(session, item, state, { ...request, from, to })),
    );
  }
  return reports;
}

/** From where to where: each further store follows the one before it, one that is not on the list the first. */
function routes(
  { name, url, also = [] }: ItemState,
  { from, to: only }: MirrorRequest,
): readonly { readonly from: string; readonly to: string }[] {
  const stores = [url, ...also];
  const targets = only === undefined ? also : [only];
  if (targets.length === 0) throw noTarget(name);
  return targets.map((to) => {
    const at = stores.findIndex((each) => publicUrl(each) === publicUrl(to));
    if (at !== 0) return { from: from ?? stores[Math.max(0, at - 1)]!, to };
    throw new BlockferryError('USAGE', `item "${name}" replicates to ${publicUrl(to)} itself`, {
      facts: { item: name, url: publicUrl(to) },
      hint: 'name another store with --to',
    });
  });
}

function noTarget(name: string): BlockferryError {
  return new BlockferryError('USAGE', `item "${name}" has no further store`, {
    facts: { item: name },
    hint: 'name one with --to URL, or protect it with --also URL',
  });
}

/** One mirror to a store at a time in a home: they share its lease id. */
async function withTargetLock<T>({ ports }: Session, item: LocalItem, to: string, work: () => Promise<T>): Promise<T> {
  const name = createHash('sha256').update(publicUrl(to)).digest('hex').slice(0, 16);
  const directory = join(item.directory, 'mirror', name);
  await ports.files.makeDirectory(directory);
  const lock = await ports.lock(directory, `mirror of "${item.name}" to ${publicUrl(to)}`);
  try {
    return await work();
  } finally {
    await lock.release();
  }
}

type Carry = MirrorRequest & { readonly to: string; readonly leaseId: string };

async function carryOwn(
  session: Session,
  item: LocalItem,
  state: ItemState,
  { from, ...request }: MirrorRequest & { readonly from: string; readonly to: string },
): Promise<MirrorReport> {
  const { leaseId } = state;
  if (from === state.url) {
    return withOwn(session, item.name, ({ replica }) => carry(session, replica, { ...request, leaseId }));
  }
  const master = await item.loadMaster();
  if (!master) throw new BlockferryError('KEY_MISSING', `this home has no key of item "${item.name}" any more`);
  return withStore(session, from, async (store) => {
    const source = await openReplica(store, { master }, undefined, { signal: sessionSignal(session) });
    return carry(session, source, { ...request, leaseId });
  });
}

function carry(session: Session, source: Replica, request: Carry): Promise<MirrorReport> {
  const { clock } = session.ports;
  const startedMs = clock.monotonicMs();
  return withStore(session, request.to, async (store) => {
    const target = await openFollower(session, store, source);
    const report = await withSource(session, source, target, (pinned) =>
      withWorkers(session, pinned, (pool) =>
        withWriter(session, { replica: target, leaseId: request.leaseId, saveAnchor: async () => {} }, (writer) =>
          carryPinned(session, pinned, writer, pool, request),
        ),
      ),
    );
    return { ...report, elapsedMs: clock.monotonicMs() - startedMs };
  });
}

/** The follower, made where there is none. @throws REPLICA_FOREIGN where the place is somebody else's */
async function openFollower(session: Session, store: RetryingStore, source: Replica): Promise<Replica> {
  const { ports } = session;
  const options = { signal: sessionSignal(session) };
  const { description, keyring, record } = source;
  await store.prepare(options);
  const { generation, owner } = record.root;
  const first = { disks: description.disks.length, side: owner.side, follows: { generation } };
  const claim = await claimPlace(store, keyring.master, first, ports, options);
  if (claim) {
    const blobs = (): Promise<void> => createBlobs(session, store, description);
    await createReplica(store, claim, description, keyring, blobs, ports, options);
  }
  return openReplica(store, { master: keyring.master }, undefined, options);
}

/** Runs `work` with the newest point of a replica pinned, and the logs that lead there from what the follower has. */
function withSource<T>(
  session: Session,
  source: Replica,
  target: Replica,
  work: (pinned: Replica) => Promise<T>,
): Promise<T> {
  const newest = latestPoint(source);
  const logsAfter = target.record.root.baselines.at(-1)?.appliedLog;
  const options = {
    ports: session.ports,
    signal: sessionSignal(session),
    onNotice: ({ code, message }: { readonly code: string; readonly message: string }): void =>
      session.onEvent?.({ type: 'notice', code, message }),
    ...(logsAfter === undefined ? {} : { logsAfter }),
  };
  return withPin(source, newest.id, options, (pinned, point) => work(upTo(pinned, point)));
}

/** The replica without the points that came behind one: they are not pinned. */
function upTo(replica: Replica, { generation }: RecoveryPoint): Replica {
  const { root, hash } = replica.record;
  const points = root.points.filter((point) => point.generation <= generation);
  return { ...replica, record: { hash, root: { ...root, points } } };
}

/** Retention of the follower: its own points, whatever the other store keeps. */
async function thin(
  { ports: { clock } }: Session,
  committer: Committer,
  policy: RetentionPolicy,
  signal: AbortSignal,
): Promise<void> {
  const { points } = await listPins(committer.replica, clock, { signal });
  await retainPoints({ committer, clock, signal }, pointsToDrop(committer.root.points, policy, points));
}

async function carryPinned(
  session: Session,
  source: Replica,
  { committer, session: writer }: { readonly committer: Committer; readonly session: WriterSession },
  pool: WorkerPool,
  { discardNewer = false, applyFrom = 1, retention }: Carry,
): Promise<Omit<MirrorReport, 'elapsedMs'>> {
  const { ports } = session;
  const { signal } = writer;
  const access = readAccess(session);
  const fold = async (workers: WorkerPool): Promise<number> =>
    (await applyLogs({ committer, session: writer, pool: workers, access, ports, signal })).appliedLogs;
  // What an interrupted run left of folding is ended first: a copy begins with bases at rest. Its keys are the follower's own: those of
  // the other store may have an epoch that is not carried yet.
  const isCutOff = committer.root.sync?.kind === 'apply';
  const left = isCutOff ? await withWorkers(session, committer.replica, fold) : 0;
  const result = await mirrorReplica({
    ...{ committer, session: writer, source, access, pool, discardNewer, ports, signal },
    lanes: sessionLanes(session)(),
    onProgress: (progress) => session.onEvent?.({ type: 'progress', phase: 'mirror', ...progress }),
  });
  const outstanding = outstandingLogs(committer.root).length;
  const folded = outstanding > 0 && outstanding >= applyFrom ? await fold(pool) : 0;
  if (retention) await thin(session, committer, retention, signal);
  const { by, logs, logBytes, chunksCopied, chunksCleared, fetchedBytes, sentBytes } = result;
  const { root, replica } = committer;
  const newest = root.points.at(-1);
  if (result.points.length > 0 && newest) {
    session.onEvent?.({ type: 'committed', generation: root.generation, pointId: newest.id });
  }
  return {
    ...{ item: source.description.item, from: source.store.url, to: replica.store.url, by },
    generation: root.generation,
    ...(newest ? { pointId: newest.id, pointTimeMs: newest.timeMs } : {}),
    points: result.points.length,
    ...{ logs, logBytes, chunksCopied, chunksCleared, fetchedBytes, sentBytes },
    appliedLogs: left + folded,
  };
}
