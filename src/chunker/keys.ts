/**
 * Keys: the subkeys of a replica, all by HKDF-SHA256 (RFC 5869, no salt) with one info string per purpose.
 *
 *     master key (32 random bytes) ── rslot1/fingerprint, rslot1/root, rslot1/keyring
 *     data key of epoch e (32 random bytes, wrapped by the master key) ── rslot1/data/e, rslot1/nonce/e, rslot1/page/e
 *
 * A key serves one purpose only, so the same bytes are never fed to two algorithms. The fingerprint key hangs on the
 * master key: it must outlive a rotation, or a rotation would force a full copy. Wrapping is the keyring's business.
 */
import { hkdfSync } from 'node:crypto';

/** Length of every key here. */
export const KEY_BYTES = 32;

/** Purposes of the master key. */
export type ReplicaPurpose = 'fingerprint' | 'root' | 'keyring';
/** Purposes of the data key of an epoch. */
export type EpochPurpose = 'data' | 'nonce' | 'page';

/** What a writer or reader holds of one epoch. Plain bytes, so it can be sent to a worker. */
export interface EpochKeys {
  readonly epoch: number;
  /** Seals slots. */
  readonly data: Uint8Array;
  /** Hedges the nonces of slots and pages. */
  readonly nonce: Uint8Array;
  /** Seals pages of the manifest tree. */
  readonly page: Uint8Array;
}

/** What hangs on the master key. */
export interface ReplicaKeys {
  readonly fingerprint: Uint8Array;
  readonly root: Uint8Array;
  readonly keyring: Uint8Array;
}

/** One subkey of 32 bytes. `epoch` is given exactly for the purposes of a data key. */
export function deriveKey(key: Uint8Array, purpose: ReplicaPurpose): Uint8Array;
export function deriveKey(key: Uint8Array, purpose: EpochPurpose, epoch: number): Uint8Array;
export function deriveKey(key: Uint8Array, purpose: ReplicaPurpose | EpochPurpose, epoch?: number): Uint8Array {
  if (key.byteLength !== KEY_BYTES) throw new RangeError(`a key has ${KEY_BYTES} bytes, not ${key.byteLength}`);
  const info = epoch === undefined ? `rslot1/${purpose}` : `rslot1/${purpose}/${epoch}`;
  return new Uint8Array(hkdfSync('sha256', key, new Uint8Array(0), info, KEY_BYTES));
}

/** The subkeys of an epoch from its data key. */
export function deriveEpochKeys(dataKey: Uint8Array, epoch: number): EpochKeys {
  if (!Number.isInteger(epoch) || epoch < 0 || epoch > 0xffff_ffff) throw new RangeError(`${epoch} is no key epoch`);
  return {
    epoch,
    data: deriveKey(dataKey, 'data', epoch),
    nonce: deriveKey(dataKey, 'nonce', epoch),
    page: deriveKey(dataKey, 'page', epoch),
  };
}

/** The subkeys of a replica from its master key. */
export function deriveReplicaKeys(masterKey: Uint8Array): ReplicaKeys {
  return {
    fingerprint: deriveKey(masterKey, 'fingerprint'),
    root: deriveKey(masterKey, 'root'),
    keyring: deriveKey(masterKey, 'keyring'),
  };
}
