/** Work on one item after the other with results in their order, several items under way at a time. */

/**
 * Runs `work` for each item, up to `width` of them at a time, and gives the results in the order of the items. The first
 * failure ends it; nothing is under way any more when it has ended.
 */
export async function* lookAhead<T, R>(
  items: AsyncIterable<T>,
  width: number,
  work: (item: T) => Promise<R>,
): AsyncGenerator<R> {
  const ahead: Promise<R>[] = [];
  try {
    for await (const item of items) {
      const result = work(item);
      // Until it is its turn nobody waits for it.
      result.catch(() => {});
      ahead.push(result);
      if (ahead.length >= width) yield await ahead.shift()!;
    }
    while (ahead.length > 0) yield await ahead.shift()!;
  } finally {
    await Promise.allSettled(ahead);
  }
}
