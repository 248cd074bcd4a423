import { describe, expect, it } from 'vitest';
import { Deadlines } from '../../src/transport/deadlines.ts';
import { virtualClock } from '../support/virtual-clock.ts';

describe('deadlines', () => {
  it('are missed once each, at their time, whatever the order in which they began', async () => {
    const clock = virtualClock();
    const deadlines = new Deadlines(clock);
    const missed: string[] = [];
    for (const ms of [500, 100, 300, 100]) deadlines.start(ms, () => missed.push(`${ms} at ${clock.monotonicMs()}`));
    await clock.drain();
    expect(missed).toEqual(['100 at 100', '100 at 100', '300 at 300', '500 at 500']);
  });

  it('that are met are not missed, and those behind them are', async () => {
    const clock = virtualClock();
    const deadlines = new Deadlines(clock);
    const missed: number[] = [];
    const [first] = [100, 200].map((ms) => deadlines.start(ms, () => missed.push(ms)));
    first!();
    await clock.drain();
    expect(missed).toEqual([200]);
  });

  it('have no timer while none runs', async () => {
    const clock = virtualClock();
    const deadlines = new Deadlines(clock);
    for (let i = 0; i < 3; i += 1) deadlines.start(100, () => {})();
    await clock.drain();
    expect(clock.monotonicMs()).toBe(0);
  });

  it('that begin while others are missed are missed too', async () => {
    const clock = virtualClock();
    const deadlines = new Deadlines(clock);
    const missed: number[] = [];
    deadlines.start(100, () => deadlines.start(50, () => missed.push(clock.monotonicMs())));
    deadlines.start(400, () => missed.push(clock.monotonicMs()));
    await clock.drain();
    expect(missed).toEqual([150, 400]);
  });
});
