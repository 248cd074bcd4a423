/** `commit NAME`: what was brought back takes over. */
import { type CommitReport, commit } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { withExample } from './options.ts';
import { sessionOf } from './session.ts';

interface Options {
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
    .argument('<name>', 'name of the item')
    .option('--discard-newer', 'give up what the old side has shipped since the failover was begun')
    .option('--end', 'end protection ("complete migration"): nobody replicates the item any more, the replica stays');
  withExample(command, 'blockferry commit web1');
  command.action(async (name: string, { discardNewer, end }: Options) => {
    await start(command, async (context) => {
      const report = await commit(sessionOf(context), name, {
        ...(discardNewer ? { discardNewer } : {}),
        ...(end ? { end } : {}),
      });
      await context.output.result({ type: 'commit', ...report }, () => commitLines(report));
      return EXIT.done;
    });
  });
};

function commitLines({ item, epoch, phase, pointId, disks, tracking }: CommitReport): string[] {
  if (phase === 'ended') return [`${item}: protection is ended, the replica stays as it is at point ${pointId}`];
  const next =
    tracking === 'logging'
      ? `start its guest on: blockferry track ${item}; then replicate with: blockferry reverse ${item}`
      : `blockferry reverse ${item} will compare all chunks: these disks are not known to be what the replica holds`;
  return [`${item}: took over from point ${pointId}, epoch ${epoch}`, ...disks.map((path) => `  ${path}`), next];
}
