/** `agent failover NAME` …: the verbs that change sides, carried out by the agent in the turn of its machine. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { AgentControl } from '../index.ts';
import { withAgent } from './agent-control.ts';
import { type CancelOptions, tellCancel, withCancelOptions } from './cancel.ts';
import { type CommitOptions, commitRequest, tellCommit, withCommitOptions } from './commit.ts';
import type { Context, Start } from './context.ts';
import type { ExitCode } from './exit-codes.ts';
import { type FailbackOptions, failbackRequest, tellFailback, withFailbackOptions } from './failback.ts';
import {
  type FailoverOptions,
  failoverRequest,
  plannedRequest,
  tellFailover,
  tellPlanned,
  withFailoverOptions,
} from './failover.ts';
import { withExample } from './options.ts';
import { tellReverse } from './reverse.ts';
import { tellItemEvent } from './session.ts';

/** Carries one out, as its options say. */
type Body<O> = (asked: Asked<O>) => Promise<ExitCode>;

interface Asked<O> {
  readonly name: string;
  readonly options: O;
  readonly context: Context;
  readonly operate: AgentControl['operate'];
}

interface Side<O> {
  readonly verb: string;
  readonly summary: string;
  readonly withOptions?: (command: Command) => Command;
  readonly body: Body<O>;
}

export function addAgentSides(agent: Command, start: Start): void {
  add<FailoverOptions>(agent, start, {
    verb: 'failover',
    summary: 'bring the disks of a machine back from a recovery point',
    withOptions: withFailoverOptions,
    body: async ({ name, options, context, operate }) =>
      options.planned
        ? tellPlanned(context, await operate('failover-planned', name, plannedRequest(options)))
        : tellFailover(context, await operate('failover', name, failoverRequest(options))),
  });
  add<FailbackOptions>(agent, start, {
    verb: 'failback',
    summary: 'bring the disks of a machine home',
    withOptions: (command) => withFailbackOptions(command),
    body: async ({ name, options, context, operate }) =>
      tellFailback(context, await operate('failback', name, failbackRequest(options))),
  });
  add<CommitOptions>(agent, start, {
    verb: 'commit',
    summary: 'let disks that were brought back take over',
    withOptions: withCommitOptions,
    body: async ({ name, options, context, operate }) =>
      tellCommit(context, await operate('commit', name, commitRequest(options))),
  });
  add<CancelOptions>(agent, start, {
    verb: 'cancel',
    summary: 'end a failover or failback that was not committed',
    withOptions: withCancelOptions,
    body: async ({ name, options, context, operate }) =>
      tellCancel(context, await operate('cancel', name, options.test ? { test: true } : {}), options),
  });
  add<object>(agent, start, {
    verb: 'reverse',
    summary: 'replicate from disks that took over',
    body: async ({ name, context, operate }) => tellReverse(context, await operate('reverse', name, {})),
  });
}

/** The agent has another working directory. */
function withAbsolutePaths<O>(options: O & Paths): O {
  const { out, retention } = options;
  return {
    ...options,
    ...(out === undefined ? {} : { out: resolve(out) }),
    ...(retention === undefined ? {} : { retention: resolve(retention) }),
  };
}

interface Paths {
  readonly out?: string;
  readonly retention?: string;
}

function add<O extends object>(agent: Command, start: Start, { verb, summary, withOptions, body }: Side<O>): void {
  const command = agent
    .command(verb)
    .summary(summary)
    .description(
      `As "blockferry ${verb}", carried out by the agent of this home between its own cycles, with its lanes and bandwidth. ` +
        'Ctrl-C stops it there at its next safe place.',
    )
    .argument('<name>', 'name of the machine');
  withOptions?.(command);
  const more = verb === 'failover' ? ' --out /srv/restored' : '';
  withExample(command, `blockferry agent ${verb} web1${more} --config /etc/blockferry/agent.yaml`);
  command.action(async (name: string, options: O) => {
    await start(command, (context) =>
      withAgent(command, context, (control) => {
        const operate: AgentControl['operate'] = (asked, machine, request) =>
          control.operate(asked, machine, request, {
            signal: context.signal,
            onEvent: (event) => tellItemEvent(event, context),
          });
        return body({ name, options: withAbsolutePaths(options), context, operate });
      }),
    );
  });
}
