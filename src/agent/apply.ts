/** apply: fold shipped logs into the base. Needs the store and a key, nothing of the source's host. */
import { randomGuid } from '../guid.ts';
import { apply as applyLogs, type Replica } from '../replica/index.ts';
import { LocalItem } from './local-state.ts';
import {
  readAccess,
  type WritableReplica,
  withLock,
  withOwn,
  withReplica,
  withWorkers,
  withWriter,
} from './open-item.ts';
import type { ApplyReport, ReplicaReference, Session } from './types.ts';

/**
 * Folds all outstanding logs of a replica into its base. By its URL no local state is needed: the replica's lease keeps
 * others out.
 */
export async function apply(session: Session, reference: ReplicaReference): Promise<ApplyReport> {
  if ('url' in reference) {
    return withReplica(session, reference, (replica) => runApply(session, elsewhere(session, replica)));
  }
  const { name } = reference;
  const item = new LocalItem(session.home, name, session.ports.files);
  await item.load();
  return withLock(session, item, () => withOwn(session, name, (own) => runApply(session, own)));
}

/** A replica whose source is another machine: a lease of its own, and no anchor to keep. */
function elsewhere({ ports }: Session, replica: Replica): WritableReplica {
  const leaseId = randomGuid(ports.random.bytes(16)).toLowerCase();
  return { replica, leaseId, saveAnchor: async () => {} };
}

/** apply with everything at hand. */
export async function runApply(session: Session, target: WritableReplica): Promise<ApplyReport> {
  const { clock } = session.ports;
  const startedMs = clock.monotonicMs();
  const result = await withWorkers(session, target.replica, (pool) =>
    withWriter(session, target, ({ committer, session: writer }) =>
      applyLogs({
        committer,
        session: writer,
        pool,
        access: readAccess(session),
        ports: session.ports,
        signal: writer.signal,
        onProgress: (progress) => session.onEvent?.({ type: 'progress', phase: 'apply', ...progress }),
      }),
    ),
  );
  const { root, appliedLogs, chunksWritten, fetchedBytes, sentBytes, point } = result;
  return {
    item: target.replica.description.item,
    ...(point ? { pointId: point.id } : {}),
    generation: root.generation,
    ...{ appliedLogs, chunksWritten, fetchedBytes, sentBytes },
    elapsedMs: clock.monotonicMs() - startedMs,
  };
}
