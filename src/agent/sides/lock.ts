/** One failover, failback, commit or cancel of an item at a time in a home; cycles go on beside them. */
import { join } from 'node:path';
import type { LocalItem } from '../local-state.ts';
import { withLockSoon } from '../open-item.ts';
import type { Session } from '../types.ts';

/** @throws ITEM_LOCKED at once */
export async function withSides<T>({ ports }: Session, item: LocalItem, work: () => Promise<T>): Promise<T> {
  const directory = join(item.directory, 'sides');
  await ports.files.makeDirectory(directory);
  const lock = await ports.lock(directory, `failover, failback, commit or cancel of item "${item.name}"`);
  try {
    return await work();
  } finally {
    await lock.release();
  }
}

/** The same with the item itself, of which a cycle may be under way. */
export function withBoth<T>(session: Session, item: LocalItem, work: () => Promise<T>): Promise<T> {
  return withSides(session, item, () => withLockSoon(session, item, work));
}
