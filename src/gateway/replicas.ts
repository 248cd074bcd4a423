/**
 * The replicas behind a gateway: each has a directory of the cache, a queue, an uploader and one view for all its clients. Those whose
 * queue is not empty are opened with the gateway, whoever asks for them; the others when a client does.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { BlockferryError } from '../errors.ts';
import { GATEWAY_REPLICAS_MAX } from '../limits.ts';
import type { Ports } from '../ports.ts';
import { openStore, Retry, type RetryPolicy, type Store } from '../transport/index.ts';
import { Spool } from './spool.ts';
import { SpoolingStore } from './spooling-store.ts';
import type { Forecast, GatewayConfig, GatewayOptions, GatewayReplicaStatus } from './types.ts';
import { Uploader } from './uploader.ts';

/** Of one upload; what is still not there begins again after a while. */
const UPLOAD_POLICY: RetryPolicy = { triesMax: 5, elapsedMsMax: 120_000, firstWaitMs: 250, waitMsMax: 5_000 };
const PLACE_FILE = 'place';
const PLACE_BYTES_MAX = 4096;

interface OpenReplica {
  readonly place: string;
  readonly spool: Spool;
  readonly uploader: Uploader;
  readonly store: SpoolingStore;
  readonly forecast: Forecast;
  /** Requests under way. */
  users: number;
}

export type ReplicasOptions = Omit<GatewayOptions, 'config' | 'spaceRule'> & {
  readonly cacheDirectory: string;
  readonly admit: (isFirst: boolean) => Promise<void>;
};

export class Replicas {
  readonly #options: ReplicasOptions;
  #stores: GatewayConfig['stores'];
  /** By place, the one used longest ago first. */
  readonly #open: Map<string, Promise<OpenReplica>> = new Map();
  readonly #ready: Map<string, OpenReplica> = new Map();

  constructor(options: ReplicasOptions, stores: GatewayConfig['stores']) {
    this.#options = options;
    this.#stores = stores;
  }

  /** Opens what still has to reach a store. */
  async resume(): Promise<void> {
    const { ports, cacheDirectory, onEvent } = this.#options;
    await ports.files.makeDirectory(cacheDirectory);
    for (const { name, kind } of await ports.files.list(cacheDirectory)) {
      if (kind !== 'directory') continue;
      const directory = join(cacheDirectory, name);
      const place = await readPlace(directory, ports);
      const holds = (await ports.files.list(directory)).some((entry) => entry.name.endsWith('.write'));
      if (place === undefined || !holds) continue;
      try {
        await this.#find(place.place);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        onEvent({ type: 'fault', message: `${directory} holds writes for ${place.place}, which wait: ${reason}` });
      }
    }
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
    const replica = await this.#find(place);
    replica.users += 1;
    try {
      return await work(replica.store);
    } finally {
      replica.users -= 1;
    }
  }

  async status(): Promise<readonly GatewayReplicaStatus[]> {
    const open = [...this.#ready.values()].sort((a, b) => (a.place < b.place ? -1 : 1));
    return await Promise.all(open.map(statusOf));
  }

  async close(): Promise<void> {
    const open = await Promise.allSettled(this.#open.values());
    for (const result of open) if (result.status === 'fulfilled') await closeReplica(result.value);
  }

  async #find(place: string): Promise<OpenReplica> {
    const found = this.#open.get(place);
    if (found !== undefined) {
      this.#open.delete(place);
      this.#open.set(place, found);
      return await found;
    }
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
    const { ports, environment, cacheDirectory, lanes, admit, onEvent } = this.#options;
    const url = this.#urlOf(place);
    const directory = join(cacheDirectory, createHash('sha256').update(place).digest('hex').slice(0, 32));
    await claim(directory, place, url, ports);
    const { spool, damage } = await Spool.open(directory, ports);
    if (damage) onEvent({ type: 'refused', place, directory, reason: damage.message });
    const store = await openStore(url, { ports, environment });
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
    return { place, spool, uploader, store: view, forecast, users: 0 };
  }

  #urlOf(place: string): string {
    const at = place.indexOf('/');
    const store = this.#stores.find(({ name }) => name === place.slice(0, at));
    if (store) return `${store.url.replace(/\/+$/, '')}${place.slice(at)}`;
    throw new BlockferryError('STORE_REFUSED', `the gateway has no store "${place.slice(0, Math.max(0, at))}"`, {
      facts: { place },
      hint: 'write gateway+https://HOST:PORT/STORE/PREFIX with a STORE of the configuration of the gateway',
    });
  }

  async #makeRoom(): Promise<void> {
    for (const [place, replica] of [...this.#ready]) {
      if (this.#ready.size <= GATEWAY_REPLICAS_MAX) return;
      if (replica.users > 0 || replica.spool.usedBytes > 0) continue;
      this.#ready.delete(place);
      this.#open.delete(place);
      await closeReplica(replica);
    }
  }
}

async function closeReplica({ uploader, store }: OpenReplica): Promise<void> {
  await uploader.close();
  await store.close();
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
    ...(uploader.failure ? { failure: uploader.failure } : {}),
    ...(minutes === undefined ? {} : { upload: { level: forecast.level(), minutes } }),
    refused: await spool.refused(),
  };
}

/** A directory of the cache belongs to one place at one store: what waits there must not go to another one. */
async function claim(directory: string, place: string, url: string, ports: Pick<Ports, 'files'>): Promise<void> {
  const { files } = ports;
  await files.makeDirectory(directory);
  const found = await readPlace(directory, ports);
  if (found?.place === place && found.url === url) return;
  const holds = (await files.list(directory)).some(({ name }) => name.endsWith('.write'));
  if (found && holds) {
    throw new BlockferryError('STORE_REFUSED', `the cache holds writes of ${place} for ${found.url}, not for ${url}`, {
      facts: { place, url },
      hint: 'give the store its former URL until they are there; or move the directory away, then machines ship again',
    });
  }
  // What was seen at another store says nothing of this one.
  await files.removeTree(directory);
  await files.makeDirectory(directory);
  await files.replace(join(directory, PLACE_FILE), Buffer.from(JSON.stringify({ place, url })));
}

async function readPlace(
  directory: string,
  { files }: Pick<Ports, 'files'>,
): Promise<{ readonly place: string; readonly url: string } | undefined> {
  const bytes = await files.readSmall(join(directory, PLACE_FILE), PLACE_BYTES_MAX).catch(() => undefined);
  try {
    const { place, url } = JSON.parse(Buffer.from(bytes ?? []).toString('utf8')) as Record<string, unknown>;
    return typeof place === 'string' && typeof url === 'string' ? { place, url } : undefined;
  } catch {
    return undefined;
  }
}
