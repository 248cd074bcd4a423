/**
 * What is done with one machine: one operation at a time, each with its share of the line, told, and remembered. When and which is the
 * business of machine.ts and of the machine's group.
 */
import { BlockferryError, ERROR_CODES } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import { sentenceOf, stateOf } from '../life/index.ts';
import { BacklogForecast, nextClosing, spaceVerdict } from '../policy/index.ts';
import type { ShipReport } from '../types.ts';
import { type ChildSignal, childSignal, withChildSignal } from './child-signal.ts';
import { MachineMemory } from './machine-memory.ts';
import { retryMs } from './machine-record.ts';
import { machineHealth, machineStatus, type StatusSource } from './machine-status.ts';
import { actionAt, dutyOf, isWindowOpen, lacksTracker, type MachineView, upkeepAt } from './next-turn.ts';
import { asBlockferryError, contextOf, stopped } from './operation-context.ts';
import { type Performed, perform } from './perform.ts';
import type { ActiveShare, Shares } from './shares.ts';
import type {
  AgentHappening,
  AgentStateStore,
  AgentVerb,
  FollowerStatus,
  GroupStanding,
  MachineConfig,
  MachineOperations,
  MachineStatus,
  OperationContext,
  OperatorVerb,
  RunningVerb,
} from './types.ts';
import type { PlaceKind, WorkPlaces } from './work-places.ts';

/** A wall clock that was set is noticed no later than this. */
export const SLEEP_MS_MAX = 3_600_000;
/** What a copy, a resync or an apply takes of its share while space is short. */
const THROTTLED_PART = 0.25;
/** What brings worker threads along. */
const PLACES: Readonly<Partial<Record<AgentVerb, PlaceKind>>> = {
  ship: 'cycle',
  apply: 'cycle',
  protect: 'copy',
  resync: 'copy',
};
const RETENTION_EVERY_MS = 900_000;

export interface MachineSetup {
  readonly config: MachineConfig;
  readonly zone: string;
  readonly operations: MachineOperations;
  readonly clock: Clock;
  readonly state: AgentStateStore;
  readonly shares: Shares;
  readonly places: WorkPlaces;
  /** How its group stands, of a machine that has one. */
  readonly standing: () => GroupStanding | undefined;
  /** What kept it from shipping with its group may be over. */
  readonly mayShip: () => void;
  /** How its further stores are. */
  readonly stores: () => readonly FollowerStatus[];
  readonly tell: (happening: AgentHappening) => void;
}

/** What is under way. */
export interface Running {
  readonly verb: RunningVerb;
  readonly stop: ChildSignal;
  /** Once it is; before, it waits for a place among those that work. */
  readonly active?: ActiveShare;
}

/** A cycle in which the machine took part. */
export interface GroupCycle {
  readonly report: ShipReport;
  readonly beganMs: number;
  readonly missed: number;
  readonly latencyMs: number;
}

export class MachineWork {
  readonly name: string;
  readonly memory: MachineMemory;
  readonly #setup: MachineSetup;
  readonly #forecast: BacklogForecast = new BacklogForecast();
  #config: MachineConfig;
  #operations: MachineOperations;
  #seen: MachineView['seen'];
  #newestPointMs: number | undefined;
  #space: MachineStatus['space'];
  /** What is wrong with the folder for its way home. */
  #retention: string | undefined;
  #retentionDueMs = Number.NEGATIVE_INFINITY;
  #running: Running | undefined;
  #told = '';

  constructor(setup: MachineSetup) {
    this.name = setup.config.name;
    this.#setup = setup;
    this.#config = setup.config;
    this.#operations = setup.operations;
    const { clock, state, zone } = setup;
    const onFault = ({ code, message }: BlockferryError): void =>
      setup.tell({ type: 'notice', machine: this.name, code, message });
    this.memory = new MachineMemory({ name: this.name, clock, state, zone, onFault });
  }

  /** A new description, and the operations that follow it. */
  configure(config: MachineConfig, operations: MachineOperations): void {
    this.#config = config;
    this.#operations = operations;
    this.#retentionDueMs = Number.NEGATIVE_INFINITY;
  }

