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
  type RecoveryPoint,
  type Replica,
  type Root,
  verifyDisk,
} from '../replica/index.ts';
import { type AgentView, askAgent } from './ask-agent.ts';
import { type Observation, observeItem } from './facts.ts';
import { furtherStores } from './further-stores.ts';
import { healthOf, type ItemFacts, publishedOf, stateOf, withFindings } from './life/index.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import {
  latestPoint,
  publicUrl,
  readAccess,
  sessionSignal,
  withDisks,
  withPinned,
  withReplica,
  withWorkers,
} from './open-item.ts';
import type { ItemStatus, PointInfo, ReplicaReference, Session, VerifyReport, VerifyRequest } from './types.ts';

/** The state of one item, or of all items of this home. A store that does not answer is a state too. */
export async function status(session: Session, name?: string): Promise<readonly ItemStatus[]> {
  const agent = await askAgent(session);
  const look = async (each: string): Promise<ItemStatus> =>
    describeStores(session, await observeItem(session, each), (observed) =>
      describeItem(each, observed, agent.get(each)),
    );
  if (name !== undefined) return [await look(name)];
  const all: ItemStatus[] = [];
  for (const each of await LocalItem.names(session.home, session.ports.files)) {
    try {
      all.push(await look(each));
    } catch (error) {
      // A protect that was refused leaves a directory behind, but no item.
      if (!isBlockferryError(error, 'ITEM_NOT_FOUND')) throw error;
    }
  }
  return all;
}

/** With the further stores, where the item has any. */
async function describeStores(
  session: Session,
  observed: Observation,
  describe: (observed: Observation) => ItemStatus,
): Promise<ItemStatus> {
  const status = describe(observed);
  const first = { newestMs: status.lastPointMs, epoch: observed.facts.replica?.owner.epoch };
  const also = observed.state ? await furtherStores(session, observed.state, first) : [];
  return also.length === 0 ? status : { ...status, also };
}

function describeItem(
  name: string,
  { facts: observed, state, url, replica, tracker }: Observation,
  agent: AgentView | undefined,
): ItemStatus {
  const facts: ItemFacts = { ...observed, ...agent?.facts };
  const life = stateOf(facts).state;
  const { level, findings } = withFindings(healthOf(facts), agent?.measured ?? []);
  const published = publishedOf(life);
  const worst = findings[0];
  return {
    item: name,
    url: replica?.store.url ?? publicUrl(state?.url ?? url ?? ''),
    state: life,
    ...(published ? { replicationState: published } : {}),
    health: level,
    ...(worst ? { cause: worst.cause, action: worst.action } : {}),
    findings,
    ...(replica ? describeReplica(replica, facts) : {}),
    ...(tracker ? { tracking: tracker } : {}),
    ...(replica?.description.disks[0] ? { layout: replica.description.disks[0].layout } : {}),
    disks: describeDisks(state, replica),
    ...(replica ? { generation: replica.record.root.generation } : {}),
    freshness: replica?.freshness ?? 'not-proven',
  };
}

function describeReplica(
  { record, description }: Replica,
  { nowMs, replica }: ItemFacts,
): Pick<ItemStatus, 'lastPointMs' | 'rpoMs' | 'backlog' | 'syncProgress'> {
  const { newestPointMs, outstandingLogs = 0, outstandingBytes = 0 } = replica ?? {};
  const age =
    newestPointMs === undefined ? {} : { lastPointMs: newestPointMs, rpoMs: Math.max(0, nowMs - newestPointMs) };
  return {
    ...age,
    backlog: { logs: outstandingLogs, bytes: outstandingBytes },
    ...describeProgress(record.root.sync, description),
  };
}

function describeDisks(state: ItemState | undefined, replica: Replica | undefined): ItemStatus['disks'] {
  if (!replica) return (state?.disks ?? []).map((path, i) => ({ disk: `d${i}`, path }));
  return replica.description.disks.map(({ id, virtualSizeBytes }, i) => {
    const path = state?.disks[i];
    return { disk: id, ...(path === undefined ? {} : { path }), virtualSizeBytes };
  });
}

/** How much of an unfinished copy is settled. */
function describeProgress(sync: Root['sync'], { disks }: Replica['description']): Pick<ItemStatus, 'syncProgress'> {
  if (!sync || sync.kind === 'apply') return {};
  const chunks = disks.map((disk) => chunkCount(disk));
  const all = chunks.reduce((sum, n) => sum + n, 0);
  const settled = chunks.slice(0, sync.disk).reduce((sum, n) => sum + n, 0) + sync.cursor;
  return { syncProgress: all === 0 ? 1 : settled / all };
}

/** Recovery points, oldest first. */
export function points(session: Session, reference: ReplicaReference): Promise<readonly PointInfo[]> {
  return withReplica(session, reference, async ({ record: { root } }) =>
    root.points.map((point) => {
      const { id, timeMs, consistency, generation, group } = point;
      const shared = group === undefined ? {} : { group };
      return { id, timeMs, consistency, processed: isProcessed(root, point), generation, ...shared };
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
    withPinned(session, replica, latestPoint(replica), (pinned, point) =>
      verifyPoint(session, pinned, point, request.subsetPercent ?? 100, state),
    ),
  );
}

async function verifyPoint(
  session: Session,
  replica: Replica,
  point: RecoveryPoint,
  subsetPercent: number,
  source: ItemState | undefined,
): Promise<VerifyReport> {
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
  const sourceDifferences = source ? await differences(session, replica, point, source) : 0;
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

async function differences(
  session: Session,
  replica: Replica,
  point: RecoveryPoint,
  state: ItemState,
): Promise<number> {
  const { root } = replica.record;
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
