/**
 * Bringing back: the disks of a recovery point as new files in a directory.
 *
 * Needs the store and a key, nothing of the source's host. All disks of the item come back or none: each file gets its
 * final name only when all of them are written and verified.
 */
import { extname, join } from 'node:path';
import { formatSize } from '../../bytes.ts';
import { BlockferryError } from '../../errors.ts';
import {
  baselineOf,
  type DiskDescription,
  FrozenDisk,
  isProcessed,
  logsOf,
  outputError,
  type PlayCounts,
  playLogs,
  type RecoveryPoint,
  type Replica,
  type RestoreCounts,
  type Root,
  restoreDisk,
} from '../../replica/index.ts';
import { createDisk, type DiskFormat, type DiskWriter } from '../../vhd/index.ts';
import type { WorkerPool } from '../../workers/index.ts';
import { KeptWorkers, latestPoint, readAccess, withPinned } from '../open-item.ts';
import type { FailoverReport, Session } from '../types.ts';

export interface BringBackRequest {
  readonly outDirectory: string;
  readonly format?: DiskFormat;
}

/** Writes the disks of a point, which is pinned while it is read, into a directory. */
export async function bringBack(
  session: Session,
  replica: Replica,
  point: RecoveryPoint,
  request: BringBackRequest,
): Promise<FailoverReport> {
  const workers = new KeptWorkers(session);
  try {
    // The first of them loads while the point is pinned and the place is looked at.
    await workers.of(replica);
    return await withPinned(session, replica, point, async (pinned, at) =>
      writeDisks(session, pinned, at, request, await workers.of(pinned)),
    );
  } finally {
    await workers.close();
  }
}

async function writeDisks(
  session: Session,
  replica: Replica,
  point: RecoveryPoint,
  request: BringBackRequest,
  pool: WorkerPool,
): Promise<FailoverReport> {
  const { clock, files } = session.ports;
  const startedMs = clock.monotonicMs();
  await files.makeDirectory(request.outDirectory).catch((error: unknown) => {
    throw outputError(error, request.outDirectory);
  });
  await checkSpace(session, replica, point, request.outDirectory);
  const format = request.format ?? 'vhdx';
  const paths = outputPaths(replica.description.disks, request.outDirectory, format);
  const { counts, played } = await restoreAll(session, replica, point, paths, format, pool);
  const { root } = replica.record;
  return {
    item: replica.description.item,
    pointId: point.id,
    pointTimeMs: point.timeMs,
    generation: root.generation,
    freshness: replica.freshness,
    disks: replica.description.disks.map((disk, i) => ({
      disk: disk.id,
      path: paths[i]!,
      virtualSizeBytes: disk.virtualSizeBytes,
      writtenBytes: counts[i]!.writtenBytes + played.writtenBytes[i]!,
      transferredBytes: counts[i]!.fetchedBytes,
    })),
    logs: played.logs,
    logBytes: played.fetchedBytes,
    elapsedMs: clock.monotonicMs() - startedMs,
  };
}

/** The point that `wanted` names: latest…, an id, or the newest at or before a time. */
export function choosePoint(replica: Replica, wanted: string): RecoveryPoint {
  const { root } = replica.record;
  if (wanted === 'latest') return latestPoint(replica);
  const found = root.points.filter(matching(root, wanted)).at(-1);
  if (found) return found;
  throw new BlockferryError('POINT_NOT_FOUND', `item "${replica.description.item}" has no recovery point "${wanted}"`, {
    facts: { point: wanted, points: root.points.length },
    hint: 'list them with: blockferry points; or take --point latest',
  });
}

function matching(root: Root, wanted: string): (point: RecoveryPoint) => boolean {
  if (wanted === 'latest-processed') return (point) => isProcessed(root, point);
  if (wanted === 'latest-app-consistent') return ({ consistency }) => consistency === 'app';
  if (root.points.some(({ id }) => id === wanted)) return ({ id }) => id === wanted;
  const timeMs = Date.parse(wanted);
  return (point) => point.timeMs <= timeMs;
}

