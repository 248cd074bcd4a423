/**
 * The tracking of an item that no tracker serves: what ship and resync use while the disks rest.
 *
 * The disks are only read. Holding this keeps a tracker from starting, so logs, maps and state belong to the holder.
 */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { GUID_BYTES, randomGuid } from '../guid.ts';
import type { ProcessLock } from '../ports.ts';
import type { ChunkRun } from '../replica/index.ts';
import { DirtyMap } from './dirty-map.ts';
import { DiskLogs } from './disk-logs.ts';
import type { Rotation } from './item-tracker.ts';
import { diskStamp, offlineEdit } from './recover.ts';
import { mapIdentity, type TrackedItem } from './tracked-item.ts';
import { loadTrackingState, mapPath, resyncRequired, saveTrackingState, type TrackingState } from './tracking-state.ts';

export class RestingTracking {
  readonly #item: TrackedItem;
  readonly #lock: ProcessLock;
  #state: TrackingState | undefined;

  private constructor(item: TrackedItem, lock: ProcessLock, state: TrackingState | undefined) {
    this.#item = item;
    this.#lock = lock;
    this.#state = state;
  }

  /** @throws ITEM_LOCKED while a tracker runs */
  static async open(item: TrackedItem): Promise<RestingTracking> {
    const { directory, ports } = item;
    await ports.files.makeDirectory(directory);
    const lock = await ports.lock(directory, `tracking of item "${item.name}"`);
    try {
      return new RestingTracking(item, lock, await loadTrackingState(directory, ports.files));
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** The logs that the replica lacks. Nothing is written, so the moment of the point is now. @throws RESYNC_REQUIRED */
  async rotate(heads: readonly string[]): Promise<Rotation> {
    await this.acknowledge(heads);
    const edited = await this.#editedDisk();
    const { ports } = this.#item;
    if (edited !== undefined) {
      const reason = { ...edited, sinceMs: ports.clock.nowMs() };
      await this.#save({ ...this.#state!, mode: 'resync-required', reason });
      throw resyncRequired(reason);
    }
    const logs = this.#state!.disks.map((disk) => disk.logs.map((log) => ({ ...log, storedBytes: 0 })));
    return { timeMs: ports.clock.nowMs(), logs };
  }

  /** The replica has the logs up to `heads`: they are removed. @throws RESYNC_REQUIRED */
  async acknowledge(heads: readonly string[]): Promise<void> {
    const state = this.#logging();
    const { ports, disks } = this.#item;
    const rows = state.disks.map(({ head, logs }, i) => {
      const row = new DiskLogs(disks[i]!.path, head, ports);
      for (const log of logs) row.addClosed({ ...log, storedBytes: 0 });
      return row;
    });
    const removable = rows.map((row, i) => row.acknowledge(heads[i]!));
    if (removable.includes(undefined)) {
      const message = 'the replica ends with another log than the first one here follows';
      const reason = { code: 'LOG_CHAIN' as const, message, sinceMs: ports.clock.nowMs() };
      await this.#save({ ...state, mode: 'resync-required', reason });
      throw resyncRequired(reason);
    }
    const paths = removable.flatMap((each) => each ?? []);
    if (paths.length === 0) return;
    const named = state.disks.map((disk, i) => ({ ...disk, head: rows[i]!.head, logs: rows[i]!.named }));
    await this.#save({ ...state, disks: named });
    for (const path of paths) await ports.files.remove(path);
    for (const [i, row] of rows.entries()) {
      if (row.closed.length === 0) await this.#withMap(i, (map) => map.forgetClosed());
    }
  }

  /** Whether guest writes are refused as soon as a tracker starts. */
  get isStopped(): boolean {
    return this.#state?.stopped ?? false;
  }

  /** Refuses guest writes of trackers that start from now on, or takes them again. */
  async stopWrites(stopped: boolean): Promise<void> {
    if (!this.#state) return;
    const { stopped: _, ...state } = this.#state;
    await this.#save(stopped ? { ...state, stopped } : state);
  }

  /** Whoever wanted to use the logs found them damaged. */
  async giveUp(message: string): Promise<void> {
    if (!this.#state) return;
    const reason = { code: 'LOG_LOST' as const, message, sinceMs: this.#item.ports.clock.nowMs() };
    await this.#save({ ...this.#state, mode: 'resync-required', reason });
  }

  /**
   * Per disk the chunks that may differ from what the replica holds with all its logs; undefined, with the cause, where
   * that is not known.
   */
  async changed(): Promise<{ readonly runs?: readonly (readonly ChunkRun[])[]; readonly cause?: string }> {
    const state = this.#state;
    if (!state?.tracked) return { cause: 'the disks were not tracked since the last copy' };
    if (!state.clean && this.#item.disks.some(({ format }) => format !== 'vhdx')) {
      return { cause: 'tracking ended without warning, and only a VHDX tells whether it was changed since' };
    }
    const edited = await this.#editedDisk();
    if (edited) return { cause: edited.message };
    const runs: (readonly ChunkRun[])[] = [];
    for (const i of this.#item.disks.keys()) {
      const changed = await this.#withMap(i, async (map) => [...map.runs('changed')]);
      if (!changed) return { cause: `the dirty map of ${this.#item.disks[i]!.path} is missing or damaged` };
      runs.push(changed);
    }
    return { runs };
  }

  /** From here until `settle` only a resync makes the logs good again. */
  async suspend(): Promise<void> {
    if (!this.#state || this.#state.mode === 'resync-required') return;
    const message = 'a resync was begun and has not ended';
    const reason = { code: 'RESYNC_INTERRUPTED' as const, message, sinceMs: this.#item.ports.clock.nowMs() };
    await this.#save({ ...this.#state, mode: 'resync-required', reason });
  }

  /** The replica holds exactly what the disks hold: logs begin behind `heads`, and nothing is dirty. */
  async settle(heads: readonly string[], contentIds: readonly string[]): Promise<void> {
    const { directory, disks, ports } = this.#item;
    const before = this.#state?.disks.flatMap(({ logs }) => logs.map(({ path }) => path)) ?? [];
    const settled: TrackingState['disks'][number][] = [];
    for (const [i, disk] of disks.entries()) {
      const path = mapPath(directory, disk.id);
      await (await DirtyMap.create(path, { ...mapIdentity(disk), ports })).close();
      settled.push({ head: heads[i]!, logs: [], contentId: contentIds[i]!, stamp: await diskStamp(disk, ports) });
    }
    await this.#save({ mode: 'logging', tracked: false, clean: true, disks: settled });
    for (const path of before) await ports.files.remove(path);
  }

  /** Nothing is known of what the disks hold: whatever was logged or mapped is given up, and a resync has to compare. */
  async distrust(message: string): Promise<void> {
    const before = this.#state?.disks.flatMap(({ logs }) => logs.map(({ path }) => path)) ?? [];
    const { directory, ports, disks } = this.#item;
    // Maps of whatever was tracked here before know nothing of these disks.
    for (const disk of disks) {
      const everything = { ...mapIdentity(disk), ports, everything: true };
      await (await DirtyMap.create(mapPath(directory, disk.id), everything)).close();
    }
    const reason = { code: 'EDITED_OFFLINE' as const, message, sinceMs: ports.clock.nowMs() };
    const unknown = disks.map(() => {
      return { head: randomGuid(ports.random.bytes(GUID_BYTES)), logs: [], contentId: '', stamp: '' };
    });
    await this.#save({ mode: 'resync-required', reason, tracked: false, clean: true, disks: unknown });
    for (const path of before) await ports.files.remove(path);
  }

  async close(): Promise<void> {
    await this.#lock.release();
  }

  #logging(): TrackingState {
    const state = this.#state;
    const { name } = this.#item;
    if (!state) {
      const message = `item "${name}" was not tracked since its first replication ended`;
      throw resyncRequired({ code: 'NOT_SYNCED', message });
    }
    if (state.mode !== 'logging') {
      throw resyncRequired(state.reason ?? { code: 'RESYNC_INTERRUPTED', message: 'a resync has not ended' });
    }
    if (state.clean) return state;
    throw new BlockferryError('TRACKER_GONE', `the tracker of item "${name}" ended without warning`, {
      facts: { name },
      hint: `start it again with: blockferry track ${name}; it closes its logs, and nothing has to be read again`,
    });
  }

  async #editedDisk(): Promise<Awaited<ReturnType<typeof offlineEdit>>> {
    for (const [i, disk] of this.#item.disks.entries()) {
      const edited = await offlineEdit(disk, this.#state!, this.#state!.disks[i]!, this.#item.ports);
      if (edited) return edited;
    }
    return undefined;
  }

  async #withMap<T>(index: number, work: (map: DirtyMap) => Promise<T>): Promise<T | undefined> {
    const { directory, disks, ports } = this.#item;
    const path = mapPath(directory, disks[index]!.id);
    if (!(await ports.files.exists(path))) return undefined;
    let map: DirtyMap;
    try {
      map = await DirtyMap.open(path, { ...mapIdentity(disks[index]!), ports });
    } catch (error) {
      if (isBlockferryError(error, 'LOCAL_STATE')) return undefined;
      throw error;
    }
    try {
      return await work(map);
    } finally {
      await map.abandon();
    }
  }

  async #save(state: TrackingState): Promise<void> {
    await saveTrackingState(this.#item.directory, state, this.#item.ports.files);
    this.#state = state;
  }
}
