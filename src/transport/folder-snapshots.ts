/**
 * Reading snapshots of a page blob in a folder, also while another process writes the blob.
 *
 * Granule g at snapshot S stands in the undo file of S, else in that of the next newer snapshot …, else in the live
 * file. The live file may change at any moment, but its writer keeps the old content first: if, after reading live
 * bytes, the undo files still do not hold the granule, then the bytes were those of the snapshot. Else it is read again.
 */
import { BlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { isErrno } from './folder-errors.ts';
import { type BlobPaths, snapshotName, snapshotNumbers, undoPath } from './folder-layout.ts';
import { readState } from './folder-state.ts';
import { UNDO_GRANULE_BYTES, UndoFile } from './folder-undo.ts';

/** Undo files of all snapshots, oldest first, as they were at a version of the list. */
interface Chain {
  readonly version: number;
  readonly undos: readonly UndoFile[];
}

/** A piece of a read inside one granule. */
interface Piece {
  readonly granule: number;
  readonly from: number;
  readonly into: Buffer;
}

function piecesOf(into: Buffer, offset: number): Piece[] {
  const pieces: Piece[] = [];
  for (let done = 0; done < into.byteLength; ) {
    const from = (offset + done) % UNDO_GRANULE_BYTES;
    const length = Math.min(UNDO_GRANULE_BYTES - from, into.byteLength - done);
    const granule = (offset + done - from) / UNDO_GRANULE_BYTES;
    pieces.push({ granule, from, into: into.subarray(done, done + length) });
    done += length;
  }
  return pieces;
}

export class SnapshotReader {
  readonly #files: FileSystem;
  readonly #paths: BlobPaths;
  readonly #live: RandomAccessFile;
  readonly #state: RandomAccessFile;
  #chain: Promise<Chain> | undefined;

  constructor(files: FileSystem, paths: BlobPaths, live: RandomAccessFile, state: RandomAccessFile) {
    this.#files = files;
    this.#paths = paths;
    this.#live = live;
    this.#state = state;
  }

  /** Fills `into` with bytes of snapshot `number` from `offset`. @throws STORE_NOT_FOUND */
  async read(number: number, into: Buffer, offset: number): Promise<void> {
    let open = piecesOf(into, offset);
    while (open.length > 0) {
      const { undos } = await this.#load();
      const from = undos.findIndex((undo) => undo.number === number);
      if (from < 0) throw this.#absent(number);
      const live = await readKept(undos.slice(from), open);
      await Promise.all(live.map((piece) => this.#readLive(piece)));
      open = live.length === 0 ? [] : await this.#overtaken(live);
    }
  }

  /** Forgets and closes the undo files; they are opened again when needed. */
  async close(): Promise<void> {
    const chain = this.#chain;
    this.#chain = undefined;
    const undos = (await chain?.catch(() => undefined))?.undos ?? [];
    await Promise.all(undos.map((undo) => undo.close()));
  }

  async #readLive({ granule, from, into }: Piece): Promise<void> {
    const got = await this.#live.read(into, granule * UNDO_GRANULE_BYTES + from);
    into.fill(0, got);
  }

  /** Those of `live` that an undo file holds by now, or all if snapshots came or went. */
  async #overtaken(live: readonly Piece[]): Promise<Piece[]> {
    const { version, undos } = await this.#load();
    if ((await readState(this.#state)).snapshotsVersion !== version) {
      await this.close();
      return [...live];
    }
    const newest = undos.at(-1);
    await newest?.refresh();
    return live.filter((piece) => newest?.holds(piece.granule));
  }

  #load(): Promise<Chain> {
    this.#chain ??= this.#open().catch((error: unknown) => {
      this.#chain = undefined;
      throw error;
    });
    return this.#chain;
  }

  async #open(): Promise<Chain> {
    for (;;) {
      const { snapshotsVersion: version, sizeBytes } = await readState(this.#state);
      const undos: UndoFile[] = [];
      try {
        for (const number of await snapshotNumbers(this.#files, this.#paths)) {
          const file = await this.#files.open(undoPath(this.#paths, number), 'read');
          undos.push(await UndoFile.open(file, number, sizeBytes));
        }
        return { version, undos };
      } catch (error) {
        await Promise.all(undos.map((undo) => undo.close()));
        // Deleted between listing and opening: then the version has moved on as well.
        if (!isErrno(error, 'ENOENT') || (await readState(this.#state)).removed) throw error;
      }
    }
  }

  #absent(number: number): BlockferryError {
    return new BlockferryError('STORE_NOT_FOUND', `${this.#paths.live} has no snapshot ${snapshotName(number)}`, {
      facts: { source: this.#paths.live, snapshot: number },
    });
  }
}

/** Fills what the undo files hold, oldest first, and returns the rest. */
async function readKept(undos: readonly UndoFile[], pieces: readonly Piece[]): Promise<Piece[]> {
  const rest: Piece[] = [];
  const reads: Promise<boolean>[] = [];
  for (const piece of pieces) {
    const undo = undos.find((file) => file.holds(piece.granule));
    if (undo) reads.push(undo.read(piece.granule, piece.from, piece.into));
    else rest.push(piece);
  }
  await Promise.all(reads);
  return rest;
}
