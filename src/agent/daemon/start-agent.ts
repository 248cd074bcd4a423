/**
 * The agent as a program embeds it: takes the lock of the home, runs the engine over the real operations, answers on the control
 * socket, serves metrics, and keeps trackers running. Everything it starts ends with `stop`.
 */
import { BlockferryError } from '../../errors.ts';
import { CONFIG_BYTES_MAX, KEY_FILE_BYTES_MAX } from '../../limits.ts';
import type { Ports } from '../../ports.ts';
import type { Session } from '../types.ts';
import { loadConfig } from './config.ts';
import { agentSocketPath } from './control-protocol.ts';
import { AgentControlServer } from './control-server.ts';
import { AgentEngine, type ConfigChanges } from './engine.ts';
import { EventStreams } from './event-streams.ts';
import { GatewayKeeper } from './gateway-keeper.ts';
import { MetricsServer } from './metrics.ts';
import { followOperations, groupOperations, machineOperations } from './operations.ts';
import type { OperateOptions, OperatorReports, OperatorRequests } from './operator-verbs.ts';
import { Operators } from './operators.ts';
import { agentDirectory, fileStateStore } from './state-store.ts';
import { TrackerKeepers } from './tracker-keepers.ts';
import type {
  AgentConfig,
  AgentEvent,
  AgentHappening,
  AgentProcesses,
  AgentStatus,
  GroupConfig,
  MachineConfig,
  OperatorVerb,
} from './types.ts';

export interface StartAgentOptions {
  readonly config: AgentConfig;
  readonly ports: Ports;
  /** Credentials for stores, unless the configuration names a file of them. */
  readonly environment: Session['environment'];
  /** Where local state is kept, unless the configuration says it. */
  readonly home?: string;
  /** Ends the agent, as `stop` does. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: AgentEvent) => void;
  /** Without them freeze and thaw commands, and `serve`, are refused. */
  readonly processes?: AgentProcesses;
  /** Worker threads of each operation. */
  readonly workers?: number;
}

/** A running agent. */
export interface Agent {
  status(): AgentStatus;
  /** Events from this call on, until the agent ends. */
  events(): AsyncIterableIterator<AgentEvent>;
  /** Reads its configuration file again, or takes another one. @throws CONFIG_INVALID; then nothing has changed */
  reload(config?: AgentConfig): Promise<ConfigChanges>;
  pause(name: string): Promise<void>;
  resume(name: string): Promise<void>;
  retry(name: string): Promise<void>;
  resync(name: string): Promise<void>;
  /** Runs a verb that changes sides in the machine's turn. The signal stops it at its next safe place. */
  operate<V extends OperatorVerb>(
    verb: V,
    name: string,
    request: OperatorRequests[V],
    options?: OperateOptions,
  ): Promise<OperatorReports[V]>;
  /** Ends what is under way at its next safe place; resolves when all is over. */
  stop(): Promise<void>;
  /** Resolves when the agent has ended. */
  readonly ended: Promise<void>;
}

/** Starts the agent. @throws ITEM_LOCKED if another one has the home */
export async function startAgent(options: StartAgentOptions): Promise<Agent> {
  const { config, ports, processes } = options;
  checkProcesses(config, processes);
  const home = config.home ?? options.home;
  if (home === undefined) {
    throw new BlockferryError('USAGE', 'no home is given', { hint: 'write "home" into the configuration' });
  }
  const directory = agentDirectory(home);
  await ports.files.makeDirectory(directory);
  const lock = await ports.lock(directory, `the agent of ${home}`);
  try {
    const environment = await environmentOf(config, options.environment, ports);
    const agent = new RunningAgent({ ...options, environment }, home);
    await agent.start(() => lock.release());
    return agent;
  } catch (error) {
    await lock.release();
    throw error;
  }
}

class RunningAgent implements Agent {
  #ended: Promise<void> = Promise.resolve();
  readonly #options: StartAgentOptions;
  readonly #home: string;
  readonly #engine: AgentEngine;
  readonly #control: AgentControlServer;
  readonly #trackers: TrackerKeepers;
  readonly #operators: Operators;
  #metrics: MetricsServer | undefined;
  #gateway: GatewayKeeper | undefined;
  readonly #streams: EventStreams = new EventStreams();
  readonly #stop: AbortController = new AbortController();
  #reloading: Promise<unknown> = Promise.resolve();
  readonly #startedMs: number;
  #config: AgentConfig;

