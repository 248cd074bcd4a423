/** prune: fewer recovery points, by a policy or by name, and less in the store. */
import { Committer, listPins, type Replica, retainPoints } from '../replica/index.ts';
import { LocalItem } from './local-state.ts';
import { sessionSignal, withLock, withOwn } from './open-item.ts';
import { pointsToDrop, type RetentionPolicy } from './policy/index.ts';
import { loadFailover } from './sides/index.ts';
import type { PruneReport, Session } from './types.ts';

/** Which points go: those with these ids, or those that a policy has no use for and nobody reads. */
export type PruneChoice = { readonly drop: ReadonlySet<string> } | { readonly policy: RetentionPolicy };

/** Drops recovery points of an item, and deletes what nobody needs any more. The newest point always stays. */
export async function prune(session: Session, name: string, choice: PruneChoice): Promise<PruneReport> {
  const { clock, files } = session.ports;
  const startedMs = clock.monotonicMs();
  const item = new LocalItem(session.home, name, files);
  await item.load();
  return withLock(session, item, () =>
    withOwn(session, name, async ({ replica, state, saveAnchor }) => {
      const signal = sessionSignal(session);
      const drop = 'drop' in choice ? choice.drop : await dropByPolicy(session, item, replica, choice.policy);
      const committer = new Committer(replica, 'blockferry', saveAnchor, session.ports);
      const { root, dropped } = await retainPoints({ committer, side: state.side, clock, signal }, drop);
      return {
        item: name,
        generation: root.generation,
        dropped: dropped.map(({ id }) => id),
        points: root.points.length,
        elapsedMs: clock.monotonicMs() - startedMs,
      };
    }),
  );
}

async function dropByPolicy(
  session: Session,
  item: LocalItem,
  replica: Replica,
  policy: RetentionPolicy,
): Promise<ReadonlySet<string>> {
  const { points } = await listPins(replica, session.ports.clock, { signal: sessionSignal(session) });
  // Disks of this home that wait for a commit stand on it.
  const waiting = await loadFailover(item, session.ports.files);
  const inUse = waiting ? new Set([...points, waiting.point.id]) : points;
  return pointsToDrop(replica.record.root.points, policy, inUse);
}
