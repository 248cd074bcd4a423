/** `track NAME`: serve the disks of an item and log every write. */
import { formatSize, type Listening, track } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { withExample } from './options.ts';
import { sessionOf } from './session.ts';

interface Options {
  readonly listen?: string;
}

export const addTrack: AddCommand = (program, start) => {
  const command = program
    .command('track')
    .summary('serve the disks of an item over NBD and log every write')
    .description(
      'Serves the disks over NBD, the first one also under the empty export name, and logs every write beside its disk. ' +
        'Runs until it is interrupted, then ends cleanly; needs no store. ship and resync work on it meanwhile.',
    )
    .argument('<name>', 'name of the item')
    .option(
      '--listen <where>',
      'unix:/PATH or a loopback HOST:PORT (default: a Unix socket in the home directory of the item)',
    );
  withExample(command, 'blockferry track web1 --listen 127.0.0.1:10809');
  command.action(async (name: string, options: Options) => {
    await start(command, async (context) => {
      await track(sessionOf(context), name, options, async (listening) => {
        await context.output.result({ type: 'listening', ...listening }, () => listeningLines(listening));
        // Whoever started this waits for that line, and this goes on for years.
        await context.output.stdout.flush();
      });
      return EXIT.done;
    });
  });
};

function listeningLines({ item, listen, exports, tracking }: Listening): string[] {
  const state = tracking.reason === undefined ? tracking.mode : `${tracking.mode}: ${tracking.reason.message}`;
  return [
    `${item}: listening on ${listen}, ${state}`,
    ...exports.map(({ name, sizeBytes, uri }) => `  ${name}: ${formatSize(sizeBytes)}, ${uri}`),
  ];
}
