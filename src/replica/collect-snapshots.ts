/**
 * Removing snapshots that no root names: a crash between snapshot and root leaves some, and so do baselines that went out
 * of retention.
 *
 * Only what is older than the newest one that the root names: names ascend with time, so what somebody has taken since, and
 * is about to name, stays, also where this root is not the newest any more.
 */
import { baseKey, manifestKey } from './layout.ts';
import type { LiveBase } from './live-base.ts';
import type { AskPins } from './pins.ts';
import type { Root } from './root.ts';
import type { SessionBlob } from './writer-session.ts';

/** Deletes what is named by no baseline of `root` and by no pin, and older than the newest that is named by a baseline. */
export async function collectSnapshots(
  root: Root,
  disks: readonly { readonly base: LiveBase; readonly manifest: SessionBlob }[],
  pins: AskPins,
): Promise<void> {
  for (const [disk, { base, manifest }] of disks.entries()) {
    const named = namedSnapshots(root, disk);
    for (const blob of [manifest, ...(await base.blobs())]) {
      const kept = named.get(blob.key) ?? [];
      const newest = kept.toSorted().at(-1) ?? '';
      for (const snapshot of await blob.snapshots()) {
        if (snapshot >= newest || kept.includes(snapshot)) continue;
        if (!(await pins()).hasSnapshot(blob.key, snapshot)) await blob.deleteSnapshot(snapshot);
      }
    }
  }
}

/** The snapshots of each blob of a disk that the baselines name. */
function namedSnapshots({ baselines }: Root, disk: number): ReadonlyMap<string, readonly string[]> {
  const named = new Map<string, string[]>();
  const add = (key: string, snapshot: string): void => {
    named.set(key, [...(named.get(key) ?? []), snapshot]);
  };
  for (const { disks } of baselines) {
    const { manifestSnapshot, baseSnapshots } = disks[disk]!;
    add(manifestKey(`d${disk}`), manifestSnapshot);
    for (const { segment, snapshot } of baseSnapshots) add(baseKey(`d${disk}`, segment), snapshot);
  }
  return named;
}
