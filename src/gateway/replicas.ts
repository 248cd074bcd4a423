/**
 * The replicas behind a gateway: each has a directory of the cache, a queue, an uploader and one view for all its clients. Those whose
 * queue is not empty are opened with the gateway, whoever asks for them; the others when a client does.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { BlockferryError, isBlockferryError } from '../errors.ts';
import { GATEWAY_REPLICAS_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import { type Lanes, openStore, Retry, type RetryPolicy, type Store } from '../transport/index.ts';
import { Spool } from './spool.ts';
import { SpoolingStore } from './spooling-store.ts';
import type { Forecast, GatewayConfig, GatewayOptions, GatewayReplicaStatus } from './types.ts';
import { Uploader } from './uploader.ts';

/** Of one upload; what is still not there begins again after a while. */
const UPLOAD_POLICY: RetryPolicy = { triesMax: 5, elapsedMsMax: 120_000, firstWaitMs: 250, waitMsMax: 5_000 };
const PLACE_FILE = 'place';
const PLACE_BYTES_MAX = 4096;
/** How often a queue is tried that could not be opened, though nobody asks for it. */
const RESUME_EVERY_MS = 30_000;

interface OpenReplica {
  readonly place: string;
  readonly spool: Spool;
  readonly uploader: Uploader;
  readonly store: SpoolingStore;
  readonly forecast: Forecast;
}

export type ReplicasOptions = Omit<GatewayOptions, 'config' | 'spaceRule'> & {
  readonly cacheDirectory: string;
  readonly admit: (isFirst: boolean) => Promise<void>;
};

export class Replicas {
  readonly #options: ReplicasOptions;
  #stores: GatewayConfig['stores'];
  readonly #open: Map<string, Promise<OpenReplica>> = new Map();
  /** By place, the one used longest ago first. */
  readonly #ready: Map<string, OpenReplica> = new Map();
  /** Requests under way, by place: counted before the replica is open. */
  readonly #users: Map<string, number> = new Map();
  readonly #working: Set<Promise<unknown>> = new Set();
  /** Writes that wait in a directory that could not be opened: why, by place. */
  readonly #stranded: Map<string, GatewayReplicaStatus> = new Map();
  readonly #ended: AbortController = new AbortController();
  #resuming: Promise<void> = Promise.resolve();

  constructor(options: ReplicasOptions, stores: GatewayConfig['stores']) {
    this.#options = options;
    this.#stores = stores;
  }

  /** Opens what still has to reach a store, or to be looked at by a person; what cannot be opened is tried again. */
  async resume(): Promise<void> {
    const { ports, cacheDirectory } = this.#options;
    await ports.files.makeDirectory(cacheDirectory);
    await this.#resumeOnce();
    this.#resuming = this.#keepResuming();
  }

