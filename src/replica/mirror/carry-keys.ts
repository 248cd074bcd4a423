/** Carrying the keyring: before anything that is sealed under a new epoch, and never at the price of one that the follower needs. */
import { bytesEqual } from '../../bytes.ts';
import { BlockferryError } from '../../errors.ts';
import { REPLICA_JSON_BYTES_MAX } from '../../limits.ts';
import type { Committer } from '../committer.ts';
import { encodeKeyring, type OpenKeyring } from '../keyring.ts';
import { KEYRING_KEY } from '../layout.ts';

/** Gives the follower the keyring of the other store. @throws REPLICA_KEYRING where the two went apart; REPLICA_FENCED */
export async function carryKeyring(target: Committer, source: OpenKeyring, signal: AbortSignal): Promise<void> {
  const { keyring, store } = target.replica;
  if (bytesEqual(keyring.keyring.mac, source.keyring.mac)) return;
  const { counter } = keyring.keyring;
  const facts = { source: KEYRING_KEY, url: store.url, counter, from: source.keyring.counter };
  const lost = [...keyring.epochs.values()].find(({ epoch, data }) => {
    const theirs = source.epochs.get(epoch);
    return !theirs || !bytesEqual(theirs.data, data);
  });
  if (lost) {
    throw new BlockferryError(
      'REPLICA_KEYRING',
      `${store.url} has a data key ${lost.epoch} that the other store lacks`,
      {
        facts: { ...facts, epoch: lost.epoch },
        hint: 'keys were rotated on both sides of a failover: mirror to another URL',
      },
    );
  }
  if (source.keyring.counter < counter) {
    const versions = `version ${source.keyring.counter}, the one in ${store.url} version ${counter}`;
    throw new BlockferryError('REPLICA_KEYRING', `the keyring of the other store is ${versions}`, {
      facts,
      hint: 'keys were changed there; change them in the store that is followed as well, with blockferry key',
    });
  }
  // The root would refuse a writer that comes late; by then the keyring of who changed it would be gone, and with it what it opens.
  const there = await store.get(KEYRING_KEY, REPLICA_JSON_BYTES_MAX, { signal });
  if (!there || !bytesEqual(there.bytes, encodeKeyring(keyring.keyring))) {
    throw new BlockferryError('REPLICA_FENCED', `the keys in ${store.url} were changed meanwhile`, {
      facts,
      hint: 'run mirror again, which looks at them anew',
    });
  }
  await target.commitKeyring(source, signal);
}
