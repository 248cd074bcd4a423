/** A store that counts its requests by kind: `base write`, `manifest snapshot`, `root put`, `log part put` … */
import type { PageBlob, StagedObject, Store } from '../../src/transport/store.ts';

/** Requests of all counting stores, until cleared. */
export const requests: Map<string, number> = new Map();

function count(label: string, key: string, method: string): void {
  const thing = key.startsWith('logs/') ? 'log' : key.slice(key.lastIndexOf('/') + 1);
  const name = `${label}${thing} ${method}`;
  requests.set(name, (requests.get(name) ?? 0) + 1);
}

/** Counts every call that reaches the store. */
function counting<T extends object>(
  target: T,
  label: string,
  keyOf: (args: readonly unknown[]) => string,
  intercept: Partial<T> = {},
): T {
  return new Proxy(target, {
    get(object, name) {
      const own = Reflect.get(intercept, name) as unknown;
      if (own !== undefined) return own;
      const value = Reflect.get(object, name, object) as unknown;
      if (typeof value !== 'function') return value;
      return (...args: readonly unknown[]) => {
        count(label, keyOf(args), String(name));
        return Reflect.apply(value, object, args) as unknown;
      };
    },
  });
}

/** With a label in front of each kind, for stores that are to be told apart. */
export function countRequests(store: Store, label = ''): Store {
  const pages = (key: string): PageBlob => counting(store.pages(key), label, () => key);
  const stage = (key: string, partBytes: number): StagedObject => {
    const staged = store.stage(key, partBytes);
    return {
      put: (...of) => {
        count(label, key, 'part put');
        return staged.put(...of);
      },
      commit: (...of) => {
        count(label, key, 'commit');
        return staged.commit(...of);
      },
      abort: () => staged.abort(),
    };
  };
  return counting(store, label, ([key]) => (typeof key === 'string' ? key : 'store'), { pages, stage });
}
