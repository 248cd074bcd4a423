/**
 * Who may change what a home remembers of disks that were brought back. Cycles of the item go on beside all of these.
 *
 *     sides/          failover.json: held by commit, cancel and failback to their end, by a failover while it notes something
 *     sides/tests/    tests.json
 *
 * A directory that disks are brought back to is held by `.blockferry-out/` in itself for as long as that takes: another home may name it too.
 */
import { dirname, join, resolve } from 'node:path';
import { isBlockferryError } from '../../errors.ts';
import type { FileSystem, Ports, ProcessLock } from '../../ports.ts';
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

/** In a directory that disks are brought back to: neither a disk's name nor that of a home (`~/.blockferry`). */
const OUTPUT_LOCK = '.blockferry-out';

/**
 * Nothing is left of the lock, and of directories that were made for disks that did not come.
 * @throws ITEM_LOCKED at once: whoever brings disks back to the same directory is not waited for
 */
export async function withOutput<T>({ ports }: Session, outDirectory: string, work: () => Promise<T>): Promise<T> {
  const path = resolve(outDirectory);
  const missing = await missingDirectories(path, ports.files);
  const lock = await holdOutput(path, ports);
  try {
    return await work();
  } finally {
    await lock?.remove();
    for (const directory of missing) if (!(await ports.files.removeEmpty(directory))) break;
  }
}

/** `path` and those above it that are not there, from below. */
async function missingDirectories(path: string, files: FileSystem): Promise<readonly string[]> {
  const missing: string[] = [];
  for (let each = path; each !== dirname(each) && !(await files.exists(each)); each = dirname(each)) missing.push(each);
  return missing;
}

/**
 * undefined where the place takes no lock (FAT has no hard links): what keeps others out does not keep the disks from coming back, and
 * what is wrong with the place is told by whoever writes them.
 */
async function holdOutput(path: string, { files, lock }: Ports): Promise<ProcessLock | undefined> {
  const directory = join(path, OUTPUT_LOCK);
  const take = async (): Promise<ProcessLock> => {
    await files.makeDirectory(directory);
    return lock(directory, `bringing back to ${path} (${directory})`);
  };
  try {
    // Who had it removes the directory at its end, perhaps just now.
    return await take().catch((error: NodeJS.ErrnoException) =>
      error.code === 'ENOENT' ? take() : Promise.reject(error),
    );
  } catch (error) {
    if (isBlockferryError(error)) throw error;
    await files.removeEmpty(directory).catch(() => false);
    return undefined;
  }
}
