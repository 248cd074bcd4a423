/**
 * A group of machines that ship together: a loop beside those of its members. At each of its cycles it has the turn of every member,
 * sees that all of them can ship, and ships them at one moment.
 *
 * A cycle that one member cannot join is none for all, and is tried again as any failure. After three in a row the members ship by
 * themselves, with a finding that names who could not, until there is a common moment again: a group is there for better points, not
 * for none.
 */
import { abortedError, BlockferryError } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import { type CycleSchedule, type DueCycle, isAppConsistentDue, nextAttempt, nextCycle } from '../policy/index.ts';
import type { ShipReport } from '../types.ts';
import { childSignal, withChildSignal } from './child-signal.ts';
import type { Machine } from './machine.ts';
import { SLEEP_MS_MAX } from './machine-work.ts';
import { asBlockferryError, contextOf, stopped } from './operation-context.ts';
import type { Shares } from './shares.ts';
import type {
  AgentHappening,
  GroupConfig,
  GroupOperations,
  GroupStanding,
  GroupStatus,
  GroupTrouble,
  RunningVerb,
} from './types.ts';
import type { WorkPlaces } from './work-places.ts';

/** Failed cycles in a row after which the members ship by themselves: two minutes, with the ladder of retries. */
const APART_AFTER = 3;
/** How long members that have given their turn wait for one that has not, or that cannot be looked at. */
const TURN_WAIT_MS = 60_000;
/** What a member may be about that is over soon; the end of anything else is not waited for. */
const SHORT_VERBS: readonly RunningVerb[] = ['observe', 'ship', 'apply', 'prune'];

export interface GroupSetup {
  readonly config: GroupConfig;
  /** In the order of the configuration. */
  readonly members: readonly Machine[];
  readonly operations: GroupOperations;
  readonly clock: Clock;
  readonly shares: Shares;
  readonly places: WorkPlaces;
  readonly tell: (happening: AgentHappening) => void;
}

export class Group {
  readonly #setup: GroupSetup;
  #trouble: GroupTrouble | undefined;
  #lastMomentMs: number | undefined;
  #isAskedNow = false;
  #wake: AbortController = new AbortController();
  /** What members do behind a cycle, in their turns. */
  readonly #upkeeps: Set<Promise<void>> = new Set();

  constructor(setup: GroupSetup) {
    this.#setup = setup;
  }

  get config(): GroupConfig {
    return this.#setup.config;
  }

  get standing(): GroupStanding {
    const trouble = this.#trouble;
    const isApart = (trouble?.count ?? 0) >= APART_AFTER;
    return { name: this.config.name, isApart, ...(trouble ? { trouble } : {}) };
  }

