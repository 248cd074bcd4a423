/** A store of which each call that decides something is told before it is made, so that a test can delay it, or fail it. */
import type { PageBlob, RetryingStore } from '../../src/transport/index.ts';

/** `put root`, `list pins/`, `delete logs/…`, `delete snapshot disks/d0/base` … */
export type BeforeCall = (call: string) => Promise<void>;

export function watchStore(store: RetryingStore, before: BeforeCall): RetryingStore {
  const own: Partial<RetryingStore> = {
    get: async (...of) => {
      await before(`get ${of[0]}`);
      return store.get(...of);
    },
    put: async (...of) => {
      await before(`put ${of[0]}`);
      return store.put(...of);
    },
    delete: async (...of) => {
      await before(`delete ${of[0]}`);
      return store.delete(...of);
    },
    async *list(...of) {
      await before(`list ${of[0]}`);
      yield* store.list(...of);
    },
    pages: (key): PageBlob => {
      const blob = store.pages(key);
      const deleteSnapshot: PageBlob['deleteSnapshot'] = async (...of) => {
        await before(`delete snapshot ${key}`);
        return blob.deleteSnapshot(...of);
      };
      return new Proxy(blob, {
        get: (target, name) => {
          if (name === 'deleteSnapshot') return deleteSnapshot;
          const value = Reflect.get(target, name, target) as unknown;
          return typeof value === 'function' ? value.bind(target) : value;
        },
      });
    },
  };
  return new Proxy(store, {
    get: (target, name) => {
      const replaced = Reflect.get(own, name) as unknown;
      if (replaced) return replaced;
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
