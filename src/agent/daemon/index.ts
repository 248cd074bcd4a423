/** The door of the agent: its configuration, its engine with its ports, and starting it. */
export { loadConfig } from './config.ts';
export { type AgentControl, connectAgent } from './control-client.ts';
export { AgentEngine, type AgentEngineOptions, type ConfigChanges, type EngineConfig } from './engine.ts';
export { type Agent, readConfig, type StartAgentOptions, startAgent } from './start-agent.ts';
export type {
  AgentConfig,
  AgentEvent,
  AgentProcesses,
  AgentStateStore,
  AgentStatus,
  AgentVerb,
  MachineConfig,
  MachineOperations,
  MachineRecord,
  MachineStatus,
  OperationContext,
  Share,
} from './types.ts';
