/**
 * What the tampering tests attack: a sealed replica of two disks with two recovery points, everything else that its store
 * ever held, another replica with the same content, and the judge of an attack. The test that imports it puts the
 * in-process pool in the place of the workers.
 */
import { addKey, protect, removeKey, resync } from '../../src/agent/index.ts';
import { readEntry, SEGMENT_HEAD_BYTES, slotSizeBytes } from '../../src/chunker/index.ts';
import { isBlockferryError } from '../../src/errors.ts';
import {
  type Anchor,
  baseKey,
  baselineOf,
  FrozenDisk,
  generateKeyFile,
  type KeyMaterial,
  openReplica,
  parseKeyFile,
  type RecoveryPoint,
  type Replica,
  type Unlock,
} from '../../src/replica/index.ts';
import { Lanes } from '../../src/transport/index.ts';
import { noise, prose } from '../chunker/support.ts';
import { CapturedStore } from '../support/captured-store.ts';
import { CHUNK, Lab, readReplicaDisk, STORE_URL } from '../support/replica-lab.ts';

export const SLOT = slotSizeBytes(CHUNK);
const OTHER_URL = 'file:///memory/other';

function chunk(letter: string): Buffer {
  const seed = letter.charCodeAt(0);
  if (letter === '.') return Buffer.alloc(CHUNK);
  return letter === letter.toUpperCase() ? noise(CHUNK, seed) : prose(CHUNK, seed);
}
const disk = (letters: string): Buffer => Buffer.concat([...letters].map(chunk));
/** The second disk begins with the same content as the first: only their ids tell their slots apart. */
const FIRST = [disk('ab.d'), disk('ax')];
const SECOND = [disk('ab.C'), disk('ay')];

/** Everything an attacker may take things from, and what the owner knows. */
export interface SealedTarget {
  readonly lab: Lab;
  /** The store as it is, and as it was when the first point was committed. */
  readonly now: CapturedStore;
  readonly atFirstPoint: CapturedStore;
  /** A replica of another item. */
  readonly other: CapturedStore;
  readonly otherUnlock: Unlock;
  /** Every root that was ever committed, in order. */
  readonly roots: readonly Buffer[];
  /** A key that was added and removed again, and the keyring that still had it. */
  readonly removedKey: KeyMaterial;
  readonly oldKeyring: Buffer;
  readonly unlock: Unlock;
  readonly anchor: Anchor;
  /** The replica as `now` holds it, opened. */
  readonly genuine: Replica;
  /** What each point holds, by its id. */
  readonly contents: ReadonlyMap<string, readonly Buffer[]>;
}

export async function makeTarget(): Promise<SealedTarget> {
  const lab = new Lab();
  const { session, ports } = lab;
  const read = async (path: string): Promise<Buffer> => Buffer.from((await ports.files.readSmall(path, 1 << 20))!);
  const keyFile = async (path: string): Promise<KeyMaterial> => ({
    type: 'key-file',
    secret: parseKeyFile(await read(path), path),
  });
  const capture = async (url: string, unlock: Unlock): Promise<CapturedStore> => {
    const store = await lab.store(url);
    return CapturedStore.of(store, (await openReplica(store, unlock, undefined)).record.root);
  };
  const write = (version: readonly Buffer[]): readonly string[] =>
    version.map((bytes, i) => lab.disk(`disk${i}.img`, bytes));
  const roots: Buffer[] = [];
  lab.onFailpoint = async (name) => {
    if (name === 'sync.after-root') roots.push(await read('/memory/store/root'));
  };
  const request = { chunkBytes: CHUNK, keys: [] };
  await protect(session, { ...request, name: 'web', disks: write(FIRST), url: STORE_URL });
  const unlock: Unlock = { materials: [await keyFile('/memory/home/items/web/web.key')] };
  const atFirstPoint = await capture(STORE_URL, unlock);

  await generateKeyFile('/memory/removed.key', ports);
  const slot = await addKey(session, 'web', { type: 'key-file', path: '/memory/removed.key' });
  const oldKeyring = await read('/memory/store/keyring.json');
  await removeKey(session, 'web', slot);
  write(SECOND);
  await resync(session, 'web');
  lab.onFailpoint = undefined;
  const now = await capture(STORE_URL, unlock);

  await protect(session, { ...request, name: 'other', disks: write(FIRST), url: OTHER_URL });
  const otherUnlock = await lab.unlock('other');
  const other = await capture(OTHER_URL, otherUnlock);

  const genuine = await openReplica(now.open(ports), unlock, undefined);
  const { root, hash } = genuine.record;
  const removedKey = await keyFile('/memory/removed.key');
  const anchor = { generation: root.generation, hash };
  const contents = new Map(root.points.map(({ id }, i) => [id, i === 0 ? FIRST : SECOND]));
  const stores = { now, atFirstPoint, other, otherUnlock };
  return { lab, ...stores, roots, removedKey, oldKeyring, unlock, anchor, genuine, contents };
}

export interface UsedSlot {
  readonly disk: number;
  readonly chunk: number;
  readonly clen: number;
  readonly offset: number;
  readonly blob: string;
}

/** The slots of a point. */
export async function usedSlots(
  { lab }: Pick<SealedTarget, 'lab'>,
  replica: Replica,
  point: RecoveryPoint,
): Promise<readonly UsedSlot[]> {
  const slots: UsedSlot[] = [];
  for (const [i, state] of baselineOf(replica.record.root, point).disks.entries()) {
    const access = {
      lanes: new Lanes({ clock: lab.ports.clock, limit: 1 }),
      ports: lab.ports,
      signal: new AbortController().signal,
    };
    const frozen = new FrozenDisk(replica, i, state, access);
    const blob = `${baseKey(`d${i}`, 0)} ${state.baseSnapshots[0]!.snapshot}`;
    for await (const number of frozen.usedChunks()) {
      const { clen } = readEntry(await frozen.tree.entry(number))!;
      slots.push({ disk: i, chunk: number, clen, offset: SEGMENT_HEAD_BYTES + number * SLOT, blob });
    }
  }
  return slots;
}

/** Codes of attacks that were refused, and how often each; `genuine` where a committed point came back exactly. */
export class Tally {
  readonly counts: Record<string, number> = {};

  async attempt(failover: () => Promise<void>): Promise<void> {
    let outcome = 'genuine';
    try {
      await failover();
    } catch (error) {
      if (!isBlockferryError(error) || !(error.area === 'replica' || error.area === 'key')) throw error;
      outcome = error.code;
    }
    this.counts[outcome] = (this.counts[outcome] ?? 0) + 1;
  }
}

/** Restores disks of points and compares them with what was committed. */
export async function restore(
  { lab, contents }: Pick<SealedTarget, 'lab' | 'contents'>,
  replica: Replica,
  points: readonly RecoveryPoint[],
  disks: readonly number[] = [0, 1],
): Promise<void> {
  for (const point of points) {
    for (const i of disks) {
      const found = await readReplicaDisk(replica, i, baselineOf(replica.record.root, point).disks[i]!, lab.ports);
      const expected = contents.get(point.id)?.[i];
      if (!expected?.equals(found))
        throw new Error(`ACCEPTED: disk ${i} of point ${point.id} came back with other bytes`);
    }
  }
}
