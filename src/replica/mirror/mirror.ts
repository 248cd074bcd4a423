/**
 * mirror, the verb: a follower gets what another store's replica has committed (docs/mirror.md). Reads the one, writes the other; needs
 * neither disks nor tracker.
 *
 * Commit order: keyring; where logs do not lead there, the bases as a copy; log objects; then one root that names baseline, logs,
 * points and owner. The follower's points stand on snapshots, so all of them can be restored at any instant.
 */
import { bytesEqual } from '../../bytes.ts';
import type { Ports } from '../../ports.ts';
import type { Lanes } from '../../transport/index.ts';
import type { WorkerPool } from '../../workers/index.ts';
import { isSameBase, overtaken } from '../apply.ts';
import { collectAfterCommit } from '../collect-dropped.ts';
import type { Committer, RootChange } from '../committer.ts';
import type { ReadAccess } from '../frozen-disk.ts';
import type { Replica } from '../replica.ts';
import type { RecoveryPoint, Root } from '../root.ts';
import type { WriterSession } from '../writer-session.ts';
import { carryKeyring } from './carry-keys.ts';
import { carryLog } from './carry-log.ts';
import { type CopyCounts, copyBaseline } from './copy-baseline.ts';
import { type Copied, type MirrorPlan, mirroredRoot, planMirror } from './plan.ts';
import { checkFollower, checkOwners } from './sides.ts';

export interface MirrorSetup {
  /** Of the follower. */
  readonly committer: Committer;
  readonly session: WriterSession;
  readonly lanes: Lanes;
  /** The other store's replica, with its newest point and the logs that lead there pinned. */
  readonly source: Replica;
  readonly access: ReadAccess;
  readonly pool: WorkerPool;
  readonly discardNewer: boolean;
  /** Bytes of disk that are copied between two roots at most. */
  readonly windowBytes?: number;
  readonly ports: Ports;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: MirrorProgress) => void;
}

export interface MirrorProgress {
  /** Id of the disk that is copied; of a log the last one. */
  readonly disk: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly transferredBytes: number;
}

export interface MirrorResult extends Readonly<CopyCounts> {
  readonly root: Root;
  /** `nothing`: the follower had it all. `owner`: only who owns it has changed. */
  readonly by: 'logs' | 'copy' | 'owner' | 'nothing';
  readonly points: readonly RecoveryPoint[];
  /** Objects that were carried, and their bytes. */
  readonly logs: number;
  readonly logBytes: number;
}

const NO_COPY: CopyCounts = { chunksCopied: 0, chunksCleared: 0, fetchedBytes: 0, sentBytes: 0 };

/**
 * Carries everything up to the newest point of `source`.
 * @throws SPLIT_BRAIN, REPLICA_OTHER_SIDE, REPLICA_FOREIGN, REPLICA_KEYRING; REPLICA_SLOT, REPLICA_MANIFEST, REPLICA_LOG for what does not
 * verify; REPLICA_FENCED, and what the stores throw
 */
export async function mirror(setup: MirrorSetup): Promise<MirrorResult> {
  const { committer, source, signal, ports } = setup;
  const from = source.record.root;
  const choice = { source: from, discardNewer: setup.discardNewer };
  checkFollower(committer.replica, source, choice);
  await carryKeyring(committer, source.keyring, signal);
  const urls = { from: source.store.url, to: committer.replica.store.url };
  const check = (now: Root): void => checkOwners(now, { ...choice, ...urls });
  const plan = planMirror(committer.root, from);
  if (isSettled(committer.root, from, plan))
    return { ...NO_COPY, root: committer.root, by: 'nothing', ...carried(plan) };
  const copied =
    plan.copy && (await copyBaseline({ ...setup, baseline: plan.copy, check, onProgress: tellCopy(setup) }));
  await carryLogs(setup, plan);
  const frozenOn = committer.root;
  let replaced = committer.root;
  const root = await committer.commitOver((now) => {
    check(now);
    replaced = now;
    return changeOf(now, frozenOn, setup, plan, copied);
  }, signal);
  await collectAfterCommit({ replica: committer.replica, clock: ports.clock, signal }, replaced, root);
  const by = copied ? 'copy' : plan.points.length > 0 ? 'logs' : 'owner';
  return { ...(copied?.counts ?? NO_COPY), root, by, ...carried(plan) };
}

/** Whether the follower has it all. */
function isSettled(now: Root, { owner }: Root, { points, kept }: MirrorPlan): boolean {
  const { side, epoch, phase, point } = now.owner;
  const isSameOwner =
    bytesEqual(side, owner.side) && epoch === owner.epoch && phase === owner.phase && point === owner.point;
  return isSameOwner && now.follows !== undefined && points.length === 0 && kept.length === now.points.length;
}

function carried({ points, logs }: MirrorPlan): Pick<MirrorResult, 'points' | 'logs' | 'logBytes'> {
  return { points, logs: logs.length, logBytes: logs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) };
}

async function carryLogs(setup: MirrorSetup, { logs }: MirrorPlan): Promise<void> {
  const { committer, source, access, pool, lanes, ports, onProgress } = setup;
  const { store, description } = committer.replica;
  const disk = description.disks.at(-1)!.id;
  const totalBytes = logs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let doneBytes = 0;
  for (const log of logs) {
    await carryLog({ source, log, access: { ...access, pool }, target: store, lanes });
    await ports.failpoint('mirror.after-log');
    doneBytes += log.sizeBytes;
    onProgress?.({ disk, doneBytes, totalBytes, transferredBytes: doneBytes });
  }
}

/** The change of the root that is there now. Points may have been dropped meanwhile, and logs folded, but nothing else. */
function changeOf(
  now: Root,
  frozenOn: Root,
  { source, ports }: MirrorSetup,
  plan: MirrorPlan,
  copied: Copied | undefined,
): RootChange {
  const anew = planMirror(now, source.record.root);
  const had = new Set(plan.logs);
  const lacksNothing = anew.logs.every((log) => had.has(log));
  if (anew.copy !== plan.copy || !lacksNothing || (copied && !isSameBase(now, frozenOn))) throw overtaken(now);
  return mirroredRoot(now, source.record.root, anew, copied, ports.random);
}

function tellCopy({ source, onProgress }: MirrorSetup): (disk: number, doneBytes: number, sentBytes: number) => void {
  const { disks } = source.description;
  return (disk, doneBytes, transferredBytes) => {
    const { id, virtualSizeBytes } = disks[disk]!;
    onProgress?.({ disk: id, doneBytes, totalBytes: virtualSizeBytes, transferredBytes });
  };
}
