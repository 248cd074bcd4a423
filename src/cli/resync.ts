/** `resync NAME`: compare and repair. */
import { estimateResync, formatSize, type ResyncEstimate, resync } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { count, formatDuration } from './format.ts';
import { withExample } from './options.ts';
import { syncLines } from './reports.ts';
import { sessionOf, type TransferOptions, withTransferOptions } from './session.ts';

interface Options extends TransferOptions {
  readonly dryRun?: true;
  readonly full?: true;
  readonly verifyTarget?: true;
}

export const addResync: AddCommand = (program, start) => {
  const command = program
    .command('resync')
    .summary('compare the disks with the replica and repair what differs')
    .description(
      'Compares the fingerprints of the disks with those of the replica, sends the chunks that differ and commits a ' +
        'recovery point. When it was interrupted, the same command goes on where it stopped. Exit 0 also for a dry run ' +
        'that finds differences.',
    )
    .argument('<name>', 'name of the item')
    .option('--dry-run', 'report bytes and time; change nothing')
    .option('--full', 'send every chunk, whatever the fingerprints say')
    .option('--verify-target', 'open every slot of the replica too, and repair those that are damaged');
  withExample(withTransferOptions(command), 'blockferry resync web1 --dry-run');
  command.action(async (name: string, options: Options) => {
    await start(command, async (context) => {
      const { dryRun = false, full = false, verifyTarget = false } = options;
      const session = sessionOf(context, options);
      if (dryRun) {
        const estimate = await estimateResync(session, name);
        await context.output.result({ type: 'estimate', ...estimate }, () => estimateLines(estimate));
      } else {
        const report = await resync(session, name, { full, verifyTarget });
        await context.output.result({ type: 'sync', ...report }, () => syncLines(report));
      }
      return EXIT.done;
    });
  });
};

function estimateLines(estimate: ResyncEstimate): string[] {
  const { item, disks, readBytes, differingBytes, fullCopyBytes, estimatedMs, fullCopyMs, cheaper } = estimate;
  const time = (ms: number | undefined): string => (ms === undefined ? 'time unknown' : `about ${formatDuration(ms)}`);
  return [
    ...disks.map(
      (disk) => `${disk.disk}: ${count(disk.differingChunks, 'chunk')} differ, ${formatSize(disk.differingBytes)}`,
    ),
    `${item}: resync: ${formatSize(readBytes)} to read, ${formatSize(differingBytes)} to send, ${time(estimatedMs)}`,
    `${item}: full copy: ${formatSize(fullCopyBytes)} to read and to send, ${time(fullCopyMs)}`,
    `${item}: ${cheaper === 'resync' ? 'a resync is' : 'a full copy (--full) is'} cheaper`,
  ];
}
