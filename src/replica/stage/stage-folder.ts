/**
 * The folder of a stage (docs/formats/stage.md): made, opened again, marked, removed. What is in it is only ever changed by
 * one process: the caller holds the item's lock.
 */
import { join } from 'node:path';
import { bytesEqual, formatSize } from '../../bytes.ts';
import { chunkCount } from '../../chunker/index.ts';
import { BlockferryError } from '../../errors.ts';
import { STAGE_JSON_BYTES_MAX } from '../../limits.ts';
import type { FileSystem, RandomAccessFile } from '../../ports.ts';
import type { DiskDescription } from '../description.ts';
import type { Replica } from '../replica.ts';
import { outputError } from '../restore.ts';
import { StageIndex } from './stage-index.ts';
import { RECORD_BYTES, RecordCodec } from './stage-record.ts';
import {
  decodeStageState,
  encodeStageState,
  type StagePhase,
  type StageProgress,
  type StageState,
} from './stage-state.ts';

const STATE = 'stage.json';
const INDEX = 'stage.index';
const CHUNKS = 'stage.bin';
const OURS: readonly string[] = [STATE, INDEX, CHUNKS];

export interface OpenStageOptions {
  readonly directory: string;
  readonly replica: Pick<Replica, 'description'>;
  readonly disk: number;
  readonly files: FileSystem;
  /** What may have to be staged at worst, as far as it is known. */
  readonly neededBytes?: number;
}

/** What decides whether a folder can take a stage. */
export interface StagePlace {
  readonly directory: string;
  /** What is in it. */
  readonly names: readonly string[];
  readonly freeBytes: number;
  readonly neededBytes: number;
}

/** Why a folder cannot take a new stage; undefined if it can. */
export function stagePlaceFault({ directory, names, freeBytes, neededBytes }: StagePlace): BlockferryError | undefined {
  const foreign = names.find((name) => !isOurs(name));
  if (foreign !== undefined) {
    return new BlockferryError('OUTPUT_EXISTS', `${directory} holds "${foreign}", which is of no stage`, {
      facts: { directory, name: foreign },
      hint: 'name an empty folder, or one that does not exist yet',
    });
  }
  if (freeBytes >= neededBytes) return undefined;
  return new BlockferryError(
    'OUTPUT_FAILED',
    `${directory} has ${formatSize(freeBytes)} free, the stage may need ${formatSize(neededBytes)}`,
    { facts: { directory, freeBytes, neededBytes }, hint: 'free space there, or name a folder on another volume' },
  );
}

/** A file of a stage, or what an interrupted replacement of one left. */
function isOurs(name: string): boolean {
  return OURS.includes(name) || (name.startsWith(`${STATE}.`) && name.endsWith('.tmp'));
}

/** A stage of one disk, open. */
export class Stage {
  readonly directory: string;
  /** Number of the disk. */
  readonly disk: number;
  readonly index: StageIndex;
  /** stage.bin. */
  readonly chunks: RandomAccessFile;
  readonly #files: FileSystem;
  readonly #indexFile: RandomAccessFile;
  #state: StageState;

  constructor(
    { directory, disk, files }: OpenStageOptions,
    state: StageState,
    indexFile: RandomAccessFile,
    chunks: RandomAccessFile,
  ) {
    this.directory = directory;
    this.disk = disk;
    this.#files = files;
    this.#state = state;
    this.#indexFile = indexFile;
    this.chunks = chunks;
    this.index = new StageIndex(indexFile, new RecordCodec(state), chunkCount(state));
  }

  get phase(): StagePhase {
    return this.#state.phase;
  }

  get progress(): StageProgress | undefined {
    return this.#state.progress;
  }

