/**
 * What a resync would cost, and whether a full copy would cost less. Reads the disks, changes nothing.
 *
 * Time follows from what the last transfers measured: reading and sending overlap, so the slower of the two counts. A
 * raw base takes a resync's chunks twice over the line: the old bytes come back to be compared.
 */
import { type ChunkRun, compareDisk, dataBytes, FrozenDisk, joinRuns, outstandingLogs } from '../replica/index.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { dirtySet, withServedDisks } from './bring-current.ts';
import type { TransferRates } from './local-state.ts';
import { type OwnReplica, readAccess, sessionSignal, withDisks, withOwn, withWorkers } from './open-item.ts';
import { trackedItem, withTracking } from './tracking.ts';
import type { ResyncEstimate, Session } from './types.ts';

/** Chunks of each disk that may differ, where that is known. */
export type DirtyChunks = readonly (readonly ChunkRun[])[];

/** What a resync would send. Reads what of the disks may differ, also under a tracker; changes nothing. */
export function estimateResync(session: Session, name: string): Promise<ResyncEstimate> {
  return withOwn(session, name, (own) => {
    const { root } = own.replica.record;
    const isBehind = root.baselines.length === 0 || outstandingLogs(root).length > 0;
    return withTracking(trackedItem(session, own.item, own.state, own.replica.description), async (tracking) => {
      if (tracking.kind === 'resting') {
        const { runs } = isBehind ? {} : await tracking.resting.changed();
        return withDisks(session, own.state, (sources) => estimateFrom(session, own, sources, runs));
      }
      const { client } = tracking;
      const count = root.disks.length;
      const dirty = isBehind ? undefined : await dirtySet(client, 'changed', count);
      return withServedDisks(session, client, count, (sources) => estimateFrom(session, own, sources, dirty));
    });
  });
}

/** The same for an item that is open already. Only what is in `dirty`, or in doubt in the replica, is read. */
export async function estimateFrom(
  session: Session,
  own: OwnReplica,
  sources: readonly VirtualDisk[],
  dirty?: DirtyChunks,
): Promise<ResyncEstimate> {
  const compared = await compareAll(session, own, sources, dirty);
  const sum = (value: (disk: ComparedDisk) => number): number => compared.reduce((n, disk) => n + value(disk), 0);
  let fullCopyBytes = 0;
  for (const source of sources) fullCopyBytes += await dataBytes(source, 0, 1);
  const [readBytes, sentBytes] = [sum((disk) => disk.readBytes), sum((disk) => disk.sentBytes)];
  const fetchedBytes = sum((disk) => disk.fetchedBytes);
  return {
    item: own.replica.description.item,
    disks: compared.map(({ disk, differingChunks, differingBytes }) => ({ disk, differingChunks, differingBytes })),
    differingBytes: sum((disk) => disk.differingBytes),
    fullCopyBytes,
    readBytes,
    ...forecast({ readBytes, sentBytes, fetchedBytes }, fullCopyBytes, await own.item.loadRates()),
  };
}

/** What goes where in a transfer. */
export interface TransferBytes {
  readonly readBytes: number;
  readonly sentBytes: number;
  /** From the store. */
  readonly fetchedBytes: number;
}

/** The times of both ways as far as rates are known, and the one to choose; a resync where neither is better. */
export function forecast(
  resync: TransferBytes,
  fullCopyBytes: number,
  { readBytesPerSecond, sentBytesPerSecond }: TransferRates,
): Pick<ResyncEstimate, 'estimatedMs' | 'fullCopyMs' | 'cheaper'> {
  const onLine = resync.sentBytes + resync.fetchedBytes;
  if (readBytesPerSecond === undefined || sentBytesPerSecond === undefined) {
    return { cheaper: fullCopyBytes < onLine ? 'full' : 'resync' };
  }
  const ms = (read: number, line: number): number =>
    Math.round(1000 * Math.max(read / readBytesPerSecond, line / sentBytesPerSecond));
  const estimatedMs = ms(resync.readBytes, onLine);
  const fullCopyMs = ms(fullCopyBytes, fullCopyBytes);
  return { estimatedMs, fullCopyMs, cheaper: fullCopyMs < estimatedMs ? 'full' : 'resync' };
}

interface ComparedDisk extends TransferBytes {
  readonly disk: string;
  readonly differingChunks: number;
  readonly differingBytes: number;
}

function compareAll(
  session: Session,
  own: OwnReplica,
  sources: readonly VirtualDisk[],
  dirty: DirtyChunks | undefined,
): Promise<readonly ComparedDisk[]> {
  const { root } = own.replica.record;
  return withWorkers(session, own.replica, async (pool) => {
    const compared: ComparedDisk[] = [];
    for (const [disk, source] of sources.entries()) {
      const { tables } = root.disks[disk]!;
      const { description, tree } = new FrozenDisk(own.replica, disk, { tables, live: true }, readAccess(session));
      const { chunkBytes, id, layout } = description;
      const suspect = joinRuns((root.sync?.suspect ?? []).filter((range) => range.disk === disk));
      const only = dirty && joinRuns([...dirty[disk]!, ...suspect]);
      const totalBytes = session.onEvent ? await dataBytes(source, 0, chunkBytes, only) : 0;
      const onProgress = (doneBytes: number): void => {
        const event = { phase: 'resync', disk: id, doneBytes, totalBytes, transferredBytes: 0 } as const;
        session.onEvent?.({ type: 'progress', ...event });
      };
      const setup = { source, disk, chunkBytes, tree, pool, signal: sessionSignal(session), onProgress };
      const found = await compareDisk({ ...setup, only, suspect });
      compared.push({
        disk: id,
        differingChunks: found.differingChunks,
        differingBytes: found.differingChunks * chunkBytes,
        readBytes: found.readBytes,
        sentBytes: (found.differingChunks - found.clearedChunks) * chunkBytes,
        fetchedBytes: layout === 'raw' ? found.patchedChunks * chunkBytes : 0,
      });
    }
    return compared;
  });
}
