/** `failover NAME`: brings the disks of a recovery point back. */
import type { Command } from 'commander';
import {
  BlockferryError,
  type DiskFormat,
  type FailoverReport,
  type FailoverRequest,
  failover,
  failoverPlanned,
  formatSize,
  type PlannedReport,
  type PlannedRequest,
} from '../index.ts';
import type { AddCommand, Context } from './context.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
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

/** What is said of the failover itself, whoever carries it out. */
export interface FailoverOptions {
  readonly point: string;
  readonly out?: string;
  readonly format?: DiskFormat;
  readonly test?: true;
  readonly planned?: true;
}

interface Options extends FailoverOptions, FromOptions, TransferOptions {}

export const addFailover: AddCommand = (program, start) => {
  const command = program
    .command('failover')
    .summary('bring the disks back from a recovery point')
    .description(
      'Writes the disks of a recovery point into a directory, byte for byte or not at all. A disk appears under its name ' +
        'only when it is complete. The replica is only read; commit lets the disks take over, cancel removes them.',
    )
    .argument('<name>', 'name of the item');
  withExample(
    withTransferOptions(withFromOptions(withFailoverOptions(command))),
    'blockferry failover web1 --from file:///srv/replicas/web1 --key-file web1.key --out /srv/restored',
  );
  command.action(async (name: string, options: Options) => {
    await start(command, async (context) => {
      const session = sessionOf(context, options);
      if (options.planned && options.from === undefined) {
        return tellPlanned(context, await failoverPlanned(session, name, plannedRequest(options)));
      }
      const request = { ...failoverRequest(options), ...(options.planned ? { planned: true } : {}) };
      return tellFailover(context, await failover(session, referenceOf(name, options), request));
    });
  });
};

/** Adds `--point`, `--out`, `--format`, `--test` and `--planned`. */
export function withFailoverOptions(command: Command): Command {
  return command
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
}

/** @throws USAGE if it is not said where to */
export function failoverRequest({ point, out, format, test }: FailoverOptions): Omit<FailoverRequest, 'planned'> {
  if (out === undefined) throw usage('it is not said where to bring the disks back', 'add --out DIR');
  return {
    point,
    outDirectory: out,
    ...(format === undefined ? {} : { format }),
    ...(test === undefined ? {} : { test }),
  };
}

/** @throws USAGE for options that a planned failover cannot have */
export function plannedRequest({ out, format, test, point }: FailoverOptions): PlannedRequest {
  if (test) throw usage('a failover is either a test or planned', 'leave out --test or --planned');
  if (point !== 'latest') throw usage('a planned failover is to the last moment', 'leave out --point or --planned');
  return {
    ...(out === undefined ? {} : { outDirectory: out }),
    ...(format === undefined ? {} : { format }),
  };
}

export async function tellFailover({ output }: Context, report: FailoverReport): Promise<ExitCode> {
  await output.result({ type: 'failover', ...report }, () => failoverLines(report));
  return EXIT.done;
}

export async function tellPlanned({ output }: Context, report: PlannedReport): Promise<ExitCode> {
  const { failover: restored, ...stopped } = report;
  await output.result({ type: 'failover', ...stopped, ...restored }, () => plannedLines(report));
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
