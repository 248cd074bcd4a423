/**
 * The operations of one simulated machine, as the engine drives them: the verbs of the real ones in the same order of effects, each
 * of which the process may not live to see.
 */
import type {
  AgentStateStore,
  MachineOperations,
  MachineRecord,
  OperationContext,
} from '../../../src/agent/daemon/types.ts';
import type { ItemFacts } from '../../../src/agent/life/index.ts';
import { pointsToDrop } from '../../../src/agent/policy/index.ts';
import type { ShipReport, SyncReport } from '../../../src/agent/types.ts';
import { abortedError, BlockferryError, isBlockferryError } from '../../../src/errors.ts';
import type { RecoveryPoint } from '../../../src/replica/root.ts';
import { GuestModel, type GuestPlan } from './guest-model.ts';
import { ReplicaModel } from './replica-model.ts';
import type { Life, World } from './world.ts';

/** Bugs to plant, to see that they are caught. */
export interface Planted {
  /** What a dropped point needs is deleted at once, whoever reads it. */
  readonly forgetsReaders?: boolean;
  /** A ship that fails forgets what it wanted to send. */
  readonly losesLogs?: boolean;
}

const TOTAL_BYTES = 1_000_000;

export class MachineModel {
  readonly name: string;
  readonly guest: GuestModel;
  readonly replica: ReplicaModel;
  freeBytes = TOTAL_BYTES;
  /** Whole disks were compared, with the reason that was given. */
  readonly fullCopies: { readonly atMs: number; readonly reason: string }[] = [];
  readonly #world: World;
  readonly #planted: Planted;
  #heads = 0;

  constructor(name: string, plan: GuestPlan, world: World, planted: Planted) {
    this.name = name;
    this.#world = world;
    this.#planted = planted;
    this.guest = new GuestModel(plan, world);
    this.replica = new ReplicaModel(name, plan.chunks, planted.forgetsReaders);
  }

