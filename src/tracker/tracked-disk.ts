/**
 * TrackedDisk: a disk whose every change is in its log and in its dirty map before anyone relies on it.
 *
 *     range lock ─▶ dirty map, written ahead ─▶ log and disk, side by side ─▶ answer
 *
 * Promises:
 * - Overlapping changes are ordered once; that is the order of the log and of the disk. Others run side by side.
 * - A chunk is durably *active* in the map before log or disk may get a change of it, so it does not matter which of
 *   the two a crash leaves behind.
 * - `flush` resolves when everything answered before it is durable in the log and on the disk. Who asks while a flush
 *   runs shares the next one.
 * - A log that fails never fails the guest: `onLogFailure` is told, and what follows goes to map and disk alone.
 *
 * Zeros are logged by their length. While `isStopped`, changes are refused (WRITES_STOPPED) and reads go on. Ranges need not be whole sectors: those that are not are read, changed and written
 * as whole ones, alone. Which log is in use, and when it gives way, is the item's business (item-tracker.ts).
 */
import { alignDown, alignUp } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import type { LogWrite, LogWriter } from '../hrl/index.ts';
import type { Extent, WritableDisk } from '../vhd/index.ts';
import type { DirtyMap } from './dirty-map.ts';
import {
  ALLOCATION_HOLE,
  ALLOCATION_ZERO,
  type BlockDevice,
  DIRTY,
  type StatusExtent,
  type ZeroRequest,
} from './nbd/index.ts';
import { type HeldRange, RangeLock } from './range-lock.ts';

const PREFERRED_BLOCK_BYTES = 4096;

export interface TrackedDiskOptions {
  readonly name: string;
  readonly disk: WritableDisk;
  readonly map: DirtyMap;
  readonly isStopped: boolean;
  /** Told once when the log cannot take a write; the log is not used again. */
  readonly onLogFailure: (cause: unknown) => void;
  /** Throws while logs are given up and nothing durable says so: until then chunks that they had must stay active. */
  readonly assertKnown: () => void;
  /** Told when the map cannot name a chunk; resolves when `map` is one that can. Rejects where the write must fail. */
  readonly onMapFailure: (map: DirtyMap, cause: unknown) => Promise<void>;
  /** Told after each append. */
  readonly onLogGrowth: () => void;
}

/** A change that holds its range and stands between `begin` and `end` of the map. */
interface Change {
  readonly range: HeldRange;
  readonly map: DirtyMap;
  readonly epoch: number;
}

/** What is appended to the log together. */
interface Batch {
  readonly writes: LogWrite[];
  /** Of those the ones that wait for nothing else. */
  readonly changes: Change[];
  /** Resolves when the log has the writes, or has given way. */
  readonly done: Promise<void>;
  readonly finish: () => void;
}

export class TrackedDisk implements BlockDevice {
  readonly name: string;
  readonly sizeBytes: number;
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number = PREFERRED_BLOCK_BYTES;
  readonly zeroIsFast: boolean;
  readonly disk: WritableDisk;
  /** Exchanged by the item where its file fails. */
  map: DirtyMap;
  /** Set at a barrier only. */
  isStopped: boolean;
  readonly #options: TrackedDiskOptions;
  readonly #locks = new RangeLock();
  /** Comes when nothing is being appended, or when what is has ended. */
  #batch: Batch | undefined;
  #isAppending = false;
  #log: LogWriter | undefined;
  #closing: Promise<void> = Promise.resolve();
  #open: Promise<void> | undefined;
  #resume: (() => void) | undefined;
  /** Changes that were answered since the last flush began. */
  #unflushed = 0;
  #flushing: Promise<void> = Promise.resolve();
  #nextFlush: Promise<void> | undefined;

  constructor(options: TrackedDiskOptions) {
    this.#options = options;
    this.name = options.name;
    this.disk = options.disk;
    this.map = options.map;
    this.isStopped = options.isStopped;
    this.sizeBytes = options.disk.info.virtualSizeBytes;
    this.minimumBlockBytes = options.disk.info.logicalSectorBytes;
    // Formats with blocks give whole ones up; a flat file is written.
    this.zeroIsFast = options.disk.info.blockSizeBytes > 0;
  }

  /** What a log says of the content of the disk: the DataWriteGuid of a VHDX; other formats have none. */
  get dataWriteGuid(): string {
    return this.disk.info.format === 'vhdx' ? this.disk.contentId : '';
  }

  get log(): LogWriter | undefined {
    return this.#log;
  }

  /**
   * Puts another log in place, or none. Only while paused, before the first change, or to give logs up.
   * @param closing of the log before: until it resolves, what that log has is not durable
   */
  useLog(log: LogWriter | undefined, closing: Promise<void> = Promise.resolve()): void {
    this.#log = log;
    this.#closing = closing;
  }

