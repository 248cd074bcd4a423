/** A sync as the operations run it: with workers, leases, progress events and a report. */
import { MIB } from '../bytes.ts';
import { type DiskDescription, type DiskSyncCounts, type Root, type SyncSetup, sync } from '../replica/index.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import type { TransferRates } from './local-state.ts';
import { type OwnReplica, withWorkers, withWriter } from './open-item.ts';
import type { Session, SyncReport } from './types.ts';

/** Fewer bytes than this tell the time of a request, not the rate of a line. */
const RATE_BYTES_MIN = MIB;

export interface RunSyncOptions extends Pick<SyncSetup, 'tracked' | 'only' | 'full' | 'suspect'> {
  readonly phase: 'initial' | 'resync';
}

/** Syncs the item and tells what was done, and the root that it ended with. A tracked copy has no point: its id is ''. */
export async function runSync(
  session: Session,
  own: OwnReplica,
  sources: readonly VirtualDisk[],
  { phase, ...options }: RunSyncOptions,
): Promise<{ readonly report: SyncReport; readonly root: Root }> {
  const { clock } = session.ports;
  const startedMs = clock.monotonicMs();
  const { disks: described, item } = own.replica.description;
  const result = await withWorkers(session, own.replica, (pool) =>
    withWriter(session, own, ({ committer, session: writer }) =>
      sync({
        committer,
        side: own.state.side,
        session: writer,
        pool,
        sources,
        ...options,
        ports: session.ports,
        signal: writer.signal,
        onProgress: ({ disk, doneBytes, totalBytes, sentBytes }) => {
          const event = { phase, disk: described[disk]!.id, doneBytes, totalBytes, transferredBytes: sentBytes };
          session.onEvent?.({ type: 'progress', ...event });
        },
        onNotice: (notice) => session.onEvent?.({ type: 'notice', ...notice }),
      }),
    ),
  );
  const { point, root } = result;
  const { generation } = root;
  if (point) session.onEvent?.({ type: 'committed', generation, pointId: point.id });
  const elapsedMs = clock.monotonicMs() - startedMs;
  await own.item.saveRates(measuredRates(result.disks, described, await own.item.loadRates()));
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
  return { report: { item, pointId: point?.id ?? '', generation, changed, disks, elapsedMs }, root };
}

/** The rates of this transfer; those known before where it moved too little to tell. */
export function measuredRates(
  disks: readonly Readonly<DiskSyncCounts>[],
  described: readonly DiskDescription[],
  known: TransferRates,
): TransferRates {
  const sum = (value: (counts: Readonly<DiskSyncCounts>, i: number) => number): number =>
    disks.reduce((n, counts, i) => n + value(counts, i), 0);
  // Of a raw base often but a part of a chunk is sent; of a sealed one the chunk, in fewer bytes.
  const sent = sum(({ sentBytes, chunksSent }, i) => {
    const { layout, chunkBytes } = described[i]!;
    return layout === 'raw' ? sentBytes : chunksSent * chunkBytes;
  });
  const read = rate(
    sum(({ readBytes }) => readBytes),
    sum(({ readMs }) => readMs),
  );
  const send = rate(
    sent,
    sum(({ sendMs }) => sendMs),
  );
  return {
    ...known,
    ...(read === undefined ? {} : { readBytesPerSecond: read }),
    ...(send === undefined ? {} : { sentBytesPerSecond: send }),
  };
}

/** Whole bytes per second. */
function rate(bytes: number, ms: number): number | undefined {
  return bytes < RATE_BYTES_MIN ? undefined : Math.max(1, Math.round((bytes / Math.max(ms, 1)) * 1000));
}
