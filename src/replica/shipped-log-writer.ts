/**
 * Writing a shipped log: planned frames are sealed by workers, a few at a time, and leave in order as parts of one object
 * (docs/formats/shipped-log.md). The object becomes visible whole, or not at all.
 *
 * Memory is bounded whatever the length of the log: FRAMES_AHEAD frames beyond those in the workers' hands, and PARTS_AHEAD
 * parts on their way to the store. Small logs, the usual case, are one part, and one request.
 */
import { formatSize } from '../bytes.ts';
import { LOG_FRAME_BYTES_MAX, type LogIdentity } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { STAGED_PART_BYTES_MAX, STAGED_PARTS_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import type { Lanes, RetryingStore, StagedObject } from '../transport/index.ts';
import { BufferPool, type SealFrameResult, type WorkerPool } from '../workers/index.ts';
import { logKey } from './layout.ts';
import type { ShippedLog } from './root.ts';
import type { PlannedFrame } from './shipped-log-plan.ts';

const FRAMES_AHEAD = 2;
const PARTS_AHEAD = 4;

export interface WriteLogSetup {
  readonly store: RetryingStore;
  readonly log: LogIdentity;
  readonly frames: AsyncIterable<PlannedFrame>;
  readonly pool: WorkerPool;
  readonly lanes: Lanes;
  readonly ports: Pick<Ports, 'failpoint'>;
  readonly signal: AbortSignal;
  /** A frame is on its way: what it covers, and the bytes of the object so far. */
  readonly onFrame?: (frame: PlannedFrame, sentBytes: number) => void;
}

/** Writes the object of a log; undefined, and no object, if there is no frame. */
export async function writeShippedLog(setup: WriteLogSetup): Promise<ShippedLog | undefined> {
  const object = new LogObject(setup);
  const row = new FrameRow(setup, object);
  try {
    for await (const frame of setup.frames) await row.add(frame);
    await row.end();
    if (row.count === 0) return undefined;
    const sizeBytes = await object.finish();
    const { seq, id } = setup.log;
    return { seq, id, frames: row.count, sizeBytes, dataBytes: row.dataBytes };
  } catch (error) {
    await row.abandon(error);
    await object.abandon(error);
    throw error;
  }
}

/** Frames in the workers' hands; they join the object in the order in which they were added. */
class FrameRow {
  readonly #setup: WriteLogSetup;
  readonly #object: LogObject;
  readonly #buffers: BufferPool;
  readonly #sealing: Set<Promise<SealFrameResult>> = new Set();
  #tail: Promise<void> = Promise.resolve();
  #count = 0;
  #dataBytes = 0;

  constructor(setup: WriteLogSetup, object: LogObject) {
    this.#setup = setup;
    this.#object = object;
    this.#buffers = new BufferPool(LOG_FRAME_BYTES_MAX, setup.pool.threads + FRAMES_AHEAD);
  }

  get count(): number {
    return this.#count;
  }

  /** Guest bytes in the frames that have joined the object. */
  get dataBytes(): number {
    return this.#dataBytes;
  }

  /** Gives the frame to a worker when there is room for it. @throws what went wrong with a frame before it */
  async add(planned: PlannedFrame): Promise<void> {
    const { log, pool } = this.#setup;
    const { pieces, sent } = planned;
    const buffer = await this.#buffers.acquire();
    for (const { log: source, fileOffset, lengthBytes, bufferOffset } of sent) {
      await source.read(new Uint8Array(buffer, bufferOffset, lengthBytes), fileOffset);
    }
    const sealing = pool.sealFrame({ kind: 'seal-frame', log, frame: this.#count, pieces, buffer });
    this.#sealing.add(sealing);
    this.#count += 1;
    const before = this.#tail;
    const joined = Promise.all([sealing, before]).then(async ([result]) => {
      this.#sealing.delete(sealing);
      await this.#join(planned, result);
    });
    joined.catch((error: unknown) => this.#buffers.fail(error));
    this.#tail = joined;
  }

  /** Waits until all frames have joined the object. */
  end(): Promise<void> {
    return this.#tail;
  }

  /** Waits until no worker reads for it any more. */
  async abandon(reason: unknown): Promise<void> {
    this.#buffers.fail(reason);
    await Promise.allSettled([this.#tail, ...this.#sealing]);
  }

  async #join(planned: PlannedFrame, { frameBytes, dataBytes, buffer }: SealFrameResult): Promise<void> {
    await this.#object.append(new Uint8Array(buffer, 0, frameBytes));
    this.#buffers.release(buffer);
    this.#dataBytes += dataBytes;
    this.#setup.onFrame?.(planned, this.#object.sizeBytes);
  }
}

/** The object in the making: bytes come in order, parts leave several at a time. */
class LogObject {
  readonly #setup: WriteLogSetup;
  readonly #key: string;
  readonly #buffers: BufferPool = new BufferPool(STAGED_PART_BYTES_MAX, PARTS_AHEAD);
  readonly #uploads: Set<Promise<void>> = new Set();
  /** From the second part on. */
  #staged: StagedObject | undefined;
  #parts = 0;
  /** The part that is being filled. */
  #buffer: ArrayBuffer | undefined;
  #filledBytes = 0;

  constructor(setup: WriteLogSetup) {
    this.#setup = setup;
    this.#key = logKey(setup.log);
  }

  /** Bytes so far. */
  get sizeBytes(): number {
    return this.#parts * STAGED_PART_BYTES_MAX + this.#filledBytes;
  }

  /** Takes a copy of the bytes. */
  async append(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.byteLength; ) {
      if (this.#filledBytes === STAGED_PART_BYTES_MAX) this.#sendPart();
      this.#buffer ??= await this.#buffers.acquire();
      const part = bytes.subarray(done, done + STAGED_PART_BYTES_MAX - this.#filledBytes);
      new Uint8Array(this.#buffer).set(part, this.#filledBytes);
      this.#filledBytes += part.byteLength;
      done += part.byteLength;
    }
  }

  /** Makes it visible; returns its length. There is a byte at least. */
  async finish(): Promise<number> {
    const { store, lanes, signal } = this.#setup;
    const { sizeBytes } = this;
    if (this.#staged === undefined) {
      const bytes = new Uint8Array(this.#buffer!, 0, this.#filledBytes);
      await lanes.run(sizeBytes, () => store.put(this.#key, bytes, { signal }), { signal });
      return sizeBytes;
    }
    this.#sendPart();
    await Promise.all(this.#uploads);
    await this.#staged.commit(this.#parts, { signal });
    return sizeBytes;
  }

  /** Nothing is under way when it resolves. */
  async abandon(reason: unknown): Promise<void> {
    this.#buffers.fail(reason);
    await Promise.allSettled(this.#uploads);
    // The store removes what an abort that fails leaves behind.
    await Promise.allSettled([this.#staged?.abort()]);
  }

  #sendPart(): void {
    const { store, log, lanes, ports, signal } = this.#setup;
    if (this.#parts === STAGED_PARTS_MAX) throw tooLong(log.seq);
    this.#staged ??= store.stage(this.#key, STAGED_PART_BYTES_MAX);
    const [staged, buffer, index] = [this.#staged, this.#buffer!, this.#parts];
    const bytes = new Uint8Array(buffer, 0, this.#filledBytes);
    this.#parts += 1;
    this.#buffer = undefined;
    this.#filledBytes = 0;
    const upload = lanes
      .run(bytes.byteLength, () => staged.put(index, bytes, { signal }), { signal })
      .then(async () => {
        await ports.failpoint('ship.after-part');
        this.#uploads.delete(upload);
        this.#buffers.release(buffer);
      });
    // What failed stays in the set: `finish` throws it.
    upload.catch((error: unknown) => this.#buffers.fail(error));
    this.#uploads.add(upload);
  }
}

function tooLong(seq: number): BlockferryError {
  const max = formatSize(STAGED_PARTS_MAX * STAGED_PART_BYTES_MAX);
  return new BlockferryError('RESYNC_REQUIRED', `the changes do not fit into one object of ${max}`, {
    facts: { log: seq, rule: `a shipped log has at most ${STAGED_PARTS_MAX} parts` },
    hint: 'run resync: where so much has changed it sends less',
  });
}