  /** Changes from now on wait; resolves when those under way have ended. */
  async pause(): Promise<void> {
    this.#open ??= new Promise((resume) => {
      this.#resume = resume;
    });
    await this.#locks.idle();
  }

  resume(): void {
    this.#open = undefined;
    this.#resume?.();
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    return this.disk.read(into, offset);
  }

  /** A write that waits for nobody costs one promise, which it shares: there are many, and each is short. */
  write(bytes: Uint8Array, offset: number, fua: boolean): Promise<void> {
    const { byteLength } = bytes;
    if (byteLength === 0) return Promise.resolve();
    const written = this.#isAligned(offset, byteLength)
      ? this.#change(offset, byteLength, { byteOffset: offset, bytes })
      : this.#changePart(offset, byteLength, (sectors, start) => sectors.set(bytes, start));
    return fua ? written.then(() => this.flush()) : written;
  }

  async zero(offset: number, lengthBytes: number, { unmap, fua }: ZeroRequest): Promise<void> {
    const from = alignUp(offset, this.minimumBlockBytes);
    const to = alignDown(offset + lengthBytes, this.minimumBlockBytes);
    const clear = (at: number, end: number): Promise<void> =>
      this.#changePart(at, end - at, (sectors, start) => sectors.fill(0, start, start + end - at));
    if (from > to) {
      await clear(offset, offset + lengthBytes);
    } else {
      if (offset < from) await clear(offset, from);
      if (from < to) await this.#change(from, to - from, { byteOffset: from, zeroBytes: to - from }, unmap);
      if (to < offset + lengthBytes) await clear(to, offset + lengthBytes);
    }
    if (fua) await this.flush();
  }

  flush(): Promise<void> {
    if (this.#nextFlush === undefined) {
      if (this.#unflushed === 0) return this.#flushing;
      const next = this.#flushing.then(
        () => this.#startFlush(),
        () => this.#startFlush(),
      );
      this.#nextFlush = next;
      // Whoever waits is told; that nobody waits is no failure.
      next.catch(() => {});
    }
    return this.#nextFlush;
  }

  async *allocation(offset: number, lengthBytes: number): AsyncGenerator<StatusExtent> {
    for await (const extent of this.disk.extents(offset, lengthBytes)) {
      yield { lengthBytes: extent.lengthBytes, flags: isZeros(extent) ? ALLOCATION_HOLE | ALLOCATION_ZERO : 0 };
    }
  }

  /** Where the replica may differ: chunks written since what it has acknowledged. */
  async *dirty(offset: number, lengthBytes: number): AsyncGenerator<StatusExtent> {
    const { chunkBytes } = this.map;
    const end = offset + lengthBytes;
    for (let at = offset; at < end; ) {
      const isDirty = this.map.isChanged(Math.floor(at / chunkBytes));
      let to = (Math.floor(at / chunkBytes) + 1) * chunkBytes;
      while (to < end && this.map.isChanged(to / chunkBytes) === isDirty) to += chunkBytes;
      yield { lengthBytes: Math.min(to, end) - at, flags: isDirty ? DIRTY : 0 };
      at = to;
    }
  }

  /** Makes everything durable that was answered, then lets chunks rest that nobody writes any more. */
  async settle(): Promise<void> {
    await this.map.settle(async () => {
      await this.flush();
      this.#options.assertKnown();
    });
  }

  /** One change of whole sectors, from its place in the order to log and disk. */
  #change(offset: number, lengthBytes: number, write: LogWrite, unmap = false): Promise<void> {
    if (this.#open !== undefined || this.isStopped) {
      return this.#opened().then(() => this.#change(offset, lengthBytes, write, unmap));
    }
    const range = this.#locks.take(offset, offset + lengthBytes);
    if (range.blockers > 0) return this.#locks.wait(range).then(() => this.#apply(range, write, unmap));
    return this.#apply(range, write, unmap);
  }

  /** A change that begins or ends inside a sector. */
  async #changePart(
    offset: number,
    lengthBytes: number,
    edit: (sectors: Uint8Array, start: number) => void,
  ): Promise<void> {
    while (this.#open !== undefined || this.isStopped) await this.#opened();
    const from = alignDown(offset, this.minimumBlockBytes);
    const to = alignUp(offset + lengthBytes, this.minimumBlockBytes);
    const range = this.#locks.take(from, to);
    if (range.blockers > 0) await this.#locks.wait(range);
    const bytes = Buffer.allocUnsafe(to - from);
    try {
      await this.disk.read(bytes, from);
      edit(bytes, offset - from);
    } catch (error) {
      this.#locks.release(range);
      throw error;
    }
    await this.#apply(range, { byteOffset: from, bytes }, false);
  }

  /** Resolves when no barrier holds changes back. @throws WRITES_STOPPED */
  async #opened(): Promise<void> {
    await this.#open;
    if (this.isStopped) throw this.#stopped();
  }

  /** A change that holds its range, which is let go in the end. */
  #apply(range: HeldRange, write: LogWrite, unmap: boolean): Promise<void> {
    const change = { range, map: this.map, epoch: this.map.epoch };
    const covering = change.map.begin(range.from, range.to - range.from);
    if (covering === undefined) return this.#put(change, write, unmap);
    return this.#cover(change, covering).then((covered) => this.#put(covered, write, unmap));
  }

  /** Waits until the map names the chunks of the change, if need be another map. */
  async #cover(change: Change, covering: Promise<void>): Promise<Change> {
    const { range, map, epoch } = change;
    try {
      await covering;
      return change;
    } catch (cause) {
      map.end(epoch);
      return await this.#coverElsewhere(range, map, cause);
    }
  }

  async #coverElsewhere(range: HeldRange, failed: DirtyMap, cause: unknown): Promise<Change> {
    let change: Change | undefined;
    try {
      await this.#options.onMapFailure(failed, cause);
      change = { range, map: this.map, epoch: this.map.epoch };
      await change.map.begin(range.from, range.to - range.from);
      return change;
    } catch (error) {
      change?.map.end(change.epoch);
      this.#locks.release(range);
      throw error;
    }
  }

  /** Log and disk take the change side by side. */
  #put(change: Change, write: LogWrite, unmap: boolean): Promise<void> {
    const batch = this.#append(write);
    if (!('bytes' in write))
      return this.#putLater(change, batch, (from, to) => this.disk.zero(from, to - from, { unmap }));
    const { bytes } = write;
    let isDone: boolean;
    try {
      isDone = this.disk.writeNow(bytes, change.range.from);
    } catch (error) {
      this.#end(change);
      return Promise.reject(error);
    }
    if (!isDone) return this.#putLater(change, batch, (from) => this.disk.write(bytes, from));
    if (batch === undefined) {
      this.#end(change);
      return Promise.resolve();
    }
    batch.changes.push(change);
    return batch.done;
  }

  async #putLater(
    change: Change,
    batch: Batch | undefined,
    put: (from: number, to: number) => Promise<void>,
  ): Promise<void> {
    try {
      await put(change.range.from, change.range.to);
      await batch?.done;
    } finally {
      this.#end(change);
    }
  }

  #end({ range, map, epoch }: Change): void {
    this.#unflushed += 1;
    map.end(epoch);
    this.#locks.release(range);
  }

  /** Where the write is appended; undefined without a log. */
  #append(write: LogWrite): Batch | undefined {
    if (this.#log === undefined) return undefined;
    this.#batch ??= newBatch();
    this.#batch.writes.push(write);
    if (!this.#isAppending) void this.#drain();
    return this.#batch;
  }

  async #drain(): Promise<void> {
    this.#isAppending = true;
    // What came with the same packet is appended together.
    await undefined;
    for (let batch = this.#batch; batch !== undefined; batch = this.#batch) {
      this.#batch = undefined;
      try {
        const log = this.#log;
        if (log?.appendNow(batch.writes) === false) await log.append(batch.writes);
        this.#options.onLogGrowth();
      } catch (cause) {
        this.#loseLog(cause);
      }
      for (const change of batch.changes) this.#end(change);
      batch.finish();
    }
    this.#isAppending = false;
  }

  #loseLog(cause: unknown): void {
    if (this.#log === undefined) return;
    this.#options.onLogFailure(cause);
  }

  #startFlush(): Promise<void> {
    const running = this.#sync();
    this.#flushing = running;
    this.#nextFlush = undefined;
    return running;
  }

  async #sync(): Promise<void> {
    this.#unflushed = 0;
    const logged = this.#log?.sync().catch((cause) => this.#loseLog(cause));
    try {
      await this.disk.flush();
    } finally {
      await logged;
      await this.#closing;
    }
  }

  #stopped(): BlockferryError {
    return new BlockferryError('WRITES_STOPPED', `${this.name} was stopped for a planned failover`, {
      facts: { disk: this.name },
      hint: 'go on where the disks were brought back, or here after blockferry cancel',
    });
  }

  #isAligned(offset: number, lengthBytes: number): boolean {
    return offset % this.minimumBlockBytes === 0 && lengthBytes % this.minimumBlockBytes === 0;
  }
}

function newBatch(): Batch {
  let finish = (): void => {};
  const done = new Promise<void>((resolve) => {
    finish = resolve;
  });
  return { writes: [], changes: [], done, finish };
}

function isZeros({ kind }: Extent): boolean {
  return kind === 'absent' || kind === 'zero';
}
