/** `agent --config FILE`: keeps machines protected, until it is told to stop. */
import { type Agent, type AgentConfig, BlockferryError, readConfig, startAgent } from '../index.ts';
import { addAgentCommands } from './agent-control.ts';
import { agentLog } from './agent-log.ts';
import { agentProcesses } from './agent-processes.ts';
import { addAgentSides } from './agent-sides.ts';
import type { AddCommand, Context } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { withExample } from './options.ts';
import { sessionOf } from './session.ts';

interface Options {
  readonly config?: string;
}

export const addAgent: AddCommand = (program, start) => {
  const command = program
    .command('agent')
    .summary('keep machines protected, as a configuration file describes them')
    .description(
      'Makes the first copies, ships and applies on schedule, resyncs in its window, thins old recovery points, and says what ' +
        'is wrong and what to do. Runs until it is interrupted, then ends cleanly; SIGHUP reads the configuration again.',
    )
    .option('--config <file>', 'what to protect, and how (docs/agent.md)');
  withExample(command, 'blockferry agent --config /etc/blockferry/agent.yaml');
  command.action(async (options: Options) => {
    await start(command, async (context) => {
      await runAgent(context, await readConfig(configPath(options), context.ports));
      return EXIT.done;
    });
  });
  addAgentCommands(command, start);
  addAgentSides(command, start);
};

function configPath({ config }: Options): string {
  if (config !== undefined) return config;
  throw new BlockferryError('USAGE', 'the agent needs --config FILE', { hint: 'see "blockferry agent --help"' });
}

async function runAgent(context: Context, config: AgentConfig): Promise<void> {
  const { ports, environment } = sessionOf(context);
  const log = await agentLog(config.log);
  const agent = await startAgent({
    ...{ config, ports, environment, signal: context.signal, home: context.home, processes: agentProcesses },
    onEvent: log.event,
  });
  // A configuration that is refused is an event, and logged as such.
  context.onHangup(() => void agent.reload().catch(() => {}));
  const told = context.output.json ? tellEvents(agent, context) : undefined;
  try {
    await agent.ended;
    await told;
  } finally {
    log.end();
  }
}

/** Each event as a record on stdout, at once: whoever reads it watches. */
async function tellEvents(agent: Agent, { output }: Context): Promise<void> {
  for await (const event of agent.events()) {
    await output.result({ ...event }, () => []);
    await output.stdout.flush();
  }
}