/** `web.vhdx` restored as raw becomes `web.raw`; two disks of one name get their ids behind it. */
export function outputPaths(
  disks: readonly DiskDescription[],
  directory: string,
  format: DiskFormat,
): readonly string[] {
  const stems = disks.map(({ name }) => name.slice(0, name.length - extname(name).length) || name);
  return disks.map(({ id }, i) => {
    const stem = stems[i]!;
    const unique = stems.filter((other) => other.toLowerCase() === stem.toLowerCase()).length === 1;
    return join(directory, `${unique ? stem : `${stem}-${id}`}.${format}`);
  });
}

async function checkSpace(session: Session, replica: Replica, point: RecoveryPoint, directory: string): Promise<void> {
  const access = readAccess(session);
  const { disks } = baselineOf(replica.record.root, point);
  let neededBytes = logsOf(replica.record.root, point).reduce((sum, { dataBytes }) => sum + dataBytes, 0);
  for (const [i, disk] of replica.description.disks.entries()) {
    const frozen = new FrozenDisk(replica, i, disks[i]!, access);
    neededBytes += (await frozen.countUsed()) * disk.chunkBytes;
  }
  const freeBytes = await session.ports.files.freeBytes(directory);
  if (freeBytes >= neededBytes) return;
  throw new BlockferryError(
    'OUTPUT_FAILED',
    `${directory} has ${formatSize(freeBytes)} free, the disks of point ${point.id} need ${formatSize(neededBytes)}`,
    { facts: { directory, freeBytes, neededBytes }, hint: 'free space there, or choose another --out' },
  );
}

async function restoreAll(
  session: Session,
  replica: Replica,
  point: RecoveryPoint,
  paths: readonly string[],
  format: DiskFormat,
  pool: WorkerPool,
): Promise<{ readonly counts: readonly RestoreCounts[]; readonly played: PlayCounts }> {
  const { ports } = session;
  const writers: DiskWriter[] = [];
  const counts: RestoreCounts[] = [];
  let finished = 0;
  try {
    for (const [disk, description] of replica.description.disks.entries()) {
      const writer = await openOutput(session, paths[disk]!, description, format);
      writers.push(writer);
      const onProgress = (done: RestoreCounts): void => {
        const { doneBytes, totalBytes, fetchedBytes } = done;
        const event = {
          phase: 'restore',
          disk: description.id,
          doneBytes,
          totalBytes,
          transferredBytes: fetchedBytes,
        } as const;
        session.onEvent?.({ type: 'progress', ...event });
      };
      counts.push(
        await restoreDisk({ replica, point, disk, writer, pool, access: readAccess(session), ports, onProgress }),
      );
    }
    const played = await playLogs({
      replica,
      point,
      writers,
      access: { ...readAccess(session), pool },
      ports,
      onProgress: ({ fetchedBytes, totalBytes }) =>
        session.onEvent?.({
          ...{ type: 'progress', phase: 'restore', disk: 'logs', doneBytes: fetchedBytes, totalBytes },
          transferredBytes: fetchedBytes,
        }),
    });
    for (const writer of writers) {
      await writer.finish();
      finished += 1;
      await ports.failpoint('restore.after-rename');
    }
    return { counts, played };
  } catch (error) {
    for (const writer of writers.slice(finished)) await writer.abort();
    throw error;
  }
}

/** Starts a disk; what a killed run left under the temporary name is in nobody's use any more. */
async function openOutput(
  session: Session,
  path: string,
  { virtualSizeBytes, logicalSectorBytes, physicalSectorBytes }: DiskDescription,
  format: DiskFormat,
): Promise<DiskWriter> {
  const { ports } = session;
  await ports.files.remove(`${path}.partial`);
  return createDisk(path, {
    format,
    subformat: format === 'raw' ? 'fixed' : 'dynamic',
    virtualSizeBytes,
    ...(format === 'vhdx' ? { logicalSectorBytes, physicalSectorBytes } : {}),
    // Byte for byte means the size as well; rounding up for a cloud is `convert`'s business.
    azureSize: false,
    ports,
  });
}
