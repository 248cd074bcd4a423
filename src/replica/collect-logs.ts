/**
 * Removing shipped logs that no root names: of tries to ship that ended before their root, and those that went out of
 * retention.
 *
 * Needs no lease. A log that is being shipped has a number above the newest that was committed, and its root is refused if
 * another one came first; so whatever has no higher number and is not named by a root never will be by a later one.
 */
import type { CallOptions, Store } from '../transport/index.ts';
import { LOGS_PREFIX, logKey, logKeySeq } from './layout.ts';
import type { AskPins } from './pins.ts';
import { newestLog, type Root } from './root.ts';

/** Deletes the logs that neither `root` nor a pin names. */
export async function collectLogs(
  root: Root,
  store: Pick<Store, 'list' | 'delete'>,
  pins: AskPins,
  options: CallOptions = {},
): Promise<void> {
  const named = new Set(root.logs.map(logKey));
  const newest = newestLog(root);
  for await (const key of store.list(LOGS_PREFIX, options)) {
    const seq = logKeySeq(key);
    if (seq === undefined || seq > newest || named.has(key)) continue;
    if (!(await pins()).hasLog(seq)) await store.delete(key, options);
  }
}
