/**
 * Carrying a shipped log: the object is copied as it is, sealed, under the name that it has. Every frame is opened on the way, so a
 * log that is damaged never becomes one of the follower's. It becomes visible whole, and means nothing before a root names it.
 */
import { STAGED_PART_BYTES_MAX } from '../../limits.ts';
import type { Lanes, RetryingStore } from '../../transport/index.ts';
import { logKey } from '../layout.ts';
import type { Replica } from '../replica.ts';
import type { ShippedLog } from '../root.ts';
import { type LogAccess, readShippedLog } from '../shipped-log.ts';

export interface CarryLog {
  readonly source: Replica;
  readonly log: ShippedLog;
  /** How the other store is read. */
  readonly access: LogAccess;
  readonly target: RetryingStore;
  /** Of the target. */
  readonly lanes: Lanes;
}

/** @throws REPLICA_LOG if it does not verify; then nothing of it is left */
export async function carryLog({ source, log, access, target, lanes }: CarryLog): Promise<void> {
  const { signal } = access;
  const staged = target.stage(logKey(log), STAGED_PART_BYTES_MAX);
  let parts = 0;
  const onRange = async (bytes: Uint8Array): Promise<void> => {
    const index = parts;
    parts += 1;
    await lanes.run(bytes.byteLength, () => staged.put(index, bytes, { signal }), { signal });
  };
  try {
    // Ranges of a quarter of what is read ahead: parts.
    const pieces = readShippedLog(source, log, { ...access, aheadBytes: 4 * STAGED_PART_BYTES_MAX, onRange });
    for await (const _ of pieces);
    await staged.commit(parts, { signal });
  } catch (error) {
    await staged.abort().catch(() => {});
    throw error;
  }
}
