/** cancel: what was brought back and not committed is removed, and an owner that had stopped goes on. Nothing else is lost. */
import { BlockferryError } from '../../errors.ts';
import type { FileSystem } from '../../ports.ts';
import { Committer, discardStage, isOwner } from '../../replica/index.ts';
import { type ItemState, LocalItem } from '../local-state.ts';
import { type OwnReplica, sessionSignal, withLockSoon, withOwn } from '../open-item.ts';
import { refuseIllegal } from '../refuse.ts';
import { trackedItem, withTracking } from '../tracking.ts';
import type { CancelReport, CancelRequest, Session } from '../types.ts';
import { loadFailover, loadTests, removeFailover, saveTests, stageDirectory } from './record.ts';

/** Ends a failover or failback that was not committed; with `test`, removes the files of all test failovers. */
export function cancel(session: Session, name: string, request: CancelRequest = {}): Promise<CancelReport> {
  const item = new LocalItem(session.home, name, session.ports.files);
  return withLockSoon(session, item, async () => {
    const removed = request.test ? await removeTests(session, item) : await removeBrought(session, item);
    const resumed = !request.test && (await item.find()) !== undefined && (await resume(session, name));
    if (removed.length > 0 || resumed || request.test) return { item: name, removed, resumed };
    await refuseIllegal(session, name, 'cancel');
    throw new BlockferryError('ILLEGAL_STATE', `nothing of item "${name}" can be cancelled`, {
      facts: { item: name },
      hint: 'a failover that was committed is not cancelled: the way back is blockferry failback',
    });
  });
}

async function removeTests({ ports: { files } }: Session, item: LocalItem): Promise<readonly string[]> {
  const paths = (await loadTests(item, files)).flatMap((test) => test.paths);
  for (const path of paths) await files.remove(path);
  await saveTests(item, [], files);
  return paths;
}

async function removeBrought({ ports: { files } }: Session, item: LocalItem): Promise<readonly string[]> {
  const record = await loadFailover(item, files);
  if (!record) return removeStages(files, await item.find());
  const paths = record.disks.map(({ path }) => path);
  if (!record.inPlace) for (const path of paths) await files.remove(path);
  await removeFailover(item, files);
  return paths;
}

/** What a failback fetched and has not begun to lay: its disks were never touched. @throws LOCAL_STATE once it has begun */
async function removeStages(files: FileSystem, state: ItemState | undefined): Promise<readonly string[]> {
  const removed: string[] = [];
  for (const disk of [...(state?.disks ?? []), ...(state?.former?.disks ?? [])]) {
    const directory = stageDirectory(disk);
    if (!(await files.exists(directory))) continue;
    await discardStage(directory, files);
    removed.push(directory);
  }
  return removed;
}

/** Lets the owner of this home write and replicate again, if it had stopped. */
function resume(session: Session, name: string): Promise<boolean> {
  return withOwn(session, name, async (own) => {
    const { owner } = own.replica.record.root;
    const isOurs = isOwner(own.replica.record.root, own.state.side);
    const hadStopped = isOurs && owner.phase === 'synced';
    if (hadStopped) await replicateAgain(session, own);
    if (!isOurs) return false;
    const tracked = trackedItem(session, own.item, own.state, own.replica.description);
    const wereStopped = await withTracking(tracked, async (tracking) => {
      if (!(await tracking.writes.isStopped())) return false;
      await tracking.writes.stop(false);
      return true;
    });
    return hadStopped || wereStopped;
  });
}

/** The point keeps its place; the owner goes on from it. */
async function replicateAgain(session: Session, { replica, saveAnchor, state }: OwnReplica): Promise<void> {
  const { clock } = session.ports;
  const committer = new Committer(replica, 'blockferry', saveAnchor, session.ports);
  await committer.commitOver((root) => {
    if (!isOwner(root, state.side) || root.owner.phase !== 'synced') {
      throw new BlockferryError('SPLIT_BRAIN', 'another side took over meanwhile', {
        facts: { epoch: root.owner.epoch, phase: root.owner.phase },
        hint: 'the way back is blockferry failback',
      });
    }
    const { side, epoch } = root.owner;
    return { owner: { side, epoch, phase: 'replicating', sinceMs: clock.nowMs() } };
  }, sessionSignal(session));
}
