import { describe, expect, it } from 'vitest';
import { BufferPool } from '../../src/workers/buffers.ts';
import { seededRandom } from '../support/virtual-clock.ts';

/** Whether the promise has settled once everything else has run. */
async function settled(promise: Promise<unknown>): Promise<boolean> {
  let done = false;
  const mark = (): void => {
    done = true;
  };
  promise.then(mark, mark);
  await new Promise((resolve) => setImmediate(resolve));
  return done;
}

describe('a buffer pool', () => {
  it('makes no more buffers than it may, and gives the next one to whoever waits longest', async () => {
    const pool = new BufferPool(64, 2);
    const [a, b] = [await pool.acquire(), await pool.acquire()];
    const [third, fourth] = [pool.acquire(), pool.acquire()];
    expect(await settled(third)).toBe(false);
    pool.release(a);
    expect(await third).toBe(a);
    expect(await settled(fourth)).toBe(false);
    pool.release(b);
    expect(await fourth).toBe(b);
    expect(pool.inUse).toBe(2);
  });

  it('serves who has to end something before all who begin', async () => {
    const pool = new BufferPool(64, 1);
    const buffer = await pool.acquire();
    const [begins, ends] = [pool.acquire(), pool.acquire(true)];
    pool.release(buffer);
    expect(await ends).toBe(buffer);
    expect(await settled(begins)).toBe(false);
    pool.release(buffer);
    expect(await begins).toBe(buffer);
  });

  it('takes another buffer of the same size in the place of one that moved, and no other size', async () => {
    const pool = new BufferPool(64, 1);
    await pool.acquire();
    const back = new ArrayBuffer(64);
    pool.release(back);
    expect(await pool.acquire()).toBe(back);
    expect(() => pool.release(new ArrayBuffer(63))).toThrow(RangeError);
    const moved = structuredClone(back, { transfer: [back] });
    expect(() => pool.release(back)).toThrow(RangeError);
    pool.release(moved);
    expect(pool.inUse).toBe(0);
  });

  it('ends all waiting with the first reason, now and later', async () => {
    const pool = new BufferPool(64, 1);
    await pool.acquire();
    const waiting = pool.acquire();
    pool.fail(new Error('first'));
    pool.fail(new Error('second'));
    await expect(waiting).rejects.toThrow('first');
    await expect(pool.acquire()).rejects.toThrow('first');
  });

  it('never has more in use than it may, whatever the order', async () => {
    for (let seed = 1; seed <= 50; seed += 1) {
      const random = seededRandom(seed);
      const pool = new BufferPool(8, 3);
      let most = 0;
      const user = async (): Promise<void> => {
        for (let i = 0; i < 10; i += 1) {
          const buffer = await pool.acquire();
          most = Math.max(most, pool.inUse);
          if (random.fraction() < 0.5) await new Promise((resolve) => setImmediate(resolve));
          pool.release(buffer);
        }
      };
      await Promise.all(Array.from({ length: 8 }, user));
      expect(most).toBe(3);
      expect(pool.inUse).toBe(0);
    }
  });
});
