/**
 * Whether a source is still the one that was looked at before: a hash over what its files and headers say of themselves.
 */
import { createHash } from 'node:crypto';
import { BlockferryError } from '../errors.ts';
import type { VirtualDisk } from '../vhd/index.ts';

/** SHA-256 over identity, size and modification time of all files of all disks. */
export async function sourceStamp(disks: readonly VirtualDisk[]): Promise<Uint8Array> {
  const hash = createHash('sha256');
  for (const disk of disks) {
    hash.update(`${disk.info.format} ${disk.info.virtualSizeBytes} ${disk.identity} ${disk.contentId}\n`);
    for (const file of disk.files) {
      const { sizeBytes, modifiedNs, identity } = await file.stamp();
      hash.update(`${sizeBytes} ${modifiedNs} ${identity}\n`);
    }
  }
  return hash.digest();
}

/** The error for a source that changed while it was read. */
export function sourceChanged(paths: readonly string[]): BlockferryError {
  return new BlockferryError('SOURCE_CHANGED', `${paths.join(', ')} changed while being read`, {
    facts: { source: paths.join(', ') },
    hint: 'stop whatever writes to it, or give a snapshot of it; the next run goes on from what was already sent',
  });
}
