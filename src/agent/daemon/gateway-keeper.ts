/**
 * The gateway of an agent: started and ended with it, with its part of the agent's lanes and bandwidth, looked at every second so
 * that status and metrics can be told at any moment.
 */
import { BlockferryError } from '../../errors.ts';
import { Gateway, type GatewayConfig, type GatewayEvent } from '../../gateway/index.ts';
import type { Ports } from '../../ports.ts';
import { Lanes } from '../../transport/index.ts';
import { BacklogForecast, spaceVerdict } from '../policy/index.ts';
import { LANES_MAX, type Limits } from '../transfer-limits.ts';
import type { Session } from '../types.ts';
import { type AgentGatewayStatus, gatewayHealth } from './gateway-health.ts';
import { contextOf, limitsOf } from './operation-context.ts';
import type { ActiveShare, Shares } from './shares.ts';
import type { AgentHappening } from './types.ts';

const LOOK_MS = 1_000;

export interface GatewayKeeperOptions {
  readonly config: GatewayConfig;
  readonly ports: Ports;
  readonly environment: Session['environment'];
  readonly shares: Shares;
  readonly tell: (happening: AgentHappening) => void;
}

export class GatewayKeeper {
  readonly #options: GatewayKeeperOptions;
  readonly #gateway: Gateway;
  readonly #share: ActiveShare;
  readonly #ended: AbortController = new AbortController();
  #looking: Promise<void> = Promise.resolve();
  #status: AgentGatewayStatus;

  private constructor(options: GatewayKeeperOptions, gateway: Gateway, share: ActiveShare, status: AgentGatewayStatus) {
    this.#options = options;
    this.#gateway = gateway;
    this.#share = share;
    this.#status = status;
  }

  static async start(options: GatewayKeeperOptions): Promise<GatewayKeeper> {
    const { config, ports, environment, shares, tell } = options;
    const { clock } = ports;
    // It is always active: what others bring is not foreseen.
    const share = shares.enter({ lanes: { min: 4, max: LANES_MAX }, part: 1 });
    const context = contextOf(share, new AbortController().signal);
    // Each store may use all of the lanes: a few requests too many are better than a store that waits for one that is down.
    const limits = new Map<string, Limits>();
    const lanes = (store: string): Lanes => {
      const { requests: limit, bandwidth } = limits.get(store) ?? limitsOf(context, clock);
      limits.set(store, { requests: limit, bandwidth });
      return new Lanes({ clock, limit, bandwidth, limitMax: LANES_MAX });
    };
    try {
      const gateway = await Gateway.start({
        ...{ config, ports, environment, lanes, spaceRule: spaceVerdict },
        forecast: () => new BacklogForecast(),
        onEvent: (event) => tell(happeningOf(event)),
      });
      const status = await statusOf(gateway, clock.nowMs()).catch(async (error) => {
        await gateway.close();
        throw error;
      });
      const keeper = new GatewayKeeper(options, gateway, share, status);
      keeper.#looking = keeper.#look();
      tell({ type: 'gateway', what: 'started', message: gateway.url });
      return keeper;
    } catch (error) {
      share.leave();
      throw error;
    }
  }

  /** As it was looked at last. */
  get status(): AgentGatewayStatus {
    return this.#status;
  }

  /** @throws CONFIG_INVALID where a change needs a start */
  async reconfigure(next: GatewayConfig | undefined): Promise<void> {
    const fixed = ({ listen, tls, cache }: GatewayConfig): string => JSON.stringify({ listen, tls, cache });
    if (!next || fixed(next) !== fixed(this.#options.config)) {
      throw new BlockferryError('CONFIG_INVALID', 'address, certificate and cache of the gateway need a restart', {
        hint: 'restart the agent; clients and stores are taken without',
      });
    }
    await this.#gateway.reconfigure(next);
  }

  async close(): Promise<void> {
    this.#ended.abort();
    await this.#looking;
    await this.#gateway.close();
    this.#share.leave();
  }

  async #look(): Promise<void> {
    const { ports, tell } = this.#options;
    const { signal } = this.#ended;
    while (!signal.aborted) {
      await ports.clock.sleep(LOOK_MS, signal).catch(() => {});
      if (signal.aborted) return;
      try {
        const before = this.#status.health;
        this.#status = await statusOf(this.#gateway, ports.clock.nowMs());
        const { level, findings } = this.#status.health;
        const codes = (all: typeof findings): string => all.map(({ code }) => code).join();
        if (codes(findings) !== codes(before.findings)) tell({ type: 'gateway-health', level, findings });
      } catch (error) {
        tell({ type: 'gateway', what: 'fault', message: error instanceof Error ? error.message : String(error) });
      }
    }
  }
}

async function statusOf(gateway: Gateway, nowMs: number): Promise<AgentGatewayStatus> {
  const status = await gateway.status();
  return { ...status, lookedMs: nowMs, health: gatewayHealth(status, nowMs) };
}

function happeningOf(event: GatewayEvent): AgentHappening {
  switch (event.type) {
    case 'refused': {
      const message = `${event.reason}; kept in ${event.directory}`;
      return { type: 'gateway', what: 'refused', place: event.place, message };
    }
    case 'upload-failed':
      return { type: 'gateway', what: 'upload-failed', place: event.place, message: event.message };
    case 'fault':
      return { type: 'gateway', what: 'fault', message: event.message };
  }
}
