/** The door of the tracker: track the disks of an item, serve them, and talk to a tracker that runs elsewhere. */
export { ControlClient } from './control-client.ts';
export { controlPath, defaultNbdPath, listenLocally, localSocketPath, readLines } from './control-protocol.ts';
export { ControlServer } from './control-server.ts';
export type { ClosedLog } from './disk-logs.ts';
export type { DiskTrackerStatus, TrackerStatus } from './forecast.ts';
export type { ItemTracker, Rotation } from './item-tracker.ts';
export { type BlockDevice, NbdServer } from './nbd/index.ts';
export { diskStamp, offlineEdit, openTracker, resyncEpoch } from './recover.ts';
export { RestingTracking } from './resting.ts';
export { ServedDisk } from './served-disk.ts';
export type { TrackedItem, TrackedSource, TrackerEvent } from './tracked-item.ts';
export {
  loadTrackingState,
  type ResyncReason,
  type TrackingMode,
  type TrackingState,
  trackingDirectory,
} from './tracking-state.ts';
