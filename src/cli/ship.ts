/** `ship NAME`: one delta cycle. */
import { formatSize, type ShipReport, shipTogether } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { count, formatDuration } from './format.ts';
import { choice, integerValue, withExample } from './options.ts';
import { sessionOf, type TransferOptions, withTransferOptions } from './session.ts';
import { shellCommand } from './shell-command.ts';

interface Options extends TransferOptions {
  readonly consistency?: 'crash' | 'app';
  readonly freeze?: string;
  readonly thaw?: string;
  readonly freezeTimeout?: number;
}

export const addShip: AddCommand = (program, start) => {
  const command = program
    .command('ship')
    .summary('send what was written since the last cycle, as a recovery point')
    .description(
      'Rotates the change logs of all disks at one moment, sends what they hold and commits a recovery point of that ' +
        'moment. Works on a running tracker, and on one that ended cleanly. When it was interrupted, the next one sends it all.',
    )
    .argument('<name...>', 'name of the item; of several, up to 16, the points are of one moment across all of them')
    .addOption(
      choice('--consistency', 'app: the applications are at rest at that moment (default: crash)', ['crash', 'app']),
    )
    .option('--freeze <command>', 'brings the applications to rest; for --consistency app')
    .option('--thaw <command>', 'lets them go on; it runs whatever happens')
    .option('--freeze-timeout <seconds>', 'the longest they may rest (default: 30)', integerValue(1, 3600));
  withExample(
    withTransferOptions(command),
    "blockferry ship web1 --consistency app --freeze 'ssh web1 fsfreeze -f /data' --thaw 'ssh web1 fsfreeze -u /data'",
  );
  command.action(async (names: readonly string[], options: Options) => {
    await start(command, async (context) => {
      const { consistency, freeze, thaw, freezeTimeout } = options;
      const reports = await shipTogether(sessionOf(context, options), names, {
        ...(consistency === undefined ? {} : { consistency }),
        ...(freeze === undefined ? {} : { freeze: (signal) => shellCommand('freeze', freeze, signal) }),
        ...(thaw === undefined ? {} : { thaw: () => shellCommand('thaw', thaw) }),
        ...(freezeTimeout === undefined ? {} : { freezeTimeoutMs: freezeTimeout * 1000 }),
      });
      for (const report of reports) await context.output.result({ type: 'ship', ...report }, () => shipLines(report));
      return EXIT.done;
    });
  });
};

function shipLines({ item, pointId, consistency, logs, dataBytes, sentBytes, elapsedMs }: ShipReport): string[] {
  const sent = logs === 0 ? 'nothing was written' : `${formatSize(dataBytes)} changed, ${formatSize(sentBytes)} sent`;
  return [
    `${item}: recovery point ${pointId} (${consistency}), ${count(logs, 'log')}, ${sent}, in ${formatDuration(elapsedMs)}`,
  ];
}
