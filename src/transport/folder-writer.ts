/**
 * The writing side of a page blob in a folder: what must be durable before a byte of the live file changes.
 *
 * Invariants:
 * - a granule of the map is marked, durably, before a byte in it changes;
 * - while a snapshot exists, a granule's old content is in the newest undo file, durably, before it changes for the
 *   first time since that snapshot;
 * - two writers of one granule (slots are not aligned to granules) both wait for the one that keeps it.
 */
import { divCeil } from '../bytes.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { isErrno } from './folder-errors.ts';
import { type BlobPaths, snapshotNumbers, undoPath } from './folder-layout.ts';
import { WrittenMap } from './folder-map.ts';
import { newRecord, type OldContent, oldBytesOf, UNDO_GRANULE_BYTES, UndoFile } from './folder-undo.ts';
import { filledRuns, isAllZero } from './folder-zeros.ts';
import { allDone } from './gate.ts';

export class FolderWriter {
  readonly map: WrittenMap;
  readonly #live: RandomAccessFile;
  readonly #mapFile: RandomAccessFile | undefined;
  readonly #newest: UndoFile | undefined;
  /** Granules whose old content is on its way to the undo file. */
  readonly #keeping = new Map<number, Promise<void>>();

  private constructor(
    live: RandomAccessFile,
    map: WrittenMap,
    mapFile: RandomAccessFile | undefined,
    newest: UndoFile | undefined,
  ) {
    this.#live = live;
    this.map = map;
    this.#mapFile = mapFile;
    this.#newest = newest;
  }

  /**
   * Makes durable first what it will rely on: a process that was killed may have left marks, records and names that can be
   * seen but would not survive a power cut.
   */
  static async open(
    files: FileSystem,
    paths: BlobPaths,
    live: RandomAccessFile,
    sizeBytes: number,
  ): Promise<FolderWriter> {
    const mapFile = await openIfThere(files, paths.map);
    let newest: UndoFile | undefined;
    try {
      const map = await WrittenMap.load(mapFile, sizeBytes);
      await mapFile?.sync();
      const number = (await snapshotNumbers(files, paths)).at(-1);
      if (number !== undefined) {
        newest = await UndoFile.openAt(files, undoPath(paths, number), 'modify', number, sizeBytes);
        await newest.settle();
      }
      return new FolderWriter(live, map, mapFile, newest);
    } catch (error) {
      await newest?.close();
      await mapFile?.close();
      throw error;
    }
  }

  /** Returns when the range may be changed: marked in the map, old content kept. */
  async prepare(offset: number, lengthBytes: number): Promise<void> {
    const keeping = this.#newest ? this.#keep(this.#newest, offset, lengthBytes) : [];
    await allDone([...keeping, this.map.mark(offset, lengthBytes)]);
  }

  /**
   * Makes the range (a few MiB) zeros, touching only granules that hold something else: writing zeros into a hole
   * would fill it. `onPrepared` runs before each change.
   */
  async zero(offset: number, lengthBytes: number, onPrepared: () => Promise<void>): Promise<void> {
    const bytes = Buffer.allocUnsafeSlow(lengthBytes);
    bytes.fill(0, await this.#live.read(bytes, offset));
    const changes: Promise<void>[] = [];
    for (const { start, end } of filledRuns(bytes, offset)) {
      const zeros = bytes.subarray(start, end).fill(0);
      const change = async (): Promise<void> => {
        await this.prepare(offset + start, zeros.byteLength);
        await onPrepared();
        await this.#live.write(zeros, offset + start);
      };
      changes.push(change());
    }
    await allDone(changes);
  }

  async close(): Promise<void> {
    await this.#newest?.close();
    await this.#mapFile?.close();
  }

  #keep(newest: UndoFile, offset: number, lengthBytes: number): Promise<void>[] {
    const end = divCeil(offset + lengthBytes, UNDO_GRANULE_BYTES);
    const waits = new Set<Promise<void>>();
    const isFresh = (g: number): boolean => !newest.holds(g) && !this.#keeping.has(g);
    for (let g = Math.floor(offset / UNDO_GRANULE_BYTES); g < end; ) {
      const started = this.#keeping.get(g);
      if (started !== undefined) waits.add(started);
      if (!isFresh(g)) {
        g += 1;
        continue;
      }
      const first = g;
      while (g < end && isFresh(g)) g += 1;
      waits.add(this.#keepRun(newest, first, g - first));
    }
    return [...waits];
  }

  #keepRun(newest: UndoFile, firstGranule: number, granules: number): Promise<void> {
    // Asked now, before this or a neighbouring write marks the map.
    const written = this.map.touches(firstGranule * UNDO_GRANULE_BYTES, granules * UNDO_GRANULE_BYTES);
    const kept = this.#readOld(firstGranule, granules, written)
      .then((old) => newest.append(old))
      .finally(() => {
        for (let i = 0; i < granules; i += 1) this.#keeping.delete(firstGranule + i);
      });
    for (let i = 0; i < granules; i += 1) this.#keeping.set(firstGranule + i, kept);
    return kept;
  }

  async #readOld(firstGranule: number, granules: number, written: boolean): Promise<OldContent> {
    if (!written) return { firstGranule, granules, record: undefined };
    const record = newRecord(granules);
    const bytes = oldBytesOf(record);
    const got = await this.#live.read(bytes, firstGranule * UNDO_GRANULE_BYTES);
    bytes.fill(0, got);
    return { firstGranule, granules, record: isAllZero(bytes) ? undefined : record };
  }
}

/** Opens to modify; undefined if there is no such file. */
async function openIfThere(files: FileSystem, path: string): Promise<RandomAccessFile | undefined> {
  try {
    return await files.open(path, 'modify');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
