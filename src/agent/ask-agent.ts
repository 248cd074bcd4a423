/**
 * What only a running agent knows of the machines of its home: what it was told, what failed on its schedule, what it measured.
 * Where none runs, or it does not answer in time, nobody knows.
 */
import { isBlockferryError } from '../errors.ts';
import { connectAgent } from './daemon/control-client.ts';
import type { MachineStatus } from './daemon/types.ts';
import type { Finding, ItemFacts, ReasonCode } from './life/index.ts';
import type { Session } from './types.ts';

/** An agent that hangs must not hang who asks how things are. */
const ANSWER_MS_MAX = 5_000;

/** Reasons that follow from the agent's measurements and thresholds. */
const MEASURED: ReadonlySet<ReasonCode> = new Set<ReasonCode>([
  'SPACE_STOP',
  'SPACE_THROTTLE',
  'SPACE_LOW',
  'UPLOAD_STUCK',
  'UPLOAD_SLOW',
  'RPO_EXCEEDED',
  'GROUP_APART',
  'STORE_BEHIND',
  'STORE_TAKEN_OVER',
  'RETENTION_UNFIT',
  'CYCLES_MISSED',
  'LATENCY_HIGH',
]);

/** Of one machine. */
export interface AgentView {
  readonly facts: Pick<ItemFacts, 'suspendedSinceMs' | 'lastFailure' | 'running'>;
  readonly measured: readonly Finding[];
}

/** By name of the machine; empty where no agent runs. */
export async function askAgent({ home, ports, signal }: Session): Promise<ReadonlyMap<string, AgentView>> {
  const control = await connectAgent(home).catch((error) => {
    if (isBlockferryError(error, 'AGENT_GONE', 'USAGE')) return undefined;
    throw error;
  });
  if (!control) return new Map();
  const answered = new AbortController();
  const stop = signal ? AbortSignal.any([signal, answered.signal]) : answered.signal;
  // Closing the connection is what ends a call that is not answered.
  const late = ports.clock.sleep(ANSWER_MS_MAX, stop).then(
    () => undefined,
    () => undefined,
  );
  try {
    const status = await Promise.race([control.status().catch(() => undefined), late]);
    return new Map((status?.machines ?? []).map((machine) => [machine.name, viewOf(machine)]));
  } finally {
    answered.abort();
    control.close();
  }
}

function viewOf({ suspendedSinceMs, failure, upkeepFailure, running, health }: MachineStatus): AgentView {
  const failed = failure ?? upkeepFailure;
  const verb = running === 'observe' || running === 'prune' ? undefined : running;
  return {
    facts: {
      ...(suspendedSinceMs === undefined ? {} : { suspendedSinceMs }),
      ...(failed ? { lastFailure: failed } : {}),
      ...(verb ? { running: verb } : {}),
    },
    measured: health.findings.filter(({ code }) => MEASURED.has(code)),
  };
}
