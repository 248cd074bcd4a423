/** Retries over a store: answers that got lost, listings that broke off. */
import { describe, expect, it } from 'vitest';
import { BlockferryError } from '../../src/errors.ts';
import { openStore, Retry, RetryingStore, type Store } from '../../src/transport/index.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import { seededRandom, type VirtualClock, virtualClock } from '../support/virtual-clock.ts';
import { collectAll, filled } from './contract.ts';

type Fault = 'lost request' | 'lost answer';

/** A store whose next calls of a method go wrong as told. */
function faulty<T extends object>(inner: T, faults: Fault[], methods: readonly (keyof T)[]): T {
  const timeout = (): BlockferryError => new BlockferryError('STORE_TIMEOUT', 'no answer', { retryable: true });
  return new Proxy(inner, {
    get(target, name) {
      const value = Reflect.get(target, name) as unknown;
      if (typeof value !== 'function') return value;
      const call = value.bind(target) as (...args: unknown[]) => Promise<unknown>;
      if (!methods.includes(name as keyof T)) return call;
      return async (...args: unknown[]) => {
        const fault = faults.shift();
        if (fault === 'lost request') throw timeout();
        const answer = await call(...args);
        if (fault === 'lost answer') throw timeout();
        return answer;
      };
    },
  });
}

async function setup(faults: Fault[]): Promise<{ clock: VirtualClock; inner: Store; store: RetryingStore }> {
  const clock = virtualClock();
  const inner = await openStore('file:///store', {
    ports: { files: memoryFileSystem(), clock, random: seededRandom(1), failpoint: () => {} },
  });
  const retry = new Retry({ clock, random: seededRandom(1) });
  return { clock, inner, store: new RetryingStore(faulty(inner, faults, ['put', 'get', 'delete', 'prepare']), retry) };
}

describe('a put with ifMatch', () => {
  it('whose answer was lost is our own: the content tells', async () => {
    const { clock, inner, store } = await setup(['lost answer']);
    const etag = await inner.put('root', filled(10, 1));
    const next = await clock.run(store.put('root', filled(10, 2), { ifMatch: etag }));
    expect((await inner.get('root', 10))?.etag).toBe(next);
  });

  it('that must not exist is our own too', async () => {
    const { clock, store } = await setup(['lost answer', 'lost request']);
    await clock.run(store.put('root', filled(10, 2), { ifMatch: null }));
    expect((await clock.run(store.get('root', 10)))?.bytes[0]).toBe(2);
  });

  it('whose request was lost, while another one won, has failed', async () => {
    const { clock, inner, store } = await setup(['lost request']);
    const etag = await inner.put('root', filled(10, 1));
    await inner.put('root', filled(20, 9), { ifMatch: etag });
    const put = clock.run(store.put('root', filled(10, 2), { ifMatch: etag }));
    await expect(put).rejects.toMatchObject({ code: 'STORE_CONDITION' });
    expect((await inner.get('root', 20))?.bytes[0]).toBe(9);
  });

  it('that never lost an answer fails at once, even against equal content', async () => {
    const { clock, inner, store } = await setup([]);
    await inner.put('root', filled(10, 2));
    const put = clock.run(store.put('root', filled(10, 2), { ifMatch: null }));
    await expect(put).rejects.toMatchObject({ code: 'STORE_CONDITION' });
  });
});

