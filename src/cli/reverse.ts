/** `reverse NAME`: the side that took over begins to replicate. */
import { formatSize, type ReverseReport, reverse } from '../index.ts';
import type { AddCommand, Context } from './context.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { withExample } from './options.ts';
import { sessionOf, type TransferOptions, withTransferOptions } from './session.ts';

export const addReverse: AddCommand = (program, start) => {
  const command = program
    .command('reverse')
    .summary('replicate from disks that took over')
    .description(
      'After a commit: what the guest wrote under track since then is shipped. What was written untracked is found by ' +
        'comparing, and a note says so. From then on ship and resync work as for any item.',
    )
    .argument('<name>', 'name of the item');
  withExample(withTransferOptions(command), 'blockferry reverse web1');
  command.action(async (name: string, options: TransferOptions) => {
    await start(command, async (context) => tellReverse(context, await reverse(sessionOf(context, options), name)));
  });
};

export async function tellReverse({ output }: Context, report: ReverseReport): Promise<ExitCode> {
  await output.result({ type: 'reverse', ...report }, () => reverseLines(report));
  return EXIT.done;
}

function reverseLines({ item, by, pointId, sentBytes, readBytes }: ReverseReport): string[] {
  const how = by === 'logs' ? `${formatSize(readBytes)} of tracked writes` : `${formatSize(readBytes)} compared`;
  return [`${item}: recovery point ${pointId}, ${how}, ${formatSize(sentBytes)} sent`];
}
