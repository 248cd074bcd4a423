/** A sync as the operations run it: with workers, leases, progress events and a report. */
import { type SuspectRange, sync } from '../replica/index.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { type OwnReplica, withWorkers, withWriter } from './open-item.ts';
import type { Session, SyncReport } from './types.ts';

export interface RunSyncOptions {
  readonly phase: 'initial' | 'resync';
  readonly full?: boolean;
  readonly suspect?: readonly SuspectRange[];
}

/** Syncs the item and tells what was done. */
export async function runSync(
  session: Session,
  own: OwnReplica,
  sources: readonly VirtualDisk[],
  { phase, full = false, suspect = [] }: RunSyncOptions,
): Promise<SyncReport> {
  const { clock } = session.ports;
  const startedMs = clock.monotonicMs();
  const { disks: described, item } = own.replica.description;
  const result = await withWorkers(session, own.replica, (pool) =>
    withWriter(session, own, ({ committer, session: writer }) =>
      sync({
        committer,
        session: writer,
        pool,
        sources,
        full,
        suspect,
        ports: session.ports,
        signal: writer.signal,
        onProgress: ({ disk, doneBytes, totalBytes, sentBytes }) => {
          const event = { phase, disk: described[disk]!.id, doneBytes, totalBytes, transferredBytes: sentBytes };
          session.onEvent?.({ type: 'progress', ...event });
        },
      }),
    ),
  );
  const { point, root } = result;
  session.onEvent?.({ type: 'committed', generation: root.generation, pointId: point.id });
  const elapsedMs = clock.monotonicMs() - startedMs;
  const readBytes = result.disks.reduce((sum, disk) => sum + disk.readBytes, 0);
  if (readBytes > 0 && elapsedMs > 0) await own.item.saveRate((readBytes / elapsedMs) * 1000);
  const disks = result.disks.map((counts, i) => ({
    disk: described[i]!.id,
    virtualSizeBytes: described[i]!.virtualSizeBytes,
    readBytes: counts.readBytes,
    chunksCompared: counts.chunksCompared,
    chunksSent: counts.chunksSent,
    chunksCleared: counts.chunksCleared,
    sentBytes: counts.sentBytes,
  }));
  const changed = disks.some((disk) => disk.chunksSent + disk.chunksCleared > 0);
  return { item, pointId: point.id, generation: root.generation, changed, disks, elapsedMs };
}
