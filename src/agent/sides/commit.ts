/**
 * commit: the disks that were brought back become the side that the replica follows.
 *
 * The root decides, by one compare-and-swap; what is local follows it, and a commit that was killed in between is ended by
 * running it again.
 */
import { bytesEqual } from '../../bytes.ts';
import { BlockferryError, type ErrorCode, isBlockferryError, throwIfAborted } from '../../errors.ts';
import { randomGuid } from '../../guid.ts';
import type { Ports } from '../../ports.ts';
import {
  assertReplicating,
  Committer,
  collectAfterCommit,
  isNewestState,
  isOwner,
  openReplica,
  type Replica,
  type Root,
  type RootChange,
  takeOver,
} from '../../replica/index.ts';
import { diskStamp, RestingTracking } from '../../tracker/index.ts';
import { loadKeys } from '../key-sources.ts';
import { type ItemState, LocalItem } from '../local-state.ts';
import { openOwn, publicUrl, sessionSignal, withDisks, withOwn, withStore } from '../open-item.ts';
import { refuseIllegal } from '../refuse.ts';
import { contentIds, trackedItem } from '../tracking.ts';
import type { CommitReport, CommitRequest, Session } from '../types.ts';
import { withBoth } from './lock.ts';
import { type FailoverRecord, loadFailover, removeFailover, saveFailover } from './record.ts';

/** Lets the disks that were brought back take over; with `end`, ends protection. */
export function commit(session: Session, name: string, request: CommitRequest = {}): Promise<CommitReport> {
  const item = new LocalItem(session.home, name, session.ports.files);
  return withBoth(session, item, async () => {
    const record = await loadFailover(item, session.ports.files);
    if (record?.isComplete) return take(session, item, record, request);
    if (record) throw unfinished(item, record);
    await refuseIllegal(session, name, request.end ? 'end' : 'commit');
    if (request.end) return endProtection(session, name);
    throw new BlockferryError('ILLEGAL_STATE', `nothing of item "${name}" waits for commit`, {
      facts: { item: name },
      hint: `bring its disks back first: blockferry failover ${name} --out DIR, or blockferry failback ${name}`,
    });
  });
}

function unfinished({ name }: LocalItem, { kind }: FailoverRecord): BlockferryError {
  return new BlockferryError(
    'ILLEGAL_STATE',
    `the disks of item "${name}" are not complete: the ${kind} has not ended`,
    {
      facts: { item: name },
      hint: `run the same ${kind} again, or give it up with: blockferry cancel ${name}`,
    },
  );
}

async function take(
  session: Session,
  item: LocalItem,
  record: FailoverRecord,
  request: CommitRequest,
): Promise<CommitReport> {
  return withStore(session, record.url, async (store) => {
    const before = await item.find();
    const replica = await open(session, item, before, record, store);
    const state = stateAfter(session.ports, item, before, record, replica);
    const tracked = trackedItem(session, item, state, replica.description);
    // Holding it keeps trackers out: of the old disks, whose logs end here, and of the new ones.
    const resting = await RestingTracking.open(tracked);
    try {
      const committer = new Committer(replica, 'blockferry', (anchor) => item.saveAnchor(anchor), session.ports);
      // Before anybody is fenced: the disks are there, and can be opened.
      const untouched = await isUntouched(session.ports, record);
      const given = committer.root;
      const root = await commitRoot(session, item, committer, record, request);
      const goesOn = await beginTracking(session, resting, root, record, state, untouched);
      await session.ports.failpoint('commit.after-tracking');
      // As any home that replicates: what runs on schedule asks nobody for a key.
      if (!before) await item.saveMaster(replica.keyring.master);
      await item.save(state);
      await removeFailover(item, session.ports.files);
      if (request.end) await commitEnd(committer, state.side, session.ports);
      await removeGivenUp(session, replica, given, root);
      return report(item.name, committer.root, record, goesOn);
    } finally {
      await resting.close();
    }
  });
}

async function open(
  session: Session,
  item: LocalItem,
  before: ItemState | undefined,
  record: FailoverRecord,
  store: Parameters<typeof openReplica>[0],
): Promise<Replica> {
  if (before) return (await openOwn(session, item, before, store)).replica;
  const materials = await loadKeys(record.keys, session.ports);
  const replica = await openReplica(store, { materials }, await item.loadAnchor(), { signal: sessionSignal(session) });
  await item.saveDescription(replica.description);
  return replica;
}

/** What the item is once the disks have taken over. */
function stateAfter(
  { random }: Ports,
  item: LocalItem,
  before: ItemState | undefined,
  record: FailoverRecord,
  { description }: Replica,
): ItemState {
  // Killed behind this: it is done.
  if (before && bytesEqual(before.side, record.side)) return before;
  const disks = record.disks.map(({ path }) => path);
  const formats = record.disks.map(({ format }) => format);
  const former = before && record.fromOurs ? { disks: before.disks, formats: before.formats } : before?.former;
  const {
    former: _,
    also,
    ...kept
  } = before ?? {
    name: item.name,
    replicaId: description.replicaId,
    leaseId: randomGuid(random.bytes(16)).toLowerCase(),
    keys: record.keys,
  };
  // What took over in another store than the first replicates there, and nothing follows it before somebody says so.
  const follow = also && before && publicUrl(before.url) === publicUrl(record.url) ? { also } : {};
  return { ...kept, ...follow, url: record.url, disks, formats, side: record.side, ...(former ? { former } : {}) };
}

