/** Looking at items and replicas: status, points, verify. Changes nothing. */

import { chunkCount } from '../chunker/index.ts';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import {
  baselineOf,
  checkShippedLog,
  compareDisk,
  FrozenDisk,
  isProcessed,
  logsOf,
  outstandingLogs,
  type Replica,
  type Root,
  verifyDisk,
} from '../replica/index.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import {
  latestPoint,
  publicUrl,
  readAccess,
  sessionSignal,
  withDisks,
  withOwn,
  withReplica,
  withWorkers,
} from './open-item.ts';
import { trackingStatus } from './tracking.ts';
import type { ItemStatus, PointInfo, ReplicaReference, Session, VerifyReport, VerifyRequest } from './types.ts';

/** The state of one item, or of all items of this home. A store that does not answer is a state too. */
export async function status(session: Session, name?: string): Promise<readonly ItemStatus[]> {
  if (name !== undefined) return [await statusOf(session, name)];
  const names = await LocalItem.names(session.home, session.ports.files);
  const all: ItemStatus[] = [];
  for (const each of names) {
    // A protect that was refused leaves a directory behind, but no item.
    const known = await new LocalItem(session.home, each, session.ports.files).find();
    if (known) all.push(await statusOf(session, each));
  }
  return all;
}

async function statusOf(session: Session, name: string): Promise<ItemStatus> {
  const item = new LocalItem(session.home, name, session.ports.files);
  const state = await item.load();
  const tracking = await trackingStatus(session, item);
  try {
    return await withOwn(session, name, async ({ replica }) => ({
      item: name,
      url: replica.store.url,
      ...describeState(session, replica),
      ...describeTracking(tracking),
      ...replicaFacts(replica, state.disks),
    }));
  } catch (error) {
    if (!isBlockferryError(error) || error.area === 'aborted') throw error;
    return {
      item: name,
      url: publicUrl(state.url),
      state: error.code === 'REPLICA_NOT_FOUND' ? 'initial-replication' : 'unknown',
      health: 'critical',
      cause: error.message,
      ...(error.hint === undefined ? {} : { action: error.hint }),
      ...(tracking?.served ? { tracking: tracking.served } : {}),
      disks: state.disks.map((path, i) => ({ disk: `d${i}`, path })),
      freshness: 'not-proven',
    };
  }
}

/** What tracking adds: its numbers where it runs, and the mark that logs gave way. */
function describeTracking(tracking: Awaited<ReturnType<typeof trackingStatus>>) {
  const numbers = tracking?.served ? { tracking: tracking.served } : {};
  if (!tracking?.reason || tracking.reason.code === 'NOT_SYNCED') return numbers;
  return {
    state: 'resync-required' as const,
    health: 'critical' as const,
    cause: tracking.reason.message,
    action: 'run resync; it reads only what may differ, while the guest writes on',
    ...numbers,
  };
}

function replicaFacts(replica: Replica, paths: readonly string[]) {
  const { disks } = replica.description;
  return {
    layout: disks[0]!.layout,
    disks: disks.map(({ id, virtualSizeBytes }, i) => ({ disk: id, path: paths[i]!, virtualSizeBytes })),
    generation: replica.record.root.generation,
    freshness: replica.freshness,
  };
}

function describeState(session: Session, { record: { root }, description }: Replica) {
  const newest = root.points.at(-1);
  const age = newest && { lastPointMs: newest.timeMs, rpoMs: Math.max(0, session.ports.clock.nowMs() - newest.timeMs) };
  const outstanding = outstandingLogs(root);
  const backlog = { logs: outstanding.length, bytes: outstanding.reduce((sum, log) => sum + log.sizeBytes, 0) };
  return { ...describeSync(root.sync, description), ...age, backlog };
}

function describeSync(sync: Root['sync'], { disks }: Replica['description']) {
  if (!sync) return { state: 'protected' as const, health: 'normal' as const };
  if (sync.kind === 'apply') {
    const cause = 'an apply was begun and has not ended';
    return { state: 'protected' as const, health: 'warning' as const, cause, action: 'run apply to finish it' };
  }
  const chunks = disks.map((disk) => chunkCount(disk));
  const all = chunks.reduce((sum, n) => sum + n, 0);
  const settled = chunks.slice(0, sync.disk).reduce((sum, n) => sum + n, 0) + sync.cursor;
  const initial = sync.kind === 'initial';
  return {
    state: initial ? ('initial-replication' as const) : ('resync-required' as const),
    health: initial ? ('warning' as const) : ('critical' as const),
    cause: initial ? 'the first replication has not ended' : 'a resync was begun and has not ended',
    action: initial ? 'run protect again to resume it' : 'run resync to finish it',
    syncProgress: all === 0 ? 1 : settled / all,
  };
}

