/** `failback NAME --mode delta|full`: the way back to the side that is not the owner. */
import { type Command, Option } from 'commander';
import { type DiskFormat, type FailbackReport, type FailbackRequest, failback, formatSize } from '../index.ts';
import type { AddCommand, Context } from './context.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { count, formatDuration } from './format.ts';
import { formatOption, withExample } from './options.ts';
import { sessionOf, type TransferOptions, withTransferOptions } from './session.ts';

/** What is said of the failback itself, whoever carries it out. */
export interface FailbackOptions {
  readonly mode?: 'delta' | 'full';
  readonly out?: string;
  readonly retention?: string;
  readonly format?: DiskFormat;
}

interface Options extends FailbackOptions, TransferOptions {}

export const addFailback: AddCommand = (program, start) => {
  const command = program
    .command('failback')
    .summary('bring the disks of the side that is not the owner up to date')
    .description(
      'The way home. delta compares the disks where they lie with the newest recovery point, while the owner runs, stages ' +
        'what differs beside them, and lays it into them once the owner has stopped; full writes new files. Then commit or ' +
        'cancel. Exit 3: all is staged, and the owner elsewhere has to stop first (failover --planned in its home).',
    )
    .argument('<name>', 'name of the item');
  withExample(withTransferOptions(withFailbackOptions(command, 'delta')), 'blockferry failback web1 --mode delta');
  command.action(async (name: string, options: Options) => {
    await start(command, async (context) =>
      tellFailback(
        context,
        await failback(sessionOf(context, options), name, { mode: 'delta', ...failbackRequest(options) }),
      ),
    );
  });
};

/** Adds `--mode`, `--out`, `--format` and `--retention`. Without `mode` who carries it out knows it. */
export function withFailbackOptions(command: Command, mode?: 'delta'): Command {
  return command
    .addOption(
      new Option('--mode <mode>', 'delta: what differs, into the disks that are there; full: new files')
        .choices(['delta', 'full'])
        .default(mode),
    )
    .option('--out <dir>', 'directory for the new files (default: a new folder beside the old disks)')
    .addOption(formatOption('--format', 'format of the new files (default: that of the old disks)'))
    .option(
      '--retention <dir>',
      'of a delta: a folder on a volume of its own for what is fetched (default: beside the disks)',
    );
}

export function failbackRequest({ mode, out, format, retention }: FailbackOptions): Partial<FailbackRequest> {
  return {
    ...(mode === undefined ? {} : { mode }),
    ...(out === undefined ? {} : { outDirectory: out }),
    ...(format === undefined ? {} : { format }),
    ...(retention === undefined ? {} : { retention }),
  };
}

export async function tellFailback({ output }: Context, report: FailbackReport): Promise<ExitCode> {
  await output.result({ type: 'failback', ...report }, () => failbackLines(report));
  return report.state === 'ready' ? EXIT.done : EXIT.differences;
}

function failbackLines({ item, state, pointId, disks, elapsedMs }: FailbackReport): string[] {
  const lines = disks.map(
    ({ disk, path, differingChunks, readBytes, fetchedBytes, writtenBytes }) =>
      `${disk}: ${path}, ${count(differingChunks, 'chunk')} differed (${formatSize(readBytes)} read), ${formatSize(fetchedBytes)} fetched, ${formatSize(writtenBytes)} written`,
  );
  const next =
    state === 'ready'
      ? `its disks are those of recovery point ${pointId}; take over with: blockferry commit ${item}`
      : 'all that differs is staged; stop the owner with failover --planned in its home, then run this again';
  return [...lines, `${item}: ${next}, in ${formatDuration(elapsedMs)}`];
}
