/**
 * The door of the agent's rules: pure functions of times and numbers, without I/O, so that each can be tried at any
 * moment of any year. Defaults and their reasons: docs/policy.md.
 */
export { BacklogForecast, type BacklogLevel } from './backlog-forecast.ts';
export { type BandwidthProfile, bandwidthAt, nextBandwidthChange } from './bandwidth-profile.ts';
export {
  APP_CONSISTENT_EVERY_MS_MAX,
  APP_CONSISTENT_EVERY_MS_MIN,
  CYCLE_EVERY_MS,
  CYCLE_EVERY_MS_DEFAULT,
  type CycleSchedule,
  type DueCycle,
  isAppConsistentDue,
  type LastCycle,
  nextCycle,
} from './cycle-schedule.ts';
export { CycleStatistics, type CycleSummary, type Monitoring, type StatisticsJson } from './cycle-statistics.ts';
export { type DailyWindow, isOpen, nextChange, nextClosing, nextOpening, windowFault } from './daily-window.ts';
export { fairLanes, LANES_MAX_DEFAULT, LANES_MIN_DEFAULT, type LaneWish } from './fair-lanes.ts';
export {
  pointsToDrop,
  RETENTION_DEFAULT,
  type RetainedPoint,
  type RetentionPolicy,
  retentionFault,
  type ThinningRule,
} from './retention.ts';
export { nextAttempt } from './retry-ladder.ts';
export { type SpaceVerdict, spaceVerdict } from './space.ts';
export { isZone, minutesOf, type TimeOfDay, WEEKDAYS, type Weekday } from './zone-time.ts';