  get view(): MachineView {
    const { record } = this.memory;
    const space = this.#space?.verdict ?? 'ok';
    const group = this.#setup.standing();
    return {
      ...{ config: this.#config, record, space },
      ...(this.#seen ? { seen: this.#seen } : {}),
      ...(group ? { group } : {}),
    };
  }

  /** Of the store that it replicates to, as it was seen last. */
  get newestPointMs(): number | undefined {
    return this.#newestPointMs;
  }

  /** What runs now. */
  get running(): RunningVerb | undefined {
    return this.#running?.verb;
  }

  status(): MachineStatus {
    return machineStatus(this.#figures);
  }

  get #figures(): StatusSource {
    return {
      view: this.view,
      memory: this.memory,
      forecast: this.#forecast,
      stores: this.#setup.stores(),
      nowMs: this.#setup.clock.nowMs(),
      ...(this.#running?.active ? { running: this.#running.verb, share: this.#running.active.share } : {}),
      ...(this.#space ? { space: this.#space } : {}),
      ...(this.#retention === undefined ? {} : { retention: this.#retention }),
    };
  }

  /** What is under way ends at its next safe place. */
  stop(reason: string): void {
    this.#running?.stop.abort(stopped(reason));
  }

  /** What was seen does not hold any more. */
  forget(): void {
    this.#seen = undefined;
  }

  /** Runs `work` of somebody else as what is done with the machine: shown, and stopped, like its own. */
  async lend<T>(running: Running, work: () => Promise<T>): Promise<T> {
    this.#running = running;
    try {
      return await work();
    } finally {
      this.#running = undefined;
    }
  }

  /**
   * Runs what an operator asked for, as `lend` does, with its share of the line. A failure is the operator's to know, and no reason to try
   * again; what had failed before is looked at anew.
   */
  async operate<T>(
    verb: OperatorVerb,
    run: (context: OperationContext) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const { clock, shares, tell } = this.#setup;
    const machine = this.name;
    const active = shares.enter({ lanes: this.#config.lanes, part: 1 });
    const stop = childSignal(signal);
    const startedMs = clock.monotonicMs();
    tell({ type: 'operation-started', machine, verb });
    try {
      const report = await this.lend({ verb, stop, active }, () => run(contextOf(active, stop.signal)));
      tell({ type: 'operation-ended', machine, verb, elapsedMs: Math.round(clock.monotonicMs() - startedMs) });
      await this.memory.change({ failure: undefined });
      return report;
    } catch (error) {
      const { code, message, hint } = asBlockferryError(error);
      if (stop.signal.aborted) tell({ type: 'operation-stopped', machine, verb, reason: message });
      else {
        const more = hint === undefined ? {} : { hint };
        tell({ type: 'operation-failed', machine, verb, code, message, ...more, recoverable: false });
      }
      throw error;
    } finally {
      active.leave();
      stop.release();
      this.forget();
    }
  }

  /** Why it cannot ship now, after a look at everything; undefined if it can. */
  async whyNotShip(signal: AbortSignal): Promise<string | undefined> {
    if (this.memory.record.suspendedSinceMs !== undefined) return 'an operator paused it';
    const looked = await this.look(signal);
    const seen = this.#seen;
    if (!looked || !seen) return this.memory.record.failure?.message ?? 'looking at it did not end';
    if (dutyOf(seen.state, seen.facts) !== 'cycle') return sentenceOf(seen.state);
    return lacksTracker(this.view) ? 'its tracker does not serve its disks yet' : undefined;
  }

  /** Remembers and tells a cycle that was shipped with its group. */
  async shippedWithGroup({ report, beganMs, missed, latencyMs }: GroupCycle): Promise<void> {
    const { sentBytes, pointId, consistency } = report;
    await this.memory.cycled({ beganMs, missed, consistency, sentBytes, latencyMs });
    await this.#succeeded('ship', Math.round(latencyMs), { sentBytes, pointId, missed });
  }

  /** What follows a cycle, and a look at what became of it. */
  async upkeep(signal: AbortSignal, isInterrupted: () => boolean): Promise<void> {
    if (!(await this.look(signal))) return;
    for (const upkeep of upkeepAt(this.view, this.#setup.clock.nowMs())) {
      if (isInterrupted() || (await this.act(upkeep, signal)) !== 'done' || !(await this.look(signal))) return;
    }
  }

  /** A failure that the state of the machine explains needs no ladder: a resync that is required waits for its window. */
  async lookWhy(verb: AgentVerb, signal: AbortSignal): Promise<void> {
    const { failure } = this.memory.record;
    if (!failure || ERROR_CODES[failure.code] === 'store') return;
    const active = this.#setup.shares.enter({ lanes: this.#config.lanes, part: 1 });
    try {
      await withChildSignal([signal], (own) => this.#observe(contextOf(active, own)));
    } catch {
      return;
    } finally {
      active.leave();
    }
    if (actionAt(this.view, this.#setup.clock.nowMs()) !== verb) await this.memory.change({ failure: undefined });
  }

  /** Whether everything could be seen. What is wrong with a machine counts as a failure to look at it. */
  async look(signal: AbortSignal): Promise<boolean> {
    const before = this.#seen?.state.state;
    if ((await this.act('observe', signal)) !== 'done') return false;
    const after = this.#seen?.state.state;
    if (before !== undefined && after !== undefined && before !== after) {
      this.#setup.tell({ type: 'state-changed', machine: this.name, from: before, to: after });
    }
    return true;
  }

  /** Runs one operation with its share of the line, and remembers what became of it. */
  async act(verb: AgentVerb, signal: AbortSignal): Promise<'done' | 'failed' | 'stopped'> {
    const stop = childSignal(signal);
    this.#running = { verb, stop };
    try {
      const leave = await this.#place(verb, stop.signal);
      try {
        return await this.#actNow(verb, stop, signal);
      } finally {
        leave();
      }
    } catch (error) {
      // It had not begun.
      if (stop.signal.aborted) return 'stopped';
      throw error;
    } finally {
      stop.release();
      this.#running = undefined;
    }
  }

  /** A place among the machines that work; what moves nothing needs none. */
  async #place(verb: AgentVerb, signal: AbortSignal): Promise<() => void> {
    const kind = PLACES[verb];
    return kind ? await this.#setup.places.take(kind, signal) : () => {};
  }

  async #actNow(verb: AgentVerb, stop: ChildSignal, signal: AbortSignal): Promise<'done' | 'failed' | 'stopped'> {
    const { clock, shares, tell } = this.#setup;
    const active = shares.enter({ lanes: this.#config.lanes, part: this.#partOf(verb) });
    this.#running = { verb, stop, active };
    const beganMs = clock.nowMs();
    const startedMs = clock.monotonicMs();
    if (verb !== 'observe') tell({ type: 'operation-started', machine: this.name, verb, ...this.#reasonFor(verb) });
    try {
      const context = contextOf(active, stop.signal);
      const report = verb === 'observe' ? await this.#observe(context) : await this.#perform(verb, context);
      await this.#succeeded(verb, Math.round(clock.monotonicMs() - startedMs), report);
      return 'done';
    } catch (error) {
      if (stop.signal.aborted) {
        const reason = signal.aborted ? 'the agent ends' : (stop.signal.reason as Error).message;
        if (verb !== 'observe') tell({ type: 'operation-stopped', machine: this.name, verb, reason });
        return 'stopped';
      }
      await this.#failed(verb, asBlockferryError(error), beganMs);
      return 'failed';
    } finally {
      active.leave();
    }
  }

  async #succeeded(verb: AgentVerb, elapsedMs: number, { missed, ...report }: Performed): Promise<void> {
    const { tell } = this.#setup;
    await this.memory.succeeded(verb, elapsedMs, report.sentBytes ?? 0);
    if (report.sentBytes !== undefined) this.#forecast.sent(report.sentBytes, elapsedMs);
    if (verb !== 'observe') tell({ type: 'operation-ended', machine: this.name, verb, elapsedMs, ...report });
    if (missed) tell({ type: 'cycles-missed', machine: this.name, missed });
  }

  /** Why all that may differ is copied: never without saying so. */
  #reasonFor(verb: AgentVerb): { readonly reason?: string } {
    const state = this.#seen?.state;
    return verb === 'resync' && state?.state === 'resync-required' ? { reason: state.reason } : {};
  }

  async #failed(verb: AgentVerb, error: BlockferryError, beganMs: number): Promise<void> {
    const failure = await this.memory.failed(verb, error, beganMs);
    const { code, message, hint, recoverable } = failure;
    const nextAttemptMs = retryMs(failure);
    this.#setup.tell({
      type: 'operation-failed',
      machine: this.name,
      verb,
      ...{ code, message, recoverable },
      ...(hint === undefined ? {} : { hint }),
      ...(nextAttemptMs === undefined ? {} : { nextAttemptMs }),
    });
  }

  async #observe(context: OperationContext): Promise<Performed> {
    const { clock } = this.#setup;
    const { firstCopyAtMs } = this.#config;
    const facts = {
      ...(await this.#operations.observe(context)),
      ...(firstCopyAtMs === undefined ? {} : { firstCopyAtMs }),
    };
    // Failures of the past are the ladder's business; what is the case now decides.
    const state = stateOf(facts);
    this.#seen = { facts, state, atMs: clock.nowMs() };
    this.#newestPointMs = facts.replica?.newestPointMs ?? this.#newestPointMs;
    this.#forecast.waits(facts.replica?.backlogBytes ?? 0);
    if (dutyOf(state, facts) !== 'fault' || !('error' in state)) return {};
    const { code, message, hint } = state.error;
    throw new BlockferryError(code, message, hint === undefined ? {} : { hint });
  }

  async #perform(verb: Exclude<AgentVerb, 'observe'>, context: OperationContext): ReturnType<typeof perform> {
    const { clock } = this.#setup;
    const run = (): ReturnType<typeof perform> =>
      perform(verb, this.#operations, context, { view: this.view, memory: this.memory, clock });
    if (verb !== 'resync') return await run();
    const closing = new AbortController();
    this.#stopAtClosing(closing.signal).catch(() => {});
    try {
      return await run();
    } finally {
      closing.abort();
    }
  }

  /** Ends the resync that runs now when its window closes, unless somebody asked for it. */
  async #stopAtClosing(signal: AbortSignal): Promise<void> {
    const { clock } = this.#setup;
    const { resync } = this.#config;
    const stop = this.#running?.stop;
    while (resync !== 'manual' && !this.memory.record.resyncAsked) {
      const nowMs = clock.nowMs();
      if (!isWindowOpen(this.view, nowMs)) return stop?.abort(stopped('its window closed; it goes on in the next one'));
      await clock.sleep(Math.min(SLEEP_MS_MAX, nextClosing(resync, nowMs) - nowMs), signal);
    }
  }

  #partOf(verb: AgentVerb): number {
    const isCopy = verb === 'protect' || verb === 'resync' || verb === 'apply';
    const isShort = this.#space?.verdict === 'throttle' || this.#space?.verdict === 'stop';
    return isCopy && isShort && this.#config.lowSpace === 'act' ? THROTTLED_PART : 1;
  }

  async lookAtSpace(): Promise<void> {
    try {
      const { freeBytes, totalBytes } = await this.#operations.space();
      const verdict = spaceVerdict(freeBytes, totalBytes);
      const before = this.#space?.verdict ?? 'ok';
      this.#space = { verdict, freeBytes, totalBytes };
      if (verdict !== before) this.#setup.tell({ type: 'space', machine: this.name, verdict, freeBytes, totalBytes });
    } catch {
      // What cannot be measured holds nothing up; whatever is wrong with the volume, the operation will say it.
      this.#space = undefined;
    }
    await this.#lookAtRetention();
  }

  /** Such a look writes; in the machine's turns, once in a quarter of an hour at most, and in the first with a new configuration. */
  async #lookAtRetention(): Promise<void> {
    const { retention } = this.#operations;
    const nowMs = this.#setup.clock.monotonicMs();
    if (nowMs < this.#retentionDueMs) return;
    this.#retentionDueMs = nowMs + RETENTION_EVERY_MS;
    this.#retention = await retention?.().catch((error: unknown) => asBlockferryError(error).message);
  }

  /** Says how it is, when that changed. */
  tellHealth(): void {
    // Before the first look, nothing is known to be well or ill.
    if (!this.#seen && !this.memory.record.failure) return;
    const { level, findings } = machineHealth(this.#figures);
    const told = [level, ...findings.map(({ code }) => code)].join(' ');
    if (told === this.#told || (this.#told === '' && level === 'normal')) return;
    this.#told = told;
    this.#setup.tell({ type: 'health-changed', machine: this.name, level, findings });
  }
}