  status(): GroupStatus {
    const { name, machines } = this.config;
    const { isApart, trouble } = this.standing;
    return {
      ...{ name, machines, isApart, nextMs: this.#nextMs(this.#setup.clock.nowMs()) },
      ...(this.#lastMomentMs === undefined ? {} : { lastMomentMs: this.#lastMomentMs }),
      ...(trouble ? { trouble } : {}),
    };
  }

  /** What kept a member from shipping may be over. */
  tryNow(): void {
    this.#isAskedNow = this.#trouble !== undefined;
    this.#wake.abort();
  }

  /** Runs until the signal fires; then ends what is under way. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, members } = this.#setup;
    await Promise.all(members.map((member) => member.load()));
    try {
      while (!signal.aborted) {
        this.#wake = new AbortController();
        const waitMs = this.#nextMs(clock.nowMs()) - clock.nowMs();
        if (waitMs <= 0) await this.#attempt(signal);
        else await this.#sleep(waitMs, signal);
      }
    } finally {
      await Promise.all(this.#upkeeps);
    }
  }

  #nextMs(nowMs: number): number {
    const trouble = this.#trouble;
    if (trouble) {
      // The wall clock was set back.
      if (this.#isAskedNow || trouble.lastMs > nowMs) return nowMs;
      return Math.max(nowMs, nextAttempt(trouble.firstMs, trouble.count, trouble.lastMs));
    }
    return this.#dueCycle(nowMs).dueMs;
  }

  /** Counted from the member whose last cycle is the oldest; at once where one had none. */
  #dueCycle(nowMs: number): DueCycle {
    const { members } = this.#setup;
    const last = members.flatMap(({ work }) => work.memory.record.lastCycle ?? []);
    const [oldest] = last.toSorted((a, b) => a.startedMs - b.startedMs);
    const isFirst = oldest === undefined || last.length < members.length;
    return nextCycle(this.#schedule, isFirst ? { startedMs: undefined, endedMs: nowMs } : oldest, nowMs);
  }

  #consistencyAt(nowMs: number): 'crash' | 'app' {
    const last = this.#setup.members.map(({ work }) => work.memory.record.lastAppMs);
    const oldest = last.includes(undefined) ? undefined : Math.min(...(last as number[]));
    return isAppConsistentDue(this.#schedule, oldest, nowMs) ? 'app' : 'crash';
  }

  get #schedule(): CycleSchedule {
    const { everyMs, appConsistent } = this.config;
    return { everyMs, ...(appConsistent ? { appConsistentEveryMs: appConsistent.everyMs } : {}) };
  }

  async #sleep(ms: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#setup;
    await withChildSignal([signal, this.#wake.signal], (either) =>
      clock.sleep(Math.min(ms, SLEEP_MS_MAX), either).catch(() => {}),
    );
  }

  async #attempt(signal: AbortSignal): Promise<void> {
    const { clock, members } = this.#setup;
    const beganMs = clock.nowMs();
    try {
      await this.#cycle(beganMs, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      this.#failed(asBlockferryError(error), beganMs);
    } finally {
      this.#isAskedNow = false;
      // What they do next depends on how the group stands.
      for (const member of members) member.wakeUp();
    }
  }

  #failed({ code, message }: BlockferryError, beganMs: number): void {
    const { clock, tell } = this.#setup;
    const before = this.#trouble;
    const [firstMs, count, lastMs] = [before?.firstMs ?? beganMs, (before?.count ?? 0) + 1, clock.nowMs()];
    this.#trouble = { firstMs, lastMs, count, code, message };
    this.#isAskedNow = false;
    const { name, isApart } = this.standing;
    tell({ type: 'group-failed', group: name, code, message, nextAttemptMs: this.#nextMs(lastMs), isApart });
  }

  async #cycle(beganMs: number, signal: AbortSignal): Promise<void> {
    const { members, tell } = this.#setup;
    const giveBack = await this.#takeTurns(signal);
    let isShipped = false;
    try {
      const reasons = await this.#whyNot(signal);
      const cannot = reasons.findIndex((reason) => reason !== undefined);
      if (cannot >= 0) throw notTogether(members[cannot]!, reasons[cannot]!);
      const consistency = this.#consistencyAt(beganMs);
      const reports = await this.#shipInPlace(beganMs, consistency, signal);
      isShipped = true;
      this.#trouble = undefined;
      this.#lastMomentMs = reports[0]!.pointTimeMs;
      tell({ type: 'group-shipped', group: this.config.name, pointTimeMs: this.#lastMomentMs, consistency });
    } finally {
      for (const [i, member] of members.entries()) {
        if (isShipped) this.#keepUp(member, giveBack[i]!, signal);
        else giveBack[i]!();
      }
    }
  }

  /** The turn of every member, or of none. @throws BARRIER_LOST naming one that does not come */
  async #takeTurns(signal: AbortSignal): Promise<readonly (() => void)[]> {
    const { clock, members } = this.#setup;
    const busy = members.find(({ work }) => work.running && !SHORT_VERBS.includes(work.running));
    if (busy) throw notTogether(busy, `${busy.work.running} is under way`);
    const waiting = childSignal(signal);
    clock.sleep(TURN_WAIT_MS, waiting.signal).then(
      () => waiting.abort(stopped('a member of the group does not come')),
      () => {},
    );
    const turns = await Promise.allSettled(members.map((member) => member.takeTurn(waiting.signal)));
    waiting.abort(stopped('all is decided'));
    waiting.release();
    const taken = turns.flatMap((turn) => (turn.status === 'fulfilled' ? [turn.value] : []));
    const missing = turns.findIndex(({ status }) => status === 'rejected');
    if (missing < 0) return taken;
    for (const giveBack of taken) giveBack();
    if (signal.aborted) throw abortedError(signal);
    const member = members[missing]!;
    throw notTogether(member, `${member.work.running ?? 'something else'} is under way for more than a minute`);
  }

  /** Why each of them cannot ship now. A store that hangs holds up nobody else's machine for longer than who is busy. */
  async #whyNot(signal: AbortSignal): Promise<readonly (string | undefined)[]> {
    const { clock, members } = this.#setup;
    const waiting = childSignal(signal);
    clock.sleep(TURN_WAIT_MS, waiting.signal).then(
      () => waiting.abort(stopped('its group waits for it no longer')),
      () => {},
    );
    const reasons = await Promise.all(members.map(({ work }) => work.whyNotShip(waiting.signal)));
    waiting.abort(stopped('all is decided'));
    waiting.release();
    if (signal.aborted) throw abortedError(signal);
    return reasons;
  }

