/**
 * ItemTracker: tracking of all disks of an item, from recovery to the clean end (docs/tracking.md).
 *
 * Promises:
 * - At every instant either a log has each write since the replica's last one, or the dirty maps have its chunk, durably.
 * - All disks rotate at one barrier: what the logs hold is one moment across them.
 * - When the logs give way, the guest is not disturbed: the mark and its reason are saved, the maps go on.
 * Changes of the logs run one after the other; giving way does not wait for its turn.
 */
import { isBlockferryError } from '../errors.ts';
import type { LogWriter } from '../hrl/index.ts';
import type { Ports, ProcessLock } from '../ports.ts';
import { DirtyMap } from './dirty-map.ts';
import type { ClosedLog } from './disk-logs.ts';
import { Forecast, type TrackerStatus } from './forecast.ts';
import type { TrackedDisk } from './tracked-disk.ts';
import { type ItemDisk, mapIdentity, type TrackerEvent } from './tracked-item.ts';
import { TrackingRecord } from './tracking-record.ts';
import { mapPath, type ResyncReason, resyncRequired, type TrackingMode } from './tracking-state.ts';

/** How often what was answered is made durable though nobody asked for it, and idle chunks come to rest. */
const SETTLE_MS = 5_000;

export interface ItemTrackerOptions {
  readonly directory: string;
  readonly disks: readonly ItemDisk[];
  readonly mode: TrackingMode;
  readonly reason: ResyncReason | undefined;
  readonly stopped: boolean;
  readonly lock: ProcessLock;
  readonly ports: Ports;
  readonly onEvent: (event: TrackerEvent) => void;
}

/** One moment across all disks. */
export interface Rotation {
  readonly timeMs: number;
  /** Per disk the closed logs that the replica lacks, oldest first. */
  readonly logs: readonly (readonly ClosedLog[])[];
}

export class ItemTracker {
  readonly devices: readonly TrackedDisk[];
  readonly #options: ItemTrackerOptions;
  readonly #disks: readonly ItemDisk[];
  readonly #ports: Ports;
  readonly #forecast: Forecast;
  readonly #ended = new AbortController();
  #settling: Promise<void> = Promise.resolve();
  readonly #record: TrackingRecord;
  /** The mark is saved: only then may chunks come to rest that no log has. */
  #isMarked = true;
  #tail: Promise<unknown> = Promise.resolve();
  readonly #replacingMap: Map<ItemDisk, Promise<void>> = new Map();

  constructor(options: ItemTrackerOptions) {
    this.#options = options;
    this.#disks = options.disks;
    this.#ports = options.ports;
    this.#record = new TrackingRecord(options);
    this.devices = options.disks.map(({ device }) => device);
    this.#forecast = new Forecast(options.disks, options.ports.clock);
    this.#settling = this.#settleLoop();
  }

  status(): TrackerStatus {
    return this.#forecast.status(this.#record.mode, this.#record.reason);
  }

