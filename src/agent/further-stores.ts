/** What the further stores of an item hold, and whose they are. A store that does not answer is told as that, and delays no other. */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { openReplica, type Root } from '../replica/index.ts';
import { type ItemState, LocalItem } from './local-state.ts';
import { publicUrl, sessionSignal, withStore } from './open-item.ts';
import type { FurtherStore, Session } from './types.ts';

/** What the first store has. */
export interface FirstStore {
  readonly newestMs?: number | undefined;
  /** Of its owner. */
  readonly epoch?: number | undefined;
}

/** Looks at all of them at once. One in which another side took over is told as that. */
export async function furtherStores(
  session: Session,
  state: ItemState,
  first: FirstStore,
): Promise<readonly FurtherStore[]> {
  const { also = [] } = state;
  if (also.length === 0) return [];
  const master = await new LocalItem(session.home, state.name, session.ports.files).loadMaster();
  return Promise.all(
    also.map(async (url): Promise<FurtherStore> => {
      const shown = { url: publicUrl(url) };
      try {
        return master ? { ...shown, ...(await newestOf(session, url, master, first)) } : shown;
      } catch (error) {
        if (!isBlockferryError(error) || error.area === 'aborted') throw error;
        return { ...shown, code: error.code, message: error.message };
      }
    }),
  );
}

function newestOf(
  session: Session,
  url: string,
  master: Uint8Array,
  { newestMs, epoch }: FirstStore,
): Promise<Omit<FurtherStore, 'url'>> {
  return withStore(session, url, async (store) => {
    const { record } = await openReplica(store, { master }, undefined, { signal: sessionSignal(session) });
    if (epoch !== undefined) refuseLater(url, record.root, epoch);
    const newest = record.root.points.at(-1);
    if (!newest) return {};
    const behind = newestMs === undefined ? {} : { behindMs: Math.max(0, newestMs - newest.timeMs) };
    return { pointId: newest.id, lastPointMs: newest.timeMs, ...behind };
  });
}

/** When the newest point in one of the stores of an item was made; undefined where there is none yet. */
export async function newestPointMs(session: Session, name: string, url: string): Promise<number | undefined> {
  const master = await new LocalItem(session.home, name, session.ports.files).loadMaster();
  if (!master) return undefined;
  try {
    return (await newestOf(session, url, master, {})).lastPointMs;
  } catch (error) {
    if (isBlockferryError(error, 'REPLICA_NOT_FOUND', 'STORE_NOT_FOUND')) return undefined;
    throw error;
  }
}

/**
 * Whether a side took over in one of the further stores: a root of the first store does not know. One that cannot be looked at is told,
 * and no reason to keep a machine stopped. @throws SPLIT_BRAIN
 */
export async function refuseTakenOver(session: Session, { also = [], name }: ItemState, epoch: number): Promise<void> {
  const master = await new LocalItem(session.home, name, session.ports.files).loadMaster();
  if (!master) return;
  await Promise.all(also.map((url) => refuseLaterEpoch(session, url, master, epoch)));
}

async function refuseLaterEpoch(session: Session, url: string, master: Uint8Array, epoch: number): Promise<void> {
  try {
    await withStore(session, url, async (store) => {
      const { record } = await openReplica(store, { master }, undefined, { signal: sessionSignal(session) });
      refuseLater(url, record.root, epoch);
    });
  } catch (error) {
    if (!isBlockferryError(error) || error.code === 'SPLIT_BRAIN' || error.area === 'aborted') throw error;
    if (error.code === 'REPLICA_NOT_FOUND') return;
    const message = `whether a side took over in ${publicUrl(url)} is not known: ${error.message}`;
    session.onEvent?.({ type: 'notice', code: 'STORE_UNSEEN', message });
  }
}

function refuseLater(url: string, { owner }: Root, epoch: number): void {
  if (owner.epoch <= epoch) return;
  throw new BlockferryError('SPLIT_BRAIN', `another side took over in ${publicUrl(url)}: epoch ${owner.epoch}`, {
    facts: { url: publicUrl(url), epoch: owner.epoch, own: epoch },
    hint: 'stop the machine there first; the way back is to let this store follow that one, then blockferry failback',
  });
}
