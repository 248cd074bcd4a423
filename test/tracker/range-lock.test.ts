import { describe, expect, test } from 'vitest';
import { RangeLock } from '../../src/tracker/range-lock.ts';
import { Dice } from '../support/dice.ts';

describe('a range lock', () => {
  test('lets ranges that are apart go at once, also such as touch', () => {
    const locks = new RangeLock();
    locks.take(0, 512);
    expect(locks.take(512, 1024).blockers).toBe(0);
    expect(locks.take(4096, 8192).blockers).toBe(0);
  });

  test('serves overlapping ranges in the order in which they came: 300 random schedules', async () => {
    for (let seed = 1; seed <= 300; seed += 1) {
      const dice = new Dice(seed);
      const locks = new RangeLock();
      const order = new Map<number, number[]>();
      const held = new Set<number>();
      const work = Array.from({ length: dice.between(2, 30) }, async (_, n) => {
        const from = dice.below(20);
        const to = from + dice.between(1, 8);
        const range = locks.take(from, to);
        await locks.wait(range);
        for (let place = from; place < to; place += 1) {
          expect(held.has(place)).toBe(false);
          held.add(place);
          order.set(place, [...(order.get(place) ?? []), n]);
        }
        for (let turns = dice.below(4); turns > 0; turns -= 1) await Promise.resolve();
        for (let place = from; place < to; place += 1) held.delete(place);
        locks.release(range);
      });
      const idle = locks.idle();
      await Promise.all(work);
      await idle;
      expect(locks.size).toBe(0);
      for (const turns of order.values()) expect(turns).toEqual(turns.toSorted((a, b) => a - b));
    }
  });
});
