/**
 * One machine of the agent: a loop that sleeps until something is due, looks at what is the case, does what next-turn.ts says,
 * and remembers it. One thing at a time; whatever fails, the loop goes on.
 */
import { BlockferryError, ERROR_CODES, isBlockferryError } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import { refusal, stateOf } from '../life/index.ts';
import { BacklogForecast, nextClosing, spaceVerdict } from '../policy/index.ts';
import { type ChildSignal, childSignal, withChildSignal } from './child-signal.ts';
import { MachineMemory } from './machine-memory.ts';
import { retryMs } from './machine-record.ts';
import { machineStatus } from './machine-status.ts';
import { actionAt, dutyOf, isWindowOpen, type MachineView, nextTurn, upkeepAt } from './next-turn.ts';
import { perform } from './perform.ts';
import type { ActiveShare, Shares } from './shares.ts';
import type {
  AgentHappening,
  AgentStateStore,
  AgentVerb,
  MachineConfig,
  MachineOperations,
  MachineStatus,
  OperationContext,
} from './types.ts';

/** A wall clock that was set is noticed no later than this. */
const SLEEP_MS_MAX = 3_600_000;
/** What a copy, a resync or an apply takes of its share while space is short. */
const THROTTLED_PART = 0.25;

export interface MachineSetup {
  readonly config: MachineConfig;
  readonly zone: string;
  readonly operations: MachineOperations;
  readonly clock: Clock;
  readonly state: AgentStateStore;
  readonly shares: Shares;
  readonly tell: (happening: AgentHappening) => void;
}

interface Running {
  readonly verb: AgentVerb;
  readonly stop: ChildSignal;
  readonly active: ActiveShare;
}

export class Machine {
  readonly name: string;
  readonly #setup: MachineSetup;
  readonly #memory: MachineMemory;
  readonly #forecast: BacklogForecast = new BacklogForecast();
  #config: MachineConfig;
  #operations: MachineOperations;
  #seen: MachineView['seen'];
  #space: MachineStatus['space'];
  #running: Running | undefined;
  #wake: AbortController = new AbortController();
  #told = '';
  #loaded: Promise<void> | undefined;

  constructor(setup: MachineSetup) {
    this.name = setup.config.name;
    this.#setup = setup;
    this.#config = setup.config;
    this.#operations = setup.operations;
    const { clock, state, zone } = setup;
    const onFault = ({ code, message }: BlockferryError): void =>
      setup.tell({ type: 'notice', machine: this.name, code, message });
    this.#memory = new MachineMemory({ name: this.name, clock, state, zone, onFault });
  }

  get config(): MachineConfig {
    return this.#config;
  }

  /** Runs until the signal fires; then ends what is under way. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#setup;
    await this.#load();
    while (!signal.aborted) {
      this.#wake = new AbortController();
      const nowMs = clock.nowMs();
      const turn = nextTurn(this.#view, nowMs);
      if (turn && turn.dueMs <= nowMs) await this.#turn(signal);
      else await this.#sleep(turn ? turn.dueMs - nowMs : SLEEP_MS_MAX, signal);
      this.#tellHealth();
    }
  }

  status(): MachineStatus {
    return machineStatus({
      view: this.#view,
      memory: this.#memory,
      forecast: this.#forecast,
      nowMs: this.#setup.clock.nowMs(),
      ...(this.#running ? { running: this.#running.verb, share: this.#running.active.share } : {}),
      ...(this.#space ? { space: this.#space } : {}),
    });
  }

  /** Cycles stop; what is under way ends at its next safe place. */
  async pause(): Promise<void> {
    await this.#load();
    if (this.#memory.record.suspendedSinceMs !== undefined) return;
    await this.#memory.change({ suspendedSinceMs: this.#setup.clock.nowMs() });
    this.#running?.stop.abort(stopped('it was paused'));
    this.#wake.abort();
  }

  async resume(): Promise<void> {
    await this.#load();
    // What fell out while it was paused was not missed.
    await this.#memory.change({ suspendedSinceMs: undefined, lastCycle: undefined });
    this.#lookAgain();
  }

  /** Tries again what waits for its next attempt, or for a person. */
  async retry(): Promise<void> {
    await this.#load();
    await this.#memory.change({ failure: undefined, upkeepFailure: undefined });
    this.#lookAgain();
  }

  /** A resync now, whatever the window says. @throws ILLEGAL_STATE */
  async resync(): Promise<void> {
    await this.#load();
    const refused = this.#seen && refusal(stateOf({ ...this.#seen.facts, ...this.#memory.facts() }), 'resync');
    if (refused) throw refused;
    await this.#memory.change({ resyncAsked: true, failure: undefined });
    this.#lookAgain();
  }

  /** Its tracker came or went: what waited for that need not climb a ladder. */
  async trackerChanged(): Promise<void> {
    await this.#load();
    const code = this.#memory.record.failure?.code;
    if (code === 'TRACKER_GONE' || code === 'ITEM_LOCKED') await this.#memory.change({ failure: undefined });
    this.#lookAgain();
  }

  /** What waits for a person is tried again. */
  async retryIfWaiting(): Promise<void> {
    const { failure, upkeepFailure } = this.#memory.record;
    if ([failure, upkeepFailure].some((each) => each && !each.recoverable)) await this.retry();
  }

  /** A new description, and the operations that follow it. */
  async reconfigure(config: MachineConfig, operations: MachineOperations): Promise<void> {
    this.#config = config;
    this.#operations = operations;
    await this.retry();
  }

  /** What is changed before it was read would be lost. */
  #load(): Promise<void> {
    this.#loaded ??= this.#memory.load();
    return this.#loaded;
  }

