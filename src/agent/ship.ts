/**
 * ship: one delta cycle. The logs are rotated at a barrier, coalesced, sealed, uploaded, and committed as a recovery point;
 * then the tracker hears that the replica has them.
 */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { ChangeLog, orderChain } from '../hrl/index.ts';
import { assertReplicating, checkAnchor, settledRecord, shipLogs } from '../replica/index.ts';
import type { ClosedLog, Rotation } from '../tracker/index.ts';
import { LocalItem } from './local-state.ts';
import {
  type OwnReplica,
  sessionLanes,
  sessionSignal,
  withLock,
  withOwn,
  withWorkers,
  withWriter,
} from './open-item.ts';
import { withReasons } from './refuse.ts';
import { type LogSource, trackedItem, withTracking } from './tracking.ts';
import type { Session, ShipReport, ShipRequest } from './types.ts';

/** How long a guest may stay frozen, unless the operator says otherwise. */
const FREEZE_MS = 30_000;

/** Ships what was logged since the last cycle. */
export function ship(session: Session, name: string, request: ShipRequest = {}): Promise<ShipReport> {
  return withReasons(session, name, 'ship', () =>
    withMember(session, name, ({ own, logs }) => cycle(session, own, logs, request)),
  );
}

/** An item with its replica and its logs, locked. */
export interface Member {
  readonly own: OwnReplica;
  readonly logs: LogSource;
}

/** Runs `work` with everything at hand that a cycle needs. */
export async function withMember<T>(session: Session, name: string, work: (member: Member) => Promise<T>): Promise<T> {
  const item = new LocalItem(session.home, name, session.ports.files);
  const state = await item.load();
  return withLock(session, item, () =>
    withOwn(session, name, (own) =>
      withTracking(trackedItem(session, item, state, own.replica.description), ({ logs }) => work({ own, logs })),
    ),
  );
}

/** One cycle with everything at hand. */
export async function cycle(
  session: Session,
  own: OwnReplica,
  source: LogSource,
  request: ShipRequest = {},
): Promise<ShipReport> {
  const { root } = own.replica.record;
  // Before the logs are touched: that the replica follows another side is no fault of theirs.
  assertReplicating(root, own.state.side);
  const heads = await settledHeads(session, own);
  const rotation =
    request.consistency === 'app'
      ? await frozen(session, request, () => source.rotate(heads))
      : await source.rotate(heads);
  return shipRotated(session, { own, logs: source }, rotation, request);
}

/** Per disk the last log that the replica has. */
export function headsOf({ replica }: OwnReplica): readonly string[] {
  return replica.record.root.disks.map(({ head }) => head);
}

/**
 * Per disk the last log that the replica has where it belongs: behind a gateway, those that follow are kept until they are there too.
 * @throws REPLICA_OTHER_SIDE where another side took over meanwhile, REPLICA_ROLLED_BACK
 */
export async function settledHeads(session: Session, own: OwnReplica): Promise<readonly string[]> {
  if (own.replica.store.settled === undefined) return headsOf(own);
  const settled = await settledRecord(own.replica, { signal: sessionSignal(session) });
  const { root, hash } = settled;
  assertReplicating(root, own.state.side);
  // An old root proves that it was there once, not that it still is the newest: nobody may lead us back to it.
  const anchor = await own.item.loadAnchor();
  if (anchor) checkAnchor(settled, anchor, own.replica.store.url);
  if (root.generation !== anchor?.generation) await own.saveAnchor({ generation: root.generation, hash });
  return root.disks.map(({ head }) => head);
}

/** Of the logs of each disk, those that the replica has not got, on their way or where they belong. */
function missing(heads: readonly string[], logs: Rotation['logs']): Rotation['logs'] {
  return logs.map((row, i) => row.slice(row.findIndex(({ uniqueId }) => uniqueId === heads[i]) + 1));
}

