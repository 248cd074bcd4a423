/**
 * The world around the agents of a simulation: a monotonic clock that jumps from event to event, a wall clock that may be set,
 * a line of limited width, and faults that come and go.
 */
import { abortedError, BlockferryError, type ErrorCode } from '../../../src/errors.ts';
import type { Clock } from '../../../src/ports.ts';
import { Dice } from '../../support/dice.ts';
import { promisesQuiet, virtualClock } from '../../support/virtual-clock.ts';
import { type Capacity, Line } from './line.ts';

/** What can be wrong with the line, the store or a disk. `persons`: only an operator ends it. */
export const FAULTS = {
  'network-down': { code: 'STORE_UNREACHABLE', person: false },
  throttled: { code: 'STORE_THROTTLED', person: false },
  'store-full': { code: 'STORE_FULL', person: false },
  'sas-expired': { code: 'STORE_AUTHENTICATION', person: true },
  'chain-broken': { code: 'CHAIN_PARENT_MISMATCH', person: true },
} as const satisfies Record<string, { readonly code: ErrorCode; readonly person: boolean }>;

export type Fault = keyof typeof FAULTS;

/** How long a store that is not there is waited for. */
const TIMEOUT_MS = 20_000;

const never: Promise<never> = new Promise(() => {});

export class World {
  readonly dice: Dice;
  readonly line: Line;
  readonly #clock: ReturnType<typeof virtualClock>;
  /** Fault → names of the machines it concerns. */
  readonly #faults: Map<Fault, ReadonlySet<string> | 'all'> = new Map();
  #wallAheadMs = 0;
  /** Monotonic times at which the wall clock was set. */
  readonly jumpsAtMs: number[] = [];

  /** What must not be. */
  readonly violations: string[] = [];

  constructor(seed: number, startMs: number, capacity: (nowMs: number) => Capacity) {
    this.dice = new Dice(seed);
    this.#clock = virtualClock(startMs, promisesQuiet);
    this.line = new Line(this, capacity);
  }

  nowMs(): number {
    return Math.round(this.#clock.nowMs() + this.#wallAheadMs);
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return this.#clock.sleep(ms, signal);
  }

  /** Lets time pass until `work` ends. */
  run<T>(work: Promise<T>): Promise<T> {
    return this.#clock.run(work);
  }

  broken(what: string): void {
    const hours = (this.monotonicMs() / 3_600_000).toFixed(3);
    this.violations.push(`${hours} h, ${new Date(this.nowMs()).toISOString()}: ${what}`);
  }

  setWallClock(byMs: number): void {
    this.#wallAheadMs += byMs;
    this.jumpsAtMs.push(this.monotonicMs());
  }

  begin(fault: Fault, machines: ReadonlySet<string> | 'all'): void {
    this.#faults.set(fault, machines);
  }

  end(fault: Fault): void {
    this.#faults.delete(fault);
  }

  has(fault: Fault, machine: string): boolean {
    const concerned = this.#faults.get(fault);
    return concerned !== undefined && (concerned === 'all' || concerned.has(machine));
  }

  /** A request to the store: takes its time, or fails. */
  async request(life: Life, machine: string, signal?: AbortSignal): Promise<void> {
    await life.step();
    if (signal?.aborted) throw abortedError(signal);
    if (this.has('network-down', machine)) {
      await life.clock.sleep(TIMEOUT_MS, signal);
      this.fail('network-down');
    }
    if (this.has('sas-expired', machine)) this.fail('sas-expired');
    if (this.has('throttled', machine) && this.dice.oneIn(3)) this.fail('throttled');
    await life.clock.sleep(this.dice.between(20, 200));
    await life.step();
  }

  fail(fault: Fault): never {
    throw new BlockferryError(FAULTS[fault].code, `simulated: ${fault}`);
  }
}

/** One run of the agent's process. When it dies, nothing that it waits for ever comes. */
export class Life {
  readonly clock: Clock;
  readonly died: Promise<void>;
  readonly #onDeath: () => void;
  #stepsLeft = Number.POSITIVE_INFINITY;
  #dead = false;

  constructor(world: World) {
    let resolveDeath: () => void = () => {};
    this.died = new Promise((resolve) => {
      resolveDeath = resolve;
    });
    this.#onDeath = resolveDeath;
    this.clock = {
      nowMs: () => world.nowMs(),
      monotonicMs: () => world.monotonicMs(),
      sleep: async (ms, signal) => {
        try {
          await world.sleep(ms, signal);
        } finally {
          await this.#orNever();
        }
      },
    };
  }

  get isDead(): boolean {
    return this.#dead;
  }

  /** It will die at its `steps`th step from now. */
  dieIn(steps: number): void {
    this.#stepsLeft = steps;
  }

  kill(): void {
    this.#dead = true;
    this.#onDeath();
  }

  /** A place between two effects, where the process may die. */
  async step(): Promise<void> {
    this.#stepsLeft -= 1;
    if (this.#stepsLeft === 0) this.kill();
    await this.#orNever();
  }

  async #orNever(): Promise<void> {
    if (this.#dead) await never;
  }
}
