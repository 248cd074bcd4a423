/**
 * Removing what a commit made superfluous: logs and baselines' snapshots that the root before it names and the root after it does not.
 *
 * Lists nothing but pins, and those only where there is something to remove. Needs no lease: what a root has dropped never
 * comes back into a later one. A kill between commit and removal leaves it to `collectLogs` and `collectSnapshots`.
 */
import { type BlockferryError, isBlockferryError } from '../errors.ts';
import type { Clock } from '../ports.ts';
import type { CallOptions, Store } from '../transport/index.ts';
import { logKey } from './layout.ts';
import { type PinnedSnapshot, snapshotsOf } from './pin-record.ts';
import { type AskPins, askPins } from './pins.ts';
import type { Replica } from './replica.ts';
import type { Root } from './root.ts';

type Named = Pick<Root, 'baselines' | 'logs'>;

/** Deletes what `before` names and neither `after` nor a pin does. */
export async function collectDropped(
  before: Named,
  after: Named,
  store: Pick<Store, 'delete' | 'pages'>,
  pins: AskPins,
  options: CallOptions = {},
): Promise<void> {
  const kept = new Set(after.logs.map(logKey));
  for (const log of before.logs) {
    if (kept.has(logKey(log)) || (await pins()).hasLog(log.seq)) continue;
    await store.delete(logKey(log), options);
  }
  // Baselines may share a snapshot: a disk that did not change is not frozen twice.
  const frozen = snapshotsByName(after);
  for (const [name, { blob, snapshot }] of snapshotsByName(before)) {
    if (frozen.has(name) || (await pins()).hasSnapshot(blob, snapshot)) continue;
    await store.pages(blob).deleteSnapshot(snapshot, options);
  }
}

/**
 * The same behind a commit that has ended, and stands whatever becomes of this: a failure is returned, not thrown. What was to go stays
 * until an apply or a sync.
 */
export async function collectAfterCommit(
  { replica, clock, signal }: { readonly replica: Replica; readonly clock: Clock; readonly signal: AbortSignal },
  before: Named,
  after: Named,
): Promise<BlockferryError | undefined> {
  try {
    await collectDropped(before, after, replica.store, askPins(replica, clock, { signal }), { signal });
    return undefined;
  } catch (error) {
    if (!isBlockferryError(error)) throw error;
    return error;
  }
}

function snapshotsByName({ baselines }: Named): ReadonlyMap<string, PinnedSnapshot> {
  const all = baselines.flatMap(snapshotsOf);
  return new Map(all.map((each) => [`${each.blob} ${each.snapshot}`, each]));
}
