/**
 * TrackingRecord: the mode of a running tracker, and what it writes of itself into the item's state.
 *
 * Mode and reason are changed here first and saved when there is time: the guest is rid of a log that fails before the
 * mark is durable. Saves run one after the other, and each has the mode as it is by then.
 */
import type { LogWriter } from '../hrl/index.ts';
import type { Ports } from '../ports.ts';
import type { ItemDisk } from './tracked-item.ts';
import {
  type DiskTracking,
  type ResyncReason,
  saveTrackingState,
  type TrackingMode,
  type TrackingState,
} from './tracking-state.ts';

export interface TrackingRecordOptions {
  readonly directory: string;
  readonly disks: readonly ItemDisk[];
  readonly mode: TrackingMode;
  readonly reason: ResyncReason | undefined;
  readonly stopped: boolean;
  readonly ports: Pick<Ports, 'files' | 'clock'>;
}

export class TrackingRecord {
  mode: TrackingMode;
  reason: ResyncReason | undefined;
  /** Guest writes are refused. */
  stopped: boolean;
  readonly #options: TrackingRecordOptions;
  #writing: Promise<void> = Promise.resolve();

  constructor(options: TrackingRecordOptions) {
    this.#options = options;
    this.mode = options.mode;
    this.reason = options.reason;
    this.stopped = options.stopped;
  }

  makeReason(code: ResyncReason['code'], message: string): ResyncReason {
    return { code, message, sinceMs: this.#options.ports.clock.nowMs() };
  }

  /**
   * Names the logs that there are, and with them those of `next`, per disk. `stamps` are what the files say of themselves
   * at the clean end.
   */
  save({
    stamps,
    next = [],
  }: {
    stamps?: readonly string[];
    next?: readonly (LogWriter | undefined)[];
  } = {}): Promise<void> {
    return this.#write(stamps !== undefined, ({ logs, device }, i) => {
      const log = next[i];
      const added = log ? [{ path: log.path, uniqueId: log.uniqueId }] : [];
      const { contentId } = device.disk;
      return { head: logs.head, logs: [...logs.named, ...added], contentId, stamp: stamps?.[i] ?? '' };
    });
  }

  /** Names no logs any more. */
  saveGivenUp(): Promise<void> {
    return this.#write(false, ({ logs, device }) => ({
      ...{ head: logs.head, logs: [], contentId: device.disk.contentId, stamp: '' },
    }));
  }

  #write(clean: boolean, describe: (disk: ItemDisk, index: number) => DiskTracking): Promise<void> {
    const { directory, ports, disks } = this.#options;
    const described = disks.map(describe);
    const written = this.#writing.then(() => {
      const reason = this.reason ? { reason: this.reason } : {};
      const stopped = this.stopped ? { stopped: true } : {};
      const state: TrackingState = { mode: this.mode, ...reason, ...stopped, tracked: true, clean, disks: described };
      return saveTrackingState(directory, state, ports.files);
    });
    this.#writing = written.catch(() => {});
    return written;
  }
}
