/**
 * The first half of a delta failback: what differs between a disk and a recovery point is staged beside the disk, which is only
 * read. Where the disk stood still and the replica went on, only what the two trees have differently is looked at.
 *
 * Interrupted at any instant, a later run goes on: chunks that were compared are not read again while the disk is the same, and
 * chunks that are durably staged are not fetched again whatever happened.
 */
import { bytesEqual } from '../../bytes.ts';
import { chunkCount } from '../../chunker/index.ts';
import { BlockferryError } from '../../errors.ts';
import type { Ports } from '../../ports.ts';
import type { VirtualDisk } from '../../vhd/index.ts';
import type { WorkerPool } from '../../workers/index.ts';
import { compareWindows, differingChunks } from '../compare-windows.ts';
import type { DiskDescription } from '../description.ts';
import { FrozenDisk, type ReadAccess } from '../frozen-disk.ts';
import type { Replica } from '../replica.ts';
import { type Baseline, baselineOf, isProcessed, type RecoveryPoint } from '../root.ts';
import { sourceChanged, sourceStamp } from '../source-stamp.ts';
import { treeDifferences } from '../tree-differences.ts';
import { type FillCounts, StageFill } from './stage-fill.ts';
import type { Stage } from './stage-folder.ts';
import type { StagedPoint } from './stage-state.ts';

/** A stage and the recovery point that it is to lead to, which must be processed. */
export interface StageSetup {
  readonly stage: Stage;
  readonly replica: Replica;
  readonly point: RecoveryPoint;
  readonly pool: WorkerPool;
  readonly access: ReadAccess;
  readonly ports: Pick<Ports, 'clock' | 'failpoint'>;
}

export interface DeltaSetup extends StageSetup {
  /** The disk as it lies there; nobody may write to it. */
  readonly target: VirtualDisk;
  readonly onProgress?: (progress: StageProgressCounts) => void;
}

export interface StageCounts extends Readonly<FillCounts> {
  /** Bytes of the disk that were read. */
  readonly readBytes: number;
  readonly differingChunks: number;
}

export interface StageProgressCounts extends StageCounts {
  /** Bytes of the disk that are settled, of its virtual size. */
  readonly doneBytes: number;
  readonly totalBytes: number;
}

/**
 * Compares the whole disk with a point and stages what differs.
 * @throws USAGE for a point with logs to play; SOURCE_CHANGED for a disk of another size or that is being written; REPLICA_SLOT
 * and others if anything fetched does not verify; OUTPUT_FAILED
 */
export async function stageDelta(setup: DeltaSetup): Promise<StageCounts> {
  const { stage, target, pool, access, ports } = setup;
  const { frozen, staged } = openPoint(setup);
  checkTarget(target, frozen.description);
  assertStaging(stage);
  const stamp = await sourceStamp([target]);
  const { progress } = stage;
  const goesOn = progress && bytesEqual(progress.target, stamp) && progress.staged.baseline === staged.baseline;
  const firstChunk = goesOn ? progress.cursor : 0;
  const counts = { readBytes: 0, differingChunks: 0 };
  const { virtualSizeBytes, chunkBytes } = frozen.description;
  const fill = new StageFill({
    ...{ stage, frozen, pool, ports, firstChunk, signal: access.signal },
    progressAt: (cursor) => ({ target: stamp, staged, cursor }),
  });
  const compare = { source: target, disk: stage.disk, chunkBytes, tree: frozen.tree, firstChunk, pool };
  const differing = async function* (): AsyncGenerator<number> {
    for await (const window of compareWindows({ ...compare, signal: access.signal })) {
      counts.readBytes += window.readBytes;
      for await (const chunk of differingChunks(window, frozen.tree)) {
        counts.differingChunks += 1;
        yield chunk;
      }
      await fill.pass(window.to);
      const doneBytes = Math.min(window.to * chunkBytes, virtualSizeBytes);
      setup.onProgress?.({ ...counts, ...fill.counts, doneBytes, totalBytes: virtualSizeBytes });
    }
  };
  await fill.run(differing());
  if (!bytesEqual(await sourceStamp([target]), stamp)) throw sourceChanged(target.info.chain);
  return { ...counts, ...fill.counts };
}

