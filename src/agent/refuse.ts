/**
 * Refusing what is not possible in the state that an item is in, before anything is done. What decides in the end is the root,
 * replaced by compare-and-swap; this is the word that an operator understands.
 */
import { type ErrorCode, isBlockferryError } from '../errors.ts';
import { gatherFacts } from './facts.ts';
import { type ItemFacts, refusal, stateOf, type Verb } from './life/index.ts';
import type { Session } from './types.ts';

/** @throws ILLEGAL_STATE, or what the replica itself would say. A home without the item has no state of it to look at. */
export async function refuseIllegal(
  session: Session,
  name: string,
  verb: Verb,
  /** What only who asks knows. */
  known: Partial<ItemFacts> = {},
): Promise<void> {
  let facts: ItemFacts;
  try {
    facts = { ...(await gatherFacts(session, name)), ...known };
  } catch (error) {
    if (isBlockferryError(error, 'ITEM_NOT_FOUND')) return;
    throw error;
  }
  const refused = refusal(stateOf(facts), verb, name);
  if (refused) throw refused;
}

/** Codes under which the replica and the tracker refuse what an item's state does not allow. */
const REFUSED: readonly ErrorCode[] = ['ILLEGAL_STATE', 'REPLICA_OTHER_SIDE', 'RESYNC_REQUIRED'];

/**
 * Runs `work`, of which the replica and the tracker know best whether it is possible; where they refuse it, the operator hears it in the
 * words of the item's state. So what is possible costs no look at the state.
 */
export async function withReasons<T>(session: Session, name: string, verb: Verb, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (isBlockferryError(error, ...REFUSED)) await tellRefusal(session, name, verb);
    throw error;
  }
}

async function tellRefusal(session: Session, name: string, verb: Verb): Promise<void> {
  try {
    await refuseIllegal(session, name, verb);
  } catch (error) {
    // A state that cannot be looked at explains nothing.
    if (isBlockferryError(error, ...REFUSED)) throw error;
  }
}
