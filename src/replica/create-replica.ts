/**
 * Creating a replica, so that of several creators one wins before anything of it is written.
 *
 * The first root (generation 1, a *claim*) is put with "must not exist"; only who put it writes description, keyring and
 * blobs, and then the root of generation 2, which makes the replica one that can be opened. Interrupted in between, the
 * holder of the master key finds its own claim and goes on; for everybody else the place is taken.
 */
import { deriveReplicaKeys } from '../chunker/index.ts';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { NIL_GUID } from '../guid.ts';
import { ROOT_BYTES_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import type { CallOptions, RetryingStore } from '../transport/index.ts';
import { descriptionHash, encodeDescription, type ReplicaDescription } from './description.ts';
import { encodeKeyring, type OpenKeyring } from './keyring.ts';
import { DESCRIPTION_KEY, KEYRING_KEY, ROOT_KEY } from './layout.ts';
import { type Following, ROOT_HASH_BYTES, type Root } from './root.ts';
import { decodeRoot, encodeRoot, rootHash } from './root-record.ts';

/** Generation of a root that claims the place and names no replica yet. */
export const CLAIM_GENERATION = 1;

/** A place that this master key has claimed. */
export interface Claim {
  readonly etag: string;
  readonly record: Uint8Array;
}

/** What the first root says of a replica. */
export interface FirstRoot {
  readonly disks: number;
  readonly side: Uint8Array;
  /** Of a replica that another store's is carried to. */
  readonly follows?: Following;
}

/** Whether anything was ever claimed there; reads no key. */
export async function isTaken(store: RetryingStore, options: CallOptions = {}): Promise<boolean> {
  return (await store.get(ROOT_KEY, ROOT_BYTES_MAX, options)) !== undefined;
}

/**
 * Claims the place for a master key and a side, or finds the claim that it made before. undefined: its replica is already there.
 * @throws REPLICA_FOREIGN if the place is somebody else's.
 */
export async function claimPlace(
  store: RetryingStore,
  master: Uint8Array,
  first: FirstRoot,
  ports: Ports,
  options: CallOptions = {},
): Promise<Claim | undefined> {
  const rootKey = deriveReplicaKeys(master).root;
  const there = await store.get(ROOT_KEY, ROOT_BYTES_MAX, options);
  if (!there) {
    const record = encodeRoot(claim(first, ports), rootKey);
    try {
      const etag = await store.put(ROOT_KEY, record, { ...options, ifMatch: null });
      await ports.failpoint('protect.after-claim');
      return { etag, record };
    } catch (error) {
      if (isBlockferryError(error, 'STORE_CONDITION')) throw foreign(store, error);
      throw error;
    }
  }
  try {
    const { root } = decodeRoot(there.bytes, rootKey, ROOT_KEY);
    return root.generation === CLAIM_GENERATION ? { etag: there.etag, record: there.bytes } : undefined;
  } catch (error) {
    throw isBlockferryError(error, 'REPLICA_ROOT') ? foreign(store, error) : error;
  }
}

/** Writes description, keyring and blobs (`createBlobs`), then the root that makes them a replica. */
export async function createReplica(
  store: RetryingStore,
  claim: Claim,
  description: ReplicaDescription,
  keyring: OpenKeyring,
  createBlobs: () => Promise<void>,
  ports: Ports,
  options: CallOptions = {},
): Promise<void> {
  const bytes = encodeDescription(description);
  await store.put(DESCRIPTION_KEY, bytes, options);
  await ports.failpoint('protect.after-description');
  await store.put(KEYRING_KEY, encodeKeyring(keyring.keyring), options);
  await ports.failpoint('protect.after-keyring');
  await createBlobs();
  await ports.failpoint('protect.after-blobs');
  const { root } = decodeRoot(claim.record, keyring.keys.root, ROOT_KEY);
  const created: Root = {
    ...root,
    generation: CLAIM_GENERATION + 1,
    previous: rootHash(claim.record),
    description: descriptionHash(bytes),
    keyringCounter: keyring.keyring.counter,
    timeMs: ports.clock.nowMs(),
  };
  await store.put(ROOT_KEY, encodeRoot(created, keyring.keys.root), { ...options, ifMatch: claim.etag });
}

function claim({ disks, side, follows }: FirstRoot, ports: Ports): Root {
  const nothing = new Uint8Array(ROOT_HASH_BYTES);
  const timeMs = ports.clock.nowMs();
  return {
    generation: CLAIM_GENERATION,
    previous: nothing,
    description: nothing,
    keyringCounter: 1,
    timeMs,
    writer: 'blockferry',
    owner: { side, epoch: 1, phase: 'replicating', sinceMs: timeMs },
    ...(follows ? { follows } : {}),
    disks: Array.from({ length: disks }, () => ({ tables: [], head: NIL_GUID })),
    baselines: [],
    points: [],
    logs: [],
    sync: { kind: 'initial', source: nothing, disk: 0, cursor: 0, suspect: [] },
  };
}

/** The place is taken, by a replica that this key does not open. */
export function foreign(store: RetryingStore, cause?: unknown): BlockferryError {
  return new BlockferryError('REPLICA_FOREIGN', `${store.url} already holds a replica that is not this item's`, {
    cause,
    facts: { url: store.url },
    hint: 'choose another URL; to bring the item of that replica back use failover --from URL',
  });
}
