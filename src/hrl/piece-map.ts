/**
 * PieceMap: which bytes of a disk a log decides, as disjoint pieces in disk order. Ranges come newest first; of a range
 * only what no newer one covers is taken.
 *
 * It holds at most `piecesMax` pieces. One more, and the map gives up the upper half of its region: `limitOffset` falls,
 * and what lies at or above it is left to another pass. Pieces stand in sorted chunks of typed arrays, 32 bytes each.
 */
import assert from 'node:assert';

/** Part of a disk, and where its bytes stand. */
export interface Piece {
  readonly byteOffset: number;
  readonly lengthBytes: number;
  /** Where in the log. */
  readonly fileOffset: number;
  /** What the caller gave with the range. */
  readonly tag: number;
}

const CHUNK_PIECES = 256;
/** start, end, fileOffset, tag */
const FIELDS = 4;

interface Chunk {
  count: number;
  readonly fields: Float64Array;
}

export class PieceMap {
  readonly #fromOffset: number;
  readonly #piecesMax: number;
  #limitOffset: number;
  #chunks: Chunk[] = [];
  #count = 0;

  /** A map of [fromOffset, limitOffset). */
  constructor(fromOffset: number, limitOffset: number, piecesMax: number) {
    assert(piecesMax >= 2);
    this.#fromOffset = fromOffset;
    this.#limitOffset = limitOffset;
    this.#piecesMax = piecesMax;
  }

  /** Where the region of this map ends by now. */
  get limitOffset(): number {
    return this.#limitOffset;
  }

  get pieceCount(): number {
    return this.#count;
  }

  /** Takes what is not covered of [byteOffset, byteOffset + lengthBytes). */
  cover(byteOffset: number, lengthBytes: number, fileOffset: number, tag: number): void {
    const take = (start: number, end: number): void => {
      const clippedEnd = Math.min(end, this.#limitOffset);
      if (start < clippedEnd) this.#insert(start, clippedEnd, fileOffset + start - byteOffset, tag);
    };
    const end = Math.min(byteOffset + lengthBytes, this.#limitOffset);
    let at = Math.max(byteOffset, this.#fromOffset);
    while (at < end) {
      const piece = this.#firstEndingAfter(at);
      take(at, Math.min(end, piece?.start ?? end));
      at = piece?.end ?? end;
    }
  }

  /** All pieces in disk order. */
  *pieces(): Generator<Piece, void, void> {
    for (const { count, fields } of this.#chunks) {
      for (let i = 0; i < count * FIELDS; i += FIELDS) {
        const byteOffset = fields[i]!;
        yield { byteOffset, lengthBytes: fields[i + 1]! - byteOffset, fileOffset: fields[i + 2]!, tag: fields[i + 3]! };
      }
    }
  }

  #firstEndingAfter(offset: number): { readonly start: number; readonly end: number } | undefined {
    const chunk = this.#chunks[this.#chunkEndingAfter(offset)];
    if (chunk === undefined) return undefined;
    const at = indexEndingAfter(chunk, offset) * FIELDS;
    return { start: chunk.fields[at]!, end: chunk.fields[at + 1]! };
  }

  /** The first chunk that has a piece ending behind `offset`. */
  #chunkEndingAfter(offset: number): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { count, fields } = this.#chunks[middle]!;
      if (fields[(count - 1) * FIELDS + 1]! > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** The range touches no piece that is there. */
  #insert(start: number, end: number, fileOffset: number, tag: number): void {
    if (this.#chunks.length === 0) this.#chunks.push(emptyChunk());
    // Behind all others it goes into the last chunk.
    let at = Math.min(this.#chunkEndingAfter(start), this.#chunks.length - 1);
    let chunk = this.#chunks[at]!;
    if (chunk.count === CHUNK_PIECES) {
      const upper = splitChunk(chunk);
      this.#chunks.splice(at + 1, 0, upper);
      if (start >= upper.fields[0]!) {
        at += 1;
        chunk = upper;
      }
    }
    const from = indexEndingAfter(chunk, start) * FIELDS;
    chunk.fields.copyWithin(from + FIELDS, from, chunk.count * FIELDS);
    chunk.fields.set([start, end, fileOffset, tag], from);
    chunk.count += 1;
    this.#count += 1;
    if (this.#count > this.#piecesMax) this.#giveUpUpperHalf();
  }

  #giveUpUpperHalf(): void {
    let left = this.#count >>> 1;
    this.#count = left;
    for (const [i, chunk] of this.#chunks.entries()) {
      if (left >= chunk.count) {
        left -= chunk.count;
        continue;
      }
      this.#limitOffset = chunk.fields[left * FIELDS]!;
      chunk.count = left;
      this.#chunks.length = left === 0 ? i : i + 1;
      return;
    }
  }
}

function emptyChunk(): Chunk {
  return { count: 0, fields: new Float64Array(CHUNK_PIECES * FIELDS) };
}

/** The index of the first piece that ends behind `offset`; the count if there is none. */
function indexEndingAfter({ count, fields }: Chunk, offset: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (fields[middle * FIELDS + 1]! > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Takes the upper half out of a full chunk. */
function splitChunk(chunk: Chunk): Chunk {
  const upper = emptyChunk();
  const middle = CHUNK_PIECES / 2;
  upper.fields.set(chunk.fields.subarray(middle * FIELDS));
  upper.count = CHUNK_PIECES - middle;
  chunk.count = middle;
  return upper;
}
