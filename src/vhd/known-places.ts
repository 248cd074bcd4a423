/**
 * KnownPlaces: where pieces of a disk lie in its file, as far as that was seen: so that a write into one of them asks no table.
 *
 * A place is good until the disk gives space up: a write may add places, and never takes one away. Memory is bounded: when
 * there are too many, all are forgotten.
 */
import { KIB } from '../bytes.ts';

/** Divides the blocks of every format but the smallest of VHD, which are not remembered. */
export const PIECE_BYTES: number = 256 * KIB;
/** Of 16 GiB of disk, in some 4 MiB of memory. */
const PIECES_MAX = 65_536;

export class KnownPlaces {
  /** File offsets by the number of the piece. */
  readonly #offsets: Map<number, number> = new Map();

  /** Pieces that touch [offset, offset + lengthBytes) and are not known. */
  unknown(offset: number, lengthBytes: number): readonly number[] {
    const pieces: number[] = [];
    const last = Math.floor((offset + lengthBytes - 1) / PIECE_BYTES);
    for (let piece = Math.floor(offset / PIECE_BYTES); piece <= last; piece += 1) {
      if (!this.#offsets.has(piece)) pieces.push(piece);
    }
    return pieces;
  }

  /** Whether all pieces that [offset, offset + lengthBytes) touches are known. */
  knows(offset: number, lengthBytes: number): boolean {
    const last = Math.floor((offset + lengthBytes - 1) / PIECE_BYTES);
    for (let piece = Math.floor(offset / PIECE_BYTES); piece <= last; piece += 1) {
      if (!this.#offsets.has(piece)) return false;
    }
    return true;
  }

  /** The whole of `piece` lies at `fileOffset` of the file. */
  learn(piece: number, fileOffset: number): void {
    if (this.#offsets.size >= PIECES_MAX) this.#offsets.clear();
    this.#offsets.set(piece, fileOffset);
  }

  /** Where `offset` lies, of a piece that is known. */
  fileOffset(offset: number): number {
    const piece = Math.floor(offset / PIECE_BYTES);
    const start = this.#offsets.get(piece);
    if (start === undefined) throw new RangeError(`piece ${piece} of the disk is not known`);
    return start + offset - piece * PIECE_BYTES;
  }

  /** Space of [offset, offset + lengthBytes) may be given up. */
  forget(offset: number, lengthBytes: number): void {
    const last = Math.floor((offset + lengthBytes - 1) / PIECE_BYTES);
    for (let piece = Math.floor(offset / PIECE_BYTES); piece <= last; piece += 1) this.#offsets.delete(piece);
  }
}
