/**
 * Doing what operators ask for in the turns of their machines, with the agent's session: refused in the words of the machine's state,
 * stopped with the agent or by who asked, and ended before the agent has.
 */
import { BlockferryError } from '../../errors.ts';
import { refuseIllegal } from '../refuse.ts';
import type { ItemEvent } from '../types.ts';
import { childSignal } from './child-signal.ts';
import type { Machine } from './machine.ts';
import { stopped } from './operation-context.ts';
import { type SessionBase, sessionOf } from './operations.ts';
import { OPERATIONS, type OperateOptions, type OperatorReports, type OperatorRequests } from './operator-verbs.ts';
import type { OperatorVerb } from './types.ts';

/** A person reads no faster. */
const PROGRESS_EVERY_MS = 200;
/** They need disks that nobody serves: a tracker that was ended for them must not come back meanwhile. */
const AT_REST: readonly OperatorVerb[] = ['commit', 'failback'];

export interface OperatorsSetup {
  readonly base: SessionBase;
  /** @throws ITEM_NOT_FOUND */
  readonly machine: (name: string) => Machine;
  /** Keeps the tracker of a machine from being started, or not any more. */
  readonly holdTracker: (name: string, isHeld: boolean) => void;
}

export class Operators {
  readonly #setup: OperatorsSetup;
  readonly #running: Set<Promise<unknown>> = new Set();
  readonly #closing: AbortController = new AbortController();

  constructor(setup: OperatorsSetup) {
    this.#setup = setup;
  }

  /** @throws what the plain verb does; ILLEGAL_STATE; ITEM_LOCKED while another operator's is under way */
  async operate<V extends OperatorVerb>(
    verb: V,
    name: string,
    request: OperatorRequests[V],
    options: OperateOptions = {},
  ): Promise<OperatorReports[V]> {
    const machine = this.#setup.machine(name);
    if (this.#closing.signal.aborted) throw new BlockferryError('AGENT_GONE', 'the agent ends');
    const stop = childSignal(this.#closing.signal, ...(options.signal ? [options.signal] : []));
    const running = this.#run(machine, verb, request, options.onEvent, stop.signal);
    const over = running.then(
      () => {},
      () => {},
    );
    this.#running.add(over);
    try {
      return await running;
    } finally {
      this.#running.delete(over);
      stop.release();
    }
  }

  /** Ends what is under way at its next safe place. */
  async close(): Promise<void> {
    this.#closing.abort(stopped('the agent ends'));
    await Promise.all(this.#running);
  }

  #run<V extends OperatorVerb>(
    machine: Machine,
    verb: V,
    request: OperatorRequests[V],
    onEvent: OperateOptions['onEvent'],
    signal: AbortSignal,
  ): Promise<OperatorReports[V]> {
    const { base, holdTracker } = this.#setup;
    const { name } = machine;
    const { asks, run } = OPERATIONS[verb];
    const say = this.#paced(onEvent);
    return machine.operate(
      verb,
      async (context) => {
        const session = { ...sessionOf(base, context), ...(say ? { onEvent: say } : {}) };
        const asked = asks(request);
        if (asked) await refuseIllegal(session, name, asked, machine.work.memory.facts());
        const isAtRest = AT_REST.includes(verb);
        if (isAtRest) holdTracker(name, true);
        try {
          return await run(session, name, request, machine.work.view.config);
        } finally {
          if (isAtRest) holdTracker(name, false);
        }
      },
      signal,
    );
  }

  /** Leaves out what nobody could read; the last of a piece of work is always told. */
  #paced(onEvent: OperateOptions['onEvent']): OperateOptions['onEvent'] {
    const { clock } = this.#setup.base.ports;
    let toldMs = Number.NEGATIVE_INFINITY;
    return (
      onEvent &&
      ((event: ItemEvent): void => {
        const nowMs = clock.monotonicMs();
        const isLast = event.type !== 'progress' || event.doneBytes >= event.totalBytes;
        if (!isLast && nowMs - toldMs < PROGRESS_EVERY_MS) return;
        toldMs = nowMs;
        onEvent(event);
      })
    );
  }
}