  /** The disk was compared to its end, and what differed is here. */
  get isWhole(): boolean {
    return (this.progress?.cursor ?? 0) >= chunkCount(this.#state);
  }

  /** Replaces stage.json, durably. */
  async save(change: Partial<Pick<StageState, 'phase' | 'progress'>>): Promise<void> {
    const state = { ...this.#state, ...change };
    const path = join(this.directory, STATE);
    await asOutput(path, () => this.#files.replace(path, encodeStageState(state)));
    this.#state = state;
  }

  async close(): Promise<void> {
    await Promise.all([this.#indexFile.close(), this.chunks.close()]);
  }
}

/**
 * Opens the stage in a folder, or makes one.
 * @throws LOCAL_STATE if it is damaged, or another disk's; OUTPUT_EXISTS, OUTPUT_FAILED if the folder cannot take one
 */
export async function openStage(options: OpenStageOptions): Promise<Stage> {
  const { directory, replica, disk, files } = options;
  const { replicaId, disks } = replica.description;
  const { guid, virtualSizeBytes, chunkBytes } = disks[disk]!;
  const known = await readState(directory, files);
  if (known) checkSameDisk(known, replicaId, disks[disk]!, directory);
  const state = known ?? { replicaId, diskId: guid, virtualSizeBytes, chunkBytes, phase: 'staging' as const };
  if (!known) await makeStage(options, state);
  return asOutput(directory, () => openFiles(options, state));
}

async function readState(directory: string, files: FileSystem): Promise<StageState | undefined> {
  const path = join(directory, STATE);
  try {
    const bytes = await files.readSmall(path, STAGE_JSON_BYTES_MAX);
    return bytes && decodeStageState(bytes, path);
  } catch (error) {
    if (error instanceof RangeError) throw damaged(error.message, { source: path });
    throw error;
  }
}

function checkSameDisk(state: StageState, replicaId: Uint8Array, disk: DiskDescription, directory: string): void {
  const isSame =
    bytesEqual(state.replicaId, replicaId) &&
    bytesEqual(state.diskId, disk.guid) &&
    state.virtualSizeBytes === disk.virtualSizeBytes &&
    state.chunkBytes === disk.chunkBytes;
  if (isSame) return;
  throw new BlockferryError(
    'LOCAL_STATE',
    `${directory} holds the stage of another disk than ${disk.id} of this item`,
    {
      facts: { source: directory, disk: disk.id, rule: 'a stage is of one disk of one replica' },
      hint: 'name another folder',
    },
  );
}

/** Makes the files anew; stage.json comes last, so without it nothing in the folder counts. */
async function makeStage({ directory, files, neededBytes = 0 }: OpenStageOptions, state: StageState): Promise<void> {
  await asOutput(directory, async () => {
    await files.makeDirectory(directory);
    const names = (await files.list(directory)).map(({ name }) => name);
    const fault = stagePlaceFault({ directory, names, freeBytes: await files.freeBytes(directory), neededBytes });
    if (fault) throw fault;
    await files.replace(join(directory, CHUNKS), new Uint8Array(0), { ownerOnly: true });
    await files.replace(join(directory, INDEX), new Uint8Array(0), { ownerOnly: true });
    const index = await files.open(join(directory, INDEX), 'modify');
    try {
      await index.truncate(chunkCount(state) * RECORD_BYTES);
      await index.sync();
    } finally {
      await index.close();
    }
    await files.replace(join(directory, STATE), encodeStageState(state));
  });
}

async function openFiles(options: OpenStageOptions, state: StageState): Promise<Stage> {
  const { directory, files } = options;
  const index = await openFile(join(directory, INDEX), files);
  try {
    const sizeBytes = await index.sizeBytes();
    const expected = chunkCount(state) * RECORD_BYTES;
    if (sizeBytes !== expected) {
      const facts = { source: index.path, sizeBytes, expected };
      throw damaged(`${index.path} has ${sizeBytes} bytes, not ${expected}`, facts);
    }
    return new Stage(options, state, index, await openFile(join(directory, CHUNKS), files));
  } catch (error) {
    await index.close();
    throw error;
  }
}

async function openFile(path: string, files: FileSystem): Promise<RandomAccessFile> {
  try {
    return await files.open(path, 'modify');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
    throw damaged(`${path} is missing`, { source: path });
  }
}

function damaged(message: string, facts: Readonly<Record<string, string | number>>): BlockferryError {
  return new BlockferryError('LOCAL_STATE', message, {
    facts: { ...facts, rule: 'a stage is three files that belong together' },
    hint: 'remove the folder and run failback again: it compares the disk anew',
  });
}

/** Whether a stage lies there. */
export async function hasStage(directory: string, files: FileSystem): Promise<boolean> {
  return (await readState(directory, files)) !== undefined;
}

/** Whether a disk may have part of the chunks of this stage: it is none that anybody should use. */
export async function isHalfLaid(directory: string, files: FileSystem): Promise<boolean> {
  return (await readState(directory, files))?.phase === 'complete';
}

/**
 * Removes a stage, and its folder if nothing else is in it. No error if there is none.
 * @throws LOCAL_STATE while it may be half laid: the disk would stay between two states
 */
export async function discardStage(directory: string, files: FileSystem): Promise<void> {
  const state = await readState(directory, files);
  if (state?.phase === 'complete') {
    throw new BlockferryError('LOCAL_STATE', `${directory} is complete: its chunks may be in the disk in part`, {
      facts: { source: directory, phase: state.phase },
      hint: 'run failback again, which finishes it',
    });
  }
  await asOutput(directory, async () => {
    const names = (await files.list(directory)).map(({ name }) => name).filter(isOurs);
    // Without stage.json nothing of it counts: a kill behind this leaves no half stage.
    if (names.includes(STATE)) {
      await files.remove(join(directory, STATE));
      await files.syncDirectory(directory);
    }
    for (const name of names) await files.remove(join(directory, name));
    if ((await files.list(directory)).length === 0) await files.removeTree(directory);
  });
}

async function asOutput<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw outputError(error, path);
  }
}
