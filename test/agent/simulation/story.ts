/**
 * What happens in one seed: the machines, how long they are watched, and what befalls them. Most seeds are short and crowded:
 * one to three machines for an hour or so around a fault, half of them in a night in which clocks change.
 */
import type { MachineConfig } from '../../../src/agent/daemon/types.ts';
import {
  type BandwidthProfile,
  type DailyWindow,
  RETENTION_DEFAULT,
  type RetentionPolicy,
} from '../../../src/agent/policy/index.ts';
import { Dice } from '../../support/dice.ts';
import type { GuestPlan } from './guest-model.ts';
import type { Fault } from './world.ts';

export const MINUTE: number = 60_000;
export const HOUR: number = 60 * MINUTE;
export const DAY: number = 24 * HOUR;

export interface MachinePlan {
  readonly config: MachineConfig;
  readonly guest: GuestPlan;
}

/** At `atMs` after the beginning. */
export type Incident = { readonly atMs: number } & (
  | {
      readonly kind: 'fault';
      readonly fault: Fault;
      readonly lastsMs: number;
      readonly machines: 'all' | readonly string[];
    }
  /** The process dies some steps later, anywhere. */
  | { readonly kind: 'kill'; readonly inSteps: number; readonly downMs: number }
  | { readonly kind: 'clock'; readonly byMs: number }
  | { readonly kind: 'burst'; readonly machine: string; readonly lastsMs: number }
  | { readonly kind: 'edited-offline'; readonly machine: string }
  | { readonly kind: 'asked-resync'; readonly machine: string }
  | { readonly kind: 'reader'; readonly machine: string; readonly lastsMs: number }
  | { readonly kind: 'paused'; readonly machine: string; readonly lastsMs: number }
  | { readonly kind: 'low-space'; readonly machine: string; readonly freeShare: number; readonly lastsMs: number }
);

export interface Story {
  readonly seed: number;
  readonly startMs: number;
  readonly lastsMs: number;
  readonly zone: string;
  readonly bandwidth: BandwidthProfile;
  readonly lineBytesPerSecond: number;
  readonly lanes: number;
  readonly machines: readonly MachinePlan[];
  readonly incidents: readonly Incident[];
}

/** Evenings: windows open soon, and a day on which clocks change is near. */
const EVENINGS: readonly { readonly zone: string; readonly startMs: number }[] = [
  { zone: 'UTC', startMs: Date.UTC(2026, 0, 14, 15) },
  { zone: 'Asia/Kathmandu', startMs: Date.UTC(2026, 5, 3, 9) },
  { zone: 'Europe/Berlin', startMs: Date.UTC(2026, 6, 8, 14) },
  { zone: 'America/New_York', startMs: Date.UTC(2026, 1, 4, 20) },
  { zone: 'Europe/Berlin', startMs: Date.UTC(2026, 2, 28, 16) },
  { zone: 'Europe/Berlin', startMs: Date.UTC(2026, 9, 24, 16) },
  { zone: 'America/New_York', startMs: Date.UTC(2026, 2, 7, 23) },
  { zone: 'Australia/Lord_Howe', startMs: Date.UTC(2026, 3, 4, 7) },
];

const WINDOWS: readonly Pick<DailyWindow, 'from' | 'to'>[] = [
  { from: '18:30', to: '06:00' },
  { from: '20:00', to: '04:00' },
  { from: '00:00', to: '00:00' },
];

/** Equal windows are one object in all seeds: what is remembered of it saves asking for the zone once more. */
const windows: Map<string, DailyWindow & { readonly bytesPerSecond: number }> = new Map();

function windowOf(
  from: string,
  to: string,
  zone: string,
  bytesPerSecond: number,
): DailyWindow & { bytesPerSecond: number } {
  const key = [from, to, zone, bytesPerSecond].join();
  const window = windows.get(key) ?? { from, to, zone, bytesPerSecond };
  windows.set(key, window);
  return window;
}

/** Retention in minutes, so that a short seed sees points thinned and dropped. */
const HASTY: RetentionPolicy = {
  keepMs: 50 * MINUTE,
  appConsistentKeepMs: 80 * MINUTE,
  thinning: [
    { olderThanMs: 14 * MINUTE, onePerMs: 30 * MINUTE },
    { olderThanMs: 35 * MINUTE, onePerMs: HOUR },
  ],
  pointsMax: 20,
};

/** `short`: one to three machines, about an hour. `day`: the same for 6 to 14 hours. `month`: 20 machines for 30 days. */
export type Size = 'short' | 'day' | 'month';

