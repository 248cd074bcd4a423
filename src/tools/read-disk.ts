/**
 * readDisk: the whole content of a disk in guest order, as runs of zeros and runs of bytes.
 *
 * What no file of the chain holds is never read: it arrives as one zero run, however long. Bytes are read ahead into a
 * fixed set of buffers; allocated = free + filled + held by the consumer ≤ BUFFERS × PIECE_BYTES, whatever the size of
 * the disk. The consumer gives each buffer back with `release`; until then the run is its own.
 *
 * A run of bytes never crosses a multiple of PIECE_BYTES, so every smaller power of two divides runs evenly. Zeros
 * inside data extents are not looked for: that is `nonZeroSpans`.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { MIB } from '../bytes.ts';
import { isZero } from '../chunker/index.ts';
import { BlockferryError, throwIfAborted } from '../errors.ts';
import type { Extent, VirtualDisk } from '../vhd/index.ts';

/** Bytes of one read. Large enough that a read costs more than its system call, small enough for a few in flight. */
const PIECE_BYTES = 1 * MIB;
/** Reads and writes in flight together: memory stays at 8 MiB. */
const BUFFERS = 8;
/** A hole shorter than this between data is filled with zeros in the buffer instead of ending the run. */
const HOLE_BYTES_MIN = 64 * 1024;

/** A range of the guest's disk, with its content. */
export type DiskRun =
  | { readonly kind: 'zero'; readonly offset: number; readonly lengthBytes: number }
  | {
      readonly kind: 'data';
      readonly offset: number;
      readonly lengthBytes: number;
      /** Valid until `release`. */
      readonly bytes: Uint8Array;
      /** Gives the buffer back, once; a consumer that keeps all buffers stops the reading. */
      release(): void;
    };

/** Where a tool is in its disk. */
export interface ToolProgress {
  /** Guest offset up to which all is done. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Bytes that were really read. */
  readonly readBytes: number;
}

/** What every tool that walks a disk takes. */
export interface ToolOptions {
  readonly signal?: AbortSignal;
  /** Called after each run; the callee limits its own rate. */
  readonly onProgress?: (progress: ToolProgress) => void;
}

interface ReadOptions extends ToolOptions {
  /** The longest zero run; for consumers whose work grows with it, so that they report and stop in time. */
  readonly holeBytesMax?: number;
}

interface Part {
  readonly extent: Extent;
  /** Where the part begins, counted from the start of the extent and of the piece. */
  readonly fromBytes: number;
  readonly atBytes: number;
  readonly lengthBytes: number;
}

interface Piece {
  readonly kind: 'data';
  readonly offset: number;
  lengthBytes: number;
  readonly parts: Part[];
}

interface Zeros {
  readonly kind: 'zero';
  readonly offset: number;
  lengthBytes: number;
}

/**
 * The runs of the disk, from its first to its last byte, without gaps. Closes nothing; no read is under way any more
 * when it ends, however it ends.
 * @throws DISK_UNREADABLE, ABORTED, and what the disk's own extents throw
 */
export async function* readDisk(disk: VirtualDisk, options: ReadOptions = {}): AsyncGenerator<DiskRun, void, void> {
  const totalBytes = disk.info.virtualSizeBytes;
  const pool = new BufferPool();
  const plan = planPieces(disk, options.holeBytesMax ?? Number.MAX_SAFE_INTEGER);
  const ahead: Promise<DiskRun>[] = [];
  let planned = false;
  let readBytes = 0;
  try {
    for (;;) {
      while (!planned && ahead.length < BUFFERS && (ahead.length === 0 || pool.available)) {
        throwIfAborted(options.signal);
        const step = await plan.next();
        if (step.done) planned = true;
        else ahead.push(start(step.value, step.value.kind === 'data' ? await pool.take() : undefined));
      }
      const next = ahead.shift();
      if (!next) return;
      const run = await next;
      // Holes need no I/O: without a turn of the event loop a large one would keep signals and timers waiting.
      if (run.kind === 'zero') await nextTurn();
      throwIfAborted(options.signal);
      yield run;
      if (run.kind === 'data') readBytes += run.lengthBytes;
      options.onProgress?.({ doneBytes: run.offset + run.lengthBytes, totalBytes, readBytes });
    }
  } finally {
    await Promise.allSettled(ahead);
    await plan.return();
  }

  function start(piece: Piece | Zeros, buffer: Uint8Array | undefined): Promise<DiskRun> {
    if (piece.kind === 'zero' || !buffer) return Promise.resolve(piece as Zeros);
    const bytes = buffer.subarray(0, piece.lengthBytes);
    const filled = fill(piece.parts, bytes).then(() => {
      const { offset, lengthBytes } = piece;
      return { kind: 'data', offset, lengthBytes, bytes, release: () => pool.give(buffer) } as const;
    });
    // The failure is reported when its turn comes; until then it must not count as unhandled.
    filled.catch(() => {});
    return filled;
  }
}

