/**
 * The agent's scheduler: all machines of a configuration, each in its loop, with one shared line. Its only contact with the
 * world are its ports, so the same code runs for years on a host, and for years of virtual time in a simulation.
 */
import { BlockferryError } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import { bandwidthAt, nextBandwidthChange } from '../policy/index.ts';
import { withChildSignal } from './child-signal.ts';
import { type Follower, followersOf } from './follower.ts';
import { Group } from './group.ts';
import { Machine } from './machine.ts';
import { Shares } from './shares.ts';
import type {
  AgentConfig,
  AgentEvent,
  AgentHappening,
  AgentStateStore,
  FollowOperations,
  GroupConfig,
  GroupOperations,
  GroupStatus,
  MachineConfig,
  MachineOperations,
  MachineStatus,
} from './types.ts';
import { WorkPlaces } from './work-places.ts';

/** A wall clock that was set is noticed no later than this: for longer, a profile is not exceeded. */
const SLEEP_MS_MAX = 300_000;
/** A loop that broke by a fault of its own begins again after this. */
const RESTART_MS = 60_000;

/** What the engine takes of a configuration. */
export type EngineConfig = Pick<AgentConfig, 'zone' | 'lanes' | 'bandwidth' | 'machines'> &
  Partial<Pick<AgentConfig, 'groups' | 'atOnce'>>;

export interface AgentEngineOptions {
  readonly config: EngineConfig;
  readonly operations: (machine: MachineConfig) => MachineOperations;
  /** Without it there are no groups. */
  readonly groupOperations?: (group: GroupConfig) => GroupOperations;
  /** Without it nothing is carried to further stores. */
  readonly followOperations?: (machine: MachineConfig, from: string, to: string) => FollowOperations;
  readonly clock: Clock;
  readonly state: AgentStateStore;
  readonly onEvent: (event: AgentEvent) => void;
}

/** What a new configuration changed: names of machines. */
export interface ConfigChanges {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly changed: readonly string[];
}

/** What has a loop. */
type Looping = Machine | Group | Follower;

interface Loop {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
}

export class AgentEngine {
  readonly #options: AgentEngineOptions;
  readonly #shares: Shares;
  readonly #places: WorkPlaces;
  /** Of what is carried to further stores, which is to delay no machine. */
  readonly #followerPlaces: WorkPlaces;
  readonly #machines: Map<string, Machine> = new Map();
  readonly #groups: Map<string, Group> = new Map();
  /** By name of the machine. */
  readonly #followers: Map<string, readonly Follower[]> = new Map();
  readonly #loops: Map<Looping, Loop> = new Map();
  #config: EngineConfig;
  #signal: AbortSignal | undefined;
  #reconfigured: AbortController = new AbortController();

  constructor(options: AgentEngineOptions) {
    this.#options = options;
    this.#config = options.config;
    const { lanes, bandwidth } = options.config;
    this.#shares = new Shares(options.clock, lanes, bandwidthAt(bandwidth, options.clock.nowMs()));
    this.#places = new WorkPlaces(placesOf(options.config));
    this.#followerPlaces = new WorkPlaces(placesOf(options.config));
    for (const machine of options.config.machines) this.#add(machine);
    for (const group of options.config.groups ?? []) this.#addGroup(group);
  }

