/** `cancel NAME`: ends a failover or failback that was not committed. */
import type { Command } from 'commander';
import { type CancelReport, cancel } from '../index.ts';
import type { AddCommand, Context } from './context.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { withExample } from './options.ts';
import { sessionOf } from './session.ts';

export const addCancel: AddCommand = (program, start) => {
  const command = program
    .command('cancel')
    .summary('end a failover or failback that was not committed')
    .description(
      'Removes the disks that a failover brought back, and what a failback has staged. An owner that a planned failover ' +
        'had stopped may write again and goes on replicating. Nobody is left unprotected.',
    )
    .argument('<name>', 'name of the item');
  withExample(withCancelOptions(command), 'blockferry cancel web1 --test');
  command.action(async (name: string, options: CancelOptions) => {
    await start(command, async (context) => {
      const report = await cancel(sessionOf(context), name, options.test ? { test: true } : {});
      return tellCancel(context, report, options);
    });
  });
};

export interface CancelOptions {
  readonly test?: true;
}

/** Adds `--test`. */
export function withCancelOptions(command: Command): Command {
  return command.option('--test', 'remove the disks of all test failovers of this home instead');
}

export async function tellCancel(
  { output }: Context,
  report: CancelReport,
  { test = false }: { readonly test?: boolean },
): Promise<ExitCode> {
  await output.result({ type: 'cancel', ...report }, () => cancelLines(report, test));
  return EXIT.done;
}

function cancelLines({ item, removed, resumed }: CancelReport, isTest: boolean): string[] {
  const what = isTest ? 'test failovers' : 'what was brought back';
  const lines = removed.length > 0 ? [`${item}: gave up ${what}`, ...removed.map((path) => `  ${path}`)] : [];
  if (resumed) return [...lines, `${item}: guests may write again, replication goes on`];
  return lines.length > 0 ? lines : [`${item}: there was no test failover`];
}
