/**
 * Committing roots one after the other. The only place that writes the root of a replica.
 *
 * A commit is a Put with If-Match of the root read or written last: if another writer was there, it fails, and this
 * writer stops unless its change is one that can be made over any root. After it the anchor is saved, so that a rolled-back root is found later. A crash between the two leaves
 * an anchor that is one behind, which every later reader accepts.
 */
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { ROOT_BYTES_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import { encodeKeyring, type OpenKeyring } from './keyring.ts';
import { KEYRING_KEY, ROOT_KEY } from './layout.ts';
import type { Replica } from './replica.ts';
import { retain } from './retain.ts';
import type { Anchor, RecoveryPoint, Root } from './root.ts';
import { checkAnchor, decodeRoot, encodeRoot, rootHash } from './root-record.ts';

export interface CommitOptions {
  /**
   * A store that passes on what it gets may answer before the root is where it belongs; the anchor is the caller's to save, when
   * it is there.
   */
  readonly early?: boolean;
  /** Called before the change is made over a root that others committed. What it throws ends the commit. */
  readonly beforeRetry?: () => Promise<void>;
}

export type SaveAnchor = (anchor: Anchor) => Promise<void>;

/** What a commit changes; all else of the root stays, as far as anybody needs it (`retain`). */
export type RootChange = Partial<Pick<Root, 'owner' | 'disks' | 'baselines' | 'points' | 'logs'>> & {
  readonly sync?: Root['sync'] | null;
  readonly follows?: Root['follows'] | null;
};

/** Of the root behind one of generation `before`: a point that was carried from another store keeps its own. */
export function generationOf(before: number, points: readonly RecoveryPoint[]): number {
  return Math.max(before + 1, points.at(-1)?.generation ?? 0);
}

export class Committer {
  #replica: Replica;
  readonly #ports: Ports;
  readonly #writer: string;
  readonly #saveAnchor: SaveAnchor;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(replica: Replica, writer: string, saveAnchor: SaveAnchor, ports: Ports) {
    this.#replica = replica;
    this.#writer = writer;
    this.#saveAnchor = saveAnchor;
    this.#ports = ports;
  }

  /** The replica with the root committed last. */
  get replica(): Replica {
    return this.#replica;
  }

  get root(): Root {
    return this.#replica.record.root;
  }

  /**
   * Commits one after the other, in the order of the calls: `prepare` gets the root before it and makes what changes.
   * @throws REPLICA_FENCED if another writer committed meanwhile.
   */
  commit(prepare: (root: Root) => Promise<RootChange>, signal?: AbortSignal): Promise<Root> {
    const next = this.#tail.then(async () => this.#commit(await prepare(this.root), signal));
    this.#tail = next.catch(() => {});
    return next;
  }

  /**
   * The same, also over roots that others committed meanwhile: `prepare` is then asked again, with the newest. For changes
   * that leave alone what others may change; `prepare` throws where a root is none that it can go on from.
   * @throws REPLICA_FENCED if the keys were changed meanwhile
   */
  commitOver(
    prepare: (root: Root) => RootChange,
    signal?: AbortSignal,
    { early = false, beforeRetry }: CommitOptions = {},
  ): Promise<Root> {
    const next = this.#tail.then(async () => {
      for (;;) {
        const { generation } = this.root;
        try {
          return await this.#commit(prepare(this.root), signal, early);
        } catch (error) {
          if (!isBlockferryError(error, 'REPLICA_FENCED') || this.root.generation !== generation) throw error;
          if (!(await this.#catchUp(signal, early))) throw error;
          await beforeRetry?.();
        }
      }
    });
    this.#tail = next.catch(() => {});
    return next;
  }

  /** Takes the newest root, if others committed meanwhile and under the same keys. */
  async refresh(signal?: AbortSignal): Promise<Root> {
    await this.#tail;
    await this.#catchUp(signal);
    return this.root;
  }

  /** Replaces the keyring, then the root that names its version. */
  async commitKeyring(keyring: OpenKeyring, signal?: AbortSignal): Promise<Root> {
    const options = signal ? { signal } : {};
    await this.#replica.store.put(KEYRING_KEY, encodeKeyring(keyring.keyring), options);
    await this.#ports.failpoint('key.after-keyring');
    this.#replica = { ...this.#replica, keyring };
    return this.commit(async () => ({}), signal);
  }

  async #commit(change: RootChange, signal: AbortSignal | undefined, early = false): Promise<Root> {
    const { record, keyring, rootEtag } = this.#replica;
    const { sync: unfinished, follows: followed, ...settled } = record.root;
    const sync = change.sync === undefined ? unfinished : change.sync;
    const follows = change.follows === undefined ? followed : change.follows;
    const owner = change.owner ?? settled.owner;
    const kept = retain({
      owner,
      baselines: change.baselines ?? settled.baselines,
      points: change.points ?? settled.points,
      logs: change.logs ?? settled.logs,
    });
    const root: Root = {
      ...settled,
      owner,
      ...(follows ? { follows } : {}),
      disks: change.disks ?? settled.disks,
      ...kept,
      ...(sync ? { sync } : {}),
      generation: generationOf(settled.generation, kept.points),
      previous: record.hash,
      keyringCounter: keyring.keyring.counter,
      timeMs: this.#ports.clock.nowMs(),
      writer: this.#writer,
    };
    const bytes = encodeRoot(root, keyring.keys.root);
    const etag = await this.#put(bytes, rootEtag, signal, early);
    const hash = rootHash(bytes);
    this.#replica = { ...this.#replica, record: { root, hash }, rootEtag: etag };
    await this.#ports.failpoint('sync.after-root');
    if (!this.#isEarly(early)) await this.#saveAnchor({ generation: root.generation, hash });
    await this.#ports.failpoint('sync.after-anchor');
    return root;
  }

  /** Takes the root that is there now; false if it is not a newer one under the same keys. */
  async #catchUp(signal: AbortSignal | undefined, early = false): Promise<boolean> {
    const { store, keyring, record } = this.#replica;
    const stored = await store.get(ROOT_KEY, ROOT_BYTES_MAX, signal ? { signal } : {});
    if (!stored) return false;
    const newer = decodeRoot(stored.bytes, keyring.keys.root, ROOT_KEY);
    // What was answered early may have been refused since; the anchor does not know of it.
    if (this.#isEarly(early) && newer.root.generation < record.root.generation) return false;
    checkAnchor(newer, { generation: record.root.generation, hash: record.hash }, ROOT_KEY);
    const { generation, keyringCounter } = newer.root;
    if (generation === record.root.generation || keyringCounter !== keyring.keyring.counter) return false;
    this.#replica = { ...this.#replica, record: newer, rootEtag: stored.etag };
    return true;
  }

  #isEarly(early: boolean): boolean {
    return early && this.#replica.store.settled !== undefined;
  }

  async #put(bytes: Uint8Array, ifMatch: string, signal: AbortSignal | undefined, early: boolean): Promise<string> {
    try {
      return await this.#replica.store.put(ROOT_KEY, bytes, { ifMatch, early, ...(signal ? { signal } : {}) });
    } catch (cause) {
      if (!isBlockferryError(cause, 'STORE_CONDITION')) throw cause;
      throw new BlockferryError('REPLICA_FENCED', 'another writer committed to this replica meanwhile', {
        cause,
        facts: { url: this.#replica.store.url, generation: this.root.generation },
        hint: 'two machines protect the same item; stop one of them, then run resync',
      });
    }
  }
}
