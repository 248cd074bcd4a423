/** A gateway in this process, with one client, over a store of the test's choosing. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BacklogForecast, spaceVerdict } from '../../src/agent/policy/index.ts';
import { Gateway, type GatewayConfig, type GatewayEvent } from '../../src/gateway/index.ts';
import { nodePorts } from '../../src/host/index.ts';
import type { Ports } from '../../src/ports.ts';
import { Bandwidth, Lanes, openStore, type Store } from '../../src/transport/index.ts';

export const TOKEN = 'a-token-of-a-client-that-nobody-can-guess';

export interface LabOptions {
  /** URL of the real store, which is called `main`. */
  readonly url: string;
  readonly ports?: Ports;
  readonly cache?: Partial<GatewayConfig['cache']>;
  readonly tls?: GatewayConfig['tls'];
  readonly may?: readonly string[];
  readonly bandwidthBytesPerSecond?: number;
}

/** Free space as if there were plenty: the machine that runs the tests may be full. */
export function roomyPorts(): Ports {
  const real = nodePorts();
  const files = { ...real.files, freeBytes: async () => 900, volumeBytes: async () => 1000 };
  return { ...real, files, lock: async () => ({ release: async () => {}, remove: async () => {} }) };
}

export class GatewayLab {
  /** Real, removed at the end. */
  readonly directory: string = mkdtempSync(join(tmpdir(), 'blockferry-gateway-'));
  readonly ports: Ports;
  readonly events: GatewayEvent[] = [];
  readonly tokenFile: string;
  readonly #options: LabOptions;
  #gateway: Gateway | undefined;
  #port = 0;

  constructor(options: LabOptions) {
    this.#options = options;
    this.ports = options.ports ?? roomyPorts();
    this.tokenFile = join(this.directory, 'token');
  }

  static async start(options: LabOptions): Promise<GatewayLab> {
    const lab = new GatewayLab(options);
    await lab.ports.files.makeDirectory(lab.directory);
    await lab.ports.files.replace(lab.tokenFile, Buffer.from(`${TOKEN}\n`));
    await lab.start();
    return lab;
  }

  get gateway(): Gateway {
    return this.#gateway!;
  }

  get cacheDirectory(): string {
    return this.#options.cache?.directory ?? join(this.directory, 'cache');
  }

  /** Starts it where it was before. */
  async start(): Promise<void> {
    const { url, tls, may = ['main'], cache, bandwidthBytesPerSecond } = this.#options;
    const { clock } = this.ports;
    const bandwidth = new Bandwidth(clock, bandwidthBytesPerSecond);
    this.#gateway = await Gateway.start({
      config: {
        listen: { host: '127.0.0.1', port: this.#port },
        ...(tls ? { tls } : {}),
        cache: { directory: this.cacheDirectory, limitBytes: 1 << 30, lowSpace: 'act', ...cache },
        stores: [{ name: 'main', url }],
        clients: [{ name: 'one', tokenFile: this.tokenFile, may }],
      },
      ports: this.ports,
      environment: {},
      lanes: () => new Lanes({ clock, limit: 8, bandwidth }),
      spaceRule: spaceVerdict,
      forecast: () => new BacklogForecast(),
      onEvent: (event) => this.events.push(event),
    });
    this.#port = Number(new URL(this.#gateway.url.replace('gateway+', '')).port);
  }

  async stop(): Promise<void> {
    await this.#gateway?.close();
    this.#gateway = undefined;
  }

  /** URL of a place through the gateway. */
  url(place: string): string {
    return `${this.gateway.url}/${place}`;
  }

  /** A client of its own connection. */
  open(place: string, tokenFile: string = this.tokenFile): Promise<Store> {
    return openStore(this.url(place), { ports: this.ports, environment: { gateway: { tokenFile } } });
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
