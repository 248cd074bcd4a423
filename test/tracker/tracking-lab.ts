/**
 * TrackingLab: an item of small raw disks that is tracked, with a model of what a replica would hold that gets every log.
 *
 * Files are kept by a file system that can lose power. What a flush answered, and what must be in the replica, is known; so
 * after any crash it can be asked whether the recovered disks hold what they must, and whether logs or maps know all of
 * what the replica lacks.
 */

import { randomGuid } from '../../src/guid.ts';
import { ChangeLog, replayLogs } from '../../src/hrl/index.ts';
import type { FileSystem, Ports } from '../../src/ports.ts';
import { type ItemTracker, openTracker, RestingTracking, type TrackedItem } from '../../src/tracker/index.ts';
import { Dice } from '../support/dice.ts';
import { seededRandom, type VirtualClock, virtualClock } from '../support/virtual-clock.ts';
import { SectorModel } from '../vhd/crash-lab.ts';

export const CHUNK_BYTES = 65_536;
const SECTOR_BYTES = 512;

/** Ports over a file system; failpoints and locks do nothing. */
export function labPorts(files: FileSystem, clock: VirtualClock, seed: number): Ports {
  return {
    files,
    clock,
    random: seededRandom(seed),
    failpoint: () => {},
    lock: async () => ({ release: async () => {}, remove: async () => {} }),
  };
}

export interface LabDisk {
  readonly path: string;
  readonly sizeBytes: number;
  /** What a flush answered, and what was written since. */
  readonly model: SectorModel;
  /** What the replica holds. */
  readonly replica: Buffer;
}

export class TrackingLab {
  readonly clock = virtualClock();
  readonly dice: Dice;
  readonly disks: readonly LabDisk[];
  readonly events: string[] = [];
  heads: string[];
  readonly #seed: number;

  constructor(seed: number, sizes: readonly number[]) {
    this.#seed = seed;
    this.dice = new Dice(seed);
    this.disks = sizes.map((sizeBytes, i) => {
      const content = Buffer.alloc(sizeBytes);
      return { path: `/disks/disk${i}.raw`, sizeBytes, model: new SectorModel(content), replica: content };
    });
    this.heads = sizes.map((_, i) => randomGuid(Buffer.alloc(16, i + 1)));
  }

  /** The files that there are before anything is tracked. */
  before(): ReadonlyMap<string, Uint8Array> {
    return new Map(this.disks.map(({ path, sizeBytes }) => [path, Buffer.alloc(sizeBytes)]));
  }

  item(files: FileSystem): TrackedItem {
    return {
      name: 'lab',
      directory: '/home/tracking',
      disks: this.disks.map(({ path, sizeBytes }, i) => ({
        ...{ id: `d${i}`, guid: Buffer.alloc(16, i + 1), path, format: 'raw' as const },
        ...{ virtualSizeBytes: sizeBytes, chunkBytes: CHUNK_BYTES },
      })),
      ports: labPorts(files, this.clock, this.#seed),
      onEvent: ({ code, message }) => this.events.push(`${code} ${message}`),
    };
  }

  /** The replica holds what the disks hold, as after a copy at rest. */
  async settle(files: FileSystem): Promise<void> {
    const resting = await RestingTracking.open(this.item(files));
    await resting.settle(
      this.heads,
      this.disks.map(() => ''),
    );
    await resting.close();
  }

  open(files: FileSystem): Promise<ItemTracker> {
    return openTracker(this.item(files));
  }

  /** Several changes at the same time, none of which overlap; all are answered when this resolves. */
  async change(tracker: ItemTracker): Promise<void> {
    const work: Promise<void>[] = [];
    for (const [i, { sizeBytes, model }] of this.disks.entries()) {
      const slots = this.dice.between(1, 6);
      const slotSectors = Math.floor(sizeBytes / SECTOR_BYTES / slots);
      for (let slot = 0; slot < slots; slot += 1) {
        if (this.dice.oneIn(3)) continue;
        const first = slot * slotSectors + this.dice.below(slotSectors);
        const room = (slot + 1) * slotSectors - first;
        const lengthBytes = Math.min(room, this.dice.between(1, 40)) * SECTOR_BYTES;
        const offset = first * SECTOR_BYTES;
        const device = tracker.devices[i]!;
        if (this.dice.oneIn(6)) {
          model.zeros(offset, lengthBytes);
          work.push(device.zero(offset, lengthBytes, { unmap: this.dice.oneIn(2), fua: false }));
        } else {
          work.push(device.write(model.content(offset, lengthBytes), offset, false));
        }
      }
    }
    await Promise.all(work);
  }

  async flush(tracker: ItemTracker): Promise<void> {
    await Promise.all(tracker.devices.map((device) => device.flush()));
    for (const { model } of this.disks) model.settle();
  }

  /** Rotates, plays what comes into the model of the replica, and says so to the tracker or not. */
  async ship(tracker: ItemTracker, files: FileSystem, acknowledges: boolean): Promise<void> {
    const { logs } = await tracker.rotate(this.heads);
    for (const [i, closed] of logs.entries()) {
      const opened: ChangeLog[] = [];
      for (const { path } of closed) opened.push(await ChangeLog.open(path, { ports: { files } }));
      await replayLogs(opened, target(this.disks[i]!.replica));
      const last = opened.at(-1);
      if (last) this.heads[i] = last.header.uniqueId;
    }
    if (acknowledges) await tracker.acknowledge(this.heads);
  }

  /** What the guest would read. */
  async content(tracker: ItemTracker, disk: number): Promise<Buffer> {
    const into = Buffer.alloc(this.disks[disk]!.sizeBytes);
    await tracker.devices[disk]!.read(into, 0);
    return into;
  }
}

/** A buffer as the target of a replay. */
function target(buffer: Buffer) {
  return {
    info: { virtualSizeBytes: buffer.byteLength, logicalSectorBytes: SECTOR_BYTES },
    write: async (bytes: Uint8Array, offset: number): Promise<void> => void buffer.set(bytes, offset),
    zero: async (offset: number, lengthBytes: number): Promise<void> =>
      void buffer.fill(0, offset, offset + lengthBytes),
    flush: async (): Promise<void> => {},
  };
}
