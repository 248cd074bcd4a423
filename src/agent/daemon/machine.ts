/**
 * One machine of the agent: a loop that sleeps until something is due, takes its turn, does what next-turn.ts says, and goes on
 * whatever fails. Others take turns too: its group for a cycle, an operator for what changes sides. One thing at a time.
 */
import { BlockferryError } from '../../errors.ts';
import { refusal, stateOf } from '../life/index.ts';
import { withChildSignal } from './child-signal.ts';
import { type MachineSetup, MachineWork, SLEEP_MS_MAX } from './machine-work.ts';
import { actionAt, nextTurn } from './next-turn.ts';
import { TurnLock } from './turn-lock.ts';
import type { MachineConfig, MachineOperations, MachineStatus, OperationContext, OperatorVerb } from './types.ts';

/** How long a cycle may go on when an operator asks for the turn: as long as a plain command waits for it. */
const TURN_WAIT_MS = 30_000;
/** What has the turn next is stopped too. */
const STOP_AGAIN_MS = 1000;

export class Machine {
  readonly name: string;
  /** For who has its turn. */
  readonly work: MachineWork;
  readonly #setup: MachineSetup;
  readonly #turns: TurnLock = new TurnLock();
  #wake: AbortController = new AbortController();
  #loaded: Promise<void> | undefined;
  /** An operator's, until it has ended. */
  #asked: OperatorVerb | undefined;

  constructor(setup: MachineSetup) {
    this.name = setup.config.name;
    this.#setup = setup;
    this.work = new MachineWork(setup);
  }

  /** Runs until the signal fires; then ends what is under way. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#setup;
    await this.load();
    while (!signal.aborted) {
      if (this.#wake.signal.aborted) this.#wake = new AbortController();
      const nowMs = clock.nowMs();
      const turn = nextTurn(this.work.view, nowMs);
      if (turn && turn.dueMs <= nowMs) await this.#takeTurn(signal);
      else await this.#sleep(turn ? turn.dueMs - nowMs : SLEEP_MS_MAX, signal);
      this.work.tellHealth();
    }
  }

  /** Of the store that it replicates to, as it was seen last. */
  get newestPointMs(): number | undefined {
    return this.work.newestPointMs;
  }

  status(): MachineStatus {
    return this.work.status();
  }

  /** Waits for its turn; what it resolves to gives it back. @throws ABORTED when the signal fires first */
  async takeTurn(signal: AbortSignal): Promise<() => void> {
    await this.load();
    const giveBack = await this.#turns.take(signal);
    return () => {
      giveBack();
      this.wakeUp();
    };
  }

  /**
   * Runs what an operator asked for in this machine's turn. What only keeps pace may end first, for as long as a plain command would
   * wait; a copy, which may take days, is stopped at its next safe place at once, and goes on later.
   * @throws ITEM_LOCKED while another operator's is under way
   */
  async operate<T>(
    verb: OperatorVerb,
    run: (context: OperationContext) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    if (this.#asked !== undefined) throw isAsked(this.name, this.#asked);
    this.#asked = verb;
    const hurry = new AbortController();
    this.#stopOthers(verb, hurry.signal).catch(() => {});
    try {
      const giveBack = await this.takeTurn(signal);
      hurry.abort();
      try {
        return await this.work.operate(verb, run, signal);
      } finally {
        giveBack();
      }
    } finally {
      hurry.abort();
      this.#asked = undefined;
    }
  }

  async #stopOthers(verb: OperatorVerb, signal: AbortSignal): Promise<never> {
    const { clock } = this.#setup;
    for (let waitMs = TURN_WAIT_MS; ; waitMs = STOP_AGAIN_MS) {
      const { running } = this.work;
      if (running !== 'protect' && running !== 'resync') await clock.sleep(waitMs, signal);
      this.work.stop(`an operator asked for ${verb}`);
      await clock.sleep(STOP_AGAIN_MS, signal);
    }
  }

  /** Something changed on which depends what is due. */
  wakeUp(): void {
    this.#wake.abort();
  }

