/** What is counted of the cycles of an interval, and how long the backlog takes. */
import { describe, expect, it } from 'vitest';
import { BacklogForecast, CycleStatistics } from '../../../src/agent/policy/index.ts';
import { BlockferryError } from '../../../src/errors.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const berlin = { zone: 'Europe/Berlin' };
/** 10:00 in Berlin. */
const T = Date.UTC(2026, 0, 15, 9);

function code(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof BlockferryError) return error.code;
    throw error;
  }
  return 'nothing';
}

describe('statistics of cycles', () => {
  it('count what was due, done, missed and failed, with averages and maxima', () => {
    const statistics = new CycleStatistics(berlin, T);
    statistics.done(T + 1000, 100, 1000.4);
    statistics.done(T + 2000, 300, 3000);
    statistics.missed(T + 3000, 2);
    statistics.failed(T + 4000);
    expect(statistics.summary(T + 5000)).toEqual({
      fromMs: T - HOUR,
      toMs: T + 11 * HOUR,
      due: 4,
      done: 2,
      missed: 2,
      failed: 1,
      averageBytes: 200,
      maximumBytes: 300,
      averageLatencyMs: 2000,
      maximumLatencyMs: 3000,
    });
    expect(statistics.lastSynchronisedMs).toBe(T + 2000);
  });

  it('begin anew at 09:00 and 21:00, and remember the interval before', () => {
    const statistics = new CycleStatistics(berlin, T);
    statistics.done(T, 1, 1);
    expect(statistics.previous(T + 11 * HOUR - 1)).toBeUndefined();
    expect(statistics.summary(T + 11 * HOUR)).toMatchObject({ fromMs: T + 11 * HOUR, toMs: T + 23 * HOUR, done: 0 });
    expect(statistics.previous(T + 11 * HOUR)).toMatchObject({ fromMs: T - HOUR, done: 1 });
  });

  it('have a last interval as much shorter or longer as the day', () => {
    const spring = new CycleStatistics(berlin, Date.UTC(2026, 2, 28, 20)).summary(Date.UTC(2026, 2, 28, 20));
    expect((spring.toMs - spring.fromMs) / HOUR).toBe(11);
    const autumn = new CycleStatistics(berlin, Date.UTC(2026, 9, 25, 7)).summary(Date.UTC(2026, 9, 25, 7));
    expect((autumn.toMs - autumn.fromMs) / HOUR).toBe(13);
  });

  it('can be of an hour or of a week', () => {
    const hour = new CycleStatistics({ ...berlin, intervalMs: HOUR }, T + 1).summary(T + 1);
    expect([hour.fromMs, hour.toMs]).toEqual([T, T + HOUR]);
    const week = new CycleStatistics({ ...berlin, intervalMs: 7 * 24 * HOUR }, T).summary(T);
    expect(week.toMs - week.fromMs).toBe(7 * 24 * HOUR);
    expect(() => new CycleStatistics({ ...berlin, intervalMs: 5 * HOUR }, T)).toThrow(RangeError);
    expect(() => new CycleStatistics({ zone: 'Nowhere' }, T)).toThrow(RangeError);
  });

  it('bear a clock that jumps: back a little it is the same interval, further it is another', () => {
    const statistics = new CycleStatistics(berlin, T);
    statistics.done(T, 1, 1);
    expect(statistics.summary(T - 2 * HOUR).done).toBe(1);
    expect(statistics.summary(T + 3650 * 24 * HOUR).done).toBe(0);
    statistics.done(T + 3650 * 24 * HOUR, 1, 1);
    expect(statistics.summary(T).fromMs).toBe(T - HOUR);
  });

  it('are forgotten on demand, but for the last time', () => {
    const statistics = new CycleStatistics(berlin, T);
    statistics.done(T, 1, 1);
    statistics.reset(T + 1);
    expect(statistics.summary(T + 1).done).toBe(0);
    expect(statistics.lastSynchronisedMs).toBe(T);
  });

  it('survive being kept as JSON', () => {
    const statistics = new CycleStatistics(berlin, T);
    statistics.done(T, 100, 10.7);
    statistics.failed(T + 12 * HOUR);
    const json: unknown = JSON.parse(JSON.stringify(statistics.toJson()));
    const again = CycleStatistics.fromJson(json, 'agent.json', berlin);
    expect(again.toJson()).toEqual(statistics.toJson());
    again.done(T + 13 * HOUR, 1, 1);
    expect(again.summary(T + 13 * HOUR)).toMatchObject({ failed: 1, done: 1 });
  });

  it.each([
    ['nothing', undefined],
    ['a list', []],
    ['no interval', {}],
    ['a negative count', { current: { done: -1 } }],
    ['an interval that ends before it begins', { current: { fromMs: 5, toMs: 4 } }],
  ])('refuse %s', (_, json) => {
    expect(code(() => CycleStatistics.fromJson(json, 'agent.json', berlin))).toBe('LOCAL_STATE');
  });

  it('refuse any field that is missing or of another kind', () => {
    const { current } = new CycleStatistics(berlin, T).toJson();
    for (const key of Object.keys(current)) {
      for (const value of [undefined, 'x', 1.5, -1, null]) {
        const json = { current: { ...current, [key]: value } };
        expect(code(() => CycleStatistics.fromJson(json, 'agent.json', berlin))).toBe('LOCAL_STATE');
      }
    }
  });
});

describe('the forecast of the backlog', () => {
  it('knows nothing before anything was sent', () => {
    const forecast = new BacklogForecast();
    expect(forecast.minutesToUpload()).toBe(0);
    forecast.waits(1000);
    expect([forecast.minutesToUpload(), forecast.level()]).toEqual([undefined, 'ok']);
  });

  it('divides what waits by the rate of sending', () => {
    const forecast = new BacklogForecast();
    forecast.sent(100, MINUTE);
    forecast.waits(4000);
    expect(forecast.minutesToUpload()).toBeCloseTo(40);
    expect(forecast.level()).toBe('warning');
    forecast.waits(5000);
    expect(forecast.level()).toBe('critical');
    forecast.waits(2000);
    expect(forecast.level()).toBe('ok');
  });

  it('follows the line when it becomes slower, and when nothing gets through', () => {
    const forecast = new BacklogForecast();
    forecast.sent(1000, MINUTE);
    forecast.waits(20_000);
    expect(forecast.level()).toBe('ok');
    for (let minute = 0; minute < 5; minute += 1) forecast.sent(0, MINUTE);
    expect(forecast.minutesToUpload()).toBeCloseTo(40);
    for (let minute = 0; minute < 60; minute += 1) forecast.sent(0, MINUTE);
    expect(forecast.level()).toBe('critical');
  });

  it('takes no notice of what took no time', () => {
    const forecast = new BacklogForecast();
    forecast.sent(0, 0);
    forecast.waits(1);
    expect(forecast.minutesToUpload()).toBeUndefined();
  });
});
