/**
 * What became of the delta cycles of a machine in one monitoring interval: 12 hours from 09:00 local, as published, or what
 * is configured. A new interval begins with the first thing that happens in it, and the one before is remembered. A clock that
 * jumps back by less than an interval stays in the one it is in.
 */
import { JsonReader } from '../../replica/index.ts';
import { DAY_MS, HOUR_MS } from './durations.ts';
import { dayAt, instantOf, isZone, minutesOf, type TimeOfDay } from './zone-time.ts';

export interface Monitoring {
  /** A divisor of a day, or whole days up to 7. */
  readonly intervalMs?: number;
  readonly from?: TimeOfDay;
  /** IANA name. */
  readonly zone: string;
}

export interface CycleSummary {
  readonly fromMs: number;
  /** When the interval ends. */
  readonly toMs: number;
  /** Cycles that should have been: `done` and `missed`. */
  readonly due: number;
  readonly done: number;
  /** Cycles that fell out because one before them, or its retries, took too long. */
  readonly missed: number;
  /** Attempts that failed; their cycle may have been done in the end. */
  readonly failed: number;
  readonly averageBytes: number;
  readonly maximumBytes: number;
  readonly averageLatencyMs: number;
  readonly maximumLatencyMs: number;
}

/** The numbers of one interval, as they are kept. */
interface Counts {
  readonly fromMs: number;
  readonly toMs: number;
  readonly done: number;
  readonly missed: number;
  readonly failed: number;
  readonly bytes: number;
  readonly maximumBytes: number;
  readonly latencyMs: number;
  readonly maximumLatencyMs: number;
}

export interface StatisticsJson {
  readonly current: Counts;
  readonly previous?: Counts;
  readonly lastSynchronisedMs?: number;
}

const INTERVAL_MS_DEFAULT: number = 12 * HOUR_MS;
const FROM_DEFAULT: TimeOfDay = '09:00';
const DAYS_MAX = 7;
/** A Date of JavaScript ends there. */
const TIME_MS_MAX = 8.64e15;

export class CycleStatistics {
  readonly #monitoring: Required<Monitoring>;
  #current: Counts;
  #previous: Counts | undefined;
  #lastSynchronisedMs: number | undefined;

  /** @throws RangeError for an interval that does not fit into days */
  constructor(monitoring: Monitoring, nowMs: number) {
    this.#monitoring = checked(monitoring);
    this.#current = emptyAt(this.#monitoring, nowMs);
  }

  /** What `toJson` gave, read back. @throws LOCAL_STATE if `json` is nothing of the kind; `source` is its name */
  static fromJson(json: unknown, source: string, monitoring: Monitoring): CycleStatistics {
    const reader = new JsonReader(json, source, 'LOCAL_STATE');
    const current = readCounts(reader.field('current'));
    const previous = reader.optional('previous');
    const statistics = new CycleStatistics(monitoring, current.fromMs);
    statistics.#current = current;
    statistics.#previous = previous && readCounts(previous);
    statistics.#lastSynchronisedMs = reader.optional('lastSynchronisedMs')?.integer(0, TIME_MS_MAX);
    return statistics;
  }

  /** When the last cycle that was done ended. */
  get lastSynchronisedMs(): number | undefined {
    return this.#lastSynchronisedMs;
  }

