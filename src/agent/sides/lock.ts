/**
 * Who may change what a home remembers of disks that were brought back. Cycles of the item go on beside all of these.
 *
 *     sides/          failover.json: held by commit, cancel and failback to their end, by a failover while it notes something
 *     sides/tests/    tests.json
 *
 * A directory that disks are brought back to is held by `.blockferry/` in itself for as long as that takes: another home may name it too.
 */
import { join, resolve } from 'node:path';
import type { LocalItem } from '../local-state.ts';
import { withLockAt, withLockSoon } from '../open-item.ts';
import type { Session } from '../types.ts';

/** @throws ITEM_LOCKED */
export function withSides<T>(session: Session, item: LocalItem, work: () => Promise<T>): Promise<T> {
  const what = `failover, failback, commit or cancel of item "${item.name}"`;
  return withLockAt(session, join(item.directory, 'sides'), what, work);
}

/** The same with the item itself, of which a cycle may be under way. */
export function withBoth<T>(session: Session, item: LocalItem, work: () => Promise<T>): Promise<T> {
  return withSides(session, item, () => withLockSoon(session, item, work));
}

export function withTests<T>(session: Session, item: LocalItem, work: () => Promise<T>): Promise<T> {
  return withLockAt(session, join(item.directory, 'sides', 'tests'), `test failovers of item "${item.name}"`, work);
}

/** @throws ITEM_LOCKED at once: whoever brings disks back to the same directory is not waited for */
export async function withOutput<T>({ ports }: Session, outDirectory: string, work: () => Promise<T>): Promise<T> {
  const path = resolve(outDirectory);
  const directory = join(path, '.blockferry');
  await ports.files.makeDirectory(directory);
  const lock = await ports.lock(directory, `bringing back to ${path}`);
  try {
    return await work();
  } finally {
    await lock.release();
    await ports.files.removeTree(directory);
  }
}