/** `monthCycleMs`: how often the machines of a month are shipped. */
export function storyOf(seed: number, size: Size, monthCycleMs: number = 15 * MINUTE): Story {
  const dice = new Dice(seed, { short: 0, day: 1, month: 2 }[size]);
  const { zone, startMs } = dice.pick(EVENINGS);
  const count = size === 'month' ? 20 : dice.pick([1, 1, 1, 1, 1, 2, 3]);
  const lastsMs = { short: dice.between(20, 65) * MINUTE, day: dice.between(6, 14) * HOUR, month: 30 * DAY }[size];
  const machines = Array.from({ length: count }, (_, i) => machineOf(dice, `m${i + 1}`, zone, size, monthCycleMs));
  const incidentCount = { short: dice.between(1, 3), day: dice.between(2, 8), month: 150 }[size];
  const incidents = Array.from({ length: incidentCount }, () => incidentOf(dice, machines, lastsMs, size));
  const workBytesPerSecond = dice.pick([200_000, 1_000_000]);
  const bandwidth: BandwidthProfile = dice.oneIn(3)
    ? {}
    : {
        workHours: windowOf('08:00', dice.pick(['18:00', '17:00', '21:00']), zone, workBytesPerSecond),
        ...(dice.oneIn(2) ? {} : { otherBytesPerSecond: workBytesPerSecond * 4 }),
      };
  return {
    ...{ seed, zone, lastsMs, bandwidth, machines },
    startMs: startMs + dice.below(4 * HOUR),
    lineBytesPerSecond: dice.pick([500_000, 2_000_000, 20_000_000]),
    lanes: dice.pick([2, 8, 64]),
    incidents: incidents.toSorted((a, b) => a.atMs - b.atMs),
  };
}

function machineOf(dice: Dice, name: string, zone: string, size: Size, cycleMs: number): MachinePlan {
  const isHasty = size !== 'month';
  const chunks = dice.between(4, 12);
  const { from, to } = dice.pick(WINDOWS);
  const config: MachineConfig = {
    ...{ name, disks: [`/vm/${name}.vhdx`], url: `file:///replicas/${name}`, keys: [] },
    everyMs: isHasty ? dice.pick([5, 15, 15, 15, 15, 15, 15, 15]) * MINUTE : cycleMs,
    ...(dice.oneIn(3) ? { appConsistent: { everyMs: isHasty ? 30 * MINUTE : HOUR, timeoutMs: 30_000 } } : {}),
    resync: dice.oneIn(10) ? 'manual' : windowOf(from, to, zone, 0),
    retention: isHasty ? HASTY : { ...RETENTION_DEFAULT, keepMs: 8 * DAY },
    apply: { logs: dice.between(2, 4), ageMs: HOUR },
    lanes: { min: 4, max: 32 },
    rpoThresholdMs: HOUR,
    lowSpace: dice.oneIn(3) ? 'tell' : 'act',
  };
  const diskBytes = chunks * 50_000_000;
  return { config, guest: { chunks, diskBytes, bytesPerSecond: dice.between(100, 20_000) } };
}

function incidentOf(dice: Dice, machines: readonly MachinePlan[], lastsMs: number, size: Size): Incident {
  const { name: machine } = dice.pick(machines).config;
  const atMs = dice.below(lastsMs);
  const forMs = dice.pick([
    dice.between(1, 30) * 1000,
    dice.between(1, 15) * MINUTE,
    dice.between(10, { short: 90, day: 300, month: 1500 }[size]) * MINUTE,
  ]);
  switch (dice.below(12)) {
    case 0:
    case 1:
      return {
        atMs,
        kind: 'fault',
        fault: 'network-down',
        lastsMs: forMs,
        machines: dice.oneIn(2) ? 'all' : [machine],
      };
    case 2:
      return {
        atMs,
        kind: 'fault',
        fault: dice.pick(['throttled', 'store-full']),
        lastsMs: forMs,
        machines: [machine],
      };
    case 3:
      return {
        atMs,
        kind: 'fault',
        fault: dice.pick(['sas-expired', 'chain-broken']),
        lastsMs: forMs,
        machines: [machine],
      };
    case 4:
    case 5:
      return { atMs, kind: 'kill', inSteps: dice.between(1, 60), downMs: dice.pick([1000, 5 * MINUTE, forMs]) };
    case 6:
      return {
        atMs,
        kind: 'clock',
        byMs: dice.pick([1, -1]) * dice.pick([1000, 10 * MINUTE, 5 * HOUR, 2 * DAY, 400 * DAY]),
      };
    case 7:
      return { atMs, kind: 'burst', machine, lastsMs: HOUR };
    case 8:
      return dice.oneIn(2) ? { atMs, kind: 'edited-offline', machine } : { atMs, kind: 'asked-resync', machine };
    case 9:
    case 10:
      return { atMs, kind: 'reader', machine, lastsMs: dice.between(10, 90) * MINUTE };
    default:
      return dice.oneIn(2)
        ? { atMs, kind: 'paused', machine, lastsMs: forMs }
        : { atMs, kind: 'low-space', machine, freeShare: dice.pick([0.27, 0.22, 0.1]), lastsMs: forMs };
  }
}
