/**
 * failover --planned, in the owner's home: guest writes are stopped, the last delta is shipped and applied, and the disks are
 * compared with the manifest chunk by chunk. Only then does the replica say that the owner has stopped.
 *
 * Whatever fails before that lets the guest write again; a kill leaves it stopped, durably, and running this again goes on.
 */
import { join } from 'node:path';
import { BlockferryError, isBlockferryError } from '../../errors.ts';
import {
  assertReplicating,
  Committer,
  encodeProof,
  isOwner,
  isProcessed,
  makeProof,
  type Proof,
  proofKey,
  proveDisk,
  type RecoveryPoint,
} from '../../replica/index.ts';
import type { VirtualDisk } from '../../vhd/index.ts';
import { runApply } from '../apply.ts';
import { bringCurrent, withServedDisks } from '../bring-current.ts';
import { LocalItem } from '../local-state.ts';
import {
  latestPoint,
  type OwnReplica,
  readAccess,
  reopenOwn,
  sessionSignal,
  withDisks,
  withOwn,
  withWorkers,
} from '../open-item.ts';
import { withReasons } from '../refuse.ts';
import { cycle } from '../ship.ts';
import { type Tracking, trackedItem, withTracking } from '../tracking.ts';
import type { PlannedReport, PlannedRequest, Session } from '../types.ts';
import { replicateAgain } from './cancel.ts';
import { withBoth } from './lock.ts';
import { bringToWait, checkPlace } from './waiting.ts';

/** Stops the owner with all it has in the replica, and brings the disks back if told where. */
export function failoverPlanned(session: Session, name: string, request: PlannedRequest = {}): Promise<PlannedReport> {
  const item = new LocalItem(session.home, name, session.ports.files);
  return withReasons(session, name, 'failover-planned', () =>
    withBoth(session, item, () => planned(session, item, request)),
  );
}

function planned(session: Session, item: LocalItem, request: PlannedRequest): Promise<PlannedReport> {
  const { name } = item;
  return withOwn(session, name, async (own) => {
    const { root } = own.replica.record;
    const hasStopped = isOwner(root, own.state.side) && root.owner.phase === 'synced';
    const { outDirectory, format = 'vhdx' } = request;
    // Before the guest is stopped for it.
    if (outDirectory !== undefined) {
      await checkPlace(session, item, own.replica.description.disks, { outDirectory, format });
    }
    const proof = hasStopped ? undefined : await stop(session, own);
    const { replica } = await reopenOwn(session, own);
    const point = latestPoint(replica);
    const stopped = { item: name, pointId: point.id, pointTimeMs: point.timeMs, ...(proof ? { proof } : {}) };
    if (outDirectory === undefined) return stopped;
    const waiting = { kind: 'failover', planned: true, point, reference: { name } } as const;
    const failover = await bringToWait(session, item, replica, waiting, { format, outDirectory });
    return { ...stopped, failover };
  });
}

/** From a running owner to one that has stopped, with the proof that nothing is missing. */
export async function stop(session: Session, first: OwnReplica): Promise<Proof> {
  assertReplicating(first.replica.record.root, first.state.side);
  const { item, state } = first;
  const tracked = trackedItem(session, item, state, first.replica.description);
  const reopen = (): Promise<OwnReplica> => reopenOwn(session, first);
  return withTracking(tracked, async (tracking) => {
    // Most of it goes while the guest still works.
    await shipAll(session, first, tracking);
    const stoppedMs = session.ports.clock.nowMs();
    let isUncertain = false;
    try {
      await tracking.writes.stop(true);
      await session.ports.failpoint('planned.after-stop');
      const { pointId } = await cycle(session, await reopen(), tracking.logs);
      await runApply(session, await reopen());
      const proof = await prove(session, await reopen(), tracking, pointId, stoppedMs);
      await session.ports.failpoint('planned.after-proof');
      const current = await reopen();
      isUncertain = true;
      await commitStop(session, current, pointId);
      return proof;
    } catch (error) {
      // A root whose answer was lost may have told the other side that it can begin: another one comes before it, or not at all.
      if (isUncertain) await replicateAgain(session, await reopen());
      await tracking.writes.stop(false);
      throw error;
    }
  });
}

async function shipAll(session: Session, own: OwnReplica, tracking: Tracking): Promise<void> {
  try {
    await cycle(session, own, tracking.logs);
  } catch (error) {
    if (!isBlockferryError(error, 'RESYNC_REQUIRED')) throw error;
    await bringCurrent(session, await reopenOwn(session, own), tracking, { phase: 'resync' });
  }
}

/** Compares every chunk of the stopped disks with the manifest of the point; keeps what it found here and in the store. */
async function prove(
  session: Session,
  own: OwnReplica,
  tracking: Tracking,
  pointId: string,
  stoppedMs: number,
): Promise<Proof> {
  const { replica, item, state } = own;
  const { files, clock } = session.ports;
  const point = latestPoint(replica);
  if (point.id !== pointId || !isProcessed(replica.record.root, point)) {
    throw new BlockferryError('REPLICA_FENCED', `point ${pointId} is not the newest any more`, {
      facts: { point: pointId, newest: point.id },
      hint: 'another process ships this item; stop it, then run the planned failover again',
    });
  }
  const compare = (sources: readonly VirtualDisk[]): Promise<readonly number[]> =>
    proveAll(session, own, sources, point);
  const readBytes =
    tracking.kind === 'served'
      ? await withServedDisks(session, tracking.client, replica.description.disks.length, compare)
      : await withDisks(session, state, compare);
  const proof = makeProof(replica, point, { stoppedMs, provenMs: clock.nowMs(), readBytes });
  const bytes = encodeProof(proof);
  await files.makeDirectory(join(item.directory, 'proofs'));
  await files.replace(join(item.directory, proofKey(pointId)), bytes);
  await replica.store.put(proofKey(pointId), bytes, { signal: sessionSignal(session) });
  return proof;
}

/** Bytes that were read of each disk. @throws DISK_DIFFERS */
function proveAll(
  session: Session,
  { replica }: OwnReplica,
  targets: readonly VirtualDisk[],
  point: RecoveryPoint,
): Promise<readonly number[]> {
  return withWorkers(session, replica, async (pool) => {
    const read: number[] = [];
    for (const [disk, target] of targets.entries()) {
      const { id, virtualSizeBytes } = replica.description.disks[disk]!;
      const onProgress = (doneBytes: number): void => {
        const progress = { phase: 'prove', disk: id, doneBytes, totalBytes: virtualSizeBytes } as const;
        session.onEvent?.({ type: 'progress', ...progress, transferredBytes: 0 });
      };
      const access = readAccess(session);
      read.push((await proveDisk({ replica, point, disk, target, pool, access, onProgress })).readBytes);
    }
    return read;
  });
}

function commitStop(session: Session, { replica, saveAnchor, state }: OwnReplica, pointId: string): Promise<unknown> {
  const { clock } = session.ports;
  const committer = new Committer(replica, 'blockferry', saveAnchor, session.ports);
  return committer.commitOver((root) => {
    assertReplicating(root, state.side);
    const { side, epoch } = root.owner;
    return { owner: { side, epoch, phase: 'synced', point: pointId, sinceMs: clock.nowMs() } };
  }, sessionSignal(session));
}
