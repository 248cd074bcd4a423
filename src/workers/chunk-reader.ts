/**
 * The chunks of a scan, read one after the other into the room where the kernel works on them.
 *
 * Whole chunks that follow one another in a file, as those of a raw disk do, are read together, ahead of their turn: calls of
 * the system for single chunks take a tenth of a compare pass. All others are put together from their ranges, with zeros between.
 */
import { readRange } from './file-ranges.ts';
import { RANGE_FIELDS, type ScanTask } from './protocol.ts';

export class ChunkReader {
  readonly #task: Pick<ScanTask, 'ranges' | 'inline'>;
  readonly #chunkBytes: number;
  readonly #room: Buffer;
  /** Of the next range. */
  #at = 0;
  /** Chunks (indexes in the batch) that stand in the room from its front on. */
  #readFrom = 0;
  #readTo = 0;
  #readBytes = 0;

  /** `room` takes a chunk at least; it is written over with each call that reads. */
  constructor(task: Pick<ScanTask, 'ranges' | 'inline'>, chunkBytes: number, room: Buffer) {
    this.#task = task;
    this.#chunkBytes = chunkBytes;
    this.#room = room;
  }

  /** Bytes from files in the chunks that were given out. */
  get readBytes(): number {
    return this.#readBytes;
  }

  /** The chunk with this index in the batch, as a view that is good until the next call; each index once, ascending. */
  read(index: number, lengthBytes: number): Buffer {
    if (index >= this.#readTo && !this.#readRun(index)) return this.#gather(index, this.#room.subarray(0, lengthBytes));
    this.#readBytes += lengthBytes;
    const start = (index - this.#readFrom) * this.#chunkBytes;
    return this.#room.subarray(start, start + lengthBytes);
  }

  /** Reads the chunk and those behind it that follow it in its file, as many as there is room for; false if it is not a whole one. */
  #readRun(index: number): boolean {
    const { ranges } = this.#task;
    const [descriptor, fileOffset] = [ranges[this.#at + 2]!, ranges[this.#at + 3]!];
    const countMax = Math.floor(this.#room.byteLength / this.#chunkBytes);
    let count = 0;
    for (let at = this.#at; count < countMax; at += RANGE_FIELDS, count += 1) {
      const isWhole = ranges[at] === index + count && ranges[at + 1] === 0 && ranges[at + 4] === this.#chunkBytes;
      if (!isWhole || ranges[at + 2] !== descriptor || ranges[at + 3] !== fileOffset + count * this.#chunkBytes) break;
    }
    if (count === 0 || descriptor < 0) return false;
    readRange(descriptor, this.#room.subarray(0, count * this.#chunkBytes), fileOffset);
    this.#at += count * RANGE_FIELDS;
    this.#readFrom = index;
    this.#readTo = index + count;
    return true;
  }

  /** Fills `into` with the chunk's ranges, and with zeros where there is none. */
  #gather(index: number, into: Buffer): Buffer {
    const { ranges, inline } = this.#task;
    let filled = 0;
    for (; ranges[this.#at] === index; this.#at += RANGE_FIELDS) {
      const offset = ranges[this.#at + 1]!;
      const descriptor = ranges[this.#at + 2]!;
      const lengthBytes = ranges[this.#at + 4]!;
      if (offset > filled) into.fill(0, filled, offset);
      const part = into.subarray(offset, offset + lengthBytes);
      if (descriptor < 0) part.set(inline[-1 - descriptor]!);
      else {
        readRange(descriptor, part, ranges[this.#at + 3]!);
        this.#readBytes += lengthBytes;
      }
      filled = offset + lengthBytes;
    }
    if (filled < into.byteLength) into.fill(0, filled);
    return into;
  }
}
