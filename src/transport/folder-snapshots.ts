/**
 * Reading snapshots of a page blob in a folder, also while another process writes the blob.
 *
 * Granule g at snapshot S stands in the undo file of S, else in that of the next newer snapshot …, else in the live
 * file. The live file may change at any moment, but its writer keeps the old content first: if, after reading live
 * bytes, the undo files still do not hold the granule, then the bytes were those of the snapshot. Else it is read again.
 * Reads that end at the same time share that look: it must begin after them, and tells of all of them.
 */
import { BlockferryError } from '../errors.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { isErrno } from './folder-errors.ts';
import { type BlobPaths, snapshotName, snapshotNumbers, undoPath } from './folder-layout.ts';
import type { StateFile } from './folder-state.ts';
import { UNDO_GRANULE_BYTES, UndoFile } from './folder-undo.ts';
import { allDone, GroupCommit } from './gate.ts';

/** Undo files of all snapshots, oldest first, as they were at a version of the list; closed by its last user. */
class Chain {
  readonly undos: readonly UndoFile[];
  readonly #version: number;
  readonly #state: StateFile;
  readonly #looks: GroupCommit<undefined> = new GroupCommit(() => this.#look());
  #isCurrent = true;
  #users = 0;
  #retired = false;
  #closed = false;

  constructor(version: number, undos: readonly UndoFile[], state: StateFile) {
    this.#version = version;
    this.undos = undos;
    this.#state = state;
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

  /** Takes in what writers have kept until now; false if snapshots came or went, or the blob was removed. */
  async refresh(): Promise<boolean> {
    await this.#looks.add(undefined);
    return this.#isCurrent;
  }

  /** Nobody begins to use it any more. */
  async retire(): Promise<void> {
    this.#retired = true;
    await this.#closeIfUnused();
  }

  async #look(): Promise<void> {
    const { snapshotsVersion, removed } = await this.#state.read();
    this.#isCurrent = snapshotsVersion === this.#version && !removed;
    if (this.#isCurrent) await this.undos.at(-1)?.refresh();
  }

  async #closeIfUnused(): Promise<void> {
    if (!this.#retired || this.#users > 0 || this.#closed) return;
    this.#closed = true;
    await Promise.all(this.undos.map((undo) => undo.close()));
  }
}

/** A piece of a read: inside one granule, or a run of such pieces. */
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
  readonly #state: StateFile;
  #chain: Promise<Chain | undefined> | undefined;

  constructor(files: FileSystem, paths: BlobPaths, live: RandomAccessFile, state: StateFile) {
    this.#files = files;
    this.#paths = paths;
    this.#live = live;
    this.#state = state;
  }

  /** Fills `into` with bytes of snapshot `number` from `offset`; false if the blob was removed. @throws STORE_NOT_FOUND */
  async read(number: number, into: Uint8Array, offset: number): Promise<boolean> {
    let open: readonly Piece[] = piecesOf(Buffer.from(into.buffer, into.byteOffset, into.byteLength), offset);
    while (open.length > 0) {
      const chain = await this.#load();
      if (chain === undefined) return false;
      if (!chain.isRetired) open = await chain.use(() => this.#readFrom(chain, number, open));
    }
    return true;
  }

  /** Forgets the undo files and closes them when the last read ends; they are opened again when needed. */
  async close(): Promise<void> {
    const chain = this.#chain;
    this.#chain = undefined;
    await (await chain?.catch(() => undefined))?.retire();
  }

  /** Fills `pieces` and returns those that have to be read again. */
  async #readFrom(chain: Chain, number: number, pieces: readonly Piece[]): Promise<readonly Piece[]> {
    const from = chain.undos.findIndex((undo) => undo.number === number);
    if (from >= 0) {
      const live = await readKept(chain.undos.slice(from), pieces);
      await allDone(runsOf(live).map((run) => this.#readLive(run)));
      if (await chain.refresh()) return live.filter(({ granule }) => chain.undos.at(-1)!.holds(granule));
    } else if (await chain.refresh()) throw this.#absent(number);
    // What is known here is out of date, and so may be what was read, or said not to be there.
    if ((await this.#chain) === chain) await this.close();
    return pieces;
  }

  async #readLive({ granule, from, into }: Piece): Promise<void> {
    const got = await this.#live.read(into, granule * UNDO_GRANULE_BYTES + from);
    into.fill(0, got);
  }

  #load(): Promise<Chain | undefined> {
    this.#chain ??= this.#open().catch((error: unknown) => {
      this.#chain = undefined;
      throw error;
    });
    return this.#chain;
  }

  /** undefined if the blob was removed. */
  async #open(): Promise<Chain | undefined> {
    for (;;) {
      const { snapshotsVersion: version, sizeBytes, removed } = await this.#state.read();
      if (removed) return undefined;
      const undos: UndoFile[] = [];
      try {
        for (const number of await snapshotNumbers(this.#files, this.#paths)) {
          undos.push(await UndoFile.openAt(this.#files, undoPath(this.#paths, number), 'read', number, sizeBytes));
        }
        return new Chain(version, undos, this.#state);
      } catch (error) {
        await Promise.all(undos.map((undo) => undo.close()));
        // Deleted between listing and opening: then the version has moved on as well.
        if (!isErrno(error, 'ENOENT')) throw error;
      }
    }
  }

  #absent(number: number): BlockferryError {
    return new BlockferryError('STORE_NOT_FOUND', `${this.#paths.live} has no snapshot ${snapshotName(number)}`, {
      facts: { source: this.#paths.live, snapshot: number },
    });
  }
}

/** Joins what lies side by side, in the blob and so in memory. */
function runsOf(pieces: readonly Piece[]): readonly Piece[] {
  const runs: Piece[] = [];
  for (let first = 0; first < pieces.length; ) {
    let last = first;
    while (pieces[last + 1]?.granule === pieces[last]!.granule + 1) last += 1;
    const { granule, from, into } = pieces[first]!;
    const end = pieces[last]!.into;
    const lengthBytes = end.byteOffset + end.byteLength - into.byteOffset;
    runs.push({ granule, from, into: Buffer.from(into.buffer, into.byteOffset, lengthBytes) });
    first = last + 1;
  }
  return runs;
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
  await allDone(reads);
  return rest;
}