/** Refusals that only a root can cause which is not ours, and which no put of ours that is under way can follow. */
const REFUSED: readonly ErrorCode[] = ['SPLIT_BRAIN', 'POINT_NOT_FOUND', 'REPLICA_OTHER_SIDE'];

async function commitRoot(
  session: Session,
  item: LocalItem,
  committer: Committer,
  record: FailoverRecord,
  { discardNewer = false }: CommitRequest,
): Promise<Root> {
  const { random, clock, files } = session.ports;
  // Ended by a kill behind the root: it is done.
  if (isOwner(committer.root, record.side)) return committer.root;
  const { side, point, epoch, newestGeneration, planned } = record;
  const take = { side, point: point.id, epoch, newestGeneration, planned, discardNewer, nowMs: clock.nowMs(), random };
  try {
    takeOver(committer.root, take);
    // From here on nobody but a commit may say what these disks are: the answer of the store may be lost.
    await saveFailover(item, { ...record, isCommitting: true }, files);
    const prepare = (root: Root): RootChange => (isOwner(root, side) ? {} : takeOver(root, take));
    return await committer.commitOver(prepare, sessionSignal(session));
  } catch (error) {
    if (isBlockferryError(error) && REFUSED.includes(error.code)) {
      await saveFailover(item, { ...record, isCommitting: false }, files);
    }
    throw error;
  }
}

/** What only the points that were given up needed. The commit stands whatever becomes of it: the next apply or sync removes the rest. */
async function removeGivenUp(session: Session, replica: Replica, before: Root, after: Root): Promise<void> {
  const signal = sessionSignal(session);
  const failure = await collectAfterCommit({ replica, clock: session.ports.clock, signal }, before, after);
  throwIfAborted(signal);
  if (!failure) return;
  const message = `what the given-up points needed stays until the next apply: ${failure.message}`;
  session.onEvent?.({ type: 'notice', code: 'NOT_COLLECTED', message });
}

/** Where nothing was written yet and the replica holds nothing newer, what is written next is the next delta. */
async function beginTracking(
  session: Session,
  resting: RestingTracking,
  root: Root,
  record: FailoverRecord,
  state: ItemState,
  untouched: boolean,
): Promise<boolean> {
  const point = root.points.find(({ id }) => id === record.point.id);
  if (!point || !isNewestState(root, point) || !untouched) {
    const message = untouched
      ? 'the replica holds more than the point that these disks were made from'
      : 'the disks were written before the commit, while nobody tracked them';
    await resting.distrust(message);
    return false;
  }
  const heads = root.disks.map(({ head }) => head);
  await withDisks(session, state, (disks) => resting.settle(heads, contentIds(disks)));
  return true;
}

async function isUntouched(ports: Ports, { disks }: FailoverRecord): Promise<boolean> {
  for (const disk of disks) if ((await diskStamp(disk, ports)) !== disk.stamp) return false;
  return true;
}

function report(item: string, { owner, generation }: Root, record: FailoverRecord, goesOn: boolean): CommitReport {
  return {
    ...{ item, generation, epoch: owner.epoch, phase: owner.phase, pointId: record.point.id },
    disks: record.disks.map(({ path }) => path),
    tracking: goesOn ? 'logging' : 'resync-required',
  };
}

/** "Complete migration": nobody replicates this item any more; the replica stays as it is. */
function endProtection(session: Session, name: string): Promise<CommitReport> {
  return withOwn(session, name, async ({ replica, state, saveAnchor, item }) => {
    const committer = new Committer(replica, 'blockferry', saveAnchor, session.ports);
    const { owner, generation } = await commitEnd(committer, state.side, session.ports);
    const point = replica.record.root.points.at(-1)?.id ?? '';
    const { epoch, phase } = owner;
    return { item: item.name, generation, epoch, phase, pointId: point, disks: state.disks, tracking: 'ended' };
  });
}

function commitEnd(committer: Committer, side: Uint8Array, { clock }: Ports): Promise<Root> {
  return committer.commitOver((root) => {
    if (!isOwner(root, side)) {
      throw new BlockferryError('REPLICA_OTHER_SIDE', 'the replica follows other disks than these', {
        facts: { epoch: root.owner.epoch },
        hint: 'protection is ended in the home of the side that the replica follows',
      });
    }
    // Another side that waits for what was stopped could never begin.
    if (root.owner.phase === 'synced') assertReplicating(root, side);
    return { owner: { ...root.owner, phase: 'ended', sinceMs: clock.nowMs() } };
  });
}