/** Recovery points, oldest first. */
export function points(session: Session, reference: ReplicaReference): Promise<readonly PointInfo[]> {
  return withReplica(session, reference, async ({ record: { root } }) =>
    root.points.map((point) => {
      const { id, timeMs, consistency, generation } = point;
      return { id, timeMs, consistency, processed: isProcessed(root, point), generation };
    }),
  );
}

/** Opens the slots and logs of the newest point, or a sample of them; with `source` compares the live disks as well. */
export async function verify(
  session: Session,
  reference: ReplicaReference,
  request: VerifyRequest = {},
): Promise<VerifyReport> {
  const state = request.source ? await sourceState(session, reference) : undefined;
  return withReplica(session, reference, (replica) =>
    verifyReplica(session, replica, request.subsetPercent ?? 100, state),
  );
}

async function verifyReplica(
  session: Session,
  replica: Replica,
  subsetPercent: number,
  source: ItemState | undefined,
): Promise<VerifyReport> {
  const point = latestPoint(replica);
  const baseline = baselineOf(replica.record.root, point);
  const { disks, item } = replica.description;
  const logs = logsOf(replica.record.root, point);
  const damage: VerifyReport['damage'][number][] = [];
  const damagedLogs: VerifyReport['damagedLogs'][number][] = [];
  let chunksOpened = 0;
  let logsOpened = 0;
  let bytesRead = 0;
  await withWorkers(session, replica, async (pool) => {
    for (const [disk, { id, virtualSizeBytes }] of disks.entries()) {
      const counts = await verifyDisk({
        replica,
        disk,
        state: baseline.disks[disk]!,
        pool,
        access: readAccess(session),
        share: subsetPercent / 100,
        ports: session.ports,
        onProgress: (doneBytes, transferredBytes) => {
          const event = {
            phase: 'verify',
            disk: id,
            doneBytes,
            totalBytes: virtualSizeBytes,
            transferredBytes,
          } as const;
          session.onEvent?.({ type: 'progress', ...event });
        },
      });
      chunksOpened += counts.chunksOpened;
      bytesRead += counts.fetchedBytes;
      damage.push(...counts.damage.map(({ chunk, error }) => ({ disk: id, chunk, message: error.message })));
    }
    for (const log of logs) {
      if (session.ports.random.fraction() >= subsetPercent / 100) continue;
      const error = await checkShippedLog(replica, log, { ...readAccess(session), pool });
      logsOpened += 1;
      bytesRead += log.sizeBytes;
      if (error) damagedLogs.push({ log: log.seq, message: error.message });
    }
  });
  const sourceDifferences = source ? await differences(session, replica, source) : 0;
  const { freshness } = replica;
  const opened = { chunksOpened, logsOpened, bytesRead };
  return { item, pointId: point.id, ...opened, sourceDifferences, damage, damagedLogs, freshness };
}

async function sourceState(session: Session, reference: ReplicaReference): Promise<ItemState> {
  if (!('url' in reference)) return new LocalItem(session.home, reference.name, session.ports.files).load();
  throw new BlockferryError('USAGE', 'a replica named by its URL alone has no source to compare with', {
    hint: 'run verify --source on the machine that protects the item, without --from',
  });
}

async function differences(session: Session, replica: Replica, state: ItemState): Promise<number> {
  const { root } = replica.record;
  const point = latestPoint(replica);
  const unplayed = logsOf(root, point).length;
  if (unplayed > 0) {
    throw new BlockferryError('USAGE', `point ${point.id} has ${unplayed} logs that are not in the base yet`, {
      facts: { point: point.id, logs: unplayed },
      hint: 'run apply first, then verify --source',
    });
  }
  const baseline = baselineOf(root, point);
  return withDisks(session, state, (sources) =>
    withWorkers(session, replica, async (pool) => {
      let total = 0;
      for (const [disk, source] of sources.entries()) {
        const signal = sessionSignal(session);
        const { tree, description } = new FrozenDisk(replica, disk, baseline.disks[disk]!, readAccess(session));
        const { chunkBytes } = description;
        total += (await compareDisk({ source, disk, chunkBytes, tree, pool, signal })).differingChunks;
      }
      return total;
    }),
  );
}
