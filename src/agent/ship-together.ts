/**
 * Shipping a group: recovery points of several items that are one moment across all of them (docs/tracking.md, Groups).
 *
 * The moment is shared or not made: nothing is committed before every item has rotated. After that each commits its own point.
 */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { GROUP_ITEMS_MAX } from '../limits.ts';
import { assertReplicating } from '../replica/index.ts';
import type { Rotation } from '../tracker/index.ts';
import { frozen, type Member, settledHeads, ship, shipRotated, withMember } from './ship.ts';
import type { HeldLogs } from './tracking.ts';
import type { Session, ShipReport, ShipRequest } from './types.ts';

/** How long a guest waits at most for the other machines of its group. */
const HOLD_MS = 5_000;
const GROUP_ID_BYTES = 16;

/**
 * Ships what these items logged up to one moment; reports in the order of the names.
 * @throws BARRIER_LOST where they did not come to rest together, and what a single ship throws; `facts.item` says of which
 */
export async function shipTogether(
  session: Session,
  names: readonly string[],
  request: ShipRequest = {},
): Promise<readonly ShipReport[]> {
  checkNames(names);
  if (names.length === 1) return [await ship(session, names[0]!, request)];
  return withMembers(session, names, [], async (members) => {
    for (const member of members) assertMayShip(member);
    const rotate = (): Promise<readonly Rotation[]> => rotateTogether(session, members);
    const rotations = request.consistency === 'app' ? await frozen(session, request, rotate) : await rotate();
    const group = Buffer.from(session.ports.random.bytes(GROUP_ID_BYTES)).toString('hex');
    const shipped = await Promise.allSettled(
      members.map((member, i) => shipRotated(session, member, rotations[i]!, request, group)),
    );
    // Those that were committed stay; what failed goes with the next cycle of its item.
    return shipped.map((result, i) => {
      if (result.status === 'rejected') throw ofMember(names[i]!, result.reason);
      return result.value;
    });
  });
}

function checkNames(names: readonly string[]): void {
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new BlockferryError('USAGE', `item "${twice}" is named twice`);
  if (names.length >= 1 && names.length <= GROUP_ITEMS_MAX) return;
  throw new BlockferryError('USAGE', `${names.length} items are outside 1 to ${GROUP_ITEMS_MAX} of a group`, {
    facts: { items: names.length },
    hint: 'a group is held to one moment: name fewer machines',
  });
}

async function withMembers<T>(
  session: Session,
  [name, ...rest]: readonly string[],
  members: readonly Member[],
  work: (members: readonly Member[]) => Promise<T>,
): Promise<T> {
  if (name === undefined) return work(members);
  let isOpen = false;
  try {
    return await withMember(session, name, (member) => {
      isOpen = true;
      return withMembers(session, rest, [...members, member], work);
    });
  } catch (error) {
    throw isOpen ? error : ofMember(name, error);
  }
}

/** The same error, which says whose it is. */
function ofMember(item: string, error: unknown): unknown {
  if (!isBlockferryError(error) || error.area === 'aborted') return error;
  const { code, message, facts, hint, retryable } = error;
  return new BlockferryError(code, `${item}: ${message}`, {
    facts: { ...facts, item },
    ...(hint === undefined ? {} : { hint }),
    retryable,
    cause: error,
  });
}

function assertMayShip({ own: { replica, state, item } }: Member): void {
  try {
    assertReplicating(replica.record.root, state.side);
  } catch (error) {
    throw ofMember(item.name, error);
  }
}

async function rotateTogether(session: Session, members: readonly Member[]): Promise<readonly Rotation[]> {
  const holding = await Promise.allSettled(
    members.map(async ({ own, logs }) => logs.hold(await settledHeads(session, own), HOLD_MS)),
  );
  const held = holding.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  const failed = holding.findIndex((result) => result.status === 'rejected');
  if (failed >= 0) {
    await releaseAll(held);
    throw ofMember(members[failed]!.own.item.name, (holding[failed] as PromiseRejectedResult).reason);
  }
  const timeMs = session.ports.clock.nowMs();
  return Promise.all(held.map((each) => each.rotate(timeMs)));
}

/** Whoever cannot be told lets its guest go on by itself. */
async function releaseAll(held: readonly HeldLogs[]): Promise<void> {
  await Promise.allSettled(held.map((each) => each.release()));
}
