/**
 * Reading a shipped log: its pieces, in order, as a stream (docs/formats/shipped-log.md).
 *
 * Ranges of the object are fetched a little ahead, cut into frames, and opened by workers, a few frames at a time. Memory is
 * bounded by `aheadBytes` and two frames, whatever the length of the log. What comes out is what was shipped, byte for byte
 * and in its order, or an error; the pieces that came before the error are authentic.
 */
import { KIB, MIB } from '../bytes.ts';
import {
  LOG_FRAME_BYTES_MAX,
  LOG_FRAME_HEADER_BYTES,
  LogOrder,
  type LogPiece,
  logFault,
  logFrameBytes,
} from '../chunker/index.ts';
import type { OpenFrameResult, WorkerPool } from '../workers/index.ts';
import { committed, type ReadAccess } from './frozen-disk.ts';
import { logKey } from './layout.ts';
import type { Replica } from './replica.ts';
import type { ShippedLog } from './root.ts';

export type { LogPiece };

const AHEAD_BYTES_DEFAULT: number = 16 * MIB;
const REQUEST_BYTES_MIN: number = 64 * KIB;
const REQUEST_BYTES_MAX: number = 4 * MIB;
/** Under way at a time, so that the store never waits for us. */
const REQUESTS_AHEAD = 2;

/** How a log is read. */
export interface LogAccess extends ReadAccess {
  readonly pool: Pick<WorkerPool, 'openFrame' | 'threads'>;
  /** Bytes that are fetched and opened ahead; less for whoever reads many logs at a time. */
  readonly aheadBytes?: number;
  /** Gets each range of the object as the store has it, in order; the frames in it are opened behind that. */
  readonly onRange?: (bytes: Uint8Array) => Promise<void>;
}

/**
 * The pieces of a log, by disk, then offset; none overlap. A piece is good until the next is asked for.
 * @throws REPLICA_LOG
 */
export async function* readShippedLog(
  replica: Replica,
  log: ShippedLog,
  access: LogAccess,
): AsyncGenerator<LogPiece, void, void> {
  const diskBytes = replica.description.disks.map(({ virtualSizeBytes }) => virtualSizeBytes);
  const order = new LogOrder(log.seq, diskBytes);
  let dataBytes = 0;
  for await (const { frame, plaintext } of openFrames(replica, log, access)) {
    for (const piece of order.pieces(plaintext, frame)) {
      dataBytes += piece.bytes?.byteLength ?? 0;
      yield piece;
    }
  }
  if (dataBytes !== log.dataBytes) throw logFault(log.seq, log.frames - 1, 'data adds up to what the root says');
}

/** The plaintexts of all frames, in order; each is good until the next is asked for. */
async function* openFrames(
  replica: Replica,
  log: ShippedLog,
  access: LogAccess,
): AsyncGenerator<{ readonly frame: number; readonly plaintext: Uint8Array }, void, void> {
  const { pool, aheadBytes = AHEAD_BYTES_DEFAULT } = access;
  const framesAhead = Math.max(1, Math.min(pool.threads + 1, Math.floor(aheadBytes / 4 / LOG_FRAME_BYTES_MAX)));
  const cutter = new FrameCutter(replica, log, access, aheadBytes / 4);
  const spare: ArrayBuffer[] = [];
  const opening: Promise<OpenFrameResult>[] = [];
  try {
    for (let frame = 0, next = 0; frame < log.frames; frame += 1) {
      for (; next < log.frames && next < frame + framesAhead; next += 1) {
        const buffer = spare.pop() ?? new ArrayBuffer(LOG_FRAME_BYTES_MAX);
        const frameBytes = await cutter.cut(next, new Uint8Array(buffer));
        opening.push(awaitedLater(pool.openFrame({ kind: 'open-frame', log, frame: next, frameBytes, buffer })));
      }
      const { buffer, plaintextBytes } = await opening.shift()!;
      yield { frame, plaintext: new Uint8Array(buffer, 0, plaintextBytes) };
      spare.push(buffer);
    }
  } finally {
    await Promise.allSettled([cutter.close(), ...opening]);
  }
}