  /** Runs until the signal fires; resolves when everything under way has ended and is remembered. */
  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    const followers = [...this.#followers.values()].flat();
    for (const each of [...this.#machines.values(), ...this.#groups.values(), ...followers]) this.#start(each, signal);
    this.tell({ type: 'agent-started', machines: this.#machines.size });
    await this.#keepBandwidth(signal);
    while (this.#loops.size > 0) await Promise.all([...this.#loops.values()].map(({ ended }) => ended));
    this.tell({ type: 'agent-stopped', machines: this.#config.machines.length });
  }

  /** What there is of lanes and bandwidth, for whatever else this agent does. */
  get shares(): Shares {
    return this.#shares;
  }

  status(): readonly MachineStatus[] {
    return this.#config.machines.flatMap(({ name }) => this.#machines.get(name)?.status() ?? []);
  }

  groups(): readonly GroupStatus[] {
    return [...this.#groups.values()].map((group) => group.status());
  }

  /** The machine of that name, where there is one. */
  find(name: string): Machine | undefined {
    return this.#machines.get(name);
  }

  /** Tries again now what waits for its next attempt: the machine, and what is carried to its further stores. */
  async retry(name: string): Promise<void> {
    await this.machine(name).retry();
    for (const follower of this.#followers.get(name) ?? []) follower.retry();
  }

  /** @throws ITEM_NOT_FOUND */
  machine(name: string): Machine {
    const found = this.find(name);
    if (found) return found;
    throw new BlockferryError('ITEM_NOT_FOUND', `the agent has no machine "${name.slice(0, 128)}"`, {
      facts: { name: name.slice(0, 128) },
      hint: 'blockferry agent status lists them; add it to the configuration, then blockferry agent reload',
    });
  }

  /** Takes a new configuration: machines are added, removed and changed while the others go on. */
  async apply(config: EngineConfig): Promise<ConfigChanges> {
    const before = new Map(this.#config.machines.map((machine) => [machine.name, JSON.stringify(machine)]));
    const after = new Set(config.machines.map(({ name }) => name));
    const removed = [...before.keys()].filter((name) => !after.has(name));
    const added = config.machines.filter(({ name }) => !before.has(name));
    const changed = config.machines.filter((machine) => {
      const was = before.get(machine.name);
      return was !== undefined && was !== JSON.stringify(machine);
    });
    const { groups = [] } = config;
    const isSame = (group: Group): boolean =>
      groups.some((each) => JSON.stringify(each) === JSON.stringify(group.config));
    for (const group of [...this.#groups.values()].filter((each) => !isSame(each))) await this.#stopGroup(group);
    for (const name of removed) await this.#stop(name);
    this.#config = config;
    this.#places.set(placesOf(config));
    this.#followerPlaces.set(placesOf(config));
    this.#reconfigured.abort();
    for (const machine of changed) {
      await this.machine(machine.name).reconfigure(machine, this.#options.operations(machine));
      await this.#stopFollowers(machine.name);
      this.#startAll(this.#addFollowers(machine));
    }
    for (const each of added) this.#startAll([this.#add(each), ...(this.#followers.get(each.name) ?? [])]);
    for (const each of groups.filter(({ name }) => !this.#groups.has(name))) this.#startAll([this.#addGroup(each)]);
    // What waits for a person waits for just this.
    const same = config.machines.filter(({ name }) => before.has(name) && !changed.some((each) => each.name === name));
    for (const { name } of same) {
      await this.machine(name).retryIfWaiting();
      for (const follower of this.#followers.get(name) ?? []) follower.retry();
    }
    const names = (machines: readonly MachineConfig[]): readonly string[] => machines.map(({ name }) => name);
    const changes = { added: names(added), removed, changed: names(changed) };
    this.tell({ type: 'config-reloaded', ...changes });
    return changes;
  }

  /** Adds the time to what happens, and passes it on. */
  tell(happening: AgentHappening): void {
    if (happening.type === 'state-changed') this.#groupOf(happening.machine)?.tryNow();
    this.#wakeFollowers(happening);
    this.#options.onEvent({ ...happening, timeMs: this.#options.clock.nowMs() });
  }

  #add(config: MachineConfig): Machine {
    const { operations, clock, state } = this.#options;
    const { zone } = this.#config;
    const shared = { shares: this.#shares, places: this.#places };
    const setup = { zone, clock, state, ...shared, tell: (each: AgentHappening) => this.tell(each) };
    const group = {
      standing: () => this.#groupOf(config.name)?.standing,
      mayShip: () => this.#groupOf(config.name)?.tryNow(),
      stores: () => (this.#followers.get(config.name) ?? []).map((follower) => follower.status()),
    };
    const machine = new Machine({ ...setup, ...group, config, operations: operations(config) });
    this.#machines.set(config.name, machine);
    this.#addFollowers(config);
    return machine;
  }

  #addFollowers(config: MachineConfig): readonly Follower[] {
    const { followOperations, clock } = this.#options;
    if (!followOperations || !config.also) return [];
    const newestMs = (): number | undefined => this.find(config.name)?.newestPointMs;
    const shared = { shares: this.#shares, places: this.#followerPlaces };
    const setup = { newestMs, clock, ...shared, tell: (each: AgentHappening) => this.tell(each) };
    const followers = followersOf(config, (from, to) => followOperations(config, from, to), setup);
    this.#followers.set(config.name, followers);
    return followers;
  }

  /** What a machine shipped, and what came to one store, is carried to the next at once. */
  #wakeFollowers(happening: AgentHappening): void {
    if (happening.type === 'store-carried') {
      const { machine, url } = happening;
      for (const each of this.#followers.get(machine) ?? []) if (each.from === url) each.wakeUp();
    } else if (happening.type === 'operation-ended' && happening.pointId !== undefined) {
      this.#followers.get(happening.machine)?.[0]?.wakeUp();
    }
  }

  #addGroup(config: GroupConfig): Group {
    const { groupOperations, clock } = this.#options;
    if (!groupOperations) throw new BlockferryError('UNSUPPORTED', `group "${config.name}" cannot be shipped here`);
    const members = config.machines.map((name) => this.machine(name));
    const shared = { shares: this.#shares, places: this.#places };
    const setup = { clock, ...shared, tell: (each: AgentHappening) => this.tell(each) };
    const group = new Group({ ...setup, config, members, operations: groupOperations(config) });
    this.#groups.set(config.name, group);
    return group;
  }

  #groupOf(machine: string): Group | undefined {
    return [...this.#groups.values()].find(({ config }) => config.machines.includes(machine));
  }

  /** Where the engine runs; before, its run starts them. */
  #startAll(all: readonly Looping[]): void {
    if (!this.#signal || this.#signal.aborted) return;
    for (const each of all) this.#start(each, this.#signal);
  }

  #start(each: Looping, signal: AbortSignal): void {
    const stop = new AbortController();
    const ended = this.#keep(each, AbortSignal.any([signal, stop.signal])).finally(() => {
      this.#loops.delete(each);
    });
    this.#loops.set(each, { stop, ended });
  }

  async #stop(name: string): Promise<void> {
    await this.#stopFollowers(name);
    await this.#end(this.machine(name));
    this.#machines.delete(name);
  }

  async #stopFollowers(name: string): Promise<void> {
    for (const follower of this.#followers.get(name) ?? []) await this.#end(follower);
    this.#followers.delete(name);
  }

  async #stopGroup(group: Group): Promise<void> {
    await this.#end(group);
    this.#groups.delete(group.config.name);
  }

  async #end(each: Looping): Promise<void> {
    const loop = this.#loops.get(each);
    loop?.stop.abort(new BlockferryError('ABORTED', 'it was taken out of the configuration'));
    await loop?.ended;
  }

  /** Runs a loop; a fault of our own in it must not leave a machine, or a group, without one. */
  async #keep(each: Looping, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await each.run(signal);
      } catch (error) {
        if (signal.aborted) return;
        const message = `its loop broke and begins again: ${error instanceof Error ? error.stack : error}`;
        const notice = { code: 'UNEXPECTED', message } as const;
        if (each instanceof Group) this.tell({ type: 'group-notice', group: each.config.name, ...notice });
        else this.tell({ type: 'notice', machine: each.name, ...notice });
        await this.#options.clock.sleep(RESTART_MS, signal).catch(() => {});
      }
    }
  }

  /** Gives out what the profile allows, whenever that changes. */
  async #keepBandwidth(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      const { lanes, bandwidth } = this.#config;
      this.#reconfigured = new AbortController();
      const nowMs = clock.nowMs();
      this.#shares.set(lanes, bandwidthAt(bandwidth, nowMs));
      const changeMs = nextBandwidthChange(bandwidth, nowMs) ?? Number.POSITIVE_INFINITY;
      const waitMs = Math.min(SLEEP_MS_MAX, changeMs - nowMs);
      await withChildSignal([signal, this.#reconfigured.signal], (either) => clock.sleep(waitMs, either)).catch(
        () => {},
      );
    }
  }
}

/** Who does not say it has a place for everybody. */
function placesOf({ atOnce }: EngineConfig): number {
  return atOnce ?? Number.POSITIVE_INFINITY;
}
