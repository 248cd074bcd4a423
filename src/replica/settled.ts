/**
 * How far a replica has come where it belongs. A store that answers early (a gateway) shows roots that have not reached it: what only
 * they have is not safe yet, so its source forgets nothing before this root has it.
 */
import { ROOT_BYTES_MAX } from '../limits.ts';
import type { CallOptions } from '../transport/index.ts';
import { ROOT_KEY } from './layout.ts';
import type { Replica } from './replica.ts';
import type { RootRecord } from './root.ts';
import { decodeRoot } from './root-record.ts';

/** The replica's own root, or an older one where that is on its way. @throws REPLICA_ROOT */
export async function settledRecord({ store, record, keyring }: Replica, options: CallOptions): Promise<RootRecord> {
  const { settled } = store;
  if (settled === undefined) return record;
  const there = await settled(ROOT_KEY, ROOT_BYTES_MAX, options);
  if (!there) return record;
  const found = decodeRoot(there.bytes, keyring.keys.root, ROOT_KEY);
  return found.root.generation < record.root.generation ? found : record;
}
