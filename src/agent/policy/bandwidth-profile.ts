/** What may be sent a second: one rate in working hours, another one (or none) outside. */
import { type DailyWindow, isOpen, nextChange } from './daily-window.ts';

export interface BandwidthProfile {
  readonly workHours?: DailyWindow & { readonly bytesPerSecond: number };
  /** Absent: no cap outside working hours. */
  readonly otherBytesPerSecond?: number;
}

/** Bytes a second; undefined: no cap. */
export function bandwidthAt({ workHours, otherBytesPerSecond }: BandwidthProfile, nowMs: number): number | undefined {
  return workHours && isOpen(workHours, nowMs) ? workHours.bytesPerSecond : otherBytesPerSecond;
}

/** When `bandwidthAt` gives another answer; undefined if it never does. */
export function nextBandwidthChange(profile: BandwidthProfile, nowMs: number): number | undefined {
  const { workHours, otherBytesPerSecond } = profile;
  if (!workHours || workHours.bytesPerSecond === otherBytesPerSecond) return undefined;
  const changeMs = nextChange(workHours, nowMs);
  return changeMs === Number.POSITIVE_INFINITY ? undefined : changeMs;
}
