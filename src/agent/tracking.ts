/**
 * An item's tracking as ship and resync meet it: served by a tracker in another process, or at rest.
 */

import type { ReplicaDescription } from '../replica/index.ts';
import {
  ControlClient,
  controlPath,
  RestingTracking,
  type Rotation,
  type TrackedItem,
  type TrackerEvent,
  trackingDirectory,
} from '../tracker/index.ts';
import type { VirtualDisk } from '../vhd/index.ts';
import type { ItemState, LocalItem } from './local-state.ts';
import type { Session } from './types.ts';

/** Logs of an item that rests until all of its group do. */
export interface HeldLogs {
  rotate(timeMs: number): Promise<Rotation>;
  release(): Promise<void>;
}

/** What a cycle asks of tracking, whoever has it. */
export interface LogSource {
  rotate(heads: readonly string[]): Promise<Rotation>;
  /** Resolves when nothing is written any more, for at most `holdMs`. */
  hold(heads: readonly string[], holdMs: number): Promise<HeldLogs>;
  acknowledge(heads: readonly string[]): Promise<void>;
  /** The logs cannot be used: a resync is required, with this message as its reason. */
  giveUp(message: string): Promise<void>;
}

/** Whether guests may write. */
export interface GuestWrites {
  isStopped(): Promise<boolean>;
  /** Refuses their writes, durably, or takes them again. */
  stop(stopped: boolean): Promise<void>;
}

/** Whoever has the item's tracking at the moment. */
export type Tracking = { readonly logs: LogSource; readonly writes: GuestWrites } & (
  | { readonly kind: 'served'; readonly client: ControlClient }
  | { readonly kind: 'resting'; readonly resting: RestingTracking }
);

/** The item as the tracker knows it. */
export function trackedItem(
  session: Session,
  item: LocalItem,
  state: ItemState,
  description: ReplicaDescription,
): TrackedItem {
  const { ports } = session;
  const disks = description.disks.map(({ id, guid, virtualSizeBytes, chunkBytes }, i) => ({
    ...{ id, guid, virtualSizeBytes, chunkBytes, path: state.disks[i]!, format: state.formats[i]! },
  }));
  const onEvent = ({ code, message }: TrackerEvent): void => session.onEvent?.({ type: 'notice', code, message });
  return { name: item.name, directory: trackingDirectory(item.directory), disks, ports, onEvent };
}

/** Runs `work` with the tracking of the item, which stays with it until then. */
export async function withTracking<T>(item: TrackedItem, work: (tracking: Tracking) => Promise<T>): Promise<T> {
  const client = await ControlClient.connect(controlPath(item.directory));
  if (client) {
    const logs: LogSource = {
      rotate: (heads) => client.call('rotate', { heads }),
      hold: async (heads, holdMs) => {
        await client.call('hold', { heads, holdMs });
        return {
          rotate: (timeMs) => client.call('rotate-held', { timeMs }),
          release: async () => void (await client.call('release', {})),
        };
      },
      acknowledge: async (heads) => void (await client.call('acknowledge', { heads })),
      giveUp: async (message) => void (await client.call('give-up', { message })),
    };
    const writes: GuestWrites = {
      isStopped: async () => (await client.call('status', {})).stopped ?? false,
      stop: async (stopped) => void (await client.call('stop-writes', { stopped })),
    };
    try {
      return await work({ kind: 'served', client, logs, writes });
    } finally {
      client.close();
    }
  }
  const resting = await RestingTracking.open(item);
  try {
    const writes: GuestWrites = {
      isStopped: async () => resting.isStopped,
      stop: (stopped) => resting.stopWrites(stopped),
    };
    return await work({ kind: 'resting', resting, logs: restingLogs(resting), writes });
  } finally {
    await resting.close();
  }
}

/** Nothing is written anyway. */
function restingLogs(resting: RestingTracking): LogSource {
  return {
    rotate: (heads) => resting.rotate(heads),
    hold: async (heads) => {
      const rotation = await resting.rotate(heads);
      return { rotate: async (timeMs) => ({ ...rotation, timeMs }), release: async () => {} };
    },
    acknowledge: (heads) => resting.acknowledge(heads),
    giveUp: (message) => resting.giveUp(message),
  };
}

/** What VHDX disks say of their content; '' for others. */
export function contentIds(disks: readonly VirtualDisk[]): readonly string[] {
  return disks.map(({ contentId }) => contentId);
}