/** Cuts the extents of the disk into zero runs and pieces that fit a buffer. */
async function* planPieces(disk: VirtualDisk, holeBytesMax: number): AsyncGenerator<Piece | Zeros, void, void> {
  let open: Piece | Zeros | undefined;
  for await (const extent of disk.extents(0, disk.info.virtualSizeBytes)) {
    const hole = extent.kind === 'absent' || extent.kind === 'zero';
    if (hole && (open?.kind !== 'data' || extent.lengthBytes >= HOLE_BYTES_MIN)) {
      if (open?.kind !== 'zero') {
        if (open) yield open;
        open = { kind: 'zero', offset: extent.offset, lengthBytes: 0 };
      }
      open.lengthBytes += extent.lengthBytes;
      while (open.lengthBytes > holeBytesMax) {
        yield { kind: 'zero', offset: open.offset, lengthBytes: holeBytesMax };
        open = { kind: 'zero', offset: open.offset + holeBytesMax, lengthBytes: open.lengthBytes - holeBytesMax };
      }
      continue;
    }
    for (let fromBytes = 0; fromBytes < extent.lengthBytes; ) {
      const offset = extent.offset + fromBytes;
      const lengthBytes = Math.min(PIECE_BYTES - (offset % PIECE_BYTES), extent.lengthBytes - fromBytes);
      if (open?.kind !== 'data' || offset % PIECE_BYTES === 0) {
        if (open) yield open;
        open = { kind: 'data', offset, lengthBytes: 0, parts: [] };
      }
      open.parts.push({ extent, fromBytes, atBytes: open.lengthBytes, lengthBytes });
      open.lengthBytes += lengthBytes;
      fromBytes += lengthBytes;
    }
  }
  if (open) yield open;
}

async function fill(parts: readonly Part[], into: Uint8Array): Promise<void> {
  for (const { extent, fromBytes, atBytes, lengthBytes } of parts) {
    const target = into.subarray(atBytes, atBytes + lengthBytes);
    if (extent.kind === 'data') {
      const position = extent.fileOffset + fromBytes;
      target.fill(0, await readFrom(extent.file, target, position));
    } else if (extent.kind === 'memory') {
      target.set(extent.bytes.subarray(fromBytes, fromBytes + lengthBytes));
    } else {
      target.fill(0);
    }
  }
}

async function readFrom(
  file: { readonly path: string; read(into: Uint8Array, position: number): Promise<number> },
  into: Uint8Array,
  position: number,
): Promise<number> {
  try {
    return await file.read(into, position);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BlockferryError(
      'DISK_UNREADABLE',
      `${file.path}: ${into.byteLength} bytes at offset ${position} cannot be read: ${reason}`,
      { cause, facts: { source: file.path, offset: position, rule: 'every byte of the file can be read' } },
    );
  }
}

/** A fixed number of buffers, made when first needed. */
class BufferPool {
  readonly #free: Uint8Array[] = [];
  readonly #waiting: ((buffer: Uint8Array) => void)[] = [];
  #allocated = 0;

  /** Whether `take` answers at once. */
  get available(): boolean {
    return this.#free.length > 0 || this.#allocated < BUFFERS;
  }

  async take(): Promise<Uint8Array> {
    const free = this.#free.pop();
    if (free) return free;
    if (this.#allocated < BUFFERS) {
      this.#allocated += 1;
      return Buffer.allocUnsafeSlow(PIECE_BYTES);
    }
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  give(buffer: Uint8Array): void {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(buffer);
    else this.#free.push(buffer);
  }
}

/** Longest hole handed on at once where its zeros are written or hashed: some ten milliseconds of work. */
export const HOLE_RUN_BYTES: number = 16 * MIB;

const ZEROS: Uint8Array = new Uint8Array(1 * MIB);

/** `lengthBytes` of zeros as views of one shared block; nobody may write to them. */
export function* zeroBlocks(lengthBytes: number): Generator<Uint8Array, void, void> {
  for (let left = lengthBytes; left > 0; left -= ZEROS.byteLength) {
    yield left >= ZEROS.byteLength ? ZEROS : ZEROS.subarray(0, left);
  }
}

/** The unit in which zeros inside data are found: small enough to find most holes, large enough to stay sequential. */
const ZERO_UNIT_BYTES = 64 * 1024;

/** A part of a run's bytes. */
export interface Span {
  readonly fromBytes: number;
  readonly lengthBytes: number;
}

/** The parts of `bytes`, whose guest offset is `offset`, that lie in a 64 KiB unit of the disk that is not all zeros. */
export function nonZeroSpans(bytes: Uint8Array, offset: number): Span[] {
  const spans: Span[] = [];
  let spanStart = -1;
  for (let from = 0; from < bytes.byteLength; ) {
    const to = Math.min(bytes.byteLength, from + ZERO_UNIT_BYTES - ((offset + from) % ZERO_UNIT_BYTES));
    const zero = isZero(bytes.subarray(from, to));
    if (zero && spanStart >= 0) {
      spans.push({ fromBytes: spanStart, lengthBytes: from - spanStart });
      spanStart = -1;
    } else if (!zero && spanStart < 0) {
      spanStart = from;
    }
    from = to;
  }
  if (spanStart >= 0) spans.push({ fromBytes: spanStart, lengthBytes: bytes.byteLength - spanStart });
  return spans;
}
