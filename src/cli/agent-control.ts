/** `agent status`, `agent pause NAME` …: what an operator says to an agent that runs. */
import type { Command } from 'commander';
import {
  type AgentControl,
  type AgentEvent,
  type AgentStatus,
  connectAgent,
  type MachineStatus,
  readConfig,
} from '../index.ts';
import type { Context, GlobalOptions, Start } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { count, formatBytes, formatDuration, formatTime } from './format.ts';
import { gatewayLines } from './gateway-lines.ts';
import { withExample } from './options.ts';

interface Options extends GlobalOptions {
  readonly config?: string;
}

type Body = (agent: AgentControl, context: Context, name: string) => Promise<void>;

/** Adds the commands that talk to a running agent. */
export function addAgentCommands(agent: Command, start: Start): void {
  add(agent, start, 'status', 'every machine: state, health, what comes next', async (control, { output }) => {
    const status = await control.status();
    await output.result({ type: 'agent', ...status }, () => statusLines(status));
  });
  addNamed(agent, start, 'pause', 'stop the cycles of a machine; its tracker goes on logging', (control, name) =>
    control.pause(name),
  );
  addNamed(agent, start, 'resume', 'let a paused machine go on', (control, name) => control.resume(name));
  addNamed(agent, start, 'retry', 'try now what waits for its next attempt, or for a person', (control, name) =>
    control.retry(name),
  );
  addNamed(agent, start, 'resync', 'resync a machine now, whatever its window says', (control, name) =>
    control.resync(name),
  );
  add(agent, start, 'reload', 'read the configuration again; a broken one is refused', async (control, { output }) => {
    const changes = await control.reload();
    await output.result({ type: 'reloaded', ...changes }, () => [
      `${count(changes.added.length, 'machine')} added, ${changes.removed.length} removed, ${changes.changed.length} changed`,
    ]);
  });
  add(agent, start, 'events', 'what happens, as it happens, until interrupted', async (control, { output, signal }) => {
    for await (const event of control.events(signal)) {
      await output.result({ ...event }, () => [eventLine(event)]);
      await output.stdout.flush();
      if (output.stdout.closed) return;
    }
  });
}

function add(agent: Command, start: Start, name: string, summary: string, body: Body, takesName = false): void {
  const command = agent.command(name).summary(summary).description(`Asks the agent of this home: ${summary}.`);
  if (takesName) command.argument('<name>', 'name of the machine');
  withExample(command, `blockferry agent ${name}${takesName ? ' web1' : ''} --config /etc/blockferry/agent.yaml`);
  command.action(async (first: unknown) => {
    await start(command, async (context) => {
      await withAgent(command, context, (control) => body(control, context, takesName ? String(first) : ''));
      return EXIT.done;
    });
  });
}

/** Runs `work` with the agent that `--config` or `--home` names. */
export async function withAgent<T>(
  command: Command,
  context: Context,
  work: (control: AgentControl) => Promise<T>,
): Promise<T> {
  const { config } = command.optsWithGlobals<Options>();
  const home = config === undefined ? undefined : (await readConfig(config, context.ports)).home;
  const control = await connectAgent(home ?? context.home);
  try {
    return await work(control);
  } finally {
    control.close();
  }
}

function addNamed(
  agent: Command,
  start: Start,
  verb: string,
  summary: string,
  ask: (control: AgentControl, name: string) => Promise<void>,
): void {
  const body: Body = async (control, { output }, name) => {
    await ask(control, name);
    await output.result({ type: verb, machine: name }, () => `${name}: ${verb}`);
  };
  add(agent, start, verb, summary, body, true);
}

function statusLines({ home, config, startedMs, machines, groups, gateway }: AgentStatus): string[] {
  return [
    `agent of ${home}, ${config}, since ${formatTime(startedMs)}, ${count(machines.length, 'machine')}`,
    ...machines.flatMap(machineLines),
    ...groups.flatMap(groupLines),
    ...(gateway ? gatewayLines(gateway) : []),
  ];
}

function machineLines(machine: MachineStatus): string[] {
  const { name, state, health, running, next, rpoMs, points, backlogBytes, outstandingLogs, totals, failure } = machine;
  const lines = [`${name}: ${state}, ${health.level}`];
  for (const { cause, action } of health.findings) lines.push(`  cause:     ${cause}`, `  next step: ${action}`);
  if (rpoMs !== undefined) lines.push(`  newest:    ${formatDuration(rpoMs)} ago, ${count(points, 'point')}`);
  if (running !== undefined) lines.push(`  now:       ${running}`);
  else if (next) lines.push(`  next:      ${next.verb} at ${formatTime(next.dueMs)}`);
  else lines.push('  next:      nothing until somebody helps');
  if (failure) lines.push(`  failed:    ${failure.verb}, ${failure.count} times: ${failure.message}`);
  for (const store of machine.also ?? []) lines.push(`  also:      ${storeText(store)}`);
  lines.push(
    `  cycles:    ${totals.done} done, ${totals.missed} missed, ${totals.failed} failed, ${formatBytes(totals.sentBytes)} sent`,
    `  waiting:   ${formatBytes(backlogBytes)} to ship, ${count(outstandingLogs, 'log')} to apply`,
  );
  return lines;
}

function storeText({ url, behindMs, running, trouble }: NonNullable<MachineStatus['also']>[number]): string {
  const now = running ? ', being carried to' : '';
  if (trouble) return `${url}, failed ${trouble.count} times since ${formatTime(trouble.firstMs)}: ${trouble.message}`;
  if (behindMs === undefined) return `${url}${now}`;
  return `${url}, ${behindMs === 0 ? 'current' : `${formatDuration(behindMs)} behind`}${now}`;
}

function groupLines({
  name,
  machines,
  nextMs,
  lastMomentMs,
  isApart,
  trouble,
}: AgentStatus['groups'][number]): string[] {
  const lines = [`group ${name}: ${machines.join(', ')}${isApart ? ', each by itself' : ''}`];
  if (lastMomentMs !== undefined) lines.push(`  newest:    ${formatTime(lastMomentMs)}`);
  if (trouble)
    lines.push(`  failed:    ${trouble.count} times since ${formatTime(trouble.firstMs)}: ${trouble.message}`);
  return [...lines, `  next:      ${formatTime(nextMs)}`];
}

function eventLine(event: AgentEvent): string {
  const { type, timeMs, ...rest } = event;
  return `${formatTime(timeMs)} ${type} ${JSON.stringify(rest)}`;
}
