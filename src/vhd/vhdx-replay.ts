/**
 * Replay of a VHDX log in memory: ReplayOverlay holds what the log changes, and is laid over everything that is read
 * from the file behind it. The file itself stays as it is.
 *
 * Logged changes are whole 4 KiB pages and ranges of zeros, in order; the newest wins. The winners are found on the
 * descriptors alone, newest first over the cuts that all ranges make (each piece is painted once), so neither overlap
 * nor huge zero ranges cost anything. Only pages that win are then read, into one pool in file order: neighbouring
 * pages are neighbours in memory too.
 */
import type { BlockferryError } from '../errors.ts';
import { VHDX_REPLAY_BYTES_MAX } from '../limits.ts';
import { vhdxFault } from './vhdx-layout.ts';
import type { ActiveSequence } from './vhdx-log.ts';
import {
  DESCRIPTOR_BYTES,
  descriptorsIn,
  LOG_SECTOR_BYTES,
  PAGE_LEADING_BYTES,
  PAGE_TRAILING_BYTES,
  parseDescriptor,
} from './vhdx-log-entry.ts';

/** Memory per descriptor while winners are sought: the tables of Changes and of `paint`, rounded up. */
const BYTES_PER_DESCRIPTOR = 96;
const NOBODY = -1;
const ZEROS = -1;

/** A part of a range of the file: as the file has it, zeros, or these bytes (a view; do not write). */
export type OverlayPiece =
  | { readonly kind: 'file' | 'zero'; readonly offset: number; readonly lengthBytes: number }
  | { readonly kind: 'memory'; readonly offset: number; readonly lengthBytes: number; readonly bytes: Uint8Array };

/** What a log changes in its file. */
export class ReplayOverlay {
  /** The file is at least this long after replay. */
  readonly lastFileOffset: number;
  /** Disjoint, ascending, in file offsets. */
  readonly #starts: readonly number[];
  readonly #ends: readonly number[];
  /** Where in the pool the bytes of a range begin, or ZEROS. */
  readonly #poolOffsets: readonly number[];
  readonly #pool: Uint8Array;

  constructor(ranges: OverlayRanges, pool: Uint8Array, lastFileOffset: number) {
    this.#starts = ranges.starts;
    this.#ends = ranges.ends;
    this.#poolOffsets = ranges.poolOffsets;
    this.#pool = pool;
    this.lastFileOffset = lastFileOffset;
  }

