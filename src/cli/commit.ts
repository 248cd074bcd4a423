/** `commit NAME`: what was brought back takes over. */
import type { Command } from 'commander';
import { type CommitReport, type CommitRequest, commit } from '../index.ts';
import type { AddCommand, Context } from './context.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { withExample } from './options.ts';
import { sessionOf } from './session.ts';

export interface CommitOptions {
  readonly discardNewer?: true;
  readonly end?: true;
}

export const addCommit: AddCommand = (program, start) => {
  const command = program
    .command('commit')
    .summary('let disks that were brought back take over')
    .description(
      'The disks of the last failover or failback of this home become the side that the replica follows. All recovery ' +
        'points but theirs are given up, and the old side can ship no more. What their guest writes under track is the ' +
        'next delta; reverse begins to replicate it.',
    )
    .argument('<name>', 'name of the item');
  withExample(withCommitOptions(command), 'blockferry commit web1');
  command.action(async (name: string, options: CommitOptions) => {
    await start(command, async (context) =>
      tellCommit(context, await commit(sessionOf(context), name, commitRequest(options))),
    );
  });
};

/** Adds `--discard-newer` and `--end`. */
export function withCommitOptions(command: Command): Command {
  return command
    .option('--discard-newer', 'give up what the old side has shipped since the failover was begun')
    .option('--end', 'end protection ("complete migration"): nobody replicates the item any more, the replica stays');
}

export function commitRequest({ discardNewer, end }: CommitOptions): CommitRequest {
  return { ...(discardNewer ? { discardNewer } : {}), ...(end ? { end } : {}) };
}

export async function tellCommit({ output }: Context, report: CommitReport): Promise<ExitCode> {
  await output.result({ type: 'commit', ...report }, () => commitLines(report));
  return EXIT.done;
}

function commitLines({ item, epoch, phase, pointId, disks, tracking }: CommitReport): string[] {
  if (phase === 'ended') return [`${item}: protection is ended, the replica stays as it is at point ${pointId}`];
  const next =
    tracking === 'logging'
      ? `start its guest on: blockferry track ${item}; then replicate with: blockferry reverse ${item}`
      : `blockferry reverse ${item} will compare all chunks: these disks are not known to be what the replica holds`;
  return [`${item}: took over from point ${pointId}, epoch ${epoch}`, ...disks.map((path) => `  ${path}`), next];
}
