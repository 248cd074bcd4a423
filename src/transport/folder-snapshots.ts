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

/** Undo files of all snapshots, oldest first, as they were at a version of the list; closed by its last user. */
class Chain {
  readonly version: number;
  readonly undos: readonly UndoFile[];
  #users = 0;
  #retired = false;
  #closed = false;

  constructor(version: number, undos: readonly UndoFile[]) {
    this.version = version;
    this.undos = undos;
  }

  get isRetired(): boolean {
    return this.#retired;
  }

  /** Not once it is retired. */
  async use<T>(run: (chain: Chain) => Promise<T>): Promise<T> {
    this.#users += 1;
    try {
      return await run(this);
    } finally {
      this.#users -= 1;
      await this.#closeIfUnused();
    }
  }

  /** Nobody begins to use it any more. */
  async retire(): Promise<void> {
    this.#retired = true;
    await this.#closeIfUnused();
  }

  async #closeIfUnused(): Promise<void> {
    if (!this.#retired || this.#users > 0 || this.#closed) return;
    this.#closed = true;
    await Promise.all(this.undos.map((undo) => undo.close()));
  }
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
      const chain = await this.#load();
      if (chain.isRetired) continue;
      open = await chain.use(async ({ undos }) => {
        const from = undos.findIndex((undo) => undo.number === number);
        if (from < 0) {
          // It may be newer than what is known here.
          if (await this.#isCurrent(chain)) throw this.#absent(number);
          return open;
        }
        const live = await readKept(undos.slice(from), open);
        await Promise.all(live.map((piece) => this.#readLive(piece)));
        return live.length === 0 ? [] : await this.#overtaken(chain, live);
      });
    }
  }

  /** Forgets the undo files and closes them when the last read ends; they are opened again when needed. */
  async close(): Promise<void> {
    const chain = this.#chain;
    this.#chain = undefined;
    await (await chain?.catch(() => undefined))?.retire();
  }

  /** Whether the list of snapshots is still the one of `chain`; if not, the next load looks again. */
  async #isCurrent(chain: Chain): Promise<boolean> {
    if ((await readState(this.#state)).snapshotsVersion === chain.version) return true;
    if ((await this.#chain) === chain) await this.close();
    return false;
  }

  async #readLive({ granule, from, into }: Piece): Promise<void> {
    const got = await this.#live.read(into, granule * UNDO_GRANULE_BYTES + from);
    into.fill(0, got);
  }

  /** Those of `live` that an undo file holds by now, or all if snapshots came or went. */
  async #overtaken(chain: Chain, live: readonly Piece[]): Promise<Piece[]> {
    if (!(await this.#isCurrent(chain))) return [...live];
    const newest = chain.undos.at(-1);
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
          undos.push(await UndoFile.openAt(this.#files, undoPath(this.#paths, number), 'read', number, sizeBytes));
        }
        return new Chain(version, undos);
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
