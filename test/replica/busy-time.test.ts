import { describe, expect, it } from 'vitest';
import { BusyTime } from '../../src/replica/busy-time.ts';

describe('busy time', () => {
  it('counts the time in which anything was under way, once', async () => {
    let nowMs = 100;
    const busy = new BusyTime({ monotonicMs: () => nowMs });
    const ends: (() => void)[] = [];
    const begin = (): Promise<void> =>
      busy.during(
        () =>
          new Promise((resolve) => {
            ends.push(resolve);
          }),
      );
    const first = begin();
    nowMs = 130;
    const second = begin();
    nowMs = 140;
    ends[0]!();
    await first;
    expect(busy.totalMs).toBe(40);
    nowMs = 190;
    ends[1]!();
    await second;
    expect(busy.totalMs).toBe(90);
    nowMs = 1000;
    const failing = busy.during(() => Promise.reject(new Error('planted')));
    await expect(failing).rejects.toThrow('planted');
    nowMs = 5000;
    expect(busy.totalMs).toBe(90);
  });
});
