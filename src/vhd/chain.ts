/**
 * Chains: a differencing disk with all its parents, down to one that has none.
 *
 * A parent is accepted by its identity, never by its name: the VHD unique id, the VHDX DataWriteGuid. Only a VHD child
 * that names no id (XenServer over a raw image) takes a raw parent, and then only one of exactly its size; no other
 * format is tried for it. Paths in locators are hostile input: see parent-path.ts. Depth is bounded and a file that
 * comes twice is an error.
 */
import * as hostPaths from 'node:path';
import { BlockferryError, type ErrorCode, isBlockferryError } from '../errors.ts';
import { CHAIN_DEPTH_MAX } from '../limits.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import type { Layer, LayerContext, OpenLayer, ParentLink } from './layer.ts';
import { isUnder, parentCandidates } from './parent-path.ts';
import { openRaw } from './raw-disk.ts';

/** What following a chain needs. */
export interface ChainOptions {
  /** `modify`: the first file is to be written; its parents are read only all the same. */
  readonly mode: 'read' | 'modify';
  /** Opens the first file. */
  readonly openFirst: OpenLayer;
  /** Opens a parent by its content. */
  readonly openParent: OpenLayer;
  /** Directories under which parents may lie; undefined: the directory of the first file. */
  readonly allowedRoots: readonly string[] | undefined;
}

/** Opens `path` and all its parents, the disk itself first. On an error everything opened is closed again. */
export async function openChain(
  path: string,
  context: LayerContext,
  options: ChainOptions,
): Promise<readonly [Layer, ...Layer[]]> {
  const opened: RandomAccessFile[] = [];
  try {
    const first = await openSource(path, context.files, options.mode);
    opened.push(first);
    const layers: [Layer, ...Layer[]] = [await options.openFirst(first, context)];
    const identities = new Set([(await first.stamp()).identity]);
    const roots = await realRoots(path, context.files, options.allowedRoots);
    for (let child = layers[0]; child.parent !== undefined; child = layers.at(-1)!) {
      if (layers.length >= CHAIN_DEPTH_MAX) {
        throw chainError('CHAIN_TOO_DEEP', child, `a chain has at most ${CHAIN_DEPTH_MAX} disks`);
      }
      const parent = await findParent(child, child.parent, roots, context, options.openParent);
      opened.push(parent.file);
      const { identity } = await parent.file.stamp();
      if (identities.has(identity)) {
        throw chainError('CHAIN_CYCLE', child, `a disk is not its own ancestor, but its parent is ${parent.file.path}`);
      }
      identities.add(identity);
      checkFit(child, child.parent, parent);
      layers.push(parent);
    }
    return layers;
  } catch (error) {
    await Promise.allSettled(opened.map((file) => file.close()));
    throw asUnreadable(opened.at(-1)?.path ?? path, error);
  }
}

/** Opens a disk's file. @throws DISK_NOT_FOUND, DISK_UNREADABLE */
export async function openSource(
  path: string,
  files: FileSystem,
  mode: 'read' | 'modify' = 'read',
): Promise<RandomAccessFile> {
  try {
    return await files.open(path, mode);
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && (cause.code === 'ENOENT' || cause.code === 'ENOTDIR');
    const reason = cause instanceof Error ? cause.message : String(cause);
    const message = missing ? `${path}: there is no such file` : `${path}: cannot be opened: ${reason}`;
    throw new BlockferryError(missing ? 'DISK_NOT_FOUND' : 'DISK_UNREADABLE', message, {
      facts: { source: path },
      cause,
    });
  }
}

/** An error of the operating system (a folder, a failing drive) as DISK_UNREADABLE; any other as it is. */
export function asUnreadable(path: string, error: unknown): unknown {
  if (!(error instanceof Error) || isBlockferryError(error) || !('code' in error)) return error;
  return new BlockferryError('DISK_UNREADABLE', `${path}: cannot be read: ${error.message}`, {
    facts: { source: path },
    cause: error,
  });
}

const PATH_CHARACTERS_SHOWN = 200;

/** What came of one candidate; of several failures the one that explains most is thrown. */
interface Rejection {
  readonly code: ErrorCode;
  readonly path: string;
  readonly reason: string;
  readonly error?: BlockferryError;
}

const SEVERITY: readonly ErrorCode[] = ['CHAIN_PARENT_MISMATCH', 'CHAIN_OUTSIDE_ROOT', 'CHAIN_PARENT_NOT_FOUND'];
const HINTS: Readonly<Partial<Record<ErrorCode, string>>> = {
  CHAIN_PARENT_MISMATCH: 'the parent was changed or replaced after the child was made; bring back the right one',
  CHAIN_OUTSIDE_ROOT: 'allow the folder of the parents if you trust where this disk comes from',
  CHAIN_PARENT_NOT_FOUND: 'put the parent beside the child, or allow the folder it lies in',
};

