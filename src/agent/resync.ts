/**
 * resync: compare the disks with the replica and send what differs. `dryRun` only says what that would be.
 */
import { chunkRuns, compareDisk, dataBytes, FrozenDisk, type SuspectRange, verifyDisk } from '../replica/index.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import { LocalItem } from './local-state.ts';
import { type OwnReplica, readAccess, sessionSignal, withDisks, withLock, withOwn, withWorkers } from './open-item.ts';
import { runSync } from './run-sync.ts';
import type { ResyncEstimate, Session, SyncReport } from './types.ts';

export interface ResyncRequest {
  /** Send every chunk, whatever its fingerprint says. */
  readonly full?: boolean;
  /** Open every stored slot first, and send those that do not verify. */
  readonly verifyTarget?: boolean;
}

/** Repairs the replica of an item; ends with a new recovery point. */
export async function resync(session: Session, name: string, request: ResyncRequest = {}): Promise<SyncReport> {
  const item = new LocalItem(session.home, name, session.ports.files);
  const state = await item.load();
  return withLock(session, item, () =>
    withDisks(session, state, (sources) =>
      withOwn(session, name, async (own) => {
        const suspect = request.verifyTarget ? await damagedRanges(session, own) : [];
        return runSync(session, own, sources, { phase: 'resync', full: request.full ?? false, suspect });
      }),
    ),
  );
}

/** What a resync would send. Reads the disks, changes nothing. */
export function estimateResync(session: Session, name: string): Promise<ResyncEstimate> {
  return withOwn(session, name, (own) =>
    withDisks(session, own.state, async (sources) => {
      const disks = await compareAll(session, own, sources);
      const differingBytes = disks.reduce((sum, disk) => sum + disk.differingBytes, 0);
      const fullCopyBytes = await allDataBytes(sources);
      const rate = await own.item.loadRate();
      const estimatedMs = rate === undefined ? {} : { estimatedMs: Math.round((fullCopyBytes / rate) * 1000) };
      return { item: name, disks, differingBytes, fullCopyBytes, ...estimatedMs };
    }),
  );
}

function compareAll(
  session: Session,
  own: OwnReplica,
  sources: readonly VirtualDisk[],
): Promise<ResyncEstimate['disks']> {
  return withWorkers(session, own.replica, async (pool) => {
    const estimates: ResyncEstimate['disks'][number][] = [];
    for (const [disk, source] of sources.entries()) {
      const { description, tree } = liveDisk(session, own, disk);
      const { chunkBytes, id } = description;
      const totalBytes = session.onEvent ? await dataBytes(source, 0, chunkBytes) : 0;
      const onProgress = (doneBytes: number): void => {
        const event = { phase: 'resync', disk: id, doneBytes, totalBytes, transferredBytes: 0 } as const;
        session.onEvent?.({ type: 'progress', ...event });
      };
      const signal = sessionSignal(session);
      const { differingChunks } = await compareDisk({ source, disk, chunkBytes, tree, pool, signal, onProgress });
      estimates.push({ disk: id, differingChunks, differingBytes: differingChunks * chunkBytes });
    }
    return estimates;
  });
}

async function allDataBytes(sources: readonly VirtualDisk[]): Promise<number> {
  let total = 0;
  for (const source of sources) total += await dataBytes(source, 0, 1);
  return total;
}

/** The base as it stands now, under the manifest of the root. */
function liveDisk(session: Session, { replica }: OwnReplica, disk: number): FrozenDisk {
  const { tables } = replica.record.root.disks[disk]!;
  return new FrozenDisk(replica, disk, { tables, live: true }, readAccess(session));
}

/** Chunks of the live base that do not verify, as suspects for the sync. */
async function damagedRanges(session: Session, { replica }: OwnReplica): Promise<readonly SuspectRange[]> {
  return withWorkers(session, replica, async (pool) => {
    const ranges: SuspectRange[] = [];
    for (const [disk, { tables }] of replica.record.root.disks.entries()) {
      const { damage } = await verifyDisk({
        replica,
        disk,
        state: { tables, live: true },
        pool,
        access: readAccess(session),
        share: 1,
        ports: session.ports,
      });
      ranges.push(...chunkRuns(damage.map(({ chunk }) => chunk)).map((run) => ({ disk, ...run })));
      if (damage.length > 0) {
        const message = `disk d${disk}: ${damage.length} stored chunks do not verify and are sent again`;
        session.onEvent?.({ type: 'notice', code: 'TARGET_DAMAGED', message });
      }
    }
    return ranges;
  });
}
