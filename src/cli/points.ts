/** `points NAME`: the recovery points of a replica, oldest first. */
import { points } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { formatTime, table } from './format.ts';
import { withExample } from './options.ts';
import { type FromOptions, referenceOf, sessionOf, withFromOptions } from './session.ts';

export const addPoints: AddCommand = (program, start) => {
  const command = program
    .command('points')
    .summary('recovery points of an item, oldest first')
    .description('Lists the recovery points of an item, oldest first. A processed point stands in the base already.')
    .argument('<name>', 'name of the item');
  withExample(withFromOptions(command), 'blockferry points web1 --from file:///srv/replicas/web1 --key-file web1.key');
  command.action(async (name: string, options: FromOptions) => {
    await start(command, async (context) => {
      const { output } = context;
      const found = await points(sessionOf(context), referenceOf(name, options));
      const rows = table([
        ['id', 'time', 'consistency', 'processed'],
        ...found.map(({ id, timeMs, consistency, processed }) => [
          id,
          formatTime(timeMs),
          consistency,
          processed ? 'yes' : 'no',
        ]),
      ]);
      if (!output.json) await output.stdout.text(`${rows[0]}\n`);
      for (const [index, point] of found.entries()) {
        const { id, timeMs, ...rest } = point;
        await output.result({ type: 'point', id, time: formatTime(timeMs), ...rest }, () => rows[index + 1] ?? '');
      }
      return EXIT.done;
    });
  });
};