/** Cuts the object of a log into its frames, one after the other. */
class FrameCutter {
  readonly #log: ShippedLog;
  readonly #requestBytes: number;
  readonly #read: (offset: number, lengthBytes: number) => Promise<Uint8Array>;
  readonly #ended: AbortController = new AbortController();
  readonly #onRange: LogAccess['onRange'];
  /** Ranges on their way, in order, and how far they go. */
  readonly #requests: Promise<Uint8Array>[] = [];
  #requestedBytes = 0;
  /** The range that is being cut, and how much of it and of the object is. */
  #range: Uint8Array = new Uint8Array(0);
  #rangeBytes = 0;
  #position = 0;

  constructor(replica: Replica, log: ShippedLog, access: LogAccess, requestBytes: number) {
    const { lanes, signal: outer, onRange } = access;
    const key = logKey(log);
    const signal = AbortSignal.any([outer, this.#ended.signal]);
    const { sizeBytes } = log;
    this.#log = log;
    this.#onRange = onRange;
    this.#requestBytes = Math.max(REQUEST_BYTES_MIN, Math.min(REQUEST_BYTES_MAX, Math.floor(requestBytes)));
    this.#read = (offset, lengthBytes) =>
      committed(key, 'REPLICA_LOG', () =>
        lanes.run(lengthBytes, () => replica.store.read(key, offset, lengthBytes, { signal, sizeBytes }), { signal }),
      );
  }

  /** Puts the next frame into `into` (LOG_FRAME_BYTES_MAX long) and returns its length. @throws REPLICA_LOG */
  async cut(frame: number, into: Uint8Array): Promise<number> {
    const { seq, frames, sizeBytes } = this.#log;
    await this.#take(frame, into.subarray(0, LOG_FRAME_HEADER_BYTES));
    const frameBytes = logFrameBytes(into, seq, frame);
    await this.#take(frame, into.subarray(LOG_FRAME_HEADER_BYTES, frameBytes));
    if ((this.#position === sizeBytes) !== (frame === frames - 1)) {
      throw logFault(seq, frame, `the object ends with frame ${frames - 1}`);
    }
    return frameBytes;
  }

  /** Ends what is under way, and waits for it. */
  async close(): Promise<void> {
    this.#ended.abort();
    await Promise.allSettled(this.#requests);
  }

  async #take(frame: number, into: Uint8Array): Promise<void> {
    const { seq, sizeBytes } = this.#log;
    if (this.#position + into.byteLength > sizeBytes) throw logFault(seq, frame, 'the frame ends inside the object');
    for (let done = 0; done < into.byteLength; ) {
      if (this.#rangeBytes === this.#range.byteLength) await this.#nextRange();
      const part = this.#range.subarray(this.#rangeBytes, this.#rangeBytes + into.byteLength - done);
      into.set(part, done);
      done += part.byteLength;
      this.#rangeBytes += part.byteLength;
    }
    this.#position += into.byteLength;
  }

  async #nextRange(): Promise<void> {
    const { sizeBytes } = this.#log;
    while (this.#requests.length <= REQUESTS_AHEAD && this.#requestedBytes < sizeBytes) {
      const lengthBytes = Math.min(this.#requestBytes, sizeBytes - this.#requestedBytes);
      this.#requests.push(awaitedLater(this.#read(this.#requestedBytes, lengthBytes)));
      this.#requestedBytes += lengthBytes;
    }
    this.#range = await this.#requests.shift()!;
    this.#rangeBytes = 0;
    await this.#onRange?.(this.#range);
  }
}

/** The same promise; that it may fail before somebody waits for it is no fault. */
function awaitedLater<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
