/** An engine over a virtual clock and machines that do what a test says. */
import type {
  AgentEngineOptions,
  AgentEvent,
  AgentVerb,
  EngineConfig,
  MachineConfig,
  MachineOperations,
  MachineRecord,
  OperationContext,
} from '../../../src/agent/daemon/index.ts';
import { AgentEngine, loadConfig } from '../../../src/agent/daemon/index.ts';
import type { ItemFacts } from '../../../src/agent/life/index.ts';
import type { ShipReport } from '../../../src/agent/types.ts';
import { abortedError, BlockferryError, type ErrorCode } from '../../../src/errors.ts';
import { type VirtualClock, virtualClock } from '../../support/virtual-clock.ts';

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
/** A Tuesday, noon in UTC. */
export const NOON: number = Date.parse('2026-12-01T12:00:00Z');

/** What a test decides about a machine, at any time. */
export interface ScriptedMachine {
  isProtected: boolean;
  needsResync: boolean;
  outstandingLogs: number;
  /** The moment of the last point that it shares with its group. */
  sharedMs: number;
  freeShare: number;
  /** What is wrong with its retention folder. */
  retention: string | undefined;
  /** How long each verb takes. */
  readonly tookMs: Partial<Record<AgentVerb, number>>;
  /** The code that a verb fails with, if it does. */
  readonly fails: Partial<Record<AgentVerb, ErrorCode>>;
  /** Facts that replace what follows from the rest. */
  facts: Partial<ItemFacts>;
}

export interface Call {
  readonly atMs: number;
  readonly machine: string;
  readonly verb: AgentVerb;
  readonly consistency?: 'crash' | 'app';
  readonly lanes: number;
  readonly bandwidthBytesPerSecond: number | undefined;
}

export interface EngineLab {
  readonly clock: VirtualClock;
  readonly engine: AgentEngine;
  readonly machines: ReadonlyMap<string, ScriptedMachine>;
  readonly calls: Call[];
  readonly events: AgentEvent[];
  /** What the agent has saved, as text: what does not survive JSON is not there after a restart. */
  readonly saved: Map<string, string>;
  readonly of: (machine: string, verb?: AgentVerb) => readonly Call[];
  /** Lets so much time pass. */
  readonly pass: (ms: number) => Promise<void>;
  /** Ends the engine as SIGTERM does. */
  readonly stop: () => Promise<void>;
}

/** A configuration from its text; machines without disks and store get some. */
export function configOf(machines: string, others = ''): EngineConfig {
  const text = `time-zone: UTC\n${others}\nmachines:\n${machines.replaceAll(/^ *- name: (\S+)$/gm, '  - name: $1\n    disks: [$1.raw]\n    to: file:///$1')}\n`;
  return loadConfig(text, '/lab/agent.yaml');
}

export interface LabOptions {
  readonly startMs?: number;
  readonly saved?: Map<string, string>;
  readonly machines?: ReadonlyMap<string, ScriptedMachine>;
  /** What carrying to a further store does. */
  readonly follow?: (clock: VirtualClock) => NonNullable<AgentEngineOptions['followOperations']>;
}

export function engineLab(config: EngineConfig, options: LabOptions = {}): EngineLab {
  const clock = virtualClock(options.startMs ?? NOON);
  const machines = new Map(options.machines ?? []);
  const saved = options.saved ?? new Map<string, string>();
  const calls: Call[] = [];
  const events: AgentEvent[] = [];
  const stop = new AbortController();
  const operations: AgentEngineOptions['operations'] = (machine) => {
    if (!machines.has(machine.name)) machines.set(machine.name, scripted());
    return scriptedOperations(machine, machines.get(machine.name)!, clock, calls);
  };
  const groupOperations: NonNullable<AgentEngineOptions['groupOperations']> = ({ machines: names }) => ({
    ship: (context) => shipScripted(names, machines, context, clock, calls),
  });
  const state: AgentEngineOptions['state'] = {
    load: async (name) => (JSON.parse(saved.get(name) ?? 'null') as MachineRecord | undefined) ?? undefined,
    save: async (name, record) => void saved.set(name, JSON.stringify(record)),
  };
  const onEvent = (event: AgentEvent): void => void events.push(event);
  const follow = options.follow ? { followOperations: options.follow(clock) } : {};
  const engine = new AgentEngine({ config, operations, groupOperations, ...follow, clock, state, onEvent });
  const running = engine.run(stop.signal);
  return {
    ...{ clock, engine, machines, calls, events, saved },
    of: (machine, verb) => calls.filter((call) => call.machine === machine && (!verb || call.verb === verb)),
    pass: (ms) => clock.run(clock.sleep(ms)),
    stop: async () => {
      stop.abort();
      await clock.run(running);
    },
  };
}