  /** A cycle was done: `bytes` were sent, and so many ms passed from its begin to its recovery point. */
  done(endedMs: number, bytes: number, latency: number): void {
    this.#roll(endedMs);
    // A monotonic clock has fractions.
    const latencyMs = Math.round(latency);
    const { done, maximumBytes, maximumLatencyMs } = this.#current;
    this.#current = {
      ...this.#current,
      done: done + 1,
      bytes: sum(this.#current.bytes, bytes),
      maximumBytes: Math.max(maximumBytes, bytes),
      latencyMs: sum(this.#current.latencyMs, latencyMs),
      maximumLatencyMs: Math.max(maximumLatencyMs, latencyMs),
    };
    this.#lastSynchronisedMs = endedMs;
  }

  missed(nowMs: number, cycles: number): void {
    this.#roll(nowMs);
    this.#current = { ...this.#current, missed: sum(this.#current.missed, cycles) };
  }

  failed(nowMs: number): void {
    this.#roll(nowMs);
    this.#current = { ...this.#current, failed: this.#current.failed + 1 };
  }

  /** The running interval. */
  summary(nowMs: number): CycleSummary {
    this.#roll(nowMs);
    return summaryOf(this.#current);
  }

  /** The last interval before it in which anything happened. */
  previous(nowMs: number): CycleSummary | undefined {
    this.#roll(nowMs);
    return this.#previous && summaryOf(this.#previous);
  }

  /** Forgets both intervals; when it last synchronised stays known. */
  reset(nowMs: number): void {
    this.#current = emptyAt(this.#monitoring, nowMs);
    this.#previous = undefined;
  }

  toJson(): StatisticsJson {
    return {
      current: this.#current,
      ...(this.#previous ? { previous: this.#previous } : {}),
      ...(this.#lastSynchronisedMs === undefined ? {} : { lastSynchronisedMs: this.#lastSynchronisedMs }),
    };
  }

  #roll(nowMs: number): void {
    const { fromMs, toMs, done, missed, failed } = this.#current;
    if (nowMs >= fromMs - this.#monitoring.intervalMs && nowMs < toMs) return;
    if (done + missed + failed > 0) this.#previous = this.#current;
    this.#current = emptyAt(this.#monitoring, nowMs);
  }
}

function checked({ intervalMs = INTERVAL_MS_DEFAULT, from = FROM_DEFAULT, zone }: Monitoring): Required<Monitoring> {
  const dividesDay = intervalMs >= HOUR_MS && intervalMs <= DAY_MS && DAY_MS % intervalMs === 0;
  const isDays = intervalMs % DAY_MS === 0 && intervalMs <= DAYS_MAX * DAY_MS && intervalMs > 0;
  if (!dividesDay && !isDays) throw new RangeError(`a monitoring interval of ${intervalMs} ms does not fit into days`);
  if (minutesOf(from) === undefined || !isZone(zone)) throw new RangeError(`an interval from ${from} in ${zone}`);
  return { intervalMs, from, zone };
}

/** The interval that `nowMs` lies in, with nothing counted yet. */
function emptyAt({ intervalMs, from, zone }: Required<Monitoring>, nowMs: number): Counts {
  const startOf = (day: number): number => instantOf(zone, day, minutesOf(from)!, 'first');
  const today = dayAt(zone, nowMs);
  const day = nowMs < startOf(today) ? today - 1 : today;
  const nothing = { done: 0, missed: 0, failed: 0, bytes: 0, maximumBytes: 0, latencyMs: 0, maximumLatencyMs: 0 };
  if (intervalMs >= DAY_MS) {
    const days = intervalMs / DAY_MS;
    const first = Math.floor(day / days) * days;
    return { fromMs: startOf(first), toMs: startOf(first + days), ...nothing };
  }
  // The last interval of a day is as much shorter or longer as the day is.
  const ofDay = DAY_MS / intervalMs;
  const index = Math.min(Math.floor((nowMs - startOf(day)) / intervalMs), ofDay - 1);
  const fromMs = startOf(day) + index * intervalMs;
  return { fromMs, toMs: index === ofDay - 1 ? startOf(day + 1) : fromMs + intervalMs, ...nothing };
}

function summaryOf({ bytes, latencyMs, ...counts }: Counts): CycleSummary {
  const { done, missed } = counts;
  const average = (total: number): number => (done === 0 ? 0 : Math.round(total / done));
  return { ...counts, due: done + missed, averageBytes: average(bytes), averageLatencyMs: average(latencyMs) };
}

function readCounts(json: JsonReader): Counts {
  const count = (key: string): number => json.field(key).integer(0, Number.MAX_SAFE_INTEGER);
  const fromMs = json.field('fromMs').integer(0, TIME_MS_MAX);
  return {
    fromMs,
    toMs: json.field('toMs').integer(fromMs + 1, fromMs + 2 * DAYS_MAX * DAY_MS),
    done: count('done'),
    missed: count('missed'),
    failed: count('failed'),
    bytes: count('bytes'),
    maximumBytes: count('maximumBytes'),
    latencyMs: count('latencyMs'),
    maximumLatencyMs: count('maximumLatencyMs'),
  };
}

/** Never beyond what can be counted exactly. */
function sum(total: number, more: number): number {
  return Math.min(total + more, Number.MAX_SAFE_INTEGER);
}