  constructor(options: StartAgentOptions, home: string) {
    const { config, ports, environment, workers, processes } = options;
    this.#options = options;
    this.#home = home;
    this.#config = config;
    this.#startedMs = ports.clock.nowMs();
    const base = { ports, home, environment, ...(workers === undefined ? {} : { workers }) };
    this.#engine = new AgentEngine({
      config,
      clock: ports.clock,
      state: fileStateStore(agentDirectory(home), config.zone, ports.files),
      operations: (machine) =>
        machineOperations({ ...base, onEvent: (event) => this.#notice(machine, event) }, machine, processes),
      followOperations: (machine, from, to) =>
        followOperations({ ...base, onEvent: (event) => this.#notice(machine, event) }, machine, from, to),
      groupOperations: (group) =>
        groupOperations({ ...base, onEvent: (event) => this.#groupNotice(group, event) }, group, processes),
      onEvent: (event) => this.#tell(event),
    });
    this.#control = new AgentControlServer(this);
    this.#trackers = new TrackerKeepers({ home, ports, processes, tell: (happening) => this.#engine.tell(happening) });
    this.#operators = new Operators({
      base,
      machine: (name) => this.#engine.machine(name),
      holdTracker: (name, isHeld) => this.#trackers.hold(name, isHeld),
    });
  }

  /** Listens, then runs until it is stopped; what was started by then ends with it. */
  async start(release: () => Promise<void>): Promise<void> {
    const { ports, environment, signal } = this.#options;
    const { metrics, gateway } = this.#config;
    const tell = (happening: AgentHappening): void => this.#engine.tell(happening);
    try {
      const { shares } = this.#engine;
      if (gateway) this.#gateway = await GatewayKeeper.start({ config: gateway, ports, environment, shares, tell });
      const nowMs = (): number => ports.clock.nowMs();
      if (metrics) this.#metrics = await MetricsServer.listen(metrics, () => this.status(), nowMs);
      await this.#control.listen(agentSocketPath(this.#home), ports.files);
    } catch (error) {
      await this.#gateway?.close();
      await this.#metrics?.close();
      throw error;
    }
    this.#ended = this.#run(signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal, release);
  }

  get ended(): Promise<void> {
    return this.#ended;
  }

  status(): AgentStatus {
    return {
      home: this.#home,
      config: this.#config.path,
      startedMs: this.#startedMs,
      ...(this.#metrics ? { metrics: this.#metrics.url } : {}),
      ...(this.#gateway ? { gateway: this.#gateway.status } : {}),
      machines: this.#engine.status(),
      groups: this.#engine.groups(),
    };
  }

  events(): AsyncIterableIterator<AgentEvent> {
    return this.#streams.open();
  }

  /** One after the other: a signal and a client may ask at once, and what both would add is there once. */
  reload(config?: AgentConfig): Promise<ConfigChanges> {
    const next = this.#reloading.then(() => this.#reload(config));
    this.#reloading = next.catch(() => {});
    return next;
  }

  async #reload(config: AgentConfig | undefined): Promise<ConfigChanges> {
    try {
      const next = config ?? (await readConfig(this.#config.path, this.#options.ports));
      checkProcesses(next, this.#options.processes);
      await this.#gateway?.reconfigure(next.gateway);
      const changes = await this.#engine.apply(next);
      this.#config = next;
      this.#trackers.keep(next.machines);
      return changes;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#engine.tell({ type: 'config-refused', message });
      throw error;
    }
  }

  pause(name: string): Promise<void> {
    return this.#engine.machine(name).pause();
  }

  resume(name: string): Promise<void> {
    return this.#engine.machine(name).resume();
  }

  retry(name: string): Promise<void> {
    return this.#engine.retry(name);
  }

  resync(name: string): Promise<void> {
    return this.#engine.machine(name).resync();
  }

  operate<V extends OperatorVerb>(
    verb: V,
    name: string,
    request: OperatorRequests[V],
    options?: OperateOptions,
  ): Promise<OperatorReports[V]> {
    return this.#operators.operate(verb, name, request, options);
  }

  async stop(): Promise<void> {
    this.#stop.abort(new BlockferryError('ABORTED', 'the agent ends'));
    await this.ended;
  }

  async #run(signal: AbortSignal, release: () => Promise<void>): Promise<void> {
    try {
      // Who started it listens first.
      await this.#options.ports.clock.sleep(0);
      this.#trackers.keep(this.#config.machines);
      await this.#engine.run(signal);
    } finally {
      await this.#operators.close();
      await this.#trackers.close();
      await this.#gateway?.close();
      this.#streams.close();
      await this.#control.close();
      await this.#metrics?.close();
      await release();
    }
  }

  #tell(event: AgentEvent): void {
    this.#options.onEvent?.(event);
    if (event.type === 'operation-ended' && event.verb === 'protect') this.#trackers.wake(event.machine);
    if (event.type === 'tracker') void this.#engine.find(event.machine)?.trackerChanged();
    this.#streams.push(event);
    this.#control.push(event);
  }

  #notice({ name }: MachineConfig, event: Parameters<NonNullable<Session['onEvent']>>[0]): void {
    if (event.type !== 'notice') return;
    const { code, message } = event;
    this.#engine.tell({ type: 'notice', machine: name, code, message });
  }

  #groupNotice({ name }: GroupConfig, event: Parameters<NonNullable<Session['onEvent']>>[0]): void {
    if (event.type !== 'notice') return;
    const { code, message } = event;
    this.#engine.tell({ type: 'group-notice', group: name, code, message });
  }
}

/** Reads a configuration file. @throws CONFIG_INVALID */
export async function readConfig(path: string, { files }: Pick<Ports, 'files'>): Promise<AgentConfig> {
  let bytes: Uint8Array | undefined;
  try {
    bytes = await files.readSmall(path, CONFIG_BYTES_MAX);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BlockferryError('CONFIG_INVALID', `${path}: cannot be read: ${reason}`, {
      cause,
      facts: { source: path },
    });
  }
  if (bytes) return loadConfig(Buffer.from(bytes).toString('utf8'), path);
  throw new BlockferryError('CONFIG_INVALID', `${path}: there is no such file`, { facts: { source: path } });
}

function checkProcesses({ machines, groups, path }: AgentConfig, processes: AgentProcesses | undefined): void {
  const needing =
    machines.find(({ serve, appConsistent }) => serve ?? appConsistent?.freeze) ??
    groups.find(({ appConsistent }) => appConsistent?.freeze);
  if (!needing || processes) return;
  throw new BlockferryError(
    'UNSUPPORTED',
    `${path}: "${needing.name}" has commands to run, and no way to run them was given`,
    {
      hint: 'give startAgent "processes", or run it as blockferry agent',
    },
  );
}

async function environmentOf(
  { connectionStringFile: path, gatewayTokenFile, gatewayCaFile }: AgentConfig,
  outer: Session['environment'],
  { files }: Ports,
): Promise<Session['environment']> {
  const gateway = gatewayOf(gatewayTokenFile ?? outer.gateway?.tokenFile, gatewayCaFile ?? outer.gateway?.caFile);
  const environment = { ...outer, ...gateway };
  if (path === undefined) return environment;
  const bytes = await files.readSmall(path, KEY_FILE_BYTES_MAX);
  if (bytes) return { ...environment, connectionString: Buffer.from(bytes).toString('utf8').trim() };
  throw new BlockferryError('KEY_MISSING', `${path}: there is no such file`, {
    facts: { source: path },
    hint: 'connection-string-file names a file with the connection string of the storage account',
  });
}

function gatewayOf(tokenFile: string | undefined, caFile: string | undefined): Pick<Session['environment'], 'gateway'> {
  return tokenFile === undefined ? {} : { gateway: { tokenFile, ...(caFile === undefined ? {} : { caFile }) } };
}