describe('a retrying store', () => {
  it('tries its other calls again', async () => {
    const { clock, store } = await setup(['lost request', 'lost answer', 'lost request', 'lost request']);
    await clock.run(store.prepare());
    await clock.run(store.put('a', filled(1, 1)));
    expect((await clock.run(store.get('a', 1)))?.bytes[0]).toBe(1);
    await clock.run(store.delete('a'));
    expect(await clock.run(store.get('a', 1))).toBeUndefined();
  });

  it('takes a blob whose creation was answered by nobody for its own, if it is the empty one it asked for', async () => {
    const { clock, inner } = await setup([]);
    const retry = new Retry({ clock, random: seededRandom(1) });
    const over = (faults: Fault[]): RetryingStore => {
      const pages = (key: string) => faulty(inner.pages(key), faults, ['create']);
      return new RetryingStore({ ...inner, pages } as Store, retry);
    };
    await clock.run(over(['lost answer']).pages('base').create(4096, 1));
    expect(await inner.pages('base').state()).toEqual({ sizeBytes: 4096, fence: 1 });
    await expect(clock.run(over([]).pages('base').create(4096, 1))).rejects.toMatchObject({ code: 'STORE_CONDITION' });
    const other = over(['lost request']).pages('base');
    await expect(clock.run(other.create(8192, 1))).rejects.toMatchObject({ code: 'STORE_CONDITION' });
    await inner.pages('base').write(filled(512, 1), 0, { fence: 1 });
    const used = over(['lost request']).pages('base');
    await expect(clock.run(used.create(4096, 1))).rejects.toMatchObject({ code: 'STORE_CONDITION' });
  });

  it('puts parts and commits again, and reads again', async () => {
    const { clock, inner } = await setup([]);
    const faults: Fault[] = ['lost answer', 'lost request', 'lost request', 'lost answer'];
    const stage: Store['stage'] = (...of) => faulty(inner.stage(...of), faults, ['put', 'commit']);
    const over = { ...inner, stage, read: inner.read.bind(inner) } as Store;
    const retry = new Retry({ clock, random: seededRandom(1) });
    const store = new RetryingStore(faulty(over, ['lost request'], ['read']), retry);
    const staged = store.stage('log', 10);
    await clock.run(staged.put(0, filled(10, 1)));
    await clock.run(staged.put(1, filled(5, 2)));
    await clock.run(staged.commit(2));
    expect(faults).toEqual([]);
    expect(await clock.run(store.read('log', 8, 7))).toEqual(Buffer.from([1, 1, 2, 2, 2, 2, 2]));
  });

  it('goes on with a listing where it broke off', async () => {
    const clock = virtualClock();
    const opened: string[] = [];
    const broken = {
      async *list(prefix: string) {
        opened.push(prefix);
        const breakAt = opened.length;
        for (const [i, key] of ['a', 'b', 'c', 'd'].entries()) {
          if (i === breakAt && opened.length < 4)
            throw new BlockferryError('STORE_UNREACHABLE', 'x', { retryable: true });
          yield key;
        }
      },
      pages: () => ({
        key: 'base',
        async *ranges(options?: { fromOffset?: number }) {
          const from = options?.fromOffset ?? 0;
          // As a folder does: the first range may begin before the offset.
          if (from < 1024) yield { offset: 0, lengthBytes: 1024 };
          else yield { offset: 512, lengthBytes: 1024 };
          if (from === 0) throw new BlockferryError('STORE_UNREACHABLE', 'x', { retryable: true });
          yield { offset: 4096, lengthBytes: 512 };
        },
      }),
    };
    const store = new RetryingStore(broken as unknown as Store, new Retry({ clock, random: seededRandom(1) }));
    expect(await clock.run(collectAll(store.list('p')))).toEqual(['a', 'b', 'c', 'd']);
    expect(opened).toHaveLength(4);
    expect(await clock.run(collectAll(store.pages('base').ranges()))).toEqual([
      { offset: 0, lengthBytes: 1024 },
      { offset: 1024, lengthBytes: 512 },
      { offset: 4096, lengthBytes: 512 },
    ]);
  });

  it('passes writes through with their one try: they are for a fenced blob', async () => {
    const { clock, inner } = await setup([]);
    await inner.pages('base').create(4096, 1);
    const pages = (key: string) => faulty(inner.pages(key), ['lost request'], ['write']);
    const store = new RetryingStore({ ...inner, pages } as Store, new Retry({ clock, random: seededRandom(1) }));
    const write = store.pages('base').write(filled(512, 1), 0, { fence: 1 });
    await expect(clock.run(write)).rejects.toMatchObject({ code: 'STORE_TIMEOUT' });
  });
});