  /**
   * Rotates the logs at one barrier and names those that the replica lacks.
   * @param heads per disk the last log that the replica has
   * @param gate asked once nothing is written any more: resolves with the moment that this is; rejects, and nothing is rotated
   * @throws RESYNC_REQUIRED, and what `gate` throws
   */
  rotate(heads: readonly string[], gate?: () => Promise<number>): Promise<Rotation> {
    return this.#inTurn(async () => {
      await this.#takeHeads(heads);
      const timeMs = await this.#exchangeLogs(gate);
      this.#assertLogging();
      return { timeMs, logs: this.#disks.map(({ logs }) => logs.closed) };
    });
  }

  /** The replica has the logs up to `heads`: they are removed. @throws RESYNC_REQUIRED */
  acknowledge(heads: readonly string[]): Promise<void> {
    return this.#inTurn(() => this.#takeHeads(heads));
  }

  /** Refuses guest writes from now on, over restarts too, or takes them again. Those answered before are durable then. */
  stopWrites(stopped: boolean): Promise<void> {
    return this.#inTurn(async () => {
      await this.#atBarrier(() => {
        for (const device of this.devices) device.isStopped = stopped;
      });
      for (const device of this.devices) await device.flush();
      this.#record.stopped = stopped;
      await (this.#isMarked ? this.#record.save() : this.#saveMark());
    });
  }

  /** Whoever wanted to use the logs found them damaged. */
  async giveUp(message: string): Promise<void> {
    if (this.#record.mode === 'logging') this.#giveWayLater(this.#record.makeReason('LOG_LOST', message));
    await this.#inTurn(async () => {});
  }

  /**
   * Logs begin anew behind `heads`, at a barrier; from now on they have every write. What may differ from the replica
   * until then stands in the maps as closed.
   */
  beginResync(heads: readonly string[]): Promise<void> {
    return this.#inTurn(async () => {
      const reason =
        this.#record.reason ?? this.#record.makeReason('RESYNC_INTERRUPTED', 'a resync was begun and has not ended');
      // Until the new logs are named, a crash must find the maps in charge.
      this.#giveWay(reason);
      await this.#saveMark();
      const next = await this.#createNext((i) => heads[i]!);
      await this.#atBarrier(() => {
        this.#record.mode = 'resyncing';
        for (const [i, { logs, device }] of this.#disks.entries()) {
          logs.restart(heads[i]!);
          logs.exchange(next[i]);
          device.useLog(next[i]);
          device.map.rotate();
        }
      });
      await this.#record.save();
      await Promise.all(this.devices.map(({ map }) => map.sync()));
    });
  }

  /** The base has all that differed when the resync began. @throws RESYNC_REQUIRED if the logs gave way since then */
  endResync(heads: readonly string[]): Promise<void> {
    return this.#inTurn(async () => {
      const isOurs = this.#disks.every(({ logs }, i) => logs.head === heads[i]);
      if (this.#record.mode !== 'resyncing' || !isOurs) throw resyncRequired(this.#record.reason ?? NOT_BEGUN);
      this.#record.mode = 'logging';
      this.#record.reason = undefined;
      await this.#record.save();
      // Closed logs are there after a restart in between: what they have is among the closed chunks too.
      for (const { logs, device } of this.#disks) if (logs.closed.length === 0) await device.map.forgetClosed();
    });
  }

  /** Ends tracking in order: everything is durable, closed and remembered. The devices serve nobody any more. */
  async close(stampOf: (disk: ItemDisk) => Promise<string>): Promise<void> {
    this.#ended.abort();
    await this.#settling;
    try {
      await this.#inTurn(async () => {
        await Promise.all(this.devices.map((device) => device.pause()));
        for (const disk of this.#disks) await this.#closeDisk(disk);
        const stamps: string[] = [];
        for (const disk of this.#disks) stamps.push(await stampOf(disk));
        await this.#record.save({ stamps });
      });
    } finally {
      await this.#options.lock.release();
    }
  }

  /** Lets go of everything as a crash would: for a process that cannot go on. */
  async abandon(): Promise<void> {
    this.#ended.abort();
    await this.#settling;
    for (const { logs, device } of this.#disks) {
      await logs.running?.abandon();
      await Promise.allSettled([device.disk.close(), device.map.abandon()]);
    }
    await this.#options.lock.release();
  }

  /** The logs of `disk` grew: at half of the disk they give way. (Half of all disks together is never reached earlier.) */
  noteGrowth({ logs, device }: ItemDisk): void {
    if (this.#record.mode === 'resync-required' || logs.storedBytes * 2 < device.sizeBytes) return;
    const message = `the logs of ${device.name} reached ${logs.storedBytes} bytes, half of its ${device.sizeBytes}`;
    this.#giveWayLater(this.#record.makeReason('LOG_HALF_FULL', message));
  }

  /** A log cannot take a write. */
  noteFailure({ device }: ItemDisk, cause: unknown): void {
    if (this.#record.mode === 'resync-required') return;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const isFull = isNoSpace(cause);
    const message = `the log of ${device.name} cannot be written: ${reason}`;
    this.#giveWayLater(this.#record.makeReason(isFull ? 'NO_SPACE' : 'LOG_FAILED', message));
  }

  /** The guest is rid of the logs at once; the mark is saved behind what changes the logs right now. */
  #giveWayLater(reason: ResyncReason): void {
    this.#giveWay(reason);
    this.#options.onEvent({ code: 'RESYNC_REQUIRED', message: `resync required: ${reason.message}` });
    void this.#markInTurn();
  }

  /** Saves the mark when it is its turn, unless somebody did so before it: logs that began since then are good. */
  #markInTurn(): Promise<void> {
    return this.#inTurn(async () => {
      if (!this.#isMarked) await this.#saveMark();
    });
  }

  /** @throws while logs are given up and the mark is not durable */
  assertKnown(): void {
    if (!this.#isMarked) throw new Error('the mark "resync required" is not saved yet');
  }

  /**
   * The dirty map of `disk` cannot be written: one that has every chunk takes its place. A write waits for this, so it does
   * not wait for its turn: a barrier may be waiting for the write. @throws OUTPUT_FAILED
   */
  noteMapFailure(disk: ItemDisk, failed: DirtyMap, cause: unknown): Promise<void> {
    if (disk.device.map !== failed) return Promise.resolve();
    if (this.#record.mode !== 'resync-required') {
      const message = `the dirty map of ${disk.device.name} cannot be written: ${messageOf(cause)}`;
      this.#giveWayLater(this.#record.makeReason('MAP_LOST', message));
    }
    const replacing =
      this.#replacingMap.get(disk) ??
      this.#replaceMap(disk, failed).finally(() => {
        this.#replacingMap.delete(disk);
      });
    this.#replacingMap.set(disk, replacing);
    return replacing;
  }

  async #replaceMap({ device, source, logs }: ItemDisk, failed: DirtyMap): Promise<void> {
    // Before a chunk changes that no map has: without the mark, a crash would trust the logs.
    await this.#mark(logs.named.map(({ path }) => path));
    const path = mapPath(this.#options.directory, source.id);
    device.map = await DirtyMap.create(path, { ...mapIdentity(source), ports: this.#ports, everything: true });
    await failed.abandon();
  }

  /** Takes the logs out of the path of the guest, at once. */
  #giveWay(reason: ResyncReason): void {
    this.#record.mode = 'resync-required';
    this.#record.reason = reason;
    this.#isMarked = false;
    for (const { device } of this.#disks) device.useLog(undefined);
  }

  /** Saves the mark and removes the logs. */
  async #saveMark(): Promise<void> {
    const given = this.#disks.map(({ logs }) => ({ running: logs.running, paths: logs.named.map(({ path }) => path) }));
    try {
      await this.#mark(given.flatMap(({ paths }) => paths));
    } catch (error) {
      this.#tell(`the mark "resync required" cannot be saved: ${messageOf(error)}`);
      return;
    }
    this.#isMarked = true;
    for (const [i, { logs }] of this.#disks.entries()) {
      logs.restart(logs.head);
      await given[i]!.running?.abandon();
      await this.#removeAll(given[i]!.paths);
    }
  }

  /**
   * Makes the mark durable. A volume without space may have none for it either: then the logs go first, for a named log
   * that is missing says the same.
   */
  async #mark(logPaths: readonly string[]): Promise<void> {
    try {
      await this.#record.saveGivenUp();
    } catch {
      await this.#removeAll(logPaths);
      await this.#record.saveGivenUp();
    }
  }

  /** Everything that was answered becomes durable now and then. */
  async #settleLoop(): Promise<void> {
    for (;;) {
      try {
        await this.#ports.clock.sleep(SETTLE_MS, this.#ended.signal);
      } catch {
        return;
      }
      try {
        this.#forecast.sample();
        if (!this.#isMarked) await this.#markInTurn();
        for (const device of this.devices) await device.settle();
      } catch (error) {
        this.#tell(`what was written cannot be made durable: ${messageOf(error)}`);
      }
    }
  }

  async #takeHeads(heads: readonly string[]): Promise<void> {
    this.#assertLogging();
    const isKnown = this.#disks.every(
      ({ logs }, i) => logs.head === heads[i] || logs.closed.some(({ uniqueId }) => uniqueId === heads[i]),
    );
    if (!isKnown) {
      const reason = this.#record.makeReason(
        'LOG_CHAIN',
        'the replica ends with another log than the first one here follows',
      );
      this.#giveWayLater(reason);
      throw resyncRequired(reason);
    }
    const paths = this.#disks.flatMap(({ logs }, i) => logs.acknowledge(heads[i]!) ?? []);
    if (paths.length === 0) return;
    await this.#record.save();
    await this.#removeAll(paths);
    for (const { logs, device } of this.#disks) if (logs.closed.length === 0) await device.map.forgetClosed();
  }

  /** Exchanges the logs of all disks at one moment, which is returned; where none of them holds anything, that is now. */
  async #exchangeLogs(gate?: () => Promise<number>): Promise<number> {
    if (!gate && this.#disks.every(({ logs }) => logs.running?.entryCount === 0)) return this.#ports.clock.nowMs();
    // Of every disk: one that has nothing yet may be written before the barrier.
    const next = await this.#createNext((i) => this.#disks[i]!.logs.tail);
    await this.#record.save({ next });
    await this.#ports.failpoint('track.before-barrier');
    const closing: Promise<void>[] = [];
    const exchange = (): void => {
      // The logs may have given way while the next ones were made.
      if (this.#record.mode === 'resync-required') return;
      for (const [i, disk] of this.#disks.entries()) {
        const closed = this.#closeLog(disk, disk.logs.exchange(next[i])!);
        closing.push(closed);
        disk.device.useLog(next[i], closed);
        disk.device.map.rotate();
      }
    };
    const timeMs = await this.#atBarrier(exchange, gate).catch(async (cause) => {
      // Taken off before they are removed: a log that is named and not there counts as lost.
      if (this.#record.mode !== 'resync-required') await this.#record.save();
      await this.#discard(next);
      throw cause;
    });
    await this.#ports.failpoint('track.after-barrier');
    if (this.#record.mode === 'resync-required') await this.#discard(next);
    await Promise.all(closing);
    await Promise.all(this.devices.map(({ map }) => map.sync()));
    return timeMs;
  }

  async #createNext(previous: (disk: number) => string): Promise<readonly LogWriter[]> {
    try {
      return await Promise.all(
        this.#disks.map(({ logs, device }, i) => logs.create(device.dataWriteGuid, previous(i))),
      );
    } catch (cause) {
      this.noteFailure(this.#disks[0]!, cause);
      throw cause;
    }
  }

  /** Removes logs that were made and not used. */
  async #discard(unused: readonly LogWriter[]): Promise<void> {
    for (const log of unused) {
      if (this.#disks.some(({ logs }) => logs.running === log)) continue;
      await log.abandon();
      await this.#removeAll([log.path]);
    }
  }

  /** Runs `exchange` at a moment when no change of any disk is under way. */
  async #atBarrier(exchange: () => void, gate = async () => this.#ports.clock.nowMs()): Promise<number> {
    try {
      await Promise.all(this.devices.map((device) => device.pause()));
      const timeMs = await gate();
      exchange();
      return timeMs;
    } finally {
      for (const device of this.devices) device.resume();
    }
  }

  /** Closes a log that was exchanged. Never rejects: a log that cannot be closed gives way. */
  async #closeLog(disk: ItemDisk, log: LogWriter): Promise<void> {
    try {
      await log.close({ dataWriteGuid: disk.device.dataWriteGuid });
    } catch (cause) {
      this.noteFailure(disk, cause);
      await log.abandon();
    }
  }

  async #closeDisk({ logs, device }: ItemDisk): Promise<void> {
    await device.flush();
    const running = logs.exchange(undefined);
    device.useLog(undefined);
    await running?.close({ dataWriteGuid: device.dataWriteGuid });
    await device.disk.close();
    await device.map.close();
  }

  #assertLogging(): void {
    if (this.#record.mode === 'logging') return;
    throw resyncRequired(this.#record.reason ?? NOT_BEGUN);
  }

  /** A file that cannot be removed only takes space: it is named nowhere any more. */
  async #removeAll(paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      await this.#ports.files.remove(path).catch((error) => this.#tell(`${path}: ${messageOf(error)}`));
    }
  }

  #tell(message: string): void {
    this.#options.onEvent({ code: 'TRACKER_FAULT', message });
  }

  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(step);
    this.#tail = done.catch(() => {});
    return done;
  }
}

const NOT_BEGUN = { code: 'NOT_SYNCED', message: 'no resync of this tracker was begun' } as const;

function isNoSpace(cause: unknown): boolean {
  for (let error = cause; error instanceof Error; error = error.cause) {
    if ('code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')) return true;
  }
  return isBlockferryError(cause, 'STORE_FULL');
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