  /** [fileOffset, fileOffset + lengthBytes) in pieces, in order, without gaps. */
  *pieces(fileOffset: number, lengthBytes: number): Generator<OverlayPiece> {
    const end = fileOffset + lengthBytes;
    let offset = fileOffset;
    for (let i = firstAbove(this.#ends, fileOffset); i < this.#starts.length && this.#starts[i]! < end; i += 1) {
      const start = Math.max(this.#starts[i]!, offset);
      const pieceBytes = Math.min(this.#ends[i]!, end) - start;
      if (start > offset) yield { kind: 'file', offset, lengthBytes: start - offset };
      const poolOffset = this.#poolOffsets[i]!;
      if (poolOffset === ZEROS) {
        yield { kind: 'zero', offset: start, lengthBytes: pieceBytes };
      } else {
        const from = poolOffset + start - this.#starts[i]!;
        const bytes = this.#pool.subarray(from, from + pieceBytes);
        yield { kind: 'memory', offset: start, lengthBytes: pieceBytes, bytes };
      }
      offset = start + pieceBytes;
    }
    if (offset < end) yield { kind: 'file', offset, lengthBytes: end - offset };
  }

  /** Makes of bytes read from `fileOffset` what they are after replay. */
  patch(into: Uint8Array, fileOffset: number): void {
    for (const piece of this.pieces(fileOffset, into.byteLength)) {
      const at = piece.offset - fileOffset;
      if (piece.kind === 'memory') into.set(piece.bytes, at);
      else if (piece.kind === 'zero') into.fill(0, at, at + piece.lengthBytes);
    }
  }
}

interface OverlayRanges {
  readonly starts: number[];
  readonly ends: number[];
  readonly poolOffsets: number[];
}

/** All changes of a sequence in order, as parallel columns: there may be a million of them. */
interface Changes {
  readonly count: number;
  readonly starts: Float64Array;
  readonly ends: Float64Array;
  /** Offset of the data sector in the ring, or ZEROS. */
  readonly sectors: Float64Array;
  /** The 12 bytes of each page that its descriptor carries. */
  readonly edges: Uint8Array;
}

/** Reads what a sequence changes. @throws VHDX_LOG if that is more than limits.VHDX_REPLAY_BYTES_MAX */
export async function replayInMemory(sequence: ActiveSequence, source: string): Promise<ReplayOverlay> {
  const changes = await collectChanges(sequence, source);
  const { cuts, owners } = paint(changes);
  const ranges: OverlayRanges = { starts: [], ends: [], poolOffsets: [] };
  const poolOffsetOf = new Map<number, number>();
  for (let i = 0; i < owners.length; i += 1) {
    const owner = owners[i]!;
    if (owner === NOBODY) continue;
    const isZero = changes.sectors[owner] === ZEROS;
    const poolOffset = isZero ? ZEROS : poolOffsetOf.size * LOG_SECTOR_BYTES;
    if (poolOffset >= VHDX_REPLAY_BYTES_MAX) throw tooLarge('changes more than that', sequence, source);
    if (!isZero) poolOffsetOf.set(owner, poolOffset);
    appendRange(ranges, cuts[i]!, cuts[i + 1]!, poolOffset);
  }
  const pool = new Uint8Array(poolOffsetOf.size * LOG_SECTOR_BYTES);
  // In log order, so that the ring's window moves through the log once.
  for (const owner of [...poolOffsetOf.keys()].sort((a, b) => a - b)) {
    const page = pool.subarray(poolOffsetOf.get(owner)!).subarray(0, LOG_SECTOR_BYTES);
    page.set(await sequence.ring.sector(changes.sectors[owner]!));
    const edge = owner * (PAGE_LEADING_BYTES + PAGE_TRAILING_BYTES);
    page.set(changes.edges.subarray(edge, edge + PAGE_LEADING_BYTES), 0);
    const trailing = changes.edges.subarray(edge + PAGE_LEADING_BYTES).subarray(0, PAGE_TRAILING_BYTES);
    page.set(trailing, LOG_SECTOR_BYTES - PAGE_TRAILING_BYTES);
  }
  return new ReplayOverlay(ranges, pool, Number(sequence.head.lastFileOffset));
}

async function collectChanges(sequence: ActiveSequence, source: string): Promise<Changes> {
  const count = sequence.entries.reduce((sum, entry) => sum + entry.descriptorCount, 0);
  if (count * BYTES_PER_DESCRIPTOR > VHDX_REPLAY_BYTES_MAX) throw tooLarge(`has ${count} changes`, sequence, source);
  const starts = new Float64Array(count);
  const ends = new Float64Array(count);
  const sectors = new Float64Array(count);
  const edges = new Uint8Array(count * (PAGE_LEADING_BYTES + PAGE_TRAILING_BYTES));
  let n = 0;
  for (const entry of sequence.entries) {
    let dataOffset = entry.offset + entry.descriptorSectors * LOG_SECTOR_BYTES;
    for (let i = 0; i < entry.descriptorSectors; i += 1) {
      const bytes = await sequence.ring.sector(entry.offset + i * LOG_SECTOR_BYTES);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const descriptors = descriptorsIn(entry, i);
      for (let k = 0; k < descriptors.count; k += 1) {
        const at = descriptors.from + k * DESCRIPTOR_BYTES;
        const descriptor = parseDescriptor(view, at, entry.sequenceNumber, sequence.ring.placement);
        if (typeof descriptor === 'string') throw changedMeanwhile(sequence, source);
        starts[n] = descriptor.fileOffset;
        ends[n] = descriptor.fileOffset + descriptor.lengthBytes;
        sectors[n] = descriptor.kind === 'data' ? dataOffset : ZEROS;
        if (descriptor.kind === 'data') {
          dataOffset += LOG_SECTOR_BYTES;
          const edge = n * (PAGE_LEADING_BYTES + PAGE_TRAILING_BYTES);
          edges.set(bytes.subarray(at + 8, at + 16), edge);
          edges.set(bytes.subarray(at + 4, at + 8), edge + PAGE_LEADING_BYTES);
        }
        n += 1;
      }
    }
  }
  return { count, starts, ends, sectors, edges };
}

/** The newest change of each piece between two cuts; NOBODY where there is none. */
function paint(changes: Changes): { readonly cuts: Float64Array; readonly owners: Int32Array } {
  const cuts = sortedUnique(changes.starts, changes.ends);
  const pieceCount = Math.max(0, cuts.length - 1);
  const owners = new Int32Array(pieceCount).fill(NOBODY);
  // skip[i]: the first piece from i on that may still be unpainted; paths are halved as they are walked.
  const skip = Int32Array.from({ length: pieceCount + 1 }, (_, i) => i);
  const unpainted = (from: number): number => {
    let i = from;
    while (skip[i] !== i) {
      skip[i] = skip[skip[i]!]!;
      i = skip[i]!;
    }
    return i;
  };
  for (let change = changes.count - 1; change >= 0; change -= 1) {
    const end = changes.ends[change]!;
    const first = firstAbove(cuts, changes.starts[change]!) - 1;
    for (let i = unpainted(first); i < pieceCount && cuts[i]! < end; i = unpainted(i)) {
      owners[i] = change;
      skip[i] = i + 1;
    }
  }
  return { cuts, owners };
}

function appendRange(ranges: OverlayRanges, start: number, end: number, poolOffset: number): void {
  const last = ranges.ends.length - 1;
  const lastPool = ranges.poolOffsets[last];
  const continues =
    ranges.ends[last] === start &&
    lastPool !== undefined &&
    (poolOffset === ZEROS ? lastPool === ZEROS : lastPool !== ZEROS);
  if (continues) {
    ranges.ends[last] = end;
    return;
  }
  ranges.starts.push(start);
  ranges.ends.push(end);
  ranges.poolOffsets.push(poolOffset);
}

function sortedUnique(a: Float64Array, b: Float64Array): Float64Array {
  const all = new Float64Array(a.length + b.length);
  all.set(a, 0);
  all.set(b, a.length);
  all.sort();
  let kept = 0;
  for (let i = 0; i < all.length; i += 1) {
    if (i > 0 && all[i] === all[i - 1]) continue;
    all[kept] = all[i]!;
    kept += 1;
  }
  return all.subarray(0, kept);
}

/** Index of the first element of an ascending array that is greater than `value`. */
function firstAbove(ascending: ArrayLike<number>, value: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

function tooLarge(what: string, sequence: ActiveSequence, source: string): BlockferryError {
  const rule = `replay needs at most ${VHDX_REPLAY_BYTES_MAX} bytes of memory`;
  return vhdxFault('VHDX_LOG', source, sequence.ring.placement.offset, rule, `log ${what}`);
}

function changedMeanwhile(sequence: ActiveSequence, source: string): BlockferryError {
  const rule = 'the file does not change while it is opened';
  return vhdxFault('SOURCE_CHANGED', source, sequence.ring.placement.offset, rule, 'log changed while it was read');
}
