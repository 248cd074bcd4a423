/**
 * stage.json: what a stage is of, and how far it is (docs/formats/stage.md). Bytes to values and back; every list capped, every
 * number in its range, and a checksum over all of it.
 */
import { crc32 } from 'node:zlib';
import { ID_BYTES } from '../../chunker/index.ts';
import { CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, DISK_BYTES_MAX } from '../../limits.ts';
import { canonicalJson, JsonReader } from '../json.ts';
import type { PointDisk } from '../root.ts';
import { pointDiskJson, readPointDisk } from '../root-body.ts';
import type { StageIdentity } from './stage-record.ts';

const FORMAT = 'blockferry-stage';
const VERSION = 1;
const STAMP_BYTES = 32;
const COUNT_MAX = Number.MAX_SAFE_INTEGER;
const PHASES = ['staging', 'complete', 'laid'] as const;

/**
 * `staging`: the disk was never touched. `complete`: all that differs is staged, laying may have begun. `laid`: the disk has
 * it, durably.
 */
export type StagePhase = (typeof PHASES)[number];

/** The state that a stage leads to. */
export interface StagedPoint {
  readonly pointId: string;
  /** Generation. */
  readonly baseline: number;
  readonly disk: PointDisk;
}

/** How far the comparison is. */
export interface StageProgress {
  /** Stamp of the target when it was compared. */
  readonly target: Uint8Array;
  readonly staged: StagedPoint;
  /** Chunks below it were compared, and what differs of them is staged. */
  readonly cursor: number;
}

export interface StageState extends StageIdentity {
  readonly virtualSizeBytes: number;
  readonly chunkBytes: number;
  readonly phase: StagePhase;
  /** Absent before the first comparison. */
  readonly progress?: StageProgress;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export function encodeStageState(state: StageState): Uint8Array {
  const { replicaId, diskId, virtualSizeBytes, chunkBytes, phase, progress } = state;
  const body = {
    format: FORMAT,
    version: VERSION,
    replica: hex(replicaId),
    disk: hex(diskId),
    ...{ virtualSizeBytes, chunkBytes, phase },
    cursor: progress?.cursor ?? 0,
    ...(progress ? { target: hex(progress.target), staged: stagedJson(progress.staged) } : {}),
  };
  return Buffer.from(canonicalJson({ ...body, check: crc32(canonicalJson(body)) }));
}

function stagedJson({ pointId, baseline, disk }: StagedPoint) {
  return { point: pointId, baseline, disk: pointDiskJson(disk) };
}

/** @throws LOCAL_STATE */
export function decodeStageState(bytes: Uint8Array, source: string): StageState {
  const json = JsonReader.parse(bytes, source, 'LOCAL_STATE');
  json.field('format').oneOf([FORMAT]);
  json.field('version').integer(VERSION, VERSION);
  checkSum(bytes, json);
  const staged = json.optional('staged');
  const cursor = json.field('cursor').integer(0, COUNT_MAX);
  return {
    replicaId: json.field('replica').hex(ID_BYTES),
    diskId: json.field('disk').hex(ID_BYTES),
    virtualSizeBytes: json.field('virtualSizeBytes').integer(0, DISK_BYTES_MAX),
    chunkBytes: json.field('chunkBytes').integer(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
    phase: json.field('phase').oneOf(PHASES),
    ...(staged
      ? { progress: { target: json.field('target').hex(STAMP_BYTES), staged: readStaged(staged), cursor } }
      : {}),
  };
}

function readStaged(json: JsonReader): StagedPoint {
  return {
    pointId: json.field('point').string(64),
    baseline: json.field('baseline').integer(1, COUNT_MAX),
    disk: readPointDisk(json.field('disk')),
  };
}

/** The checksum is over the document as it was written, so it also tells that it is canonical. */
function checkSum(bytes: Uint8Array, json: JsonReader): void {
  const { check, ...body } = JSON.parse(Buffer.from(bytes).toString('utf8')) as Readonly<Record<string, never>>;
  if (check !== crc32(canonicalJson(body))) json.field('check').fail('is the CRC-32 of all else');
}