/** Ships logs that were rotated, and tells the tracker. */
export async function shipRotated(
  session: Session,
  { own, logs: source }: Member,
  rotation: Rotation,
  { consistency = 'crash' }: ShipRequest,
  group?: string,
): Promise<ShipReport> {
  const { clock } = session.ports;
  const startedMs = clock.monotonicMs();
  const shared = group === undefined ? {} : { group };
  const unshipped = missing(headsOf(own), rotation.logs);
  const result = await withLogs(session, source, unshipped, (logs) =>
    withWorkers(session, own.replica, (pool) =>
      withWriter(session, own, async ({ committer, session: writer }) => {
        const shipped = await shipLogs({
          committer,
          side: own.state.side,
          pool,
          lanes: sessionLanes(session)(),
          logs,
          heads: newHeads(headsOf(own), unshipped),
          timeMs: rotation.timeMs,
          consistency,
          ...shared,
          ports: session.ports,
          signal: writer.signal,
          onProgress: (progress) => session.onEvent?.({ type: 'progress', phase: 'ship', ...progress }),
        });
        return { ...shipped, own: { ...own, replica: committer.replica } };
      }),
    ),
  );
  await session.ports.failpoint('ship.before-acknowledge');
  await source.acknowledge(await settledHeads(session, result.own));
  const { point } = result;
  session.onEvent?.({ type: 'committed', generation: result.root.generation, pointId: point.id });
  return {
    item: own.item.name,
    pointId: point.id,
    pointTimeMs: point.timeMs,
    consistency,
    ...shared,
    generation: result.root.generation,
    logs: unshipped.reduce((sum, each) => sum + each.length, 0),
    dataBytes: result.dataBytes,
    sentBytes: result.sentBytes,
    elapsedMs: clock.monotonicMs() - startedMs,
  };
}

/** The last log of each disk, or what the replica has where there is none. */
function newHeads(heads: readonly string[], logs: Rotation['logs']): readonly string[] {
  return heads.map((head, i) => logs[i]?.at(-1)?.uniqueId ?? head);
}

/**
 * Opens the logs of every disk, oldest first. Of logs that are damaged nothing is used, now or later: the map knows what
 * they had.
 */
async function withLogs<T>(
  session: Session,
  source: LogSource,
  closed: readonly (readonly ClosedLog[])[],
  work: (logs: readonly (readonly ChangeLog[])[]) => Promise<T>,
): Promise<T> {
  const opened: ChangeLog[] = [];
  try {
    const logs: ChangeLog[][] = [];
    for (const disk of closed) {
      const row: ChangeLog[] = [];
      for (const { path } of disk) {
        const log = await ChangeLog.open(path, { ports: session.ports, signal: sessionSignal(session) });
        opened.push(log);
        row.push(log);
      }
      logs.push(row.length > 1 ? orderChain(row) : row);
    }
    return await work(logs);
  } catch (error) {
    if (isBlockferryError(error) && error.code.startsWith('HRL_')) await source.giveUp(error.message);
    throw error;
  } finally {
    for (const log of opened) await log.close();
  }
}

/**
 * Runs `barrier` while the guest is frozen. The guest is thawed whatever happens, and no later than the timeout says; a
 * barrier that was not reached by then is no app-consistent point.
 */
export async function frozen<T>(session: Session, request: ShipRequest, barrier: () => Promise<T>): Promise<T> {
  const { freeze, thaw, freezeTimeoutMs = FREEZE_MS } = request;
  if (!freeze || !thaw) {
    const message = 'no freeze and thaw commands were given: that the guest is at rest is taken from you';
    session.onEvent?.({ type: 'notice', code: 'NOT_FROZEN_HERE', message });
    return barrier();
  }
  const timeout = new AbortController();
  const signal = AbortSignal.any([sessionSignal(session), timeout.signal]);
  const late = session.ports.clock.sleep(freezeTimeoutMs, signal).then(
    () => {
      const error = new BlockferryError('FREEZE_FAILED', `the guest was frozen for ${freezeTimeoutMs} ms`, {
        facts: { freezeTimeoutMs },
        hint: 'see why its freeze command takes so long, or allow more with --freeze-timeout',
      });
      timeout.abort(error);
      throw error;
    },
    () => new Promise<never>(() => {}),
  );
  try {
    return await Promise.race([freeze(signal).then(barrier), late]);
  } finally {
    timeout.abort();
    await thaw();
  }
}
