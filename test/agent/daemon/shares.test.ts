/** Lanes and bandwidth among those that are active: nothing of what is there is left unused, and no more of it is given out. */
import { setMaxListeners } from 'node:events';
import { expect, test } from 'vitest';
import { contextOf, limitsOf } from '../../../src/agent/daemon/operation-context.ts';
import { type ActiveShare, Shares, type ShareWish } from '../../../src/agent/daemon/shares.ts';
import { isBlockferryError } from '../../../src/errors.ts';
import { type VirtualClock, virtualClock } from '../../support/virtual-clock.ts';

const wish = (part = 1, max = 32): ShareWish => ({ lanes: { min: 1, max }, part });

/** Bytes that each got within a second, in requests of 10 bytes: of so many lanes, each makes one after the other. */
async function secondOf(clock: VirtualClock, ...busy: readonly (readonly [ActiveShare, number])[]): Promise<number[]> {
  const end = new AbortController();
  setMaxListeners(0, end.signal);
  const bytes = busy.map(() => 0);
  const lane = async (i: number): Promise<void> => {
    try {
      for (;;) {
        await busy[i]![0].bandwidth.take(10, end.signal);
        bytes[i]! += 10;
      }
    } catch (error) {
      if (!isBlockferryError(error, 'ABORTED')) throw error;
    }
  };
  const lanes = busy.flatMap(([, count], i) => Array.from({ length: count }, () => lane(i)));
  await clock.run(clock.sleep(1000).then(() => end.abort()));
  await Promise.all(lanes);
  return bytes;
}

/** A request or two of each may be let through before it is paid for. */
const about = (bytes: number): unknown => expect.closeTo(bytes, -2);

test('bandwidth is shared evenly, whoever has more requests waiting', async () => {
  const clock = virtualClock();
  const shares = new Shares(clock, 32, 3000);
  const [many, one, few] = [shares.enter(wish()), shares.enter(wish()), shares.enter(wish())];
  expect(await secondOf(clock, [many, 20], [one, 1], [few, 3])).toEqual([about(1000), about(1000), about(1000)]);
});

test('bandwidth that one does not use is the others’, and is not owed to it when it comes back', async () => {
  const clock = virtualClock();
  const shares = new Shares(clock, 32, 3000);
  const [idle, a, b] = [shares.enter(wish()), shares.enter(wish()), shares.enter(wish())];
  expect(await secondOf(clock, [a, 4], [b, 4])).toEqual([about(1500), about(1500)]);
  expect(await secondOf(clock, [idle, 4], [a, 4], [b, 4])).toEqual([about(1000), about(1000), about(1000)]);
  expect(idle.share.bandwidthBytesPerSecond).toBe(1000);
});

test('who is throttled has its part and no more, whoever is idle; what it leaves is the others’', async () => {
  const clock = virtualClock();
  const shares = new Shares(clock, 32, 3000);
  const [slow, a, b] = [shares.enter(wish(0.25)), shares.enter(wish()), shares.enter(wish())];
  expect(slow.share).toEqual({ lanes: 2, bandwidthBytesPerSecond: 250 });
  expect(await secondOf(clock, [slow, 4], [a, 4])).toEqual([about(250), about(2750)]);
  a.leave();
  b.leave();
  expect(slow.share.bandwidthBytesPerSecond).toBe(750);
  expect(await secondOf(clock, [slow, 4])).toEqual([about(750)]);
});

test('a new cap holds for those who wait, and without one nobody does', async () => {
  const clock = virtualClock();
  const shares = new Shares(clock, 32, 1);
  const { bandwidth } = shares.enter(wish());
  await bandwidth.take(1000);
  const waits = bandwidth.take(1000);
  shares.set(32, 1000);
  await clock.run(waits);
  expect(clock.monotonicMs()).toBeLessThanOrEqual(1000);
  shares.set(32, undefined);
  await bandwidth.take(1e9);
  await bandwidth.take(1e9);
});

test('who is stopped while it waits is let go at once, and keeps nobody up', async () => {
  const clock = virtualClock();
  const shares = new Shares(clock, 32, 1000);
  const [a, b] = [shares.enter(wish()), shares.enter(wish())];
  await a.bandwidth.take(1000);
  const [first, second] = [new AbortController(), new AbortController()];
  const stopped = [first, second].map(({ signal }) => a.bandwidth.take(1e9, signal).catch((error: unknown) => error));
  const next = b.bandwidth.take(1000);
  first.abort();
  second.abort();
  for (const each of stopped) expect(await each).toMatchObject({ code: 'ABORTED' });
  await clock.run(next);
});

test('lanes that one does not ask for are the others’, and their sum is what there is', () => {
  const shares = new Shares(virtualClock(), 20);
  const places = [shares.enter(wish(1, 2)), shares.enter(wish()), shares.enter(wish())];
  expect(places.map(({ share }) => share.lanes)).toEqual([2, 9, 9]);
});

test('where more are active than there are lanes each has one, so that nobody waits for one whose store is down', () => {
  const shares = new Shares(virtualClock(), 2);
  const places = Array.from({ length: 4 }, () => shares.enter(wish()));
  expect(places.map(({ share }) => share.lanes)).toEqual([1, 1, 1, 1]);
});

test('an operation asks for its share, and makes as many requests at a time as that says', async () => {
  const clock = virtualClock();
  const shares = new Shares(clock, 32, 1000);
  const first = shares.enter(wish());
  const { requests, bandwidth } = limitsOf(contextOf(first, new AbortController().signal), clock);
  expect(requests.concurrency).toBe(32);
  const second = shares.enter(wish());
  expect(requests.concurrency).toBe(16);
  await bandwidth.take(1000);
  await clock.run(second.bandwidth.take(1));
  expect(clock.monotonicMs()).toBe(1000);
});
