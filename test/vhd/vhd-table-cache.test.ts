import { expect, test } from 'vitest';
import { TableCache } from '../../src/vhd/table-cache.ts';

function counter(): { loads: number; load: () => Promise<Uint8Array> } {
  const state = {
    loads: 0,
    load: async (): Promise<Uint8Array> => {
      state.loads += 1;
      return new Uint8Array(10);
    },
  };
  return state;
}

test('a page is loaded once, also when two ask for it at a time', async () => {
  const cache = new TableCache(100);
  const owner = {};
  const pages = counter();
  await Promise.all([cache.page(owner, 0, 10, pages.load), cache.page(owner, 0, 10, pages.load)]);
  await cache.page(owner, 0, 10, pages.load);
  expect(pages.loads).toBe(1);
});

test('the page that was not used for longest goes first', async () => {
  const cache = new TableCache(30);
  const owner = {};
  const pages = counter();
  for (const index of [0, 1, 2, 0, 3]) await cache.page(owner, index, 10, pages.load);
  expect(pages.loads).toBe(4);
  await cache.page(owner, 0, 10, pages.load);
  expect(pages.loads).toBe(4);
  await cache.page(owner, 1, 10, pages.load);
  expect(pages.loads).toBe(5);
});

test('pages of different owners are apart', async () => {
  const cache = new TableCache(100);
  const pages = counter();
  await cache.page({}, 0, 10, pages.load);
  await cache.page({}, 0, 10, pages.load);
  expect(pages.loads).toBe(2);
});

test('a page that failed to load is asked for again', async () => {
  const cache = new TableCache(100);
  const owner = {};
  const failing = cache.page(owner, 0, 10, async () => {
    throw new Error('unreadable');
  });
  await expect(failing).rejects.toThrow('unreadable');
  const pages = counter();
  await cache.page(owner, 0, 10, pages.load);
  expect(pages.loads).toBe(1);
});
