/** An item and its disks as they are tracked: what is given, and one disk with all that tracks it. */
import type { Ports } from '../ports.ts';
import type { DiskFormat } from '../vhd/index.ts';
import type { MapIdentity } from './dirty-map-format.ts';
import type { DiskLogs } from './disk-logs.ts';
import type { TrackedDisk } from './tracked-disk.ts';

/** Something the operator should know. */
export interface TrackerEvent {
  readonly code: 'RESYNC_REQUIRED' | 'BRIDGED' | 'TRACKER_FAULT';
  readonly message: string;
}

/** A disk as it is tracked. */
export interface TrackedSource {
  /** `d0`, `d1` …: its export name. */
  readonly id: string;
  /** 16 bytes: which disk of which replica a dirty map belongs to. */
  readonly guid: Uint8Array;
  readonly path: string;
  readonly format: DiskFormat;
  readonly virtualSizeBytes: number;
  readonly chunkBytes: number;
}

export interface TrackedItem {
  readonly name: string;
  /** `trackingDirectory` of the item. */
  readonly directory: string;
  readonly disks: readonly TrackedSource[];
  readonly ports: Ports;
  readonly onEvent: (event: TrackerEvent) => void;
}

/** One disk with all that tracks it. */
export interface ItemDisk {
  readonly source: TrackedSource;
  readonly device: TrackedDisk;
  readonly logs: DiskLogs;
}

/** What a dirty map of the disk says in its header. */
export function mapIdentity({ guid, virtualSizeBytes, chunkBytes }: TrackedSource): MapIdentity {
  return { diskGuid: guid, sizeBytes: virtualSizeBytes, chunkBytes };
}
