/**
 * The agent's log on stderr: one JSON object a line, as pino writes them. Written in the background: a reader that does not
 * read must not hold up a replication, so what it does not take is dropped beyond a megabyte.
 */
import type { AgentConfig, AgentEvent } from '../index.ts';

type Level = AgentConfig['log'];

const UNREAD_BYTES_MAX = 1 << 20;

export interface AgentLog {
  readonly event: (event: AgentEvent) => void;
  /** Writes what is left. */
  readonly end: () => void;
}

export async function agentLog(level: Level): Promise<AgentLog> {
  const { pino } = await import('pino');
  const destination = pino.destination({ dest: 2, sync: false, maxLength: UNREAD_BYTES_MAX });
  const logger = pino({ name: 'blockferry', level, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  return {
    event: (event) => logger[levelOf(event)](event, textOf(event)),
    end: () => destination.flushSync(),
  };
}

function levelOf(event: AgentEvent): Level {
  switch (event.type) {
    case 'config-refused':
      return 'error';
    case 'operation-failed':
      return event.recoverable ? 'warn' : 'error';
    case 'group-failed':
    case 'store-failed':
      return 'warn';
    case 'gateway':
      return event.what === 'started' ? 'info' : event.what === 'upload-failed' ? 'warn' : 'error';
    case 'gateway-health':
      return event.level === 'critical' ? 'error' : event.level === 'warning' ? 'warn' : 'info';
    case 'operation-started':
      return 'debug';
    case 'health-changed':
      return event.level === 'critical' ? 'error' : event.level === 'warning' ? 'warn' : 'info';
    case 'space':
      return event.verdict === 'ok' ? 'info' : event.verdict === 'stop' ? 'error' : 'warn';
    case 'cycles-missed':
      return 'warn';
    case 'tracker':
      return event.what === 'ended' || event.what === 'failed' ? 'warn' : 'info';
    default:
      return 'info';
  }
}

/** One line for people; the numbers stand in the fields. */
function textOf(event: AgentEvent): string {
  switch (event.type) {
    case 'operation-started':
      return `${event.machine}: ${event.verb} begins`;
    case 'operation-ended':
      return `${event.machine}: ${event.verb} done in ${event.elapsedMs} ms`;
    case 'operation-failed':
      return `${event.machine}: ${event.verb} failed: ${event.message}`;
    case 'operation-stopped':
      return `${event.machine}: ${event.verb} stopped: ${event.reason}`;
    case 'state-changed':
      return `${event.machine}: ${event.from} → ${event.to}`;
    case 'health-changed': {
      const [worst] = event.findings;
      return `${event.machine}: ${event.level}${worst ? `: ${worst.cause}; ${worst.action}` : ''}`;
    }
    case 'cycles-missed':
      return `${event.machine}: ${event.missed} cycles fell out`;
    case 'space':
      return `${event.machine}: space is ${event.verdict}`;
    case 'tracker':
      return `${event.machine}: tracker ${event.what}: ${event.message}`;
    case 'store-carried':
      return `${event.machine}: ${event.points} points carried to ${event.url}`;
    case 'store-failed':
      return `${event.machine}: nothing is carried to ${event.url}: ${event.message}`;
    case 'notice':
      return `${event.machine}: ${event.message}`;
    case 'group-shipped':
      return `group ${event.group}: its machines share a moment`;
    case 'group-failed':
      return `group ${event.group}: no common moment: ${event.message}`;
    case 'group-notice':
      return `group ${event.group}: ${event.message}`;
    case 'gateway':
      return `gateway ${event.what}${event.place === undefined ? '' : ` ${event.place}`}: ${event.message}`;
    case 'gateway-health': {
      const [worst] = event.findings;
      return `gateway: ${event.level}${worst ? `: ${worst.cause}; ${worst.action}` : ''}`;
    }
    case 'config-refused':
      return `the configuration is refused: ${event.message}`;
    case 'config-reloaded':
      return `the configuration was read: ${event.added.length} added, ${event.removed.length} removed, ${event.changed.length} changed`;
    case 'agent-started':
      return `the agent runs, with ${event.machines} machines`;
    case 'agent-stopped':
      return 'the agent ended';
  }
}
