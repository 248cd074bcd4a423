/**
 * What must hold at every moment of a seed, checked where the engine touches the world: at each call of an operation, at its end, and at
 * each event. Nothing here uses the rules of src: their numbers are written down once more.
 */
import type {
  AgentEvent,
  AgentVerb,
  MachineOperations,
  MachineRecord,
  OperationContext,
} from '../../../src/agent/daemon/types.ts';
import { isBlockferryError } from '../../../src/errors.ts';
import type { MachineModel } from './machine-model.ts';
import type { MachinePlan } from './story.ts';
import { readsOpen } from './wall-clock.ts';
import { FAULTS, type World } from './world.ts';

const MINUTE = 60_000;
/** Minutes from the begin of the first attempt to the next ones; from there on every 30. */
const LADDER: readonly number[] = [1, 2, 4, 8, 10];
/** What a process needs to begin anew, and a loop to come round. */
const MOMENT_MS = 1500;
/** An agent may notice so late that somebody set the wall clock. */
const NOTICE_MS = 5 * MINUTE + MOMENT_MS;

const PERSON_CODES: ReadonlySet<string> = new Set(
  Object.values(FAULTS).flatMap(({ code, person }) => (person ? [code] : [])),
);

/** A row of failures: monotonic times. */
interface Row {
  firstMs: number;
  count: number;
  endedMs: number;
  /** The wall clock was set meanwhile, or the process died: attempts may come at other times, but they come. */
  isBlurred: boolean;
}

export class Watch {
  readonly #world: World;
  readonly #model: MachineModel;
  readonly #plan: MachinePlan;
  #row: Row | undefined;
  /** A failure that waits for a person, since when. */
  #waitsSinceMs: number | undefined;
  #startedAtMs = 0;
  #isAlive = false;
  #level: 'normal' | 'warning' | 'critical' = 'normal';
  #lastNamed = '';
  #fullCopiesSeen = 0;
  wasAsked = false;
  isPaused = false;

  constructor(world: World, model: MachineModel, plan: MachinePlan) {
    this.#world = world;
    this.#model = model;
    this.#plan = plan;
  }

  /** A process begins, with what the last one left. */
  processStarts(record: MachineRecord | undefined): void {
    const nowMs = this.#world.monotonicMs();
    this.#startedAtMs = nowMs;
    this.#isAlive = true;
    this.#seenMs = Number.NEGATIVE_INFINITY;
    // What was not saved is not known any more, and what was saved counts, told or not.
    const failure = record?.failure?.recoverable ? record.failure : undefined;
    const atMs = (wallMs: number): number => nowMs - (this.#world.nowMs() - wallMs);
    this.#row = failure && {
      firstMs: atMs(failure.firstMs),
      count: failure.count,
      endedMs: atMs(failure.lastMs),
      isBlurred: this.#world.jumpsAtMs.length > 0,
    };
    if (record?.failure?.recoverable !== false) this.#waitsSinceMs = undefined;
  }

  processDied(): void {
    this.#isAlive = false;
  }

  /** The operator mended what only a person can, and said so. */
  personCame(): void {
    this.#waitsSinceMs = undefined;
    this.#row = undefined;
  }