  /** All of them together are one that works: a group of many would never find as many places. */
  async #shipInPlace(
    beganMs: number,
    consistency: 'crash' | 'app',
    signal: AbortSignal,
  ): Promise<readonly ShipReport[]> {
    const leave = await this.#setup.places.take('cycle', signal);
    try {
      return await this.#ship(beganMs, consistency, signal);
    } finally {
      leave();
    }
  }

  /** Ships all of them, which shows as what each of them does. */
  async #ship(beganMs: number, consistency: 'crash' | 'app', signal: AbortSignal): Promise<readonly ShipReport[]> {
    const { clock, members, operations, shares, tell } = this.#setup;
    const wishes = members.map(({ work }) => work.view.config.lanes);
    const max = Math.max(...wishes.map((wish) => wish.max));
    const min = Math.min(
      max,
      wishes.reduce((sum, wish) => sum + wish.min, 0),
    );
    const active = shares.enter({ lanes: { min, max }, part: 1 });
    const stop = childSignal(signal);
    const running = { verb: 'ship', stop, active } as const;
    const startedMs = clock.monotonicMs();
    const { missed } = this.#dueCycle(beganMs);
    const ship = async (): Promise<readonly ShipReport[]> => {
      const reports = await operations.ship(Object.assign(contextOf(active, stop.signal), { consistency }));
      const latencyMs = clock.monotonicMs() - startedMs;
      for (const [i, { work }] of members.entries()) {
        await work.shippedWithGroup({ report: reports[i]!, beganMs, missed, latencyMs });
      }
      return reports;
    };
    for (const { name } of members) tell({ type: 'operation-started', machine: name, verb: 'ship' });
    try {
      return await members.reduceRight(
        (inner, { work }) =>
          () =>
            work.lend(running, inner),
        ship,
      )();
    } catch (error) {
      const { message } = asBlockferryError(error);
      const reason = `the cycle of group "${this.config.name}" failed: ${message}`;
      for (const { name } of members) tell({ type: 'operation-stopped', machine: name, verb: 'ship', reason });
      throw error;
    } finally {
      active.leave();
      stop.release();
    }
  }

  /** Each on its own: who folds many logs holds up nobody but itself. */
  #keepUp({ work }: Machine, giveBack: () => void, signal: AbortSignal): void {
    const { tell } = this.#setup;
    const upkeep = work
      .upkeep(signal, () => signal.aborted)
      .catch((error: unknown) => {
        const { code, message } = asBlockferryError(error);
        tell({ type: 'group-notice', group: this.config.name, code, message });
      })
      .finally(() => {
        giveBack();
        this.#upkeeps.delete(upkeep);
      });
    this.#upkeeps.add(upkeep);
  }
}

function notTogether({ name }: Machine, reason: string): BlockferryError {
  return new BlockferryError('BARRIER_LOST', `${name}: ${reason}`, { facts: { item: name } });
}
