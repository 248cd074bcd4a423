/** `mirror NAME`: carries what one store has of an item to the next. */
import { formatSize, type MirrorReport, mirror } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { count, formatDuration } from './format.ts';
import { withExample } from './options.ts';
import {
  type FromOptions,
  referenceOf,
  sessionOf,
  type TransferOptions,
  withFromOptions,
  withTransferOptions,
} from './session.ts';

interface Options extends FromOptions, TransferOptions {
  readonly to?: string;
  readonly discardNewer?: true;
}

export const addMirror: AddCommand = (program, start) => {
  const command = program
    .command('mirror')
    .summary('carry the replica from one store to the next')
    .description(
      'Carries what the first store has of an item to its further ones, which become full replicas. Needs no disk: with ' +
        '--from URL, --to URL and a key it runs anywhere. Logs are copied as they are; without them what differs is.',
    )
    .argument('<name>', 'name of the item')
    .option('--to <url>', 'the store to carry to (default: each further store of the item, in their order)')
    .option('--discard-newer', 'give up what a side that lost has made in that store since');
  withExample(
    withTransferOptions(withFromOptions(command)),
    'blockferry mirror web1 --to https://ACCOUNT.blob.core.windows.net/replicas/web1',
  );
  command.action(async (name: string, options: Options) => {
    await start(command, async (context) => {
      const { to, discardNewer = false } = options;
      const request = { ...(to === undefined ? {} : { to }), discardNewer };
      for (const report of await mirror(sessionOf(context, options), referenceOf(name, options), request)) {
        await context.output.result({ type: 'mirrored', ...report }, () => mirrorLines(report));
      }
      return EXIT.done;
    });
  });
};

/** What a mirror did, in a line. */
export function mirrorLines(report: MirrorReport): string[] {
  const { item, to, by, pointId, points, logs, logBytes, chunksCopied, chunksCleared, sentBytes, elapsedMs } = report;
  const newest = pointId === undefined ? 'no recovery point' : `recovery point ${pointId}`;
  if (by === 'nothing') return [`${item}: ${to} has it all, up to ${newest}`];
  if (by === 'owner') return [`${item}: ${to} has another owner now, and ${newest}`];
  const chunks = count(chunksCopied + chunksCleared, 'chunk');
  const copied = by === 'copy' ? `${chunks} (${formatSize(sentBytes)}) and ` : '';
  const carried = `${copied}${count(logs, 'log')} (${formatSize(logBytes)})`;
  return [
    `${item}: ${count(points, 'recovery point')} carried to ${to} by ${carried}, up to ${pointId}, in ${formatDuration(elapsedMs)}`,
  ];
}