/**
 * Brings a stage that is whole from its point to a newer one: looks only at chunks that the trees have differently, and not
 * into pages that are the same in both. The disk must be as it was when it was compared.
 * @throws as stageDelta, and USAGE while the stage is not whole; REPLICA_MANIFEST if the staged point's snapshot is gone
 */
export async function catchUp(setup: DeltaSetup): Promise<StageCounts> {
  const { stage, replica, target, pool, access, ports } = setup;
  const { frozen, staged } = openPoint(setup);
  checkTarget(target, frozen.description);
  assertStaging(stage);
  const { progress } = stage;
  if (!progress || progress.cursor < chunkCount(frozen.description)) throw notWhole(stage);
  if (!bytesEqual(await sourceStamp([target]), progress.target)) throw sourceChanged(target.info.chain);
  const counts = { readBytes: 0, differingChunks: 0 };
  const fill = new StageFill({ stage, frozen, pool, ports, signal: access.signal });
  if (progress.staged.baseline !== staged.baseline) {
    const before = new FrozenDisk(replica, stage.disk, progress.staged.disk, access);
    const differing = async function* (): AsyncGenerator<number> {
      for await (const chunk of treeDifferences(before.tree, frozen.tree)) {
        counts.differingChunks += 1;
        yield chunk;
      }
    };
    await fill.run(differing());
  }
  await stage.save({ progress: { ...progress, staged } });
  return { ...counts, ...fill.counts };
}

/** A point's disk for reading, and what stage.json says of it. */
export function openPoint({ stage, replica, point, access }: Omit<StageSetup, 'pool' | 'ports'>): {
  readonly frozen: FrozenDisk;
  readonly staged: StagedPoint;
} {
  const baseline = processedBaseline(replica, point);
  const disk = baseline.disks[stage.disk]!;
  return {
    frozen: new FrozenDisk(replica, stage.disk, disk, access),
    staged: { pointId: point.id, baseline: baseline.generation, disk },
  };
}

/** The baseline that has all of a point. @throws USAGE if there are logs to play over it */
export function processedBaseline({ record: { root } }: Replica, point: RecoveryPoint): Baseline {
  if (!isProcessed(root, point)) {
    throw new BlockferryError('USAGE', `point ${point.id} has logs that are not in its baseline yet`, {
      facts: { point: point.id, baseline: point.baseline, log: point.log },
      hint: 'run apply first',
    });
  }
  return baselineOf(root, point);
}

/** @throws SOURCE_CHANGED */
export function checkTarget({ info }: VirtualDisk, { id, virtualSizeBytes }: DiskDescription): void {
  if (info.virtualSizeBytes === virtualSizeBytes) return;
  const source = info.chain[0]!;
  throw new BlockferryError(
    'SOURCE_CHANGED',
    `${source} has ${info.virtualSizeBytes} bytes, disk ${id} of the replica ${virtualSizeBytes}`,
    {
      facts: { source, virtualSizeBytes: info.virtualSizeBytes, expected: virtualSizeBytes },
      hint: 'a disk of another size cannot be brought up to date in place: run failback --mode full',
    },
  );
}

export function notWhole({ directory }: Stage): BlockferryError {
  return new BlockferryError('USAGE', `${directory}: the disk was not compared to its end`, {
    facts: { source: directory, rule: 'a stage is whole before it is brought further or laid' },
    hint: 'run failback again, which goes on comparing',
  });
}

function assertStaging({ directory, phase }: Stage): void {
  if (phase === 'staging') return;
  throw new BlockferryError('USAGE', `${directory} is ${phase}: nothing is staged into it any more`, {
    facts: { source: directory, phase },
    hint: phase === 'complete' ? 'lay it into the disk first' : 'remove it, and stage anew',
  });
}
