/**
 * Removing snapshots that no root names: a crash between snapshot and root leaves some, and so do baselines that went
 * out of retention. Runs under the lease of a writer session, so no other writer is about to name one of them.
 */
import { baseKey, manifestKey } from './layout.ts';
import type { LiveBase } from './live-base.ts';
import type { Root } from './root.ts';
import type { SessionBlob } from './writer-session.ts';

/** Deletes what is not named by any baseline of `root`. */
export async function collectSnapshots(
  root: Root,
  disks: readonly { readonly base: LiveBase; readonly manifest: SessionBlob }[],
): Promise<void> {
  for (const [disk, { base, manifest }] of disks.entries()) {
    const named = new Set<string>();
    for (const baseline of root.baselines) {
      const { manifestSnapshot, baseSnapshots } = baseline.disks[disk]!;
      named.add(`${manifestKey(`d${disk}`)} ${manifestSnapshot}`);
      for (const { segment, snapshot } of baseSnapshots) named.add(`${baseKey(`d${disk}`, segment)} ${snapshot}`);
    }
    for (const blob of [manifest, ...(await base.blobs())]) {
      for (const snapshot of await blob.snapshots()) {
        if (!named.has(`${blob.key} ${snapshot}`)) await blob.deleteSnapshot(snapshot);
      }
    }
  }
}
