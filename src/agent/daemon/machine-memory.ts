/**
 * What one machine remembers, in memory and in its file. Each change is saved before it counts as made; a home that cannot be
 * written is told, and the machine goes on with what it has in memory.
 */
import { BlockferryError } from '../../errors.ts';
import type { Clock } from '../../ports.ts';
import type { ItemFacts } from '../life/index.ts';
import { CycleStatistics, type CycleSummary } from '../policy/index.ts';
import { emptyRecord, isUpkeep, nextFailure } from './machine-record.ts';
import type { AgentStateStore, AgentVerb, Failure, MachineRecord, MachineTotals } from './types.ts';

export interface MachineMemoryOptions {
  readonly name: string;
  readonly zone: string;
  readonly clock: Clock;
  readonly state: AgentStateStore;
  readonly onFault: (error: BlockferryError) => void;
}

/** A value of undefined forgets. */
export type RecordChange = { readonly [Key in keyof MachineRecord]?: MachineRecord[Key] | undefined };

export class MachineMemory {
  readonly #options: MachineMemoryOptions;
  #statistics: CycleStatistics;
  #record: MachineRecord;
  #saving: Promise<void> = Promise.resolve();

  constructor(options: MachineMemoryOptions) {
    this.#options = options;
    const { zone, clock } = options;
    this.#record = emptyRecord(zone, clock.nowMs());
    this.#statistics = new CycleStatistics({ zone }, clock.nowMs());
  }

  get record(): MachineRecord {
    return this.#record;
  }

  get summary(): CycleSummary {
    return this.#statistics.summary(this.#options.clock.nowMs());
  }

  /** When the last cycle that was done ended. */
  get lastSynchronisedMs(): number | undefined {
    return this.#statistics.lastSynchronisedMs;
  }

  /** A file that cannot be believed is told, and begun anew: nothing in it is needed to go on. */
  async load(): Promise<void> {
    const { name, zone, state } = this.#options;
    try {
      const record = await state.load(name);
      if (!record) return;
      this.#statistics = CycleStatistics.fromJson(record.statistics, name, { zone });
      this.#record = record;
    } catch (error) {
      this.#told(error);
    }
  }

  async change(change: RecordChange): Promise<void> {
    const merged: Record<string, unknown> = { ...this.#record, ...change, statistics: this.#statistics.toJson() };
    for (const key of Object.keys(change)) if (merged[key] === undefined) delete merged[key];
    const record = merged as unknown as MachineRecord;
    this.#record = record;
    const { name, state } = this.#options;
    // One after the other: an older record must not replace a newer one.
    this.#saving = this.#saving.then(() => state.save(name, record)).catch((error: unknown) => this.#told(error));
    await this.#saving;
  }

  /** What the state of a machine depends on besides what can be seen. */
  facts(): Pick<ItemFacts, 'lastFailure' | 'suspendedSinceMs'> {
    const { failure, upkeepFailure, suspendedSinceMs } = this.#record;
    const lastFailure = failure ?? upkeepFailure;
    return {
      ...(lastFailure ? { lastFailure } : {}),
      ...(suspendedSinceMs === undefined ? {} : { suspendedSinceMs }),
    };
  }

  async succeeded(verb: AgentVerb, elapsedMs: number, sentBytes: number): Promise<void> {
    const { totals, lastMs } = this.#record;
    // To have seen everything is no success of what failed before: the ladder goes on until the turn ends well.
    const isOver = verb !== 'observe';
    await this.change({
      totals: { ...totals, sentBytes: totals.sentBytes + sentBytes },
      lastMs: { ...lastMs, [verb]: elapsedMs },
      ...(isUpkeep(verb) ? { upkeepFailure: undefined } : isOver ? { failure: undefined } : {}),
    });
  }

  /** A cycle ended with a recovery point. */
  async cycled(cycle: {
    readonly beganMs: number;
    readonly missed: number;
    readonly consistency: 'crash' | 'app';
    readonly sentBytes: number;
    readonly latencyMs: number;
  }): Promise<void> {
    const { beganMs, missed, consistency, sentBytes, latencyMs } = cycle;
    const endedMs = this.#options.clock.nowMs();
    if (missed > 0) this.#statistics.missed(endedMs, missed);
    this.#statistics.done(endedMs, sentBytes, latencyMs);
    await this.change({
      lastCycle: { startedMs: beganMs, endedMs },
      ...(consistency === 'app' ? { lastAppMs: beganMs } : {}),
      totals: this.#counted({ done: 1, missed }),
    });
  }

  /** A copy ended with a recovery point: the next cycle is due one interval later. */
  async copied(): Promise<void> {
    const nowMs = this.#options.clock.nowMs();
    await this.change({
      lastCycle: { startedMs: nowMs, endedMs: nowMs },
      lastCopyMs: nowMs,
      lastApplyMs: nowMs,
      resyncAsked: undefined,
    });
  }

  async failed(verb: AgentVerb, error: BlockferryError, beganMs: number): Promise<Failure> {
    const endedMs = this.#options.clock.nowMs();
    const before = isUpkeep(verb) ? this.#record.upkeepFailure : this.#record.failure;
    const failure = nextFailure(before, verb, error, { beganMs, endedMs });
    if (!isUpkeep(verb)) this.#statistics.failed(endedMs);
    await this.change({
      ...(isUpkeep(verb) ? { upkeepFailure: failure } : { failure }),
      totals: this.#counted({ failed: isUpkeep(verb) ? 0 : 1 }),
    });
    return failure;
  }

  #counted(more: Partial<MachineTotals>): MachineTotals {
    const { done, missed, failed, sentBytes } = this.#record.totals;
    return {
      done: done + (more.done ?? 0),
      missed: missed + (more.missed ?? 0),
      failed: failed + (more.failed ?? 0),
      sentBytes,
    };
  }

  #told(error: unknown): void {
    const message = `${this.#options.name}: its memory cannot be kept: ${error instanceof Error ? error.message : error}`;
    this.#options.onFault(new BlockferryError('LOCAL_STATE', message, { cause: error }));
  }
}
