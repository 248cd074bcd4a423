/** Keys of an item's replica: add, remove, rotate, list. Each change is committed with the next root. */
import { addEpoch, addSlot, Committer, type OpenKeyring, removeSlot } from '../replica/index.ts';
import { loadKey } from './key-sources.ts';
import { LocalItem } from './local-state.ts';
import { sessionSignal, withLock, withOwn, withReplica } from './open-item.ts';
import type { KeyInfo, KeySource, ReplicaReference, Session } from './types.ts';

/** Wraps the master key by one more key; returns the id of its slot. */
export async function addKey(session: Session, name: string, source: KeySource): Promise<string> {
  const material = await loadKey(source, session.ports);
  const after = await change(session, name, (keyring) => addSlot(keyring, material, session.ports.random));
  return after.keyring.slots.at(-1)!.id;
}

/** Removes a slot. Whoever knows that key and kept a copy of the keyring can still open what was stored until now. */
export async function removeKey(session: Session, name: string, slotId: string): Promise<void> {
  await change(session, name, async (keyring) => removeSlot(keyring, slotId));
}

/** Starts a new data key; what is stored from now on is sealed under it. Returns its epoch. */
export async function rotateKey(session: Session, name: string): Promise<number> {
  return (await change(session, name, async (keyring) => addEpoch(keyring, session.ports.random))).currentEpoch;
}

/** The keys that open a replica. */
export function listKeys(session: Session, reference: ReplicaReference): Promise<readonly KeyInfo[]> {
  return withReplica(session, reference, async ({ keyring }) =>
    keyring.keyring.slots.map((slot) => ({
      id: slot.id,
      type: slot.type,
      ...(slot.type === 'certificate' ? { thumbprint: Buffer.from(slot.thumbprint).toString('hex') } : {}),
    })),
  );
}

async function change(
  session: Session,
  name: string,
  edit: (keyring: OpenKeyring) => Promise<OpenKeyring>,
): Promise<OpenKeyring> {
  const item = new LocalItem(session.home, name, session.ports.files);
  await item.load();
  return withLock(session, item, () =>
    withOwn(session, name, async ({ replica }) => {
      const committer = new Committer(replica, 'blockferry', (anchor) => item.saveAnchor(anchor), session.ports);
      const keyring = await edit(replica.keyring);
      await committer.commitKeyring(keyring, sessionSignal(session));
      return keyring;
    }),
  );
}
