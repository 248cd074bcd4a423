/**
 * One further store of one machine: a loop of its own, with a ladder of its own, that carries what the store before it has. It touches
 * neither disks nor tracker, so it runs beside the machine's loop, and a store that is down delays nobody.
 */
import type { BlockferryError } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import { publicUrl } from '../open-item.ts';
import { nextAttempt } from '../policy/index.ts';
import type { MirrorReport } from '../types.ts';
import { withChildSignal } from './child-signal.ts';
import { asBlockferryError, contextOf } from './operation-context.ts';
import type { Shares } from './shares.ts';
import type {
  AgentHappening,
  FollowerStatus,
  FollowOperations,
  MachineConfig,
  OperationContext,
  StoreTrouble,
} from './types.ts';
import type { WorkPlaces } from './work-places.ts';

/** A wall clock that was set is noticed no later than this. */
const SLEEP_MS_MAX = 3_600_000;

export interface FollowerSetup {
  readonly config: Pick<MachineConfig, 'name' | 'everyMs' | 'lanes'>;
  readonly from: string;
  readonly to: string;
  /** Newest point of the machine's first store, as it was seen last; before there is one nothing is carried. */
  readonly newestMs: () => number | undefined;
  readonly operations: FollowOperations;
  readonly clock: Clock;
  readonly shares: Shares;
  /** Among the stores that are carried to at once; those of the machines are others. */
  readonly places: WorkPlaces;
  readonly tell: (happening: AgentHappening) => void;
}

export class Follower {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly #setup: FollowerSetup;
  #wake: AbortController = new AbortController();
  /** There may be something to carry. */
  #isAsked = true;
  #isRunning = false;
  #lastMs: number | undefined;
  #newestMs: number | undefined;
  #trouble: StoreTrouble | undefined;

  constructor(setup: FollowerSetup) {
    this.#setup = setup;
    this.name = setup.config.name;
    this.from = publicUrl(setup.from);
    this.to = publicUrl(setup.to);
  }

  /** Runs until the signal fires. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#setup;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      const waitMs = this.#dueMs() - clock.nowMs();
      if (waitMs <= 0) await this.#carry(signal);
      else await this.#sleep(waitMs, signal);
    }
  }

  /** The store before this one has something new; what failed waits for its next attempt. */
  wakeUp(): void {
    this.#isAsked = true;
    this.#wake.abort();
  }

  /** Tries again what waits for its next attempt. */
  retry(): void {
    this.#trouble = undefined;
    this.wakeUp();
  }

  status(): FollowerStatus {
    const first = this.#setup.newestMs();
    const newest = this.#newestMs;
    return {
      url: this.to,
      running: this.#isRunning,
      ...(newest === undefined ? {} : { newestPointMs: newest }),
      ...(newest === undefined || first === undefined ? {} : { behindMs: Math.max(0, first - newest) }),
      ...(this.#trouble ? { trouble: this.#trouble } : {}),
    };
  }

  #dueMs(): number {
    const { clock, config, newestMs } = this.#setup;
    const nowMs = clock.nowMs();
    if (newestMs() === undefined) return nowMs + config.everyMs;
    const trouble = this.#trouble;
    // A clock that was set back makes nobody wait for longer.
    if (trouble) return trouble.lastMs > nowMs ? nowMs : nextAttempt(trouble.firstMs, trouble.count, trouble.lastMs);
    if (this.#isAsked || this.#lastMs === undefined || this.#lastMs > nowMs) return nowMs;
    return this.#lastMs + config.everyMs;
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

  async #carry(signal: AbortSignal): Promise<void> {
    const { clock } = this.#setup;
    const beganMs = clock.nowMs();
    // What comes while it runs is for the next one.
    this.#isAsked = false;
    try {
      // A store that is down is found by this, which holds no place.
      if (this.#newestMs === undefined || this.#trouble) {
        this.#newestMs = await this.#withShare(signal, (context) => this.#setup.operations.look(context));
      }
      const leave = await this.#setup.places.take(this.#newestMs === undefined ? 'copy' : 'cycle', signal);
      this.#isRunning = true;
      try {
        this.#carried(await this.#withShare(signal, (context) => this.#setup.operations.mirror(context)));
      } finally {
        this.#isRunning = false;
        leave();
      }
    } catch (error) {
      if (!signal.aborted) this.#failed(asBlockferryError(error), beganMs);
    } finally {
      this.#lastMs = clock.nowMs();
    }
  }

  async #withShare<T>(signal: AbortSignal, work: (context: OperationContext) => Promise<T>): Promise<T> {
    const { shares, config } = this.#setup;
    const active = shares.enter({ lanes: config.lanes, part: 1 });
    try {
      return await withChildSignal([signal], (own) => work(contextOf(active, own)));
    } finally {
      active.leave();
    }
  }

  #carried({ by, points, pointId, pointTimeMs, logBytes, sentBytes, elapsedMs }: MirrorReport): void {
    this.#trouble = undefined;
    this.#newestMs = pointTimeMs;
    if (by === 'nothing') return;
    this.#setup.tell({
      type: 'store-carried',
      machine: this.name,
      url: this.to,
      ...{ by, points, sentBytes: logBytes + sentBytes, elapsedMs: Math.round(elapsedMs) },
      ...(pointId === undefined ? {} : { pointId }),
    });
  }

  #failed({ code, message, hint }: BlockferryError, beganMs: number): void {
    const { clock, tell } = this.#setup;
    const { firstMs, count } = this.#trouble ?? { firstMs: beganMs, count: 0 };
    this.#trouble = { firstMs, lastMs: clock.nowMs(), count: count + 1, code, message };
    tell({
      type: 'store-failed',
      machine: this.name,
      url: this.to,
      ...{ code, message, nextAttemptMs: this.#dueMs() },
      ...(hint === undefined ? {} : { hint }),
    });
  }
}

/** The followers of a machine, in the order of its stores. */
export function followersOf(
  config: MachineConfig,
  operations: (from: string, to: string) => FollowOperations,
  setup: Omit<FollowerSetup, 'config' | 'from' | 'to' | 'operations'>,
): readonly Follower[] {
  const { url, also = [] } = config;
  const stores = [url, ...also];
  return also.map((to, i) => {
    const from = stores[i]!;
    return new Follower({ ...setup, config, from, to, operations: operations(from, to) });
  });
}