  /** The operations of one process. */
  operations(life: Life): MachineOperations {
    return {
      observe: (context) => this.#observe(life, context),
      protect: (context) => this.#protect(life, context),
      ship: (context) => this.#ship(life, context, context.consistency),
      apply: async (context) => {
        await this.#open(life, context);
        const bytes = this.replica.outstanding.length * 4096;
        await this.#world.line.send(life, this.name, bytes, context);
        const { applied, point } = this.replica.commitApply();
        await life.step();
        return {
          ...{ item: this.name, generation: this.#generation, appliedLogs: applied, chunksWritten: applied },
          ...{ fetchedBytes: bytes, sentBytes: bytes, elapsedMs: 0, ...(point ? { pointId: point.id } : {}) },
        };
      },
      resync: (context) => this.#resync(life, context),
      prune: async (context) => {
        await this.#open(life, context);
        const { root, pinned } = this.replica;
        const drop = pointsToDrop(root?.points ?? [], context.policy, pinned);
        const read = [...drop].find((id) => pinned.has(id));
        if (read !== undefined) this.#world.broken(`${read} was dropped, which somebody reads`);
        this.replica.dropPoints(drop);
        await life.step();
        return { dropped: drop.size };
      },
      space: async () => {
        await life.step();
        return { freeBytes: this.freeBytes, totalBytes: TOTAL_BYTES };
      },
    };
  }

  async #observe(life: Life, { signal }: OperationContext): Promise<ItemFacts> {
    const base = { nowMs: this.#world.nowMs(), item: this.name };
    const sourceError = this.#sourceError();
    try {
      await this.#world.request(life, this.name, signal);
    } catch (error) {
      if (!isBlockferryError(error) || error.area === 'aborted') throw error;
      const { code, message } = error;
      return { ...base, wasSeen: this.replica.root !== undefined, replicaError: { code, message } };
    }
    this.guest.catchUp();
    const { root } = this.replica;
    const { mode, reason, backlogBytes } = this.guest;
    const newest = root?.points.at(-1);
    return {
      ...base,
      ...(sourceError ? { sourceError } : {}),
      ...(root
        ? {
            wasSeen: true,
            tracking: { mode, ...(reason ? { reason } : {}), served: true, stopped: false },
            replica: {
              owner: { isOurs: true, phase: 'replicating' as const, epoch: 1, sinceMs: 0 },
              ...(root.sync ? { sync: root.sync } : {}),
              points: root.points.length,
              ...(newest ? { newestPointMs: newest.timeMs } : {}),
              outstandingLogs: this.replica.outstanding.length,
              backlogBytes,
            },
          }
        : { replicaError: { code: 'REPLICA_NOT_FOUND' as const, message: 'nothing is there yet' }, wasSeen: false }),
    };
  }

  /** Resumed chunk by chunk: what was copied is in the live base. The guest starts when all is there. */
  async #protect(life: Life, context: OperationContext): Promise<SyncReport> {
    await this.#open(life, context);
    this.replica.create();
    await life.step();
    const { guest, replica } = this;
    if (replica.root!.points.length === 0) {
      await this.#copy(life, context, [...guest.disk.keys()]);
      const head = this.#newHead();
      replica.commitSync(head, { timeMs: this.#world.nowMs(), truth: guest.disk.slice() });
      guest.start(head);
      await life.step();
    }
    return this.#synced(replica.root!.points.at(-1)!, guest.disk.length);
  }

  async #ship(life: Life, context: OperationContext, consistency: 'crash' | 'app'): Promise<ShipReport> {
    const { guest, replica } = this;
    await this.#open(life, context);
    guest.catchUp();
    if (guest.mode !== 'logging') throw new BlockferryError('RESYNC_REQUIRED', guest.reason?.message ?? 'not synced');
    // A point may have been committed of which the answer was lost.
    guest.acknowledge(replica.root!.head);
    const { logs, content } = guest.rotate();
    const timeMs = this.#world.nowMs();
    const first = logs[0]!;
    if (first.previous !== replica.root!.head)
      throw new Error(`${this.name}: ${first.previous} follows ${replica.root!.head}`);
    await life.step();
    const writes = new Map(logs.flatMap((log) => [...log.writes]));
    const bytes = logs.reduce((sum, log) => sum + log.bytes, 0);
    try {
      await this.#world.line.send(life, this.name, bytes, context);
    } catch (error) {
      if (this.#planted.losesLogs) guest.acknowledge(logs.at(-1)!.id);
      throw error;
    }
    const head = logs.at(-1)!.id;
    const point = replica.commitLog(writes, { timeMs, consistency, head, truth: content });
    await life.step();
    guest.acknowledge(head);
    await life.step();
    return {
      ...{ item: this.name, pointId: point.id, pointTimeMs: timeMs, consistency, generation: this.#generation },
      ...{ logs: logs.length, dataBytes: bytes, sentBytes: bytes, elapsedMs: 0 },
    };
  }

  /** Applies what is outstanding, copies what may differ while the guest writes, and ships the log that covers the copy. */
  async #resync(life: Life, context: OperationContext): Promise<SyncReport> {
    const { guest, replica } = this;
    let copied = 0;
    for (;;) {
      await this.#open(life, context);
      if (guest.mode === 'logging') guest.acknowledge(replica.root!.head);
      replica.commitApply();
      await life.step();
      const reason = guest.reason?.message ?? 'asked for';
      const head = this.#newHead();
      const { chunks, isFull } = guest.beginResync(head);
      if (isFull) this.fullCopies.push({ atMs: this.#world.monotonicMs(), reason });
      await life.step();
      replica.beginSync();
      await life.step();
      await this.#copy(life, context, chunks);
      replica.commitSync(head);
      await life.step();
      copied += chunks.length;
      if (guest.endResync()) break;
    }
    await life.step();
    const { pointId } = await this.#ship(life, context, 'crash');
    return this.#synced(replica.made.find(({ id }) => id === pointId)!, copied);
  }

  /** Chunk by chunk: each is as the guest has it at that moment. */
  async #copy(life: Life, context: OperationContext, chunks: readonly number[]): Promise<void> {
    const { guest, replica } = this;
    const atOnce = Math.max(1, Math.ceil(chunks.length / 4));
    for (let from = 0; from < chunks.length; from += atOnce) {
      const part = chunks.slice(from, from + atOnce);
      guest.catchUp();
      const versions = part.map((chunk) => guest.disk[chunk]!);
      await this.#world.line.send(life, this.name, part.length * guest.chunkBytes, context);
      for (const [i, chunk] of part.entries()) replica.live[chunk] = versions[i]!;
    }
  }

  async #open(life: Life, { signal }: OperationContext): Promise<void> {
    await this.#world.request(life, this.name, signal);
    const fault = this.#sourceError();
    if (fault) throw new BlockferryError(fault.code, fault.message);
    if (signal.aborted) throw abortedError(signal);
  }

  #sourceError(): { readonly code: 'CHAIN_PARENT_MISMATCH'; readonly message: string } | undefined {
    if (!this.#world.has('chain-broken', this.name)) return undefined;
    return { code: 'CHAIN_PARENT_MISMATCH', message: 'simulated: the parent is another one' };
  }

  #newHead(): string {
    this.#heads += 1;
    return `fresh-${this.#heads}`;
  }

  get #generation(): number {
    return this.replica.root!.generation;
  }

  #synced(point: RecoveryPoint, chunks: number): SyncReport {
    const counts = { readBytes: 0, chunksCompared: chunks, chunksSent: chunks, chunksCleared: 0 };
    const disk = {
      disk: 'disk0',
      virtualSizeBytes: this.guest.plan.diskBytes,
      sentBytes: chunks * this.guest.chunkBytes,
    };
    return {
      ...{ item: this.name, pointId: point.id, generation: this.#generation, changed: true, elapsedMs: 0 },
      disks: [{ ...disk, ...counts }],
    };
  }
}

/** What machines remember over restarts of the process. It comes back as from a file: as JSON. */
export class StateModel {
  readonly #saved: Map<string, MachineRecord> = new Map();

  saved(name: string): MachineRecord | undefined {
    const record = this.#saved.get(name);
    return record && JSON.parse(JSON.stringify(record));
  }

  /** As one process sees it. */
  store(life: Life): AgentStateStore {
    return {
      load: async (name) => {
        await life.step();
        return this.saved(name);
      },
      save: async (name, record) => {
        await life.step();
        this.#saved.set(name, record);
        await life.step();
      },
    };
  }
}
