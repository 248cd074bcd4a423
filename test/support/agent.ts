/** The real agent as a process of its own, and what it tells. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { AgentEvent } from '../../src/index.ts';
import { startCli } from '../cli/support.ts';

const WAIT_MS_MAX = 60_000;

export interface RunningAgent {
  readonly child: ChildProcess;
  readonly events: readonly AgentEvent[];
  /** Its log. */
  readonly talk: () => string;
  /** The first event from the `from`-th on that is as asked for. */
  readonly until: (wanted: (event: AgentEvent) => boolean, from?: number) => Promise<AgentEvent>;
  /** That many operations of a verb that ended from now on. */
  readonly untilDone: (machine: string, verb: string, count?: number) => Promise<void>;
  /** Ends it with a signal; resolves with its exit code. */
  readonly end: (signal: NodeJS.Signals) => Promise<number | null>;
}

/** Starts `agent --config FILE --json` and waits until it runs. */
export async function startAgentProcess(
  config: string,
  env: Readonly<Record<string, string>> = {},
): Promise<RunningAgent> {
  const child = startCli(['agent', '--config', config, '--json'], { env });
  const events: AgentEvent[] = [];
  const waiting = new Set<() => void>();
  let talk = '';
  child.stderr!.on('data', (bytes: Buffer) => {
    talk += bytes.toString('utf8');
  });
  createInterface({ input: child.stdout! }).on('line', (line) => {
    const event = JSON.parse(line) as AgentEvent;
    events.push(event);
    for (const look of waiting) look();
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const agent: RunningAgent = {
    ...{ child, events },
    talk: () => talk,
    until: (wanted, from = 0) =>
      new Promise((resolve, reject) => {
        const fail = (why: string): void => {
          const last = events.slice(-5).map((event) => JSON.stringify(event));
          done();
          reject(new Error(`${why}; last events:\n${last.join('\n')}\nlog:\n${talk.slice(-2000)}`));
        };
        const timer = setTimeout(() => fail(`not within ${WAIT_MS_MAX} ms`), WAIT_MS_MAX);
        const onClose = (): void => fail('the agent ended');
        const look = (): void => {
          const found = events.slice(from).find(wanted);
          if (!found) return;
          done();
          resolve(found);
        };
        const done = (): void => {
          waiting.delete(look);
          clearTimeout(timer);
          child.off('close', onClose);
        };
        waiting.add(look);
        child.once('close', onClose);
        look();
      }),
    untilDone: async (machine, verb, count = 1) => {
      let from = events.length;
      for (let i = 0; i < count; i += 1) {
        const isIt = (event: AgentEvent): boolean =>
          event.type === 'operation-ended' && event.machine === machine && event.verb === verb;
        from = events.indexOf(await agent.until(isIt, from)) + 1;
      }
    },
    end: (signal) => {
      child.kill(signal);
      return ended;
    },
  };
  await agent.until(({ type }) => type === 'agent-started');
  return agent;
}
