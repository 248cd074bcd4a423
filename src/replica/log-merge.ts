/**
 * Several shipped logs as one: chunk after chunk, in the order of disks and chunks, what all of them together say, the newest
 * bytes of each place.
 *
 * A log names its pieces in that order too, so one pass over all of them side by side is enough. Memory: what one piece of
 * each log needs. Zeros that a guest trimmed by the terabyte come as one span.
 */
import { MIB } from '../bytes.ts';
import { chunkCount, type DiskGeometry, type LogPiece } from '../chunker/index.ts';
import { type ChunkRun, joinRuns } from './chunk-runs.ts';
import type { Replica } from './replica.ts';
import type { ShippedLog } from './root.ts';
import { type LogAccess, readShippedLog } from './shipped-log.ts';

/** Logs that are merged at a time; whoever has more of them does it in rounds. */
export const LOGS_PER_ROUND = 16;
/** Read ahead of one log, and of all logs of a round together. */
const AHEAD_BYTES: number = 16 * MIB;
const ROUND_AHEAD_BYTES: number = 16 * MIB;

/** Shipped logs, oldest first, as one. */
export function mergeLogs(replica: Replica, logs: readonly ShippedLog[], access: LogAccess): LogMerge {
  const aheadBytes = Math.min(AHEAD_BYTES, Math.floor(ROUND_AHEAD_BYTES / logs.length));
  const read = (log: ShippedLog) => readShippedLog(replica, log, { ...access, aheadBytes });
  return new LogMerge(logs.map(read), replica.description.disks);
}

/** Where the logs say something next. */
export type LogStep =
  /** A chunk of which a part or all is new: to be taken with `compose`. */
  | { readonly kind: 'patch'; readonly disk: number; readonly chunk: number }
  /** Chunks [from, to) that are zeros now, whatever they were. */
  | { readonly kind: 'zeros'; readonly disk: number; readonly from: number; readonly to: number };

/** One log, as far as it was taken. */
class LogCursor {
  readonly #pieces: AsyncIterator<LogPiece>;
  #piece: LogPiece | undefined;
  /** What was taken of the piece. */
  #takenBytes = 0;

  constructor(pieces: AsyncIterable<LogPiece>) {
    this.#pieces = pieces[Symbol.asyncIterator]();
  }

  /** Goes on to the next piece. */
  async advance(): Promise<void> {
    const next = await this.#pieces.next();
    this.#piece = next.done ? undefined : next.value;
    this.#takenBytes = 0;
  }

  /** The rest of the piece that is next; undefined at the end. */
  get rest():
    | { readonly disk: number; readonly from: number; readonly to: number; readonly isZeros: boolean }
    | undefined {
    if (!this.#piece) return undefined;
    const { disk, offset, lengthBytes, bytes } = this.#piece;
    return { disk, from: offset + this.#takenBytes, to: offset + lengthBytes, isZeros: bytes === undefined };
  }

  /** Takes what the log says of bytes [from, to) of a disk; nothing before them may be left. */
  async take(
    disk: number,
    to: number,
    each: (from: number, to: number, bytes: Uint8Array | undefined) => void,
  ): Promise<void> {
    for (let rest = this.rest; rest && rest.disk === disk && rest.from < to; rest = this.rest) {
      const end = Math.min(rest.to, to);
      const start = this.#takenBytes;
      this.#takenBytes += end - rest.from;
      each(rest.from, end, this.#piece!.bytes?.subarray(start, this.#takenBytes));
      if (end === rest.to) await this.advance();
    }
  }

  async close(): Promise<void> {
    await this.#pieces.return?.();
  }
}

export class LogMerge {
  readonly #logs: readonly LogCursor[];
  readonly #disks: readonly DiskGeometry[];
  #started = false;
  #dataBytes = 0;

  /** @param logs Oldest first */
  constructor(logs: readonly AsyncIterable<LogPiece>[], disks: readonly DiskGeometry[]) {
    this.#logs = logs.map((log) => new LogCursor(log));
    this.#disks = disks;
  }

  /** Bytes of data taken so far from all logs. */
  get dataBytes(): number {
    return this.#dataBytes;
  }

  /** The next step; undefined at the end. The step before it must have been taken. */
  async next(): Promise<LogStep | undefined> {
    if (!this.#started) await Promise.all(this.#logs.map((log) => log.advance()));
    this.#started = true;
    const rests = this.#logs.flatMap(({ rest }) => rest ?? []);
    if (rests.length === 0) return undefined;
    const { disk, from } = rests.reduce((a, b) => (b.disk < a.disk || (b.disk === a.disk && b.from < a.from) ? b : a));
    const chunk = Math.floor(from / this.#disks[disk]!.chunkBytes);
    const to = this.#zerosUntil(disk, chunk);
    return to > chunk ? { kind: 'zeros', disk, from: chunk, to } : { kind: 'patch', disk, chunk };
  }

  /**
   * Lays what is new of a chunk into `into`, as long as the chunk, each byte in its place; returns which parts that are, as
   * a set. The other bytes of `into` stay as they are.
   */
  async compose(disk: number, chunk: number, into: Uint8Array): Promise<readonly ChunkRun[]> {
    const start = chunk * this.#disks[disk]!.chunkBytes;
    const parts: ChunkRun[] = [];
    for (const log of this.#logs) {
      await log.take(disk, start + into.byteLength, (from, to, bytes) => {
        if (bytes) into.set(bytes, from - start);
        else into.fill(0, from - start, to - start);
        this.#dataBytes += bytes?.byteLength ?? 0;
        parts.push({ from: from - start, to: to - start });
      });
    }
    return joinRuns(parts);
  }

  /** Goes past chunks below `to`. */
  async skip(disk: number, to: number): Promise<void> {
    const { chunkBytes } = this.#disks[disk]!;
    for (const log of this.#logs) {
      await log.take(disk, to * chunkBytes, (_from, _to, bytes) => {
        this.#dataBytes += bytes?.byteLength ?? 0;
      });
    }
  }

  async close(): Promise<void> {
    for (const log of this.#logs) await log.close();
  }

  /** The end of the chunks from `chunk` on that some log makes zeros and no newer one touches; `chunk` if there is none. */
  #zerosUntil(disk: number, chunk: number): number {
    const geometry = this.#disks[disk]!;
    let untouched = chunkCount(geometry);
    for (const { rest } of this.#logs.toReversed()) {
      if (!rest || rest.disk !== disk) continue;
      if (rest.isZeros && rest.from === chunk * geometry.chunkBytes) {
        return Math.min(
          untouched,
          rest.to === geometry.virtualSizeBytes ? untouched : Math.floor(rest.to / geometry.chunkBytes),
        );
      }
      untouched = Math.min(untouched, Math.floor(rest.from / geometry.chunkBytes));
    }
    return chunk;
  }
}
