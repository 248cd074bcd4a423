/**
 * Planning the frames of a shipped log: coalesced ranges of change logs, cut so that each frame holds as much as it may. No
 * byte is read here.
 */
import { LOG_ZEROS_BYTES_MAX } from '../chunker/index.ts';
import type { ChangeLog, LogRange } from '../hrl/index.ts';
import { LOG_FRAME_DATA_BYTES_MAX, LOG_FRAME_RECORDS_MAX } from '../limits.ts';
import { PIECE_FIELDS, PIECE_SOURCE } from '../workers/index.ts';

/** Bytes that no worker can read: they are read here, and sent along. */
export interface SentPiece {
  readonly log: ChangeLog;
  readonly fileOffset: number;
  readonly lengthBytes: number;
  /** Where in the buffer of the task. */
  readonly bufferOffset: number;
}

export interface PlannedFrame {
  /** As a SealFrameTask takes them. */
  readonly pieces: Float64Array;
  readonly sent: readonly SentPiece[];
  /** Bytes of disk that it covers, zeros included. */
  readonly coveredBytes: number;
  /** The disk that it ends on. */
  readonly disk: number;
}

/** @param disks Ranges of each disk of the item, in the order of the disk, none overlapping */
export async function* planFrames(disks: readonly AsyncIterable<LogRange>[]): AsyncGenerator<PlannedFrame, void, void> {
  let frame = new FramePlan();
  for (const [disk, ranges] of disks.entries()) {
    for await (const range of ranges) {
      for (let done = 0; done < range.lengthBytes; ) {
        const taken = frame.take(disk, range, done);
        done += taken;
        if (taken > 0) continue;
        yield frame.planned();
        frame = new FramePlan();
      }
    }
  }
  if (frame.pieceCount > 0) yield frame.planned();
}

class FramePlan {
  readonly #fields: number[] = [];
  readonly #sent: SentPiece[] = [];
  #dataBytes = 0;
  #sentBytes = 0;
  #coveredBytes = 0;
  #disk = 0;

  get pieceCount(): number {
    return this.#fields.length / PIECE_FIELDS;
  }

  /** Takes as much of the range behind its first `done` bytes as fits; returns how much, 0 if the frame is full. */
  take(disk: number, range: LogRange, done: number): number {
    if (this.pieceCount === LOG_FRAME_RECORDS_MAX) return 0;
    const { byteOffset, lengthBytes, log, fileOffset, zero } = range;
    const room = zero ? LOG_ZEROS_BYTES_MAX : LOG_FRAME_DATA_BYTES_MAX - this.#dataBytes;
    const taken = Math.min(lengthBytes - done, room);
    if (taken === 0) return 0;
    const place = [disk, byteOffset + done, taken] as const;
    const { descriptor } = log.file;
    if (zero) {
      this.#fields.push(...place, PIECE_SOURCE.zeros, 0);
    } else {
      this.#dataBytes += taken;
      if (descriptor !== undefined) this.#fields.push(...place, descriptor, fileOffset + done);
      else this.#send(place, log, fileOffset + done);
    }
    this.#coveredBytes += taken;
    this.#disk = disk;
    return taken;
  }

  planned(): PlannedFrame {
    const pieces = Float64Array.from(this.#fields);
    return { pieces, sent: this.#sent, coveredBytes: this.#coveredBytes, disk: this.#disk };
  }

  #send(place: readonly [number, number, number], log: ChangeLog, fileOffset: number): void {
    const bufferOffset = this.#sentBytes;
    this.#fields.push(...place, PIECE_SOURCE.sent, bufferOffset);
    this.#sent.push({ log, fileOffset, lengthBytes: place[2], bufferOffset });
    this.#sentBytes += place[2];
  }
}
