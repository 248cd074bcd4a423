/** One operation of a machine, and what its memory keeps of it. */
import type { Clock } from '../../ports.ts';
import type { MachineMemory } from './machine-memory.ts';
import { consistencyAt, dueCycle, type MachineView } from './next-turn.ts';
import type { AgentVerb, MachineOperations, OperationContext } from './types.ts';

/** What is told of an operation that ended. */
export interface Performed {
  readonly sentBytes?: number;
  readonly pointId?: string;
  readonly missed?: number;
}

/** Runs `verb`. @throws what the operation throws; then nothing is remembered */
export async function perform(
  verb: Exclude<AgentVerb, 'observe'>,
  operations: MachineOperations,
  context: OperationContext,
  { view, memory, clock }: { readonly view: MachineView; readonly memory: MachineMemory; readonly clock: Clock },
): Promise<Performed> {
  const beganMs = clock.nowMs();
  const startedMs = clock.monotonicMs();
  switch (verb) {
    case 'ship': {
      const { missed } = dueCycle(view, beganMs);
      const consistency = consistencyAt(view, beganMs);
      const { sentBytes, pointId } = await operations.ship(Object.assign(context, { consistency }));
      const latencyMs = clock.monotonicMs() - startedMs;
      await memory.cycled({ beganMs, missed, consistency, sentBytes, latencyMs });
      return { sentBytes, pointId, missed };
    }
    case 'protect':
    case 'resync': {
      const { disks, pointId } = await operations[verb](context);
      await memory.copied();
      return { sentBytes: disks.reduce((sum, disk) => sum + disk.sentBytes, 0), pointId };
    }
    case 'apply': {
      const { sentBytes, pointId } = await operations.apply(context);
      await memory.change({ lastApplyMs: beganMs });
      return { sentBytes, ...(pointId === undefined ? {} : { pointId }) };
    }
    case 'prune':
      await operations.prune(Object.assign(context, { policy: view.config.retention }));
      await memory.change({ lastPruneMs: beganMs });
      return {};
  }
}
