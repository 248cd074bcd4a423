/** `failover NAME`: brings the disks of a recovery point back. */
import { type DiskFormat, type FailoverReport, failover, formatSize } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { formatDuration, formatTime } from './format.ts';
import { formatOption, withExample } from './options.ts';
import {
  type FromOptions,
  referenceOf,
  sessionOf,
  type TransferOptions,
  withFromOptions,
  withTransferOptions,
} from './session.ts';

interface Options extends FromOptions, TransferOptions {
  readonly point: string;
  readonly out: string;
  readonly format?: DiskFormat;
  readonly test?: true;
}

export const addFailover: AddCommand = (program, start) => {
  const command = program
    .command('failover')
    .summary('bring the disks back from a recovery point')
    .description(
      'Writes the disks of a recovery point into a directory, byte for byte or not at all. A disk appears under its name ' +
        'only when it is complete.',
    )
    .argument('<name>', 'name of the item')
    .option(
      '--point <point>',
      'latest, latest-processed, latest-app-consistent, the id of a point, or a time (ISO 8601): the newest point not after it',
      'latest',
    )
    .requiredOption('--out <dir>', 'directory for the disks')
    .addOption(formatOption('--format', 'format of the disks (default: vhdx)'))
    .option('--test', 'a test failover: the state of the item stays as it is');
  withExample(
    withTransferOptions(withFromOptions(command)),
    'blockferry failover web1 --from file:///srv/replicas/web1 --key-file web1.key --out /srv/restored',
  );
  command.action(async (name: string, options: Options) => {
    await start(command, async (context) => {
      const { point, out, format, test } = options;
      const report = await failover(sessionOf(context, options), referenceOf(name, options), {
        point,
        outDirectory: out,
        ...(format === undefined ? {} : { format }),
        ...(test === undefined ? {} : { test }),
      });
      await context.output.result({ type: 'failover', ...report }, () => failoverLines(report));
      return EXIT.done;
    });
  });
};

function failoverLines({
  item,
  pointId,
  pointTimeMs,
  generation,
  freshness,
  disks,
  elapsedMs,
}: FailoverReport): string[] {
  const proof = freshness === 'proven' ? '' : '; freshness not proven';
  return [
    ...disks.map(
      ({ disk, path, writtenBytes, transferredBytes }) =>
        `${disk}: ${path}, wrote ${formatSize(writtenBytes)} from ${formatSize(transferredBytes)} transferred`,
    ),
    `${item}: recovery point ${pointId} of ${formatTime(pointTimeMs)}, generation ${generation}, in ${formatDuration(elapsedMs)}${proof}`,
  ];
}
