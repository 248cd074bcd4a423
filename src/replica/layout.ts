/**
 * Names of the objects of one replica below its prefix. See docs/formats/replica.md.
 */

export const DESCRIPTION_KEY = 'replica.json';
export const KEYRING_KEY = 'keyring.json';
export const ROOT_KEY = 'root';

/** Key of a disk's manifest blob. */
export function manifestKey(diskId: string): string {
  return `disks/${diskId}/manifest`;
}

/** Key of a segment of a disk's base. */
export function baseKey(diskId: string, segment: number): string {
  return segment === 0 ? `disks/${diskId}/base` : `disks/${diskId}/base.${segment}`;
}
