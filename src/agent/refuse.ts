/**
 * Refusing what is not possible in the state that an item is in, before anything is done. What decides in the end is the root,
 * replaced by compare-and-swap; this is the word that an operator understands.
 */
import { isBlockferryError } from '../errors.ts';
import { gatherFacts } from './facts.ts';
import { type ItemFacts, refusal, stateOf, type Verb } from './life/index.ts';
import type { Session } from './types.ts';

/** @throws ILLEGAL_STATE, or what the replica itself would say. A home without the item has no state of it to look at. */
export async function refuseIllegal(session: Session, name: string, verb: Verb): Promise<void> {
  let facts: ItemFacts;
  try {
    facts = await gatherFacts(session, name);
  } catch (error) {
    if (isBlockferryError(error, 'ITEM_NOT_FOUND')) return;
    throw error;
  }
  const refused = refusal(stateOf(facts), verb, name);
  if (refused) throw refused;
}