  async #keepResuming(): Promise<void> {
    const { signal } = this.#ended;
    while (this.#stranded.size > 0 && !signal.aborted) {
      await this.#options.ports.clock.sleep(RESUME_EVERY_MS, signal).catch(() => {});
      if (!signal.aborted) await this.#resumeOnce().catch(() => {});
    }
  }

  async #resumeOnce(): Promise<void> {
    const { ports, cacheDirectory } = this.#options;
    for (const { name, kind } of await ports.files.list(cacheDirectory)) {
      const directory = join(cacheDirectory, name);
      if (kind !== 'directory' || !(await isOfUse(directory, ports))) continue;
      try {
        const found = await readPlace(directory, ports);
        if (!found) throw nameless(directory);
        if (!this.#open.has(found.place)) await this.#find(found.place);
        this.#stranded.delete(directory);
      } catch (error) {
        this.#strand(directory, error);
      }
    }
  }

  #strand(directory: string, error: unknown): void {
    const { ports, onEvent } = this.#options;
    const [code, message] = isBlockferryError(error) ? [error.code, error.message] : ['UNEXPECTED', String(error)];
    const before = this.#stranded.get(directory)?.failure;
    const failure = { code, message, sinceMs: before?.sinceMs ?? ports.clock.nowMs() };
    const nothing = { url: '', queuedBytes: 0, points: 0, refused: [] };
    this.#stranded.set(directory, { place: directory, ...nothing, failure });
    if (before?.message === message) return;
    onEvent({ type: 'fault', message: `${directory} holds writes, which wait: ${message}` });
  }

  /** Stores as a new configuration names them; replicas that are open keep theirs. */
  setStores(stores: GatewayConfig['stores']): void {
    this.#stores = stores;
  }

  /** Bytes that the cache holds. */
  usedBytes(): number {
    return [...this.#ready.values()].reduce((sum, { spool }) => sum + spool.usedBytes, 0);
  }

  /** Runs `work` with the view of a replica. @throws STORE_REFUSED where the place is none of this gateway */
  async use<T>(place: string, work: (store: Store) => Promise<T>): Promise<T> {
    const users = this.#users.get(place) ?? 0;
    this.#users.set(place, users + 1);
    const working = this.#find(place).then(({ store }) => work(store));
    this.#working.add(working);
    try {
      return await working;
    } finally {
      this.#working.delete(working);
      const left = this.#users.get(place)! - 1;
      if (left > 0) this.#users.set(place, left);
      else this.#users.delete(place);
    }
  }

  async status(): Promise<readonly GatewayReplicaStatus[]> {
    const open = [...this.#ready.values()].sort((a, b) => (a.place < b.place ? -1 : 1));
    return [...(await Promise.all(open.map(statusOf))), ...this.#stranded.values()];
  }

  /** Waits until nothing writes to the cache any more: the next process may have it then. `end`: what uses the stores besides. */
  async close(end: () => Promise<void> = async () => {}): Promise<void> {
    this.#ended.abort();
    await this.#resuming;
    const open = (await Promise.allSettled(this.#open.values())).flatMap((result) =>
      result.status === 'fulfilled' ? [result.value] : [],
    );
    for (const { uploader } of open) await uploader.close();
    await Promise.allSettled([...this.#working]);
    await end();
    for (const { store } of open) await store.close();
  }

  async #find(place: string): Promise<OpenReplica> {
    const found = this.#open.get(place);
    if (found !== undefined) {
      const replica = await found;
      if (this.#ready.delete(place)) this.#ready.set(place, replica);
      return replica;
    }
    this.#ended.signal.throwIfAborted();
    const opening = this.#openReplica(place);
    this.#open.set(place, opening);
    try {
      this.#ready.set(place, await opening);
    } catch (error) {
      this.#open.delete(place);
      throw error;
    }
    await this.#makeRoom();
    return await opening;
  }

  async #openReplica(place: string): Promise<OpenReplica> {
    const { ports, environment, cacheDirectory, admit, onEvent } = this.#options;
    const url = this.#urlOf(place);
    const directory = join(cacheDirectory, createHash('sha256').update(place).digest('hex').slice(0, 32));
    await claim(directory, place, url, ports);
    const { spool, damage } = await Spool.open(directory, ports);
    if (damage) onEvent({ type: 'refused', place, directory, reason: damage.message });
    const store = await openStore(url, { ports, environment });
    const lanes = (): Lanes => this.#options.lanes(storeOf(place));
    const forecast = this.#options.forecast();
    const { clock, random } = ports;
    const uploader = new Uploader({
      ...{ store, spool, lanes, ports },
      retry: new Retry({ clock, random, policy: UPLOAD_POLICY }),
      onRoot: (bytes, etag) => view.rootIsThere(bytes, etag),
      onAnswered: () => view.storeAnswered(),
      onSent: (bytes, elapsedMs) => forecast.sent(bytes, elapsedMs),
      onFailure: ({ code, message }) => onEvent({ type: 'upload-failed', place, code, message }),
      onRefused: (refused, reason) => onEvent({ type: 'refused', place, directory: refused, reason }),
    });
    const view = new SpoolingStore({ store, spool, uploader, lanes, ports, admit });
    uploader.wake();
    return { place, spool, uploader, store: view, forecast };
  }

  #urlOf(place: string): string {
    const wanted = storeOf(place);
    const store = this.#stores.find(({ name }) => name === wanted);
    if (store) return `${store.url.replace(/\/+$/, '')}${place.slice(wanted.length)}`;
    throw new BlockferryError('STORE_REFUSED', `the gateway has no store "${wanted}"`, {
      facts: { place },
      hint: 'write gateway+https://HOST:PORT/STORE/PREFIX with a STORE of the configuration of the gateway',
    });
  }

  async #makeRoom(): Promise<void> {
    for (const [place, { spool, uploader, store }] of [...this.#ready]) {
      if (this.#ready.size <= GATEWAY_REPLICAS_MAX) return;
      const isKept = (await spool.refused()).length > 0;
      if (isKept || this.#users.has(place) || spool.usedBytes > 0) continue;
      this.#ready.delete(place);
      this.#open.delete(place);
      await uploader.close();
      await store.close();
    }
  }
}

/** `STORE` of `STORE/PREFIX`. */
function storeOf(place: string): string {
  return place.split('/', 1)[0]!;
}

async function statusOf({ place, spool, uploader, store, forecast }: OpenReplica): Promise<GatewayReplicaStatus> {
  const { queue, queuedBytes } = spool;
  forecast.waits(queuedBytes);
  const minutes = queue.length === 0 ? undefined : forecast.minutesToUpload();
  const oldest = queue[0]?.entry.acceptedMs;
  return {
    ...{ place, url: store.url, queuedBytes },
    points: queue.filter(({ entry }) => entry.kind === 'root').length,
    ...(oldest === undefined ? {} : { oldestMs: oldest }),
    ...(uploader.movedMs === undefined ? {} : { movedMs: uploader.movedMs }),
    ...(uploader.failure ? { failure: uploader.failure } : {}),
    ...(minutes === undefined ? {} : { upload: { level: forecast.level(), minutes } }),
    refused: await spool.refused(),
  };
}

/**
 * A directory of the cache belongs to one place at one store: what waits there must not go to another one. Nothing that somebody may
 * still need is removed, whatever became of the file that says whose it is.
 */
async function claim(directory: string, place: string, url: string, ports: Pick<Ports, 'files'>): Promise<void> {
  const { files } = ports;
  await files.makeDirectory(directory);
  const found = await readPlace(directory, ports);
  if (found?.place === place && found.url === url) return;
  const names = (await files.list(directory)).map(({ name }) => name);
  if (names.some(isWrite)) {
    if (!found) throw nameless(directory);
    throw new BlockferryError('STORE_REFUSED', `the cache holds writes of ${place} for ${found.url}, not for ${url}`, {
      facts: { place, url },
      hint: 'give the store its former URL until they are there; or move the directory away, then machines ship again',
    });
  }
  // What was seen at another store says nothing of this one.
  for (const name of names) if (!isRefused(name)) await files.removeTree(join(directory, name));
  await files.replace(join(directory, PLACE_FILE), Buffer.from(JSON.stringify({ place, url })));
}

/** Writes that wait, or that were refused. */
async function isOfUse(directory: string, { files }: Pick<Ports, 'files'>): Promise<boolean> {
  return (await files.list(directory)).some(({ name }) => isWrite(name) || isRefused(name));
}

function isWrite(name: string): boolean {
  return name.endsWith('.write');
}

function isRefused(name: string): boolean {
  return name.startsWith('refused-');
}

function nameless(directory: string): BlockferryError {
  return new BlockferryError('GATEWAY_CACHE', `${directory} does not say which replica its writes are of`, {
    facts: { source: directory, rule: 'a file "place" says which replica they are of' },
    hint: 'move the directory away: machines ship again what they still have',
  });
}

/** undefined if there is none, or it says nothing. */
async function readPlace(
  directory: string,
  { files }: Pick<Ports, 'files'>,
): Promise<{ readonly place: string; readonly url: string } | undefined> {
  const bytes = await files.readSmall(join(directory, PLACE_FILE), PLACE_BYTES_MAX);
  try {
    const { place, url } = JSON.parse(Buffer.from(bytes ?? []).toString('utf8')) as Record<string, unknown>;
    return typeof place === 'string' && typeof url === 'string' ? { place, url } : undefined;
  } catch {
    return undefined;
  }
}
