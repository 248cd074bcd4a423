/** A listing that goes on where it broke off. */
import type { Retry } from './retry.ts';

/** Items of `open(last)`; after a failure that is worth another try it is opened again behind the last item. */
export async function* resumed<T>(
  retry: Retry,
  operation: string,
  signal: AbortSignal | undefined,
  open: (last: T | undefined) => AsyncIterable<T>,
): AsyncGenerator<T> {
  let last: T | undefined;
  let items: AsyncIterator<T> | undefined;
  try {
    for (;;) {
      const next = await retry.run(
        operation,
        async () => {
          items ??= open(last)[Symbol.asyncIterator]();
          try {
            return await items.next();
          } catch (error) {
            items = undefined;
            throw error;
          }
        },
        signal,
      );
      if (next.done) return;
      last = next.value;
      yield next.value;
    }
  } finally {
    await items?.return?.();
  }
}
