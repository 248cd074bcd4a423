/**
 * Keys: relative paths of objects in a store. Strict, because a key becomes a file name in the folder store and a blob
 * name in the other: lower-case ASCII only (so that two keys never meet on a file system that ignores case), no `.`
 * or `..`, no name that Windows reserves.
 */
import { STORE_KEY_CHARACTERS_MAX } from '../limits.ts';

const SEGMENT = /^[a-z0-9._-]+$/;
const PREFIX = /^[a-z0-9._/-]*$/;
const WINDOWS_DEVICE = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)/;

function segmentFault(segment: string): string | undefined {
  if (!SEGMENT.test(segment)) return 'a segment has at least one of the characters a-z 0-9 . _ - and no other';
  if (segment === '.' || segment === '..') return 'a segment is neither . nor ..';
  if (segment.endsWith('.')) return 'a segment does not end in a dot';
  return WINDOWS_DEVICE.test(segment) ? 'a segment is no device name of Windows' : undefined;
}

/** Whether `key` may name an object. */
export function isKey(key: string): boolean {
  return keyFault(key) === undefined;
}

function keyFault(key: string): string | undefined {
  if (key.length > STORE_KEY_CHARACTERS_MAX) return `a key has at most ${STORE_KEY_CHARACTERS_MAX} characters`;
  for (const segment of key.split('/')) {
    const fault = segmentFault(segment);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

/** @throws {RangeError} if `key` may not name an object. */
export function checkKey(key: string): void {
  const fault = keyFault(key);
  if (fault !== undefined) throw new RangeError(`key ${JSON.stringify(key.slice(0, 80))}: ${fault}`);
}

/** @throws {RangeError} if no key can begin with `prefix`. */
export function checkKeyPrefix(prefix: string): void {
  const climbs = prefix.split('/').some((segment) => segment === '.' || segment === '..');
  if (!PREFIX.test(prefix) || prefix.startsWith('/') || prefix.includes('//') || climbs) {
    throw new RangeError(`no key begins with ${JSON.stringify(prefix.slice(0, 80))}`);
  }
}
