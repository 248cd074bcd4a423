/** The page blobs that a new replica begins with: an empty manifest a disk, and of a raw base its VHD footer. */
import { type DiskGeometry, manifestBlobBytes } from '../chunker/index.ts';
import { BaseLayout, baseKey, type DiskDescription, manifestKey, type ReplicaDescription } from '../replica/index.ts';
import type { RetryingStore } from '../transport/index.ts';
import { fixedVhdFooter } from '../vhd/index.ts';
import { sessionSignal } from './open-item.ts';
import type { Session } from './types.ts';

/** The blobs that must exist before the replica does; segments of a sealed base come as they are needed. */
export async function createBlobs(
  session: Session,
  store: RetryingStore,
  description: ReplicaDescription,
): Promise<void> {
  const options = { signal: sessionSignal(session) };
  for await (const key of store.list('disks/', options)) await store.pages(key).remove(undefined, options);
  for (const disk of description.disks) {
    await store.pages(manifestKey(disk.id)).create(manifestBlobBytes(disk satisfies DiskGeometry), 0, options);
    if (disk.layout === 'raw') await createRawBase(session, store, disk, description.createdMs);
  }
}

/** A fixed VHD of zeros: the footer stands from the start, so the blob can be booted as soon as its data is there. */
async function createRawBase(
  session: Session,
  store: RetryingStore,
  disk: DiskDescription,
  createdMs: number,
): Promise<void> {
  const options = { signal: sessionSignal(session) };
  const sizeBytes = new BaseLayout(disk).segmentBytes(0);
  const footer = fixedVhdFooter({ virtualSizeBytes: sizeBytes - 512, uniqueId: disk.guid, createdMs });
  const blob = store.pages(baseKey(disk.id, 0));
  await blob.create(sizeBytes, 0, options);
  await blob.write(footer, sizeBytes - footer.byteLength, { fence: 0 }, options);
}
