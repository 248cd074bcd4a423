/** Reasons of a failover, a failback, a pause: what was begun and waits for somebody. */
import type { Reason } from './reason.ts';
import { timeText } from './texts.ts';

export type SideCode =
  | 'WRITES_NOT_FOLLOWED'
  | 'REVERSE_MISSING'
  | 'OTHER_SIDE'
  | 'PLANNED_FAILOVER_WAITING'
  | 'GUEST_WRITES_STOPPED'
  | 'FAILOVER_WAITING'
  | 'FAILBACK_WAITING'
  | 'RESTORE_UNFINISHED'
  | 'SUSPENDED';

/** Worst first. */
export const SIDE_REASONS: Readonly<Record<SideCode, Reason>> = {
  WRITES_NOT_FOLLOWED: {
    severity: 'critical',
    cause: ({ facts: { replica, tracking } }) => {
      const isElsewhere = replica && (!replica.owner.isOurs || replica.owner.phase === 'ended');
      if (!isElsewhere || !tracking?.served || tracking.stopped) return undefined;
      return `a guest may write to these disks, which the replica does not follow since ${timeText(replica.owner.sinceMs)}`;
    },
    next: () =>
      'stop the machine and its tracker here, then blockferry failback NAME; what it wrote meanwhile is on these disks only',
  },
  REVERSE_MISSING: {
    severity: 'warning',
    cause: ({ facts: { replica } }) => {
      if (replica?.owner.phase !== 'failed-over') return undefined;
      const { isOurs, point, sinceMs } = replica.owner;
      const who = isOurs ? 'these disks' : 'the other side';
      return `${who} took over from point ${point} at ${timeText(sinceMs)}, and nothing is replicated since`;
    },
    next: ({ facts: { replica } }) =>
      replica?.owner.isOurs ? 'blockferry reverse NAME' : 'blockferry reverse NAME, where the disks were brought back',
  },
  OTHER_SIDE: {
    severity: 'warning',
    cause: ({ state }) => {
      if (state.state !== 'other-side') return undefined;
      const { epoch, sinceMs } = state.owner;
      return `the replica follows other disks than these since ${timeText(sinceMs)} (epoch ${epoch})`;
    },
    next: () => 'to come home: blockferry failback NAME, then blockferry commit NAME',
  },
  PLANNED_FAILOVER_WAITING: {
    severity: 'warning',
    cause: ({ facts: { replica } }) => {
      if (replica?.owner.phase !== 'synced') return undefined;
      const { point, sinceMs } = replica.owner;
      return `the machine was stopped at ${timeText(sinceMs)} for a planned failover at point ${point}`;
    },
    next: () =>
      'blockferry failover NAME --planned and commit on the other side, or go on here: blockferry cancel NAME',
  },
  GUEST_WRITES_STOPPED: {
    severity: 'warning',
    cause: ({ facts: { tracking } }) => (tracking?.stopped ? 'the tracker refuses what the guest writes' : undefined),
    next: () => 'end the planned failover, or take writes again: blockferry cancel NAME',
  },
  FAILOVER_WAITING: {
    severity: 'warning',
    cause: ({ facts: { waiting } }) =>
      waiting?.kind === 'failover' && waiting.isComplete !== false
        ? `disks of point ${waiting.pointId} were brought back and wait since ${timeText(waiting.sinceMs)}`
        : undefined,
    next: () => 'blockferry commit NAME takes over, blockferry cancel NAME removes them',
  },
  FAILBACK_WAITING: {
    severity: 'warning',
    cause: ({ facts: { waiting } }) =>
      waiting?.kind === 'failback' && waiting.isComplete !== false
        ? `disks of point ${waiting.pointId} came home and wait since ${timeText(waiting.sinceMs)}`
        : undefined,
    next: () => 'blockferry commit NAME takes over, blockferry cancel NAME gives it up',
  },
  RESTORE_UNFINISHED: {
    severity: 'warning',
    cause: ({ facts: { waiting } }) =>
      waiting?.isComplete === false
        ? `bringing back disks of point ${waiting.pointId} was begun at ${timeText(waiting.sinceMs)} and has not ended`
        : undefined,
    next: ({ facts: { waiting } }) =>
      waiting?.kind === 'failback'
        ? 'blockferry failback NAME goes on with it, blockferry cancel NAME gives it up'
        : 'blockferry failover NAME makes them anew, blockferry cancel NAME removes them',
  },
  SUSPENDED: {
    severity: 'warning',
    cause: ({ facts: { suspendedSinceMs } }) =>
      suspendedSinceMs === undefined ? undefined : `an operator paused it at ${timeText(suspendedSinceMs)}`,
    next: () => 'blockferry agent resume NAME; until then the logs grow, and at half of a disk a resync is required',
  },
};
