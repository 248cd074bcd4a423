/** Reasons of pace and room: what is late, missing, growing or nearly full. The thresholds themselves are still normal. */
import { formatSize } from '../../bytes.ts';
import type { SpaceVerdict } from '../policy/index.ts';
import { isFollowed, type Reason, type Seen, type Severity } from './reason.ts';
import { percentText, spanText, timeText } from './texts.ts';

export type PaceCode =
  | 'SPACE_STOP'
  | 'SPACE_THROTTLE'
  | 'UPLOAD_STUCK'
  | 'STORE_TAKEN_OVER'
  | 'INITIAL_INCOMPLETE'
  | 'BEHIND'
  | 'GROUP_APART'
  | 'RPO_EXCEEDED'
  | 'STORE_BEHIND'
  | 'CYCLES_MISSED'
  | 'LATENCY_HIGH'
  | 'UPLOAD_SLOW'
  | 'LOG_FILLING'
  | 'TRACKER_NOT_RUNNING'
  | 'SPACE_LOW'
  | 'RETENTION_UNFIT'
  | 'APPLY_UNFINISHED';

/** Worst first. */
export const PACE_REASONS: Readonly<Record<PaceCode, Reason>> = {
  SPACE_STOP: space('critical', 'stop', 'no first copy and no resync is begun'),
  SPACE_THROTTLE: space('critical', 'throttle', 'copies are slowed down'),
  UPLOAD_STUCK: upload('critical', 'critical'),
  STORE_TAKEN_OVER: {
    severity: 'critical',
    cause: (seen) => {
      const taken = seen.figures.stores?.find(({ trouble }) => trouble?.code === 'SPLIT_BRAIN');
      // Who has stopped, or is no owner, gave it away.
      if (!taken || !isFollowed(seen)) return undefined;
      return `the store ${taken.url} is not carried to since ${timeText(taken.trouble!.firstMs)}: ${taken.trouble!.message}`;
    },
    next: () => 'two sides may be writing: stop the machine on one of them, then see docs/mirror.md, Sides',
  },
  INITIAL_INCOMPLETE: {
    severity: 'warning',
    cause: ({ facts: { replica, waiting }, state }) => {
      // Of a home to which disks were brought back nobody knows more than that.
      if (state.state === 'unknown' || (!replica && waiting)) return undefined;
      if (replica && replica.points > 0 && replica.sync !== 'initial') return undefined;
      if (state.state === 'ready') return `the first copy begins at ${timeText(state.firstCopyAtMs)}`;
      return 'the first copy has not ended: there is no recovery point';
    },
    next: ({ state }) =>
      state.state === 'ready' ? 'blockferry protect NAME begins it now' : 'blockferry protect NAME goes on with it',
  },
  BEHIND: {
    severity: 'warning',
    cause: (seen) => {
      const lastMs = lastCycleMs(seen);
      if (lastMs === undefined || !isFollowed(seen)) return undefined;
      const sinceMs = seen.facts.nowMs - lastMs;
      if (!(sinceMs > seen.thresholds.behindMs)) return undefined;
      return `the last cycle was ${spanText(sinceMs)} ago, at ${timeText(lastMs)}`;
    },
    next: () => 'blockferry ship NAME; on a schedule the agent does it',
  },
  GROUP_APART: {
    severity: 'warning',
    cause: ({ figures: { apart } }) =>
      apart &&
      `its group "${apart.group}" has no common moment since ${timeText(apart.firstMs)} (${apart.count} attempts): ${apart.message}`,
    next: () =>
      'mend what keeps that machine from shipping; until then each ships by itself, and the group is tried again',
  },
  RPO_EXCEEDED: {
    severity: 'warning',
    cause: (seen) => {
      const { nowMs, replica } = seen.facts;
      const { rpoMs } = seen.thresholds;
      if (rpoMs === undefined || replica?.newestPointMs === undefined || !isFollowed(seen)) return undefined;
      const ageMs = nowMs - replica.newestPointMs;
      return ageMs > rpoMs
        ? `the newest recovery point is ${spanText(ageMs)} old, the threshold is ${spanText(rpoMs)}`
        : undefined;
    },
    next: () => 'blockferry ship NAME; if it stays: ship more often, or give the machine more bandwidth',
  },
  STORE_BEHIND: {
    severity: 'warning',
    cause: ({ facts: { nowMs }, figures: { stores = [] }, thresholds: { rpoMs } }) => {
      if (rpoMs === undefined) return undefined;
      const lagMs = ({ behindMs, trouble }: (typeof stores)[number]): number =>
        behindMs ?? (trouble ? nowMs - trouble.firstMs : 0);
      const late = stores.filter((store) => lagMs(store) > rpoMs).sort((a, b) => lagMs(b) - lagMs(a));
      const [worst] = late;
      if (!worst) return undefined;
      const others = late.length > 1 ? `, and ${late.length - 1} more` : '';
      const why = worst.trouble ? `: ${worst.trouble.message} (${worst.trouble.count} attempts)` : '';
      const lag = worst.behindMs === undefined ? 'has had nothing for' : 'is behind the first store of the machine by';
      return `the store ${worst.url} ${lag} ${spanText(lagMs(worst))}${others}${why}`;
    },
    next: () =>
      'mend what the cause names, then blockferry mirror NAME; points in the first store are not touched by it',
  },
  CYCLES_MISSED: {
    severity: 'warning',
    cause: (seen) => {
      const { due = 0, missed = 0 } = seen.figures;
      if (!isFollowed(seen) || due <= 0 || !(missed / due > seen.thresholds.missedShare)) return undefined;
      return `${missed} of ${due} cycles were missed in this monitoring interval, ${percentText(missed / due)}`;
    },
    next: () => 'ship less often, or give the machine more bandwidth',
  },
  LATENCY_HIGH: {
    severity: 'warning',
    cause: (seen) => {
      const { averageLatencyMs = 0 } = seen.figures;
      if (!isFollowed(seen) || !(averageLatencyMs > seen.thresholds.averageLatencyMs)) return undefined;
      return `a cycle takes ${spanText(averageLatencyMs)} on average`;
    },
    next: () => 'give the machine more bandwidth or lanes, or see what the guest writes so much of',
  },
  UPLOAD_SLOW: upload('warning', 'warning'),
  LOG_FILLING: {
    severity: 'warning',
    cause: (seen) => {
      const { tracking } = seen.facts;
      if (tracking?.halfFullInMs === undefined || tracking.mode === 'resync-required' || !isFollowed(seen)) {
        return undefined;
      }
      const { halfFullInMs, logShare = 1 } = tracking;
      const { halfFullMs, halfFullShare } = seen.thresholds;
      return halfFullInMs <= halfFullMs && logShare >= halfFullShare
        ? `half of a disk is in its logs in ${spanText(halfFullInMs)} if the guest goes on; then a resync is required`
        : undefined;
    },
    next: () => 'blockferry ship NAME now, and see why cycles do not keep up',
  },
  TRACKER_NOT_RUNNING: {
    severity: 'warning',
    cause: (seen) => {
      const { tracking } = seen.facts;
      if (!tracking?.ended || tracking.served || !isFollowed(seen)) return undefined;
      return tracking.ended === 'in-order'
        ? 'no tracker serves the disks: what is written to them now is not logged'
        : 'the tracker ended without warning: nothing can be shipped until it runs again';
    },
    next: () => 'blockferry track NAME',
  },
  SPACE_LOW: space('warning', 'low', 'below 25 % copies are slowed down'),
  RETENTION_UNFIT: {
    severity: 'warning',
    cause: ({ figures: { retention } }) => retention && `its retention folder cannot take a failback: ${retention}`,
    next: () =>
      'name a writable folder on a volume of its own, or leave "retention" out: what is fetched then lies beside the disks',
  },
  APPLY_UNFINISHED: {
    severity: 'warning',
    cause: ({ facts: { replica } }) => (replica?.sync === 'apply' ? 'an apply was begun and has not ended' : undefined),
    next: () => 'blockferry apply NAME finishes it',
  },
};

