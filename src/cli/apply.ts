/** `apply NAME`: fold shipped logs into the base. */
import { type ApplyReport, apply, formatSize } from '../index.ts';
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

export const addApply: AddCommand = (program, start) => {
  const command = program
    .command('apply')
    .summary('fold shipped logs into the base of the replica')
    .description(
      'Folds what was shipped into the base, so that the newest recovery point needs no logs any more. Runs beside the ' +
        'source or anywhere else: with --from URL and a key it needs no local state. Older recovery points stay.',
    )
    .argument('<name>', 'name of the item');
  withExample(
    withTransferOptions(withFromOptions(command)),
    'blockferry apply web1 --from file:///srv/replicas/web1 --key-file web1.key',
  );
  command.action(async (name: string, options: FromOptions & TransferOptions) => {
    await start(command, async (context) => {
      const report = await apply(sessionOf(context, options), referenceOf(name, options));
      await context.output.result({ type: 'apply', ...report }, () => applyLines(report));
      return EXIT.done;
    });
  });
};

function applyLines({ item, pointId, appliedLogs, chunksWritten, sentBytes, elapsedMs }: ApplyReport): string[] {
  if (appliedLogs === 0) return [`${item}: no logs to apply`];
  const point = pointId === undefined ? '' : `, recovery point ${pointId} is processed`;
  return [
    `${item}: ${count(appliedLogs, 'log')} applied, ${count(chunksWritten, 'chunk')} written (${formatSize(sentBytes)})${point}, in ${formatDuration(elapsedMs)}`,
  ];
}
