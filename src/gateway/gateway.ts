/**
 * A gateway (docs/gateway.md): receives what machines of other hosts write to their replicas, holds what a delta cycle writes, and
 * brings it to the real stores. It has no key of any replica: it moves sealed bytes.
 */
import { BlockferryError } from '../errors.ts';
import type { FileSystem, ProcessLock } from '../ports.ts';
import { readSecretFile } from '../secret-file.ts';
import { CacheSpace } from './cache-space.ts';
import { answerCall } from './calls.ts';
import { assertMay, Clients } from './clients.ts';
import { Replicas } from './replicas.ts';
import { GatewayServer } from './server.ts';
import { Stagings } from './stagings.ts';
import type { GatewayConfig, GatewayOptions, GatewayStatus } from './types.ts';

const PLACE_CHARACTERS_MAX = 512;
const SEGMENT = /^[A-Za-z0-9._~-]+$/;

interface Parts {
  readonly server: GatewayServer;
  readonly replicas: Replicas;
  readonly space: CacheSpace;
  readonly lock: ProcessLock;
}

export class Gateway {
  readonly #options: GatewayOptions;
  readonly #stagings: Stagings;
  #clients: Clients;
  #parts: Parts | undefined;
  #denied = 0;

  private constructor(options: GatewayOptions, clients: Clients) {
    this.#options = options;
    this.#clients = clients;
    this.#stagings = new Stagings(options.ports.clock);
  }

  /** Starts it; what a former run still held goes on to its stores. @throws USAGE, KEY_MISSING, KEY_INVALID, ITEM_LOCKED */
  static async start(options: GatewayOptions): Promise<Gateway> {
    const { config, ports } = options;
    const gateway = new Gateway(options, await Clients.load(config.clients, ports.files));
    const tls = await readTls(config, ports.files);
    const { directory } = config.cache;
    await ports.files.makeDirectory(directory);
    const lock = await ports.lock(directory, `the cache ${directory}`);
    try {
      const space = new CacheSpace({
        ...{ ...config.cache, files: ports.files, rule: options.spaceRule },
        usedBytes: () => replicas.usedBytes(),
      });
      const admit = async (isFirst: boolean): Promise<void> => {
        // What clients left half done takes room until somebody begins another one.
        if (isFirst && replicas.usedBytes() >= config.cache.limitBytes) await gateway.#stagings.sweep();
        await space.admit(isFirst);
      };
      const replicas: Replicas = new Replicas({ ...options, cacheDirectory: directory, admit }, config.stores);
      const started = replicas.resume().then(() => gateway.#listen(replicas, tls));
      const server = await started.catch(async (error) => {
        await replicas.close();
        throw error;
      });
      gateway.#parts = { server, replicas, space, lock };
      return gateway;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  get url(): string {
    return this.#running.server.url;
  }

  /** Takes clients and stores of a new configuration, and their tokens anew; the rest needs a start. */
  async reconfigure(config: GatewayConfig): Promise<void> {
    this.#clients = await Clients.load(config.clients, this.#options.ports.files);
    this.#running.replicas.setStores(config.stores);
  }

  async status(): Promise<GatewayStatus> {
    const { server, replicas, space } = this.#running;
    const { directory, limitBytes, lowSpace } = this.#options.config.cache;
    return {
      url: server.url,
      cache: { directory, usedBytes: replicas.usedBytes(), limitBytes, lowSpace, ...(await space.volume()) },
      denied: this.#denied,
      replicas: await replicas.status(),
    };
  }

  /** Takes nothing more; what is held stays for the next start. */
  async close(): Promise<void> {
    const { server, replicas, lock } = this.#running;
    await server.close();
    await replicas.close(() => this.#stagings.close());
    await lock.release();
  }

  get #running(): Parts {
    if (this.#parts) return this.#parts;
    throw new Error('the gateway has not started');
  }

  #listen(replicas: Replicas, tls: Awaited<ReturnType<typeof readTls>>): Promise<GatewayServer> {
    const { config, onEvent } = this.#options;
    return GatewayServer.listen({
      listen: config.listen,
      ...(tls ? { tls } : {}),
      admit: (authorization, place) => this.#admit(authorization, place),
      answer: (request) =>
        replicas.use(request.place, (store) => answerCall({ ...request, store, stagings: this.#stagings })),
      onFault: (error) =>
        onEvent({ type: 'fault', message: error instanceof Error ? `${error.stack}` : String(error) }),
    });
  }

  #admit(authorization: string | undefined, place: string): void {
    try {
      const client = this.#clients.authenticate(authorization);
      checkPlace(place);
      assertMay(client, place);
    } catch (error) {
      this.#denied += 1;
      throw error;
    }
  }
}

/** @throws USAGE unless it is STORE/PREFIX */
function checkPlace(place: string): void {
  const segments = place.split('/');
  const isClean = segments.every((segment) => SEGMENT.test(segment) && segment !== '.' && segment !== '..');
  if (place.length <= PLACE_CHARACTERS_MAX && segments.length >= 2 && isClean) return;
  throw new BlockferryError('USAGE', 'the request names no STORE/PREFIX', { facts: { rule: 'STORE/PREFIX' } });
}

async function readTls(
  { tls }: GatewayConfig,
  files: FileSystem,
): Promise<{ readonly certificate: string; readonly key: string } | undefined> {
  if (!tls) return undefined;
  const read = async (path: string): Promise<string> => (await readSecretFile(path, files)).toString('utf8');
  return { certificate: await read(tls.certificate), key: await read(tls.key) };
}
