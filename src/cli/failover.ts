/** `failover NAME`: brings the disks of a recovery point back. */
import {
  BlockferryError,
  type DiskFormat,
  type FailoverReport,
  failover,
  failoverPlanned,
  formatSize,
  type PlannedReport,
} from '../index.ts';
import type { AddCommand, Context } from './context.ts';
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
  readonly out?: string;
  readonly format?: DiskFormat;
  readonly test?: true;
  readonly planned?: true;
}

export const addFailover: AddCommand = (program, start) => {
  const command = program
    .command('failover')
    .summary('bring the disks back from a recovery point')
    .description(
      'Writes the disks of a recovery point into a directory, byte for byte or not at all. A disk appears under its name ' +
        'only when it is complete. The replica is only read; commit lets the disks take over, cancel removes them.',
    )
    .argument('<name>', 'name of the item')
    .option(
      '--point <point>',
      'latest, latest-processed, latest-app-consistent, the id of a point, or a time (ISO 8601): the newest point not after it',
      'latest',
    )
    .option('--out <dir>', 'directory for the disks')
    .addOption(formatOption('--format', 'format of the disks (default: vhdx)'))
    .option('--test', 'a test failover: nothing waits for a commit; cancel --test removes the disks')
    .option(
      '--planned',
      'lose nothing: stop guest writes, ship the last delta, prove that disks and replica are equal. In the home of the owner; --out may be left out there. With --from: bring back what the owner has stopped at',
    );
  withExample(
    withTransferOptions(withFromOptions(command)),
    'blockferry failover web1 --from file:///srv/replicas/web1 --key-file web1.key --out /srv/restored',
  );
  command.action(async (name: string, options: Options) => {
    await start(command, async (context) => {
      if (options.planned && options.from === undefined) return planned(context, name, options);
      const { point, out, format, test, planned: isPlanned } = options;
      if (out === undefined) throw usage('it is not said where to bring the disks back', 'add --out DIR');
      const report = await failover(sessionOf(context, options), referenceOf(name, options), {
        point,
        outDirectory: out,
        ...(format === undefined ? {} : { format }),
        ...(test === undefined ? {} : { test }),
        ...(isPlanned === undefined ? {} : { planned: isPlanned }),
      });
      await context.output.result({ type: 'failover', ...report }, () => failoverLines(report));
      return EXIT.done;
    });
  });
};

async function planned(context: Context, name: string, options: Options): Promise<typeof EXIT.done> {
  const { out, format, test, point } = options;
  if (test) throw usage('a failover is either a test or planned', 'leave out --test or --planned');
  if (point !== 'latest') throw usage('a planned failover is to the last moment', 'leave out --point or --planned');
  const report = await failoverPlanned(sessionOf(context, options), name, {
    ...(out === undefined ? {} : { outDirectory: out }),
    ...(format === undefined ? {} : { format }),
  });
  const { failover: restored, ...stopped } = report;
  const record = { type: 'failover', ...stopped, ...restored };
  await context.output.result(record, () => plannedLines(report));
  return EXIT.done;
}

function usage(message: string, hint: string): BlockferryError {
  return new BlockferryError('USAGE', message, { hint });
}

function plannedLines({ item, pointId, pointTimeMs, proof, failover: restored }: PlannedReport): string[] {
  const proven = proof?.disks.map(
    ({ disk, readBytes, manifest }) =>
      `${disk}: equal to the replica, chunk by chunk (${formatSize(readBytes)} read), manifest ${manifest.slice(0, 16)}`,
  );
  return [
    `${item}: guest writes are stopped, recovery point ${pointId} of ${formatTime(pointTimeMs)} has all of them`,
    ...(proven ?? []),
    ...(restored
      ? failoverLines(restored)
      : ['bring the disks back on the other side with: failover --planned --from URL']),
  ];
}

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