  /** Cycles stop; what is under way ends at its next safe place. */
  async pause(): Promise<void> {
    await this.load();
    if (this.work.memory.record.suspendedSinceMs !== undefined) return;
    await this.work.memory.change({ suspendedSinceMs: this.#setup.clock.nowMs() });
    this.work.stop('it was paused');
    this.wakeUp();
  }

  async resume(): Promise<void> {
    await this.load();
    // What fell out while it was paused was not missed.
    await this.work.memory.change({ suspendedSinceMs: undefined, lastCycle: undefined });
    this.#lookAgain();
    this.#setup.mayShip();
  }

  /** Tries again what waits for its next attempt, or for a person. */
  async retry(): Promise<void> {
    await this.load();
    await this.work.memory.change({ failure: undefined, upkeepFailure: undefined });
    this.#lookAgain();
    this.#setup.mayShip();
  }

  /** A resync now, whatever the window says. @throws ILLEGAL_STATE */
  async resync(): Promise<void> {
    await this.load();
    const { seen } = this.work.view;
    const refused = seen && refusal(stateOf({ ...seen.facts, ...this.work.memory.facts() }), 'resync');
    if (refused) throw refused;
    await this.work.memory.change({ resyncAsked: true, failure: undefined });
    this.#lookAgain();
  }

  /** Its tracker came or went: what waited for that need not climb a ladder. */
  async trackerChanged(): Promise<void> {
    await this.load();
    const code = this.work.memory.record.failure?.code;
    if (code === 'TRACKER_GONE' || code === 'ITEM_LOCKED') await this.work.memory.change({ failure: undefined });
    this.#lookAgain();
  }

  /** What waits for a person is tried again. */
  async retryIfWaiting(): Promise<void> {
    const { failure, upkeepFailure } = this.work.memory.record;
    if ([failure, upkeepFailure].some((each) => each && !each.recoverable)) await this.retry();
  }

  /** A new description, and the operations that follow it. */
  async reconfigure(config: MachineConfig, operations: MachineOperations): Promise<void> {
    this.work.configure(config, operations);
    await this.retry();
  }

  /** What is changed before it was read would be lost. */
  load(): Promise<void> {
    this.#loaded ??= this.work.memory.load();
    return this.#loaded;
  }

  #lookAgain(): void {
    this.work.forget();
    this.wakeUp();
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

  /** Who had the turn before may have done what was due. */
  async #takeTurn(signal: AbortSignal): Promise<void> {
    const giveBack = await this.#turns.take(signal);
    try {
      const nowMs = this.#setup.clock.nowMs();
      if ((nextTurn(this.work.view, nowMs)?.dueMs ?? Number.POSITIVE_INFINITY) <= nowMs) await this.#turn(signal);
    } finally {
      giveBack();
    }
  }

  /** Looks, does what is due, and looks what became of it. */
  async #turn(signal: AbortSignal): Promise<void> {
    const { work } = this;
    const { clock } = this.#setup;
    const woken = this.#wake.signal;
    const planned = nextTurn(work.view, clock.nowMs());
    await work.lookAtSpace();
    // What was seen after the last cycle still holds; after a failure it may not.
    const isFresh = planned?.verb === 'ship' && !work.memory.record.failure;
    if (!isFresh && !(await work.look(signal))) return;
    const verb = actionAt(work.view, clock.nowMs());
    // What failed is not due any more: the machine is in another state now.
    if (!verb) return await work.memory.change({ failure: undefined });
    if (woken.aborted || signal.aborted) return;
    const outcome = await work.act(verb, signal);
    if (outcome === 'failed') return await work.lookWhy(verb, signal);
    if (outcome === 'stopped') return;
    if (verb === 'ship') await work.upkeep(signal, () => woken.aborted);
    else await work.look(signal);
  }
}

function isAsked(name: string, verb: OperatorVerb): BlockferryError {
  return new BlockferryError('ITEM_LOCKED', `${verb} of machine "${name}" is under way`, {
    facts: { name, verb },
    hint: 'wait until it has ended: blockferry agent status shows what a machine does',
  });
}