async function findParent(
  child: Layer,
  link: ParentLink,
  roots: readonly string[],
  context: LayerContext,
  openParent: OpenLayer,
): Promise<Layer> {
  const childPath = await context.files.realPath(child.file.path);
  const rejections: Rejection[] = [];
  for (const candidate of parentCandidates(hostPaths.dirname(childPath), link.paths, hostPaths)) {
    const found = await tryCandidate(candidate, link, roots, context, openParent);
    if (!('reason' in found)) return found;
    rejections.push(found);
  }
  const damaged = rejections.find(({ error }) => error !== undefined);
  const code = SEVERITY.find((one) => rejections.some((rejection) => rejection.code === one));
  if (damaged?.error !== undefined && code !== 'CHAIN_PARENT_MISMATCH') throw damaged.error;
  const tried = rejections.map(({ path, reason }) => `${shortened(path)} ${reason}`).join('; ');
  throw chainError(code ?? 'CHAIN_PARENT_NOT_FOUND', child, `the parent was not found: ${tried || 'no usable path'}`);
}

/** A path for a message: the text of a locator may have 32,768 characters. */
function shortened(path: string): string {
  return path.length <= PATH_CHARACTERS_SHOWN ? path : `${path.slice(0, PATH_CHARACTERS_SHOWN)}…`;
}

async function tryCandidate(
  candidate: string,
  link: ParentLink,
  roots: readonly string[],
  context: LayerContext,
  openParent: OpenLayer,
): Promise<Layer | Rejection> {
  const outside: Rejection = {
    code: 'CHAIN_OUTSIDE_ROOT',
    path: candidate,
    reason: 'lies outside the allowed folders',
  };
  const allowed = (path: string): boolean => roots.some((root) => isUnder(root, path, hostPaths));
  if (!allowed(candidate)) return outside;
  let real: string;
  try {
    real = await context.files.realPath(candidate);
  } catch {
    return { code: 'CHAIN_PARENT_NOT_FOUND', path: candidate, reason: 'is not there' };
  }
  if (!allowed(real)) return outside;
  const file = await openSource(real, context.files);
  try {
    const layer = await (link.linkIds.length === 0 ? openRaw(file) : openParent(file, context));
    if (link.linkIds.length === 0 || link.linkIds.includes(layer.linkId)) return layer;
    await file.close();
    const wanted = link.linkIds.join(' or ');
    const reason = `is ${layer.linkId || 'raw'}, not ${wanted}`;
    return { code: 'CHAIN_PARENT_MISMATCH', path: real, reason };
  } catch (error) {
    await file.close();
    if (!isBlockferryError(error)) throw asUnreadable(real, error);
    return { code: error.code, path: real, reason: `is damaged: ${error.message}`, error };
  }
}

function checkFit(child: Layer, link: ParentLink, parent: Layer): void {
  if (parent.logicalSectorBytes !== child.logicalSectorBytes) {
    const sizes = `${child.logicalSectorBytes} and ${parent.logicalSectorBytes}`;
    const message = `child and parent ${parent.file.path} have the same logical sector size, not ${sizes}`;
    throw chainError('CHAIN_PARENT_MISMATCH', child, message);
  }
  if (link.sameSize && parent.virtualSizeBytes !== child.virtualSizeBytes) {
    const sizes = `${child.virtualSizeBytes} and ${parent.virtualSizeBytes}`;
    const message = `a VHD and its parent ${parent.file.path} have the same size, not ${sizes}`;
    throw chainError('CHAIN_PARENT_MISMATCH', child, message);
  }
}

/** The allowed roots as given and with symbolic links resolved, so that a path under either spelling counts. */
async function realRoots(
  path: string,
  files: FileSystem,
  given: readonly string[] | undefined,
): Promise<readonly string[]> {
  if (given === undefined) return [hostPaths.dirname(await files.realPath(path))];
  const roots: string[] = [];
  for (const root of given) {
    roots.push(hostPaths.resolve(root), await files.realPath(root).catch(() => hostPaths.resolve(root)));
  }
  return roots;
}

function chainError(code: ErrorCode, child: Layer, rule: string): BlockferryError {
  const { path } = child.file;
  const hint = HINTS[code];
  return new BlockferryError(code, `${path}: ${rule}`, {
    facts: { source: path, offset: 0, rule },
    ...(hint === undefined ? {} : { hint }),
  });
}
