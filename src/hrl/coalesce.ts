/**
 * Coalescing: what a chain of logs leaves on the disk, each range once, with the bytes of its newest write.
 *
 * The logs are played in reverse, newest write first, over a map of what is covered; only metadata is read. Where the
 * map would grow beyond its bound, the disk is done in several regions, one pass over the metadata for each. So the
 * memory is bounded, whatever the length of the logs. Within 512-byte sectors nothing is rounded.
 */
import { DISK_BYTES_MAX, HRL_PIECES_MAX } from '../limits.ts';
import type { ChangeLog } from './change-log.ts';
import type { LogWrite } from './log-writer.ts';
import { isZeroEntry } from './metadata-block.ts';
import { PieceMap } from './piece-map.ts';

/** A range of the disk, and where its newest bytes stand. */
export interface LogRange {
  readonly byteOffset: number;
  readonly lengthBytes: number;
  readonly log: ChangeLog;
  readonly fileOffset: number;
  /** It is all zeros, so it needs not be read: mostly it is a hole. */
  readonly zero: boolean;
  /** Of the write, in log time. */
  readonly timeStamp: number;
}

export interface CoalesceOptions {
  readonly signal?: AbortSignal | undefined;
  /** Pieces of the disk kept in memory. */
  readonly piecesMax?: number;
}

/** A tag is the number of a log, whether a write is zeros, and its time: they fit into a safe integer. */
const TIME_RANGE = 2 ** 32;

/**
 * Ranges in disk order; none overlap.
 * @param logs Oldest first, as `orderChain` returns them; open until the last range was taken
 * @throws HRL_BLOCK, HRL_ENTRY, HRL_TORN, DISK_UNREADABLE, ABORTED
 */
export async function* coalesceLogs(
  logs: readonly ChangeLog[],
  { signal, piecesMax = HRL_PIECES_MAX }: CoalesceOptions = {},
): AsyncGenerator<LogRange, void, void> {
  for (let fromOffset = 0; fromOffset < DISK_BYTES_MAX; ) {
    const map = new PieceMap(fromOffset, DISK_BYTES_MAX, piecesMax);
    for (const [i, log] of [...logs.entries()].reverse()) {
      for await (const { entries } of log.blocksNewestFirst({ signal })) {
        for (let n = entries.length - 1; n >= 0; n -= 1) {
          const entry = entries[n]!;
          const source = i * 2 + (isZeroEntry(entry) ? 1 : 0);
          map.cover(entry.byteOffset, entry.dataLength, entry.fileOffset, source * TIME_RANGE + entry.timeStamp);
        }
      }
    }
    for (const { byteOffset, lengthBytes, fileOffset, tag } of map.pieces()) {
      const source = Math.floor(tag / TIME_RANGE);
      const log = logs[source >>> 1]!;
      yield { byteOffset, lengthBytes, log, fileOffset, zero: source % 2 === 1, timeStamp: tag % TIME_RANGE };
    }
    fromOffset = map.limitOffset;
  }
}

/**
 * The ranges as writes: zeros by their length, bytes in pieces of at most `buffer`. A piece is good until the next is
 * asked for.
 */
export async function* readRanges(
  ranges: AsyncIterable<LogRange>,
  buffer: Buffer,
): AsyncGenerator<Required<LogWrite>, void, void> {
  for await (const { byteOffset, lengthBytes, log, fileOffset, zero, timeStamp } of ranges) {
    if (zero) yield { byteOffset, zeroBytes: lengthBytes, timeStamp };
    else {
      for (let done = 0; done < lengthBytes; ) {
        const bytes = buffer.subarray(0, Math.min(buffer.byteLength, lengthBytes - done));
        await log.read(bytes, fileOffset + done);
        yield { byteOffset: byteOffset + done, bytes, timeStamp };
        done += bytes.byteLength;
      }
    }
  }
}
