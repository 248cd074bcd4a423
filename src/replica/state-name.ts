/**
 * Names of states: what all bases of a replica hold at one moment, by a name that is the same in every store (docs/mirror.md).
 *
 * What a sync made gets a random name. What comes of playing logs over a state has a hash of its name and of their ids, which are
 * random too: wherever, whenever and in however many rounds they are folded. So equal names mean equal content, also after a side
 * that took over has used the number of a log again.
 */
import { createHash } from 'node:crypto';
import type { ShippedLog } from './root.ts';

export const STATE_BYTES = 16;

const DOMAIN = 'rstate1\0';

/** The name of a state with these logs played over it, in order. */
export function stateAfter(state: Uint8Array, logs: readonly Pick<ShippedLog, 'id'>[]): Uint8Array {
  return logs.reduce<Uint8Array>(
    (name, { id }) => createHash('sha256').update(DOMAIN).update(name).update(id).digest().subarray(0, STATE_BYTES),
    state,
  );
}