/** The newest of what the replica has and what the schedule remembers: an empty cycle may make no new point. */
function lastCycleMs({ facts: { replica }, figures: { lastSynchronisedMs } }: Seen): number | undefined {
  const { newestPointMs } = replica ?? {};
  if (newestPointMs === undefined) return lastSynchronisedMs;
  return Math.max(newestPointMs, lastSynchronisedMs ?? newestPointMs);
}

function space(severity: Severity, verdict: SpaceVerdict, effect: string): Reason {
  return {
    severity,
    cause: ({ figures: { space: seen } }) => {
      if (seen?.verdict !== verdict) return undefined;
      const { freeBytes, totalBytes } = seen;
      const share = percentText(freeBytes / totalBytes);
      return `${formatSize(freeBytes)} of ${formatSize(totalBytes)} are free (${share}) where replication writes; ${effect}`;
    },
    next: () => 'free space on the volumes of the disks, of the home, and of a store that is a folder',
  };
}

function upload(severity: Severity, level: 'warning' | 'critical'): Reason {
  return {
    severity,
    cause: (seen) => {
      const { upload: forecast } = seen.figures;
      if (forecast?.level !== level || !isFollowed(seen)) return undefined;
      const { minutes } = forecast;
      const waiting = `${formatSize(seen.facts.replica?.backlogBytes ?? 0)} wait`;
      if (!Number.isFinite(minutes)) return `${waiting}, and nothing gets through`;
      return `${waiting}, which will take ${Math.ceil(minutes)} minutes to upload`;
    },
    next: () => 'give the machine more bandwidth, or see what the guest writes so much of',
  };
}
