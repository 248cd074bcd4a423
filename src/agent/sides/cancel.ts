/** cancel: what was brought back and not committed is removed, and an owner that had stopped goes on. Nothing else is lost. */
import { BlockferryError, isBlockferryError } from '../../errors.ts';
import { Committer, discardStage, isOwner } from '../../replica/index.ts';
import { refuseTakenOver } from '../further-stores.ts';
import { LocalItem } from '../local-state.ts';
import { type OwnReplica, sessionSignal, withOwn } from '../open-item.ts';
import { refuseIllegal } from '../refuse.ts';
import { trackedItem, withTracking } from '../tracking.ts';
import type { CancelReport, CancelRequest, Session } from '../types.ts';
import { withBoth, withTests } from './lock.ts';
import { type FailoverRecord, loadFailover, loadTests, removeFailover, saveFailover, saveTests } from './record.ts';
import { forgetStages, stageDirectories } from './stages.ts';
import { fileIdentity, waitsAlready } from './waiting.ts';

/** Ends a failover or failback that was not committed; with `test`, removes the files of all test failovers. */
export function cancel(session: Session, name: string, request: CancelRequest = {}): Promise<CancelReport> {
  const item = new LocalItem(session.home, name, session.ports.files);
  if (request.test) {
    return withTests(session, item, async () => {
      return { item: name, removed: await removeTests(session, item), resumed: false };
    });
  }
  return withBoth(session, item, async () => {
    const { files } = session.ports;
    const record = await loadFailover(item, files);
    if (record?.isCommitting) throw waitsAlready(item, record);
    // The owner first: whatever becomes of what was brought back, it must not stay stopped.
    const resumed = (await item.find()) !== undefined && (await resume(session, name));
    const removed = record ? await removeBrought(session, item, record) : await removeStages(session, item, resumed);
    if (removed.length > 0 || resumed) return { item: name, removed, resumed };
    await refuseIllegal(session, name, 'cancel');
    throw new BlockferryError('ILLEGAL_STATE', `nothing of item "${name}" can be cancelled`, {
      facts: { item: name },
      hint: 'a failover that was committed is not cancelled: the way back is blockferry failback',
    });
  });
}

/** Only what these tests made: a file of another identity, and one that became somebody's disk, stays. */
async function removeTests({ ports: { files } }: Session, item: LocalItem): Promise<readonly string[]> {
  const state = await item.find().catch(() => undefined);
  const waiting = (await loadFailover(item, files))?.disks.map(({ path }) => path) ?? [];
  const inUse = [...(state?.disks ?? []), ...(state?.former?.disks ?? []), ...waiting];
  const removed: string[] = [];
  for (const { path, identity } of (await loadTests(item, files)).flatMap(({ disks }) => disks)) {
    const isOther = identity !== '' && (await fileIdentity(path, files)) !== identity;
    if (isOther || inUse.includes(path)) continue;
    await files.remove(path);
    removed.push(path);
  }
  await saveTests(item, [], files);
  return removed;
}

async function removeBrought(
  { ports: { files } }: Session,
  item: LocalItem,
  record: FailoverRecord,
): Promise<readonly string[]> {
  const paths = record.disks.map(({ path }) => path);
  if (!record.inPlace) {
    // Killed from here on, they are no disks to commit any more.
    await saveFailover(item, { ...record, isComplete: false }, files);
    for (const path of paths) await files.remove(path);
  }
  await removeFailover(item, files);
  return paths;
}

/**
 * What a failback fetched and has not begun to lay: its disks were never touched. What was begun has to be ended, which is no
 * reason to keep an owner stopped. @throws LOCAL_STATE where that is all there is
 */
async function removeStages(session: Session, item: LocalItem, resumed: boolean): Promise<readonly string[]> {
  const { files } = session.ports;
  const removed: string[] = [];
  const state = await item.find();
  const disks = [...(state?.disks ?? []), ...(state?.former?.disks ?? [])];
  for (const [i, directory] of (await stageDirectories(item, disks, files)).entries()) {
    if (!(await files.exists(directory))) continue;
    try {
      await discardStage(directory, files);
      await forgetStages(item, [disks[i]!], files);
      removed.push(directory);
    } catch (error) {
      if (!resumed || !isBlockferryError(error, 'LOCAL_STATE')) throw error;
      session.onEvent?.({ type: 'notice', code: 'STAGE_KEPT', message: error.message });
    }
  }
  return removed;
}

/** Lets the owner of this home write and replicate again, if it had stopped. */
function resume(session: Session, name: string): Promise<boolean> {
  return withOwn(session, name, async (own) => {
    const { root } = own.replica.record;
    if (!isOwner(root, own.state.side)) return false;
    const tracked = trackedItem(session, own.item, own.state, own.replica.description);
    return withTracking(tracked, async (tracking) => {
      const wereStopped = await tracking.writes.isStopped();
      const hadStopped = root.owner.phase === 'synced';
      if (!wereStopped && !hadStopped) return false;
      await refuseTakenOver(session, own.state, root.owner.epoch);
      // A new root even where this one says so: a late "synced" of a run that was killed must not come behind it.
      if (hadStopped || root.owner.phase === 'replicating') await replicateAgain(session, own);
      await tracking.writes.stop(false);
      return true;
    });
  });
}

/** The point keeps its place; the owner goes on from it. */
export async function replicateAgain(session: Session, { replica, saveAnchor, state }: OwnReplica): Promise<void> {
  const { clock } = session.ports;
  const committer = new Committer(replica, 'blockferry', saveAnchor, session.ports);
  await committer.commitOver((root) => {
    if (!isOwner(root, state.side) || !['synced', 'replicating'].includes(root.owner.phase)) {
      throw new BlockferryError('SPLIT_BRAIN', 'another side took over meanwhile', {
        facts: { epoch: root.owner.epoch, phase: root.owner.phase },
        hint: 'the way back is blockferry failback',
      });
    }
    const { side, epoch } = root.owner;
    return { owner: { side, epoch, phase: 'replicating', sinceMs: clock.nowMs() } };
  }, sessionSignal(session));
}
