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
import { RangeLock } from './range-lock.ts';

/** Writes that wait while one append runs are appended together, at most so many. */
const APPEND_WRITES_MAX = 256;
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

interface QueuedWrite {
  readonly write: LogWrite;
  readonly done: () => void;
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
  readonly #queue: QueuedWrite[] = [];
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

  async write(bytes: Uint8Array, offset: number, fua: boolean): Promise<void> {
    const { byteLength } = bytes;
    if (byteLength === 0) return;
    if (this.#isAligned(offset, byteLength)) await this.#change(offset, byteLength, { byteOffset: offset, bytes });
    else await this.#changePart(offset, byteLength, (sectors, start) => sectors.set(bytes, start));
    if (fua) await this.flush();
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
  async #change(offset: number, lengthBytes: number, write: LogWrite, unmap = false): Promise<void> {
    if (this.#open !== undefined) await this.#open;
    if (this.isStopped) throw this.#stopped();
    const range = this.#locks.take(offset, offset + lengthBytes);
    if (range.blockers > 0) await this.#locks.wait(range);
    try {
      await this.#apply(offset, lengthBytes, write, unmap);
    } finally {
      this.#locks.release(range);
    }
  }

  /** A change that begins or ends inside a sector. */
  async #changePart(
    offset: number,
    lengthBytes: number,
    edit: (sectors: Uint8Array, start: number) => void,
  ): Promise<void> {
    if (this.#open !== undefined) await this.#open;
    if (this.isStopped) throw this.#stopped();
    const from = alignDown(offset, this.minimumBlockBytes);
    const to = alignUp(offset + lengthBytes, this.minimumBlockBytes);
    const range = this.#locks.take(from, to);
    if (range.blockers > 0) await this.#locks.wait(range);
    try {
      const bytes = Buffer.allocUnsafe(to - from);
      await this.disk.read(bytes, from);
      edit(bytes, offset - from);
      await this.#apply(from, to - from, { byteOffset: from, bytes }, false);
    } finally {
      this.#locks.release(range);
    }
  }

  async #apply(offset: number, lengthBytes: number, write: LogWrite, unmap: boolean): Promise<void> {
    let { map } = this;
    let { epoch } = map;
    try {
      const covering = map.begin(offset, lengthBytes);
      if (covering !== undefined) await covering;
    } catch (cause) {
      map.end(epoch);
      await this.#options.onMapFailure(map, cause);
      ({ map } = this);
      ({ epoch } = map);
      await map.begin(offset, lengthBytes);
    }
    try {
      const logged = this.#append(write);
      if (!('bytes' in write)) await this.disk.zero(offset, lengthBytes, { unmap });
      else if (!this.disk.writeNow(write.bytes, offset)) await this.disk.write(write.bytes, offset);
      if (logged !== undefined) await logged;
    } finally {
      this.#unflushed += 1;
      map.end(epoch);
    }
  }

  /** Resolves when the log has the write, or has given way. */
  #append(write: LogWrite): Promise<void> | undefined {
    if (this.#log === undefined) return undefined;
    return new Promise((done) => {
      this.#queue.push({ write, done });
      if (!this.#isAppending) void this.#drain();
    });
  }

  async #drain(): Promise<void> {
    this.#isAppending = true;
    // What came with the same packet is appended together.
    await undefined;
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, APPEND_WRITES_MAX);
      try {
        await this.#log?.append(batch.map(({ write }) => write));
        this.#options.onLogGrowth();
      } catch (cause) {
        this.#loseLog(cause);
      }
      for (const { done } of batch) done();
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

function isZeros({ kind }: Extent): boolean {
  return kind === 'absent' || kind === 'zero';
}
