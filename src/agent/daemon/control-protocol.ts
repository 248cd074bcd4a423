/**
 * The agent's control channel: one JSON object a line, each way (docs/agent.md). A request is `{"id":…,"do":…,…}`, its answer
 * `{"id":…,"result":…}` or `{"id":…,"error":…}`; an event that was asked for is `{"event":…}`; what a long request has to say
 * meanwhile is `{"id":…,"said":…}`. Whoever reaches the socket may
 * do everything that it offers: it lies in the home, for its owner alone.
 */
import { localSocketPath } from '../../tracker/index.ts';
import type { ConfigChanges } from './engine.ts';
import type { OperatorReports } from './operator-verbs.ts';
import { agentDirectory } from './state-store.ts';
import type { AgentStatus } from './types.ts';

/** What can be asked for; all but four take the name of a machine. */
export interface AgentCalls extends OperatorReports {
  readonly status: AgentStatus;
  readonly reload: ConfigChanges;
  /** From then on events come. */
  readonly events: object;
  readonly pause: object;
  readonly resume: object;
  readonly retry: object;
  readonly resync: object;
  /** Ends the request `call` of this connection at its next safe place. */
  readonly stop: object;
}

export type AgentCall = keyof AgentCalls;

/** Where the agent of a home listens. */
export function agentSocketPath(home: string): string {
  return localSocketPath(agentDirectory(home), 'control.sock');
}