  /** A pause ends; what came due meanwhile is done now. */
  resumes(): void {
    this.#startedAtMs = this.#world.monotonicMs();
    if (this.#row) this.#row.isBlurred = true;
  }

  clockWasSet(): void {
    if (this.#row) this.#row.isBlurred = true;
  }

  /** The operations, watched. */
  around(operations: MachineOperations): MachineOperations {
    const watched =
      <C extends OperationContext, R>(verb: AgentVerb, run: (context: C) => Promise<R>) =>
      async (context: C): Promise<R> => {
        const beganMs = this.#world.monotonicMs();
        this.#begins(verb, beganMs);
        try {
          const result = await run(context);
          this.#ends(verb, true);
          return result;
        } catch (error) {
          if (!isBlockferryError(error)) this.#broken(`${verb}: ${error instanceof Error ? error.stack : error}`);
          this.#ends(verb, false);
          throw error;
        }
      };
    return {
      observe: watched('observe', operations.observe),
      protect: watched('protect', operations.protect),
      ship: watched('ship', operations.ship),
      apply: watched('apply', operations.apply),
      resync: watched('resync', operations.resync),
      prune: watched('prune', operations.prune),
      space: operations.space,
    };
  }

  onEvent(event: AgentEvent): void {
    const nowMs = this.#world.monotonicMs();
    switch (event.type) {
      case 'health-changed':
        this.#level = event.level;
        if (event.findings.some(({ code }) => code === 'REPLICA_GONE'))
          this.#broken('a replica is missed that nobody lost');
        this.#lastNamed = event.findings.map(({ cause }) => cause).join('\n');
        return;
      case 'operation-started':
        if (event.reason !== undefined) this.#lastNamed = event.reason;
        return;
      case 'operation-failed': {
        const isPersons = PERSON_CODES.has(event.code);
        if (isPersons && event.recoverable) this.#broken(`${event.code} is tried again`);
        if (event.verb === 'apply' || event.verb === 'prune') return;
        if (isPersons) {
          this.#waitsSinceMs = nowMs;
          this.#row = undefined;
          this.#expectCritical(event.code);
          return;
        }
        if (!event.recoverable) return;
        const wasSet = (this.#world.jumpsAtMs.at(-1) ?? Number.NEGATIVE_INFINITY) >= this.#begunMs;
        this.#row ??= { firstMs: this.#begunMs, count: 0, endedMs: nowMs, isBlurred: wasSet };
        this.#row.count += 1;
        this.#row.endedMs = nowMs;
        return;
      }
      case 'operation-ended':
        if (event.verb !== 'apply' && event.verb !== 'prune') this.#row = undefined;
        if (event.verb === 'resync') this.wasAsked = false;
        return;
      case 'notice':
        if (event.code === 'UNEXPECTED') this.#broken(event.message);
        this.#lastNamed += `\n${event.message}`;
        return;
      default:
        return;
    }
  }

  /** Of the operation that runs, or ran last. */
  #begunMs = 0;
  /** When everything could be seen. */
  #seenMs = Number.NEGATIVE_INFINITY;
  #runs: AgentVerb | undefined;

  #begins(verb: AgentVerb, nowMs: number): void {
    if (this.#runs !== undefined && this.#startedAtMs <= this.#begunMs)
      this.#broken(`${verb} begins while ${this.#runs} runs`);
    // A look that succeeds and that nothing follows ends the row: what had failed is not due any more.
    if (this.#row && this.#seenMs > this.#row.endedMs && nowMs - this.#seenMs > MOMENT_MS) this.#row = undefined;
    // What is looked at right behind a failure explains it, and is no attempt.
    const explains = verb === 'observe' && (this.#row?.endedMs === nowMs || this.#waitsSinceMs === nowMs);
    this.#runs = verb;
    const isFirst = this.#row !== undefined && this.#row.endedMs >= this.#begunMs;
    this.#begunMs = nowMs;
    if (this.isPaused && verb !== 'observe') this.#broken(`${verb} begins while it is paused`);
    if (verb === 'resync') this.#resyncBegins();
    if (verb === 'apply' || verb === 'prune' || explains) return;
    if (this.#waitsSinceMs !== undefined) this.#broken(`${verb} is tried again, though only a person can help`);
    if (this.#row && isFirst) this.#attempt(this.#row, verb, nowMs);
  }

  /** An attempt of a row comes when the ladder says so. */
  #attempt(row: Row, verb: AgentVerb, nowMs: number): void {
    const sinceEndMs = nowMs - row.endedMs;
    const isRestart = nowMs - this.#startedAtMs <= MOMENT_MS;
    if (isRestart) return;
    if (row.isBlurred) {
      const downMs = Math.max(0, this.#startedAtMs - row.endedMs);
      // A clock that is set back during a wait can double it; one that is set back further ends it.
      if (sinceEndMs - downMs > 60 * MINUTE + NOTICE_MS) {
        this.#broken(`${verb} is tried again after ${Math.round(sinceEndMs / MINUTE)} minutes`);
      }
      return;
    }
    const dueMs = row.firstMs + rungAfter(row.endedMs - row.firstMs, row.count) * MINUTE;
    if (Math.abs(nowMs - dueMs) > MOMENT_MS) {
      const minutes = ((nowMs - row.firstMs) / MINUTE).toFixed(2);
      const expected = ((dueMs - row.firstMs) / MINUTE).toFixed(0);
      this.#broken(`attempt ${row.count + 1} comes ${minutes} minutes after the first one, not ${expected}`);
    }
  }

  #resyncBegins(): void {
    const { resync } = this.#plan.config;
    if (this.wasAsked) return;
    if (resync === 'manual') this.#broken('a resync begins that nobody asked for');
    else if (!readsOpen(resync, this.#world.nowMs())) this.#broken('a resync begins outside its window');
  }

  #ends(verb: AgentVerb, isDone: boolean): void {
    this.#runs = undefined;
    const nowMs = this.#world.monotonicMs();
    if (verb === 'observe' && isDone) this.#seenMs = nowMs;
    const lastJumpMs = this.#world.jumpsAtMs.at(-1) ?? Number.NEGATIVE_INFINITY;
    const { resync } = this.#plan.config;
    if (verb === 'resync') {
      const wasSet = nowMs - lastJumpMs < 60 * MINUTE + NOTICE_MS || lastJumpMs >= this.#begunMs;
      const isOut = resync !== 'manual' && !readsOpen(resync, this.#world.nowMs() - NOTICE_MS);
      if (isOut && !wasSet && !this.wasAsked && nowMs - this.#begunMs > NOTICE_MS)
        this.#broken('a resync runs on after its window');
    }
    for (const { reason } of this.#model.fullCopies.slice(this.#fullCopiesSeen)) {
      this.#fullCopiesSeen += 1;
      if (!this.#lastNamed.includes(reason)) this.#broken(`all chunks were compared, and no event said why: ${reason}`);
    }
  }

  #expectCritical(code: string): void {
    const began = this.#startedAtMs;
    this.#world
      .sleep(MOMENT_MS)
      .then(() => {
        const stillWaits = this.#waitsSinceMs !== undefined && this.#isAlive && began === this.#startedAtMs;
        if (stillWaits && this.#level !== 'critical')
          this.#broken(`${code} waits for a person, and health is ${this.#level}`);
      })
      .catch(() => {});
  }

  #broken(what: string): void {
    this.#world.broken(`${this.#model.name}: ${what}`);
  }
}

/** To a millisecond, the first rung behind what has passed that is not below the number of failures. */
function rungAfter(passedMs: number, failures: number): number {
  for (let rung = Math.max(1, failures); ; rung += 1) {
    const minutes = LADDER[rung - 1] ?? 10 + (rung - LADDER.length) * 30;
    if (minutes * MINUTE > passedMs + 1) return minutes;
  }
}
