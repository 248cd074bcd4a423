/**
 * A store that answers for what a delta cycle writes as soon as the gateway holds it durably, and passes everything else on.
 *
 * Held: objects below `logs/`, and a root that is put `early`. Promises, for all clients of this replica together:
 *
 * - what was answered for reaches the store in the order of the answers, or is told as refused;
 * - one consistent view: reads see what waits over what is at the store, and a root is compared and swapped against that view;
 * - any other write, and any listing, is a barrier: it goes out when all that was answered for before it is at the store.
 *
 * The etag of a root is that of its content and of the epoch of the queue (spool.ts), so it is the same before and after the root has
 * reached the store, and another one when something that was answered for will not. While the store is away, the few objects that a
 * cycle reads are answered as they were last seen; the compare and swap at the store decides in the end.
 */
import { bytesEqual } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { ROOT_BYTES_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import {
  beyondEnd,
  type CallOptions,
  checkKey,
  checkKeyPrefix,
  checkObjectRead,
  checkObjectSize,
  isErrno,
  type ObjectReadOptions,
  onFiles,
  type PageBlob,
  type PutOptions,
  type StagedObject,
  type Store,
  type StoredObject,
  tooLong,
} from '../transport/index.ts';
import { PassedBlob } from './passed-blob.ts';
import type { QueuedWrite, Spool } from './spool.ts';
import { sha256 } from './spool-file.ts';
import { SpoolStaging } from './spool-staging.ts';
import type { MakeLanes, Uploader } from './uploader.ts';

/** Of the replica's layout (docs/formats/replica.md) a gateway knows this much. */
const ROOT_KEY = 'root';
const LOGS_PREFIX = 'logs/';
/** What a cycle reads besides. */
const KEPT_KEYS: readonly string[] = [ROOT_KEY, 'replica.json', 'keyring.json'];

/** How long a write waits for those before it. Shorter than a client waits for its answer. */
const BARRIER_MS = 20_000;
/** A store that did not answer is not asked again for so long, where what was last seen will do. */
const AWAY_MS = 60_000;
/** How long a cycle waits for a store that says nothing, where what was last seen will do. */
const SILENT_MS = 10_000;
const STAGING_ID_BYTES = 16;

export interface SpoolingStoreOptions {
  /** The real store: one attempt a call, as the client tries again itself. */
  readonly store: Store;
  readonly spool: Spool;
  readonly uploader: Uploader;
  readonly lanes: MakeLanes;
  readonly ports: Pick<Ports, 'clock' | 'random' | 'files'>;
  /** @throws STORE_THROTTLED while the cache takes nothing more, or begins nothing more */
  readonly admit: (isFirst: boolean) => Promise<void>;
}

/** The root at the store. */
interface KnownRoot {
  readonly hash: Uint8Array;
  readonly etag: string;
}

export class SpoolingStore implements Store {
  readonly url: string;
  readonly #options: SpoolingStoreOptions;
  readonly #stagings: Map<string, Set<SpoolStaging>> = new Map();
  /** How often we changed each key at the store: what was read meanwhile may be older. */
  readonly #changes: Map<string, number> = new Map();
  /** Hash of what is kept of each key. */
  readonly #kept: Map<string, Uint8Array> = new Map();
  #root: KnownRoot | undefined;
  #rootTurn: Promise<unknown> = Promise.resolve();
  #awayUntilMs = Number.NEGATIVE_INFINITY;

  constructor(options: SpoolingStoreOptions) {
    this.url = options.store.url;
    this.#options = options;
  }

  /** The uploader put a root, or found it. */
  rootIsThere(bytes: Uint8Array, etag: string): void {
    this.#root = { hash: sha256(bytes), etag };
    this.#kept.set(ROOT_KEY, this.#root.hash);
    this.#noteChange(ROOT_KEY);
  }

  /** It is not away: from now on it is asked. */
  storeAnswered(): void {
    this.#awayUntilMs = Number.NEGATIVE_INFINITY;
  }

  prepare(options?: CallOptions): Promise<void> {
    return this.#options.store.prepare(options);
  }

  async get(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined> {
    checkKey(key);
    const held = await this.#held(key, async (write) => {
      const { bodyBytes } = write.entry;
      if (bodyBytes > maxBytes) throw tooLong(key, bodyBytes, maxBytes);
      return await this.#options.spool.read(write, 0, bodyBytes);
    });
    return held ? { bytes: held, etag: this.#etagOf(sha256(held)) } : await this.#getThrough(key, maxBytes, options);
  }

  async settled(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined> {
    checkKey(key);
    const { spool } = this.#options;
    const seen = key === ROOT_KEY && spool.newestRoot ? await spool.seen(key) : undefined;
    if (!seen) return await this.#getThrough(key, maxBytes, options);
    if (seen.byteLength > maxBytes) throw tooLong(key, seen.byteLength, maxBytes);
    return { bytes: seen, etag: this.#etagOf(sha256(seen)) };
  }

  async put(key: string, bytes: Uint8Array, options: PutOptions = {}): Promise<string> {
    checkKey(key);
    const { spool, uploader, admit } = this.#options;
    const { ifMatch, early } = options;
    if (key.startsWith(LOGS_PREFIX) && ifMatch === undefined) {
      await admit(true);
      await onFiles(key, () => spool.add(key, bytes));
      uploader.wake();
      return this.#etagOf(sha256(bytes));
    }
    if (key !== ROOT_KEY) return await this.#putThrough(key, bytes, options);
    return await this.#inRootTurn(() =>
      early && typeof ifMatch === 'string'
        ? this.#holdRoot(bytes, ifMatch, options)
        : this.#putRootThrough(bytes, options),
    );
  }

  async read(key: string, offset: number, lengthBytes: number, options?: ObjectReadOptions): Promise<Uint8Array> {
    checkKey(key);
    checkObjectRead(key, offset, lengthBytes);
    const { spool, store, lanes } = this.#options;
    const held = await this.#held(key, async (write) => {
      const { bodyBytes } = write.entry;
      checkObjectSize(key, bodyBytes, options?.sizeBytes);
      if (offset + lengthBytes > bodyBytes) throw beyondEnd(key, offset, lengthBytes, bodyBytes);
      return await spool.read(write, offset, lengthBytes);
    });
    return held ?? (await lanes().run(lengthBytes, () => store.read(key, offset, lengthBytes, options), options));
  }

  stage(key: string, partBytes: number): StagedObject {
    checkKey(key);
    return key.startsWith(LOGS_PREFIX) ? this.#stageHeld(key, partBytes) : this.#stageThrough(key, partBytes);
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    checkKey(key);
    await this.#barrier();
    await this.#options.store.delete(key, options);
    if (!KEPT_KEYS.includes(key)) return;
    this.#noteChange(key);
    await this.#keep(key, undefined);
  }

  /** Behind a barrier, since whoever lists acts on what is not there: a pin that is listed must be younger than the root before it. */
  async *list(prefix: string, options?: CallOptions): AsyncGenerator<string> {
    checkKeyPrefix(prefix);
    await this.#barrier();
    yield* this.#options.store.list(prefix, options);
  }

  pages(key: string): PageBlob {
    const { store, lanes } = this.#options;
    return new PassedBlob(store.pages(key), lanes, () => this.#barrier());
  }

  close(): Promise<void> {
    return this.#options.store.close();
  }

  #stageHeld(key: string, partBytes: number): StagedObject {
    const { spool, uploader, ports, admit } = this.#options;
    const id = Buffer.from(ports.random.bytes(STAGING_ID_BYTES)).toString('hex');
    const nowMs = (): number => ports.clock.nowMs();
    const staging = new SpoolStaging({ spool, files: ports.files, key, partBytes, id, nowMs, admit });
    const others = this.#stagings.get(key) ?? new Set();
    this.#stagings.set(key, others.add(staging));
    const forget = (): void => {
      others.delete(staging);
      if (others.size === 0) this.#stagings.delete(key);
    };
    return {
      put: (index, bytes, options) => onFiles(key, () => staging.put(index, bytes, options)),
      commit: async (parts, options) => {
        await onFiles(key, () => staging.commit(parts, options));
        forget();
        for (const other of [...others]) await other.lose();
        others.clear();
        uploader.wake();
      },
      abort: async () => {
        await staging.abort();
        forget();
      },
    };
  }

  #stageThrough(key: string, partBytes: number): StagedObject {
    const { store, lanes } = this.#options;
    const staged = store.stage(key, partBytes);
    return {
      put: (index, bytes, options) => lanes().run(bytes.byteLength, () => staged.put(index, bytes, options), options),
      commit: async (parts, options) => {
        await this.#barrier();
        await staged.commit(parts, options);
      },
      abort: () => staged.abort(),
    };
  }

  async #putThrough(key: string, bytes: Uint8Array, options: PutOptions): Promise<string> {
    const { store, lanes } = this.#options;
    await this.#barrier();
    const etag = await lanes().run(bytes.byteLength, () => store.put(key, bytes, options), options);
    if (!KEPT_KEYS.includes(key)) return etag;
    this.#noteChange(key);
    await this.#keep(key, bytes);
    return etag;
  }

  /** Swaps the root in the view of our clients; the store is asked only where nobody knows what it has. */
  async #holdRoot(bytes: Uint8Array, ifMatch: string, options: CallOptions): Promise<string> {
    const { spool, uploader, admit } = this.#options;
    await admit(false);
    const there = spool.newestRoot ? undefined : await this.#rootLike(ifMatch, options);
    // From here to its place in the queue nothing comes in between.
    const follows = spool.newestRoot?.hash ?? there;
    if (!follows || this.#etagOf(follows) !== ifMatch) throw changed(ifMatch);
    await onFiles(ROOT_KEY, () => spool.add(ROOT_KEY, bytes, follows));
    uploader.wake();
    return this.#etagOf(sha256(bytes));
  }

  /** The root at the store: as it is known where that is the one that is asked for, else as it is. */
  async #rootLike(etag: string, options: CallOptions): Promise<Uint8Array | undefined> {
    const known = this.#kept.get(ROOT_KEY);
    if (known && this.#etagOf(known) === etag) return known;
    const there = await this.#getThrough(ROOT_KEY, ROOT_BYTES_MAX, options);
    return there && sha256(there.bytes);
  }

  async #putRootThrough(bytes: Uint8Array, options: PutOptions): Promise<string> {
    const { ifMatch } = options;
    await this.#barrier();
    const condition = typeof ifMatch === 'string' ? { ifMatch: await this.#etagAtStore(ifMatch, options) } : {};
    const etag = await this.#putThrough(ROOT_KEY, bytes, { ...options, ...condition });
    this.rootIsThere(bytes, etag);
    return this.#etagOf(sha256(bytes));
  }

  /** What the store calls the root that a client knows by its content. @throws STORE_CONDITION if it has another one */
  async #etagAtStore(ifMatch: string, options: CallOptions): Promise<string> {
    if (this.#root && this.#etagOf(this.#root.hash) === ifMatch) return this.#root.etag;
    const there = await this.#options.store.get(ROOT_KEY, ROOT_BYTES_MAX, options);
    if (there && this.#etagOf(sha256(there.bytes)) === ifMatch) return there.etag;
    throw changed(ifMatch);
  }

  async #getThrough(key: string, maxBytes: number, options?: CallOptions): Promise<StoredObject | undefined> {
    const { store, ports, spool } = this.#options;
    const isKept = KEPT_KEYS.includes(key);
    if (isKept && this.#isKnownAway()) {
      const seen = await spool.seen(key);
      if (seen) return this.#asSeen(key, seen, maxBytes);
    }
    const changes = this.#changes.get(key);
    let there: StoredObject | undefined;
    try {
      const ask = (call: CallOptions): Promise<StoredObject | undefined> => store.get(key, maxBytes, call);
      there = isKept && (await spool.hasSeen(key)) ? await this.#soon(key, ask, options) : await ask(options ?? {});
    } catch (error) {
      if (!isKept || !isAway(error)) throw error;
      this.#awayUntilMs = ports.clock.monotonicMs() + AWAY_MS;
      const seen = await spool.seen(key);
      if (!seen) throw error;
      return this.#asSeen(key, seen, maxBytes);
    }
    if (!isKept) return there;
    this.storeAnswered();
    if (changes === this.#changes.get(key)) await this.#keep(key, there?.bytes);
    if (key !== ROOT_KEY || !there) return there;
    const hash = sha256(there.bytes);
    if (changes === this.#changes.get(key)) this.#root = { hash, etag: there.etag };
    return { bytes: there.bytes, etag: this.#etagOf(hash) };
  }

  #isKnownAway(): boolean {
    const { ports, uploader } = this.#options;
    return ports.clock.monotonicMs() < this.#awayUntilMs || isAway(uploader.failure);
  }

  /** @throws STORE_TIMEOUT where it takes too long */
  async #soon<T>(key: string, ask: (call: CallOptions) => Promise<T>, { signal }: CallOptions = {}): Promise<T> {
    const { clock } = this.#options.ports;
    const ended = new AbortController();
    const silent = new AbortController();
    const late = clock.sleep(SILENT_MS, ended.signal).then(
      () => {
        const error = new BlockferryError('STORE_TIMEOUT', `${key}: the store says nothing for ${SILENT_MS} ms`, {
          facts: { source: key, timeoutMs: SILENT_MS },
          retryable: true,
        });
        silent.abort(error);
        throw error;
      },
      () => new Promise<never>(() => {}),
    );
    try {
      const call = { signal: signal ? AbortSignal.any([signal, silent.signal]) : silent.signal };
      return await Promise.race([ask(call), late]);
    } finally {
      ended.abort();
    }
  }

  /** Keeps an object as it is at the store, if it is not what is kept already. */
  async #keep(key: string, bytes: Uint8Array | undefined): Promise<void> {
    const hash = bytes && sha256(bytes);
    const before = this.#kept.get(key);
    if (hash && before && bytesEqual(hash, before)) return;
    const changes = this.#changes.get(key);
    // A root that waits is on its way there, and what was read may be older than what the uploader has put since.
    const isCurrent = (): boolean =>
      changes === this.#changes.get(key) && !(key === ROOT_KEY && this.#options.spool.newestRoot);
    if (!(await onFiles(key, () => this.#options.spool.noteSeen(key, bytes, isCurrent)))) return;
    if (changes !== this.#changes.get(key)) return;
    if (hash) this.#kept.set(key, hash);
    else this.#kept.delete(key);
  }

  #noteChange(key: string): void {
    this.#changes.set(key, (this.#changes.get(key) ?? 0) + 1);
  }

  /** What `work` makes of a write of this key that waits; undefined where none does, or it reached the store meanwhile. */
  async #held<T>(key: string, work: (write: QueuedWrite) => Promise<T>): Promise<T | undefined> {
    const write = this.#options.spool.find(key);
    if (!write) return undefined;
    try {
      return await work(write);
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  #etagOf(hash: Uint8Array): string {
    return `g-${this.#options.spool.epoch}-${Buffer.from(hash).toString('hex')}`;
  }

  #asSeen(key: string, bytes: Uint8Array, maxBytes: number): StoredObject {
    if (bytes.byteLength > maxBytes) throw tooLong(key, bytes.byteLength, maxBytes);
    return { bytes, etag: this.#etagOf(sha256(bytes)) };
  }

  #barrier(): Promise<void> {
    return this.#options.uploader.drained(BARRIER_MS);
  }

  #inRootTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#rootTurn.then(work);
    this.#rootTurn = done.catch(() => {});
    return done;
  }
}

const AWAY: readonly string[] = ['STORE_UNREACHABLE', 'STORE_TIMEOUT', 'STORE_THROTTLED', 'STORE_AUTHENTICATION'];

/** The store could not be asked; what it would have said is not known. */
function isAway(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && AWAY.includes(String(error.code));
}

function changed(ifMatch: string): BlockferryError {
  return new BlockferryError('STORE_CONDITION', `${ROOT_KEY} was changed`, {
    facts: { source: ROOT_KEY, rule: `etag is ${ifMatch}` },
  });
}