  get #view(): MachineView {
    const { record } = this.#memory;
    const space = this.#space?.verdict ?? 'ok';
    return { config: this.#config, record, space, ...(this.#seen ? { seen: this.#seen } : {}) };
  }

  #lookAgain(): void {
    this.#seen = undefined;
    this.#wake.abort();
  }

  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    try {
      await withChildSignal([signal, this.#wake.signal], (either) =>
        this.#setup.clock.sleep(Math.min(ms, SLEEP_MS_MAX), either),
      );
    } catch (error) {
      if (!signal.aborted && !this.#wake.signal.aborted) throw error;
    }
  }

  /** Looks, does what is due, and looks what became of it. */
  async #turn(signal: AbortSignal): Promise<void> {
    const { clock } = this.#setup;
    const woken = this.#wake.signal;
    const planned = nextTurn(this.#view, clock.nowMs());
    await this.#lookAtSpace();
    // What was seen after the last cycle still holds; after a failure it may not.
    const isFresh = planned?.verb === 'ship' && !this.#memory.record.failure;
    if (!isFresh && !(await this.#look(signal))) return;
    const verb = actionAt(this.#view, clock.nowMs());
    // What failed is not due any more: the machine is in another state now.
    if (!verb) return await this.#memory.change({ failure: undefined });
    if (woken.aborted || signal.aborted) return;
    const outcome = await this.#act(verb, signal);
    if (outcome === 'failed') return await this.#lookWhy(verb, signal);
    if (outcome === 'stopped' || !(await this.#look(signal))) return;
    for (const upkeep of verb === 'ship' ? upkeepAt(this.#view, clock.nowMs()) : []) {
      if (woken.aborted || (await this.#act(upkeep, signal)) !== 'done' || !(await this.#look(signal))) return;
    }
  }

  /** A failure that the state of the machine explains needs no ladder: a resync that is required waits for its window. */
  async #lookWhy(verb: AgentVerb, signal: AbortSignal): Promise<void> {
    const { failure } = this.#memory.record;
    if (!failure || ERROR_CODES[failure.code] === 'store') return;
    const active = this.#setup.shares.enter({ lanes: this.#config.lanes, part: 1 });
    try {
      await withChildSignal([signal], (own) => this.#observe(contextOf(active, own)));
    } catch {
      return;
    } finally {
      active.leave();
    }
    if (actionAt(this.#view, this.#setup.clock.nowMs()) !== verb) await this.#memory.change({ failure: undefined });
  }

  /** Whether everything could be seen. What is wrong with a machine counts as a failure to look at it. */
  async #look(signal: AbortSignal): Promise<boolean> {
    const before = this.#seen?.state.state;
    if ((await this.#act('observe', signal)) !== 'done') return false;
    const after = this.#seen?.state.state;
    if (before !== undefined && after !== undefined && before !== after) {
      this.#setup.tell({ type: 'state-changed', machine: this.name, from: before, to: after });
    }
    return true;
  }

  /** Runs one operation with its share of the line, and remembers what became of it. */
  async #act(verb: AgentVerb, signal: AbortSignal): Promise<'done' | 'failed' | 'stopped'> {
    const { clock, shares, tell } = this.#setup;
    const active = shares.enter({ lanes: this.#config.lanes, part: this.#partOf(verb) });
    const stop = childSignal(signal);
    this.#running = { verb, stop, active };
    const beganMs = clock.nowMs();
    const startedMs = clock.monotonicMs();
    if (verb !== 'observe') tell({ type: 'operation-started', machine: this.name, verb, ...this.#reasonFor(verb) });
    try {
      const context = contextOf(active, stop.signal);
      const { missed, ...report } =
        verb === 'observe' ? await this.#observe(context) : await this.#perform(verb, context);
      const elapsedMs = Math.round(clock.monotonicMs() - startedMs);
      await this.#memory.succeeded(verb, elapsedMs, report.sentBytes ?? 0);
      if (report.sentBytes !== undefined) this.#forecast.sent(report.sentBytes, elapsedMs);
      if (verb !== 'observe') tell({ type: 'operation-ended', machine: this.name, verb, elapsedMs, ...report });
      if (missed) tell({ type: 'cycles-missed', machine: this.name, missed });
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
      stop.release();
      this.#running = undefined;
    }
  }

  /** Why all that may differ is copied: never without saying so. */
  #reasonFor(verb: AgentVerb): { readonly reason?: string } {
    const state = this.#seen?.state;
    return verb === 'resync' && state?.state === 'resync-required' ? { reason: state.reason } : {};
  }

  async #failed(verb: AgentVerb, error: BlockferryError, beganMs: number): Promise<void> {
    const failure = await this.#memory.failed(verb, error, beganMs);
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

  async #observe(context: OperationContext): Promise<{ readonly missed?: number; readonly sentBytes?: number }> {
    const { clock } = this.#setup;
    const { firstCopyAtMs } = this.#config;
    const facts = {
      ...(await this.#operations.observe(context)),
      ...(firstCopyAtMs === undefined ? {} : { firstCopyAtMs }),
    };
    // Failures of the past are the ladder's business; what is the case now decides.
    const state = stateOf(facts);
    this.#seen = { facts, state, atMs: clock.nowMs() };
    this.#forecast.waits(facts.replica?.backlogBytes ?? 0);
    if (dutyOf(state, facts) !== 'fault' || !('error' in state)) return {};
    const { code, message, hint } = state.error;
    throw new BlockferryError(code, message, hint === undefined ? {} : { hint });
  }

  async #perform(verb: Exclude<AgentVerb, 'observe'>, context: OperationContext): ReturnType<typeof perform> {
    const { clock } = this.#setup;
    const closing = new AbortController();
    if (verb === 'resync') this.#stopAtClosing(closing.signal).catch(() => {});
    try {
      return await perform(verb, this.#operations, context, { view: this.#view, memory: this.#memory, clock });
    } finally {
      closing.abort();
    }
  }

  /** Ends the resync that runs now when its window closes, unless somebody asked for it. */
  async #stopAtClosing(signal: AbortSignal): Promise<void> {
    const { clock } = this.#setup;
    const { resync } = this.#config;
    const stop = this.#running?.stop;
    while (resync !== 'manual' && !this.#memory.record.resyncAsked) {
      const nowMs = clock.nowMs();
      if (!isWindowOpen(this.#view, nowMs))
        return stop?.abort(stopped('its window closed; it goes on in the next one'));
      await clock.sleep(Math.min(SLEEP_MS_MAX, nextClosing(resync, nowMs) - nowMs), signal);
    }
  }

  #partOf(verb: AgentVerb): number {
    const isCopy = verb === 'protect' || verb === 'resync' || verb === 'apply';
    const isShort = this.#space?.verdict === 'throttle' || this.#space?.verdict === 'stop';
    return isCopy && isShort && this.#config.lowSpace === 'act' ? THROTTLED_PART : 1;
  }

  async #lookAtSpace(): Promise<void> {
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
  }

  #tellHealth(): void {
    // Before the first look, nothing is known to be well or ill.
    if (!this.#seen && !this.#memory.record.failure) return;
    const { level, findings } = this.status().health;
    const told = [level, ...findings.map(({ code }) => code)].join(' ');
    if (told === this.#told || (this.#told === '' && level === 'normal')) return;
    this.#told = told;
    this.#setup.tell({ type: 'health-changed', machine: this.name, level, findings });
  }
}

/** The share is read when it is looked at: it changes while the operation runs. */
function contextOf(active: ActiveShare, signal: AbortSignal): OperationContext {
  return {
    signal,
    get lanes() {
      return active.share.lanes;
    },
    get bandwidthBytesPerSecond() {
      return active.share.bandwidthBytesPerSecond;
    },
    onShare: (listener) => active.onShare(listener),
  };
}

function stopped(reason: string): BlockferryError {
  return new BlockferryError('ABORTED', reason);
}

function asBlockferryError(error: unknown): BlockferryError {
  if (isBlockferryError(error)) return error;
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new BlockferryError('UNEXPECTED', message, { cause: error });
}