export function scripted(change: Partial<ScriptedMachine> = {}): ScriptedMachine {
  return {
    isProtected: true,
    needsResync: false,
    outstandingLogs: 0,
    sharedMs: 0,
    freeShare: 0.9,
    retention: undefined,
    tookMs: {},
    fails: {},
    facts: {},
    ...change,
  };
}

/** All at one moment, or none; the calls are told as those of `group:NAME+NAME`. */
async function shipScripted(
  names: readonly string[],
  machines: ReadonlyMap<string, ScriptedMachine>,
  context: OperationContext & { readonly consistency: 'crash' | 'app' },
  clock: VirtualClock,
  calls: Call[],
): Promise<readonly ShipReport[]> {
  const { lanes, bandwidthBytesPerSecond, consistency } = context;
  const machine = `group:${names.join('+')}`;
  calls.push({ atMs: clock.nowMs(), machine, verb: 'ship', lanes, bandwidthBytesPerSecond, consistency });
  await clock.sleep(Math.max(...names.map((name) => machines.get(name)!.tookMs.ship ?? 1)), context.signal);
  for (const name of names) {
    const code = machines.get(name)!.fails.ship;
    if (code) throw new BlockferryError(code, `${name}: as the test says`, { facts: { item: name } });
  }
  const pointTimeMs = clock.nowMs();
  return names.map((item) => {
    machines.get(item)!.outstandingLogs += 1;
    machines.get(item)!.sharedMs = pointTimeMs;
    const counts = { generation: 1, elapsedMs: 1, logs: 1, dataBytes: 10, sentBytes: 10 };
    return { item, pointId: 'p', pointTimeMs, consistency, group: 'g', ...counts };
  });
}

function scriptedOperations(
  { name }: MachineConfig,
  machine: ScriptedMachine,
  clock: VirtualClock,
  calls: Call[],
): MachineOperations {
  let newestPointMs = clock.nowMs();
  let points = 1;
  const run = async (verb: AgentVerb, context: OperationContext, more: object = {}): Promise<void> => {
    const { lanes, bandwidthBytesPerSecond } = context;
    calls.push({ atMs: clock.nowMs(), machine: name, verb, lanes, bandwidthBytesPerSecond, ...more });
    if (context.signal.aborted) throw abortedError(context.signal);
    const tookMs = machine.tookMs[verb] ?? 1;
    await clock.sleep(tookMs, context.signal);
    const code = machine.fails[verb];
    if (code) throw new BlockferryError(code, `${verb} failed as the test says`);
  };
  const copied = { item: name, pointId: 'p', generation: 1, changed: true, elapsedMs: 1 };
  const copy = async (verb: 'protect' | 'resync', context: OperationContext) => {
    await run(verb, context);
    machine.isProtected = true;
    machine.needsResync = false;
    newestPointMs = clock.nowMs();
    return { ...copied, disks: [] };
  };
  return {
    async observe(context) {
      await run('observe', context);
      return { ...factsOf(machine, clock.nowMs(), newestPointMs, points), ...machine.facts };
    },
    protect: (context) => copy('protect', context),
    resync: (context) => copy('resync', context),
    async ship(context) {
      await run('ship', context, { consistency: context.consistency });
      newestPointMs = clock.nowMs();
      points += 1;
      machine.outstandingLogs += 1;
      const pointTimeMs = newestPointMs;
      const { consistency } = context;
      return { ...copied, pointTimeMs, consistency, logs: 1, dataBytes: 10, sentBytes: 10 };
    },
    async apply(context) {
      await run('apply', context);
      machine.outstandingLogs = 0;
      return { ...copied, appliedLogs: 1, chunksWritten: 1, fetchedBytes: 0, sentBytes: 0 };
    },
    async prune(context) {
      await run('prune', context);
      return { dropped: 0 };
    },
    retention: async () => machine.retention,
    space: async () => ({ freeBytes: machine.freeShare * 1000, totalBytes: 1000 }),
  };
}

function factsOf(machine: ScriptedMachine, nowMs: number, newestPointMs: number, points: number): ItemFacts {
  if (!machine.isProtected) return { nowMs };
  const reason = { code: 'LOG_HALF_FULL', message: 'logs are half of a disk', sinceMs: nowMs } as const;
  return {
    nowMs,
    replica: {
      owner: { isOurs: true, phase: 'replicating', epoch: 1, sinceMs: 0 },
      points,
      newestPointMs: Math.max(newestPointMs, machine.sharedMs),
      outstandingLogs: machine.outstandingLogs,
      backlogBytes: 0,
    },
    tracking: {
      mode: machine.needsResync ? 'resync-required' : 'logging',
      ...(machine.needsResync ? { reason } : {}),
      served: true,
      stopped: false,
    },
  };
}
