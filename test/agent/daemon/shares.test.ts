/** Lanes and bandwidth among those that are active: nothing of what is there is left unused, and no more than that is given out. */
import { expect, test } from 'vitest';
import { Shares, type ShareWish } from '../../../src/agent/daemon/shares.ts';

const wish = (part = 1, max = 32): ShareWish => ({ lanes: { min: 1, max }, part });

test('the bandwidth that a throttled machine leaves is the others’, and with its end all is even again', () => {
  const shares = new Shares(32, 900);
  const [slow, a, b] = [shares.enter(wish(0.25)), shares.enter(wish()), shares.enter(wish())];
  const bandwidth = (): readonly (number | undefined)[] =>
    [slow, a, b].map(({ share }) => share.bandwidthBytesPerSecond);
  expect(bandwidth()).toEqual([75, 412, 412]);
  slow.leave();
  expect(bandwidth().slice(1)).toEqual([450, 450]);
  a.leave();
  expect(b.share).toEqual({ lanes: 32, bandwidthBytesPerSecond: 900 });
});

test('a machine that is throttled alone stays so, and where none is capped nobody is', () => {
  const capped = new Shares(32, 900);
  expect(capped.enter(wish(0.25)).share).toEqual({ lanes: 8, bandwidthBytesPerSecond: 225 });
  expect(new Shares(32).enter(wish(0.25)).share.bandwidthBytesPerSecond).toBeUndefined();
});

test('lanes that one does not ask for are the others’, and their sum is what there is', () => {
  const shares = new Shares(20, undefined);
  const places = [shares.enter(wish(1, 2)), shares.enter(wish()), shares.enter(wish())];
  expect(places.map(({ share }) => share.lanes)).toEqual([2, 9, 9]);
});
