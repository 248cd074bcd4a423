/**
 * Names inside a folder store. A key is the path of a plain file; everything that is ours beside it has an `@` in its
 * name, which no key has.
 *
 * ```
 * <folder>/@lock/<n>          the lock of the store
 * <folder>/<key>              an object, or the content of a page blob (a plain sparse file)
 * <folder>/<key>@new          an object being written
 * <folder>/<key>@stage-<id>   a large object being written in parts
 * <folder>/<key>@blob/state   fence, lease, snapshots: what makes the file a page blob
 * <folder>/<key>@blob/map     granules ever written
 * <folder>/<key>@blob/undo-<n>  old content since snapshot n
 * ```
 */
import { dirname, join } from 'node:path';
import type { FileSystem } from '../ports.ts';

const SNAPSHOT_DIGITS = 10;
const UNDO = /^undo-(\d{10})$/;

/** What follows the key in the name of an object that is written in parts. */
export const STAGE_MARK = '@stage-';

/** Paths of one page blob. */
export interface BlobPaths {
  readonly live: string;
  /** The live file before it has its name. */
  readonly temporary: string;
  readonly sidecar: string;
  readonly state: string;
  readonly map: string;
  readonly undoTemporary: string;
}

export function blobPaths(directory: string, key: string): BlobPaths {
  const live = join(directory, ...key.split('/'));
  const sidecar = `${live}@blob`;
  return {
    live,
    temporary: `${live}@new`,
    sidecar,
    state: join(sidecar, 'state'),
    map: join(sidecar, 'map'),
    undoTemporary: join(sidecar, 'undo@new'),
  };
}

/** The name of a snapshot: its number, so that names ascend with time. */
export function snapshotName(number: number): string {
  return String(number).padStart(SNAPSHOT_DIGITS, '0');
}

/** The number behind a name; undefined if it is none of ours. */
export function snapshotNumber(name: string): number | undefined {
  return UNDO.test(`undo-${name}`) ? Number(name) : undefined;
}

export function undoPath(paths: BlobPaths, number: number): string {
  return join(paths.sidecar, `undo-${snapshotName(number)}`);
}

/** Numbers of all snapshots, ascending: a snapshot exists if its undo file does. */
export async function snapshotNumbers(files: FileSystem, paths: BlobPaths): Promise<number[]> {
  const numbers: number[] = [];
  for (const { name } of await files.list(paths.sidecar)) {
    const match = UNDO.exec(name);
    if (match) numbers.push(Number(match[1]));
  }
  return numbers.sort((a, b) => a - b);
}

/** Creates a directory and its parents, each with a durable name. */
export async function ensureDirectory(files: FileSystem, path: string): Promise<void> {
  if (await files.exists(path)) return;
  const parent = dirname(path);
  if (parent !== path) await ensureDirectory(files, parent);
  await files.makeDirectory(path);
  if (parent !== path) await files.syncDirectory(parent);
}

/** Makes the names in `path` and in its parents up to `root` durable, whoever made them. */
export async function syncNames(files: FileSystem, root: string, path: string): Promise<void> {
  await files.syncDirectory(path);
  if (path !== root && dirname(path) !== path) await syncNames(files, root, dirname(path));
}

/** Creates a file under a temporary name, fills it, makes it durable and gives it its name. */
export async function publish(
  files: FileSystem,
  temporary: string,
  path: string,
  fill: (write: (bytes: Uint8Array) => Promise<void>, truncate: (sizeBytes: number) => Promise<void>) => Promise<void>,
  beforeRename?: () => Promise<void> | void,
): Promise<void> {
  await files.remove(temporary);
  const file = await files.open(temporary, 'create');
  try {
    await fill(
      (bytes) => file.write(bytes, 0),
      (sizeBytes) => file.truncate(sizeBytes),
    );
    await file.sync();
  } finally {
    await file.close();
  }
  await beforeRename?.();
  await files.rename(temporary, path);
  await files.syncDirectory(dirname(path));
}
