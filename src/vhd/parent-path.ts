/**
 * Where to look for a parent: from the untrusted text of a locator to paths on this machine. Pure.
 *
 * Order: relative, volume, absolute, and as the last resort the parent's file name beside the child, since absolute
 * paths break when a chain is moved. On a host other than Windows drive letters, shares and volume names lead nowhere
 * and only their file name is of use.
 *
 * A path is looked at only if it lies under an allowed root, by its text before anything is touched (touching
 * `\\server\share` would already send credentials) and again after symbolic links are resolved.
 */
import type { PlatformPath } from 'node:path';
import type { ParentPath } from './layer.ts';

const ORDER: readonly ParentPath['kind'][] = ['relative', 'volume', 'absolute'];

/** Absolute paths on this machine that may be the parent of a child in `childDirectory`, best first. */
export function parentCandidates(
  childDirectory: string,
  paths: readonly ParentPath[],
  host: PlatformPath,
): readonly string[] {
  const sound = paths.filter(({ path }) => path !== '' && !path.includes('\0'));
  const inOrder = ORDER.flatMap((kind) => sound.filter((path) => path.kind === kind));
  const named = inOrder.flatMap(({ kind, path }) => hostPath(childDirectory, kind, path, host) ?? []);
  const moved = inOrder.flatMap(({ path }) => besideChild(childDirectory, path, host) ?? []);
  return [...new Set([...named, ...moved])];
}

/** Whether `path` is `root` or lies below it. Both absolute. */
export function isUnder(root: string, path: string, host: PlatformPath): boolean {
  const way = host.relative(root, path);
  return way !== '..' && !way.startsWith(`..${host.sep}`) && !host.isAbsolute(way);
}

function hostPath(
  childDirectory: string,
  kind: ParentPath['kind'],
  path: string,
  host: PlatformPath,
): string | undefined {
  if (host.sep === '\\') return kind === 'relative' ? host.join(childDirectory, path) : host.normalize(path);
  const text = path.replaceAll('\\', '/');
  if (kind === 'relative') return host.join(childDirectory, text);
  return kind === 'absolute' && text.startsWith('/') && !text.startsWith('//') ? host.normalize(text) : undefined;
}

function besideChild(childDirectory: string, path: string, host: PlatformPath): string | undefined {
  const name = path.split(/[\\/]/).at(-1) ?? '';
  return name === '' || name === '.' || name === '..' ? undefined : host.join(childDirectory, name);
}
