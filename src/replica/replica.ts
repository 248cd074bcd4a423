/**
 * A replica, opened: its description, keys and root, checked against one another.
 *
 * Promises: what `openReplica` returns belongs together (the root names this description, this keyring is not older than
 * the root) and is authentic. With an anchor it is also no older than what was seen before. Reads nothing of the disks.
 */

import { bytesEqual } from '../bytes.ts';
import { PageCipher, type SealingContext } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { REPLICA_JSON_BYTES_MAX, ROOT_BYTES_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import type { CallOptions, RetryingStore, Store } from '../transport/index.ts';
import type { WorkerSetup } from '../workers/index.ts';
import { CLAIM_GENERATION } from './create-replica.ts';
import { decodeDescription, descriptionHash, type ReplicaDescription } from './description.ts';
import type { KeyMaterial } from './key-wrap.ts';
import { decodeKeyring, type OpenKeyring, openKeyring, openWithMaster } from './keyring.ts';
import { DESCRIPTION_KEY, KEYRING_KEY, ROOT_KEY } from './layout.ts';
import type { Anchor, Root, RootRecord } from './root.ts';
import { checkAnchor, decodeRoot } from './root-record.ts';

/** What opens the keyring: material that unwraps a slot, or the master key that this machine keeps. */
export type Unlock = { readonly materials: readonly KeyMaterial[] } | { readonly master: Uint8Array };

export interface Replica {
  readonly store: RetryingStore;
  readonly description: ReplicaDescription;
  readonly keyring: OpenKeyring;
  readonly record: RootRecord;
  /** Of the root object, for the next compare-and-swap. */
  readonly rootEtag: string;
  /** `proven`: the root was compared with an anchor. */
  readonly freshness: 'proven' | 'not-proven';
}

/**
 * Opens a replica.
 * @throws REPLICA_NOT_FOUND, KEY_WRONG, REPLICA_DESCRIPTION, REPLICA_KEYRING, REPLICA_ROOT, REPLICA_ROLLED_BACK
 */
export async function openReplica(
  store: RetryingStore,
  unlock: Unlock,
  anchor: Anchor | undefined,
  options: CallOptions = {},
): Promise<Replica> {
  // One after the other, in this order: whatever is committed between two of them is then newer than the first.
  const describing = await store.get(DESCRIPTION_KEY, REPLICA_JSON_BYTES_MAX, options);
  if (!describing) throw notFound(store, DESCRIPTION_KEY);
  const description = decodeDescription(describing.bytes, DESCRIPTION_KEY);
  const rooted = await store.get(ROOT_KEY, ROOT_BYTES_MAX, options);
  if (!rooted) throw notFound(store, ROOT_KEY);
  const locked = await store.get(KEYRING_KEY, REPLICA_JSON_BYTES_MAX, options);
  if (!locked) throw notFound(store, KEYRING_KEY);
  const sealed = decodeKeyring(locked.bytes, KEYRING_KEY);
  const keyring =
    'master' in unlock
      ? openWithMaster(sealed, unlock.master, KEYRING_KEY)
      : await openKeyring(sealed, unlock.materials, KEYRING_KEY);
  const record = decodeRoot(rooted.bytes, keyring.keys.root, ROOT_KEY);
  if (anchor) checkAnchor(record, anchor, ROOT_KEY);
  if (record.root.generation === CLAIM_GENERATION) throw notFound(store, 'a root beyond the claim');
  checkTogether(description, descriptionHash(describing.bytes), keyring, record.root);
  const freshness = anchor ? 'proven' : 'not-proven';
  return { store, description, keyring, record, rootEtag: rooted.etag, freshness };
}

/**
 * The replica with the root that is there now, and with the keys where those were changed: one request where they were not.
 * @throws REPLICA_ROLLED_BACK if that is older than `anchor`, by default than the root that is held; REPLICA_ROOT, REPLICA_KEYRING
 */
export async function reopenReplica(
  replica: Replica,
  options: CallOptions = {},
  anchor: Anchor = { generation: replica.record.root.generation, hash: replica.record.hash },
): Promise<Replica> {
  const { store, keyring, freshness } = replica;
  const rooted = await store.get(ROOT_KEY, ROOT_BYTES_MAX, options);
  if (!rooted) throw notFound(store, ROOT_KEY);
  const record = decodeRoot(rooted.bytes, keyring.keys.root, ROOT_KEY);
  checkAnchor(record, anchor, ROOT_KEY);
  const { description, keyringCounter } = replica.record.root;
  if (record.root.keyringCounter === keyringCounter && bytesEqual(record.root.description, description)) {
    return { ...replica, record, rootEtag: rooted.etag };
  }
  return { ...(await openReplica(store, { master: keyring.master }, anchor, options)), freshness };
}

/** What seals and opens the records of one disk. */
export function sealingContext(replica: Replica, disk: number, randomBytes: (n: number) => Uint8Array): SealingContext {
  const { description, keyring } = replica;
  const { epochs, currentEpoch } = keyring;
  return { replicaId: description.replicaId, diskId: description.disks[disk]!.guid, epochs, currentEpoch, randomBytes };
}

/** The cipher of a disk's manifest pages. */
export function pageCipher(replica: Replica, disk: number, ports: Pick<Ports, 'random'>): PageCipher {
  return new PageCipher(sealingContext(replica, disk, (n) => ports.random.bytes(n)));
}

/** What the worker threads need to know of a replica. */
export function workerSetup(replica: Replica): WorkerSetup {
  const { description, keyring } = replica;
  return {
    replicaId: description.replicaId,
    disks: description.disks.map(({ guid, layout, virtualSizeBytes, chunkBytes }) => ({
      guid,
      layout,
      virtualSizeBytes,
      chunkBytes,
    })),
    fingerprint: description.fingerprint,
    fingerprintKey: keyring.keys.fingerprint,
    compression: description.compression,
    epochs: [...keyring.epochs.values()],
    currentEpoch: keyring.currentEpoch,
    checksums: replica.store.sendsCrc64 === true,
  };
}

function checkTogether(description: ReplicaDescription, hash: Uint8Array, keyring: OpenKeyring, root: Root): void {
  if (!bytesEqual(root.description, hash)) {
    throw new BlockferryError(
      'REPLICA_DESCRIPTION',
      `${DESCRIPTION_KEY} is not the one that the root was committed with`,
      {
        facts: { source: DESCRIPTION_KEY, rule: 'its SHA-256 stands in the root' },
        hint: 'replica.json was changed or exchanged; restore it from a copy of the store',
      },
    );
  }
  if (keyring.keyring.counter < root.keyringCounter) {
    throw new BlockferryError(
      'REPLICA_KEYRING',
      `${KEYRING_KEY} is version ${keyring.keyring.counter}, the root was committed with version ${root.keyringCounter}`,
      {
        facts: { source: KEYRING_KEY, counter: keyring.keyring.counter },
        hint: 'an older keyring was put back; restore the newer one',
      },
    );
  }
  const disks = description.disks.length;
  if (root.disks.length !== disks) {
    throw new BlockferryError('REPLICA_ROOT', `${ROOT_KEY}: number of disks differs from the ${disks} described`, {
      facts: { source: ROOT_KEY, rule: 'one state per disk' },
    });
  }
}

function notFound(store: Store, key: string): BlockferryError {
  return new BlockferryError('REPLICA_NOT_FOUND', `${store.url} holds no replica: ${key} is missing`, {
    facts: { url: store.url, key },
    hint: 'check the URL; an item whose first protect never began has nothing to bring back',
  });
}
