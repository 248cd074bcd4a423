/** `keygen OUT`: a new key file. */
import { generateKeyFile } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { withExample } from './options.ts';

export const addKeygen: AddCommand = (program, start) => {
  const command = program
    .command('keygen')
    .summary('make a key file')
    .description(
      'Makes a key file: one line of text with 32 random bytes, readable by its owner only. OUT must not exist. ' +
        'Whoever loses every key of a replica loses the replica: keep a copy on another machine.',
    )
    .argument('<out>', 'file to make');
  withExample(command, 'blockferry keygen /media/usb/web1.key');
  command.action(async (path: string) => {
    await start(command, async ({ output, ports }) => {
      await generateKeyFile(path, ports);
      await output.result({ type: 'key-file', path }, () => `${path}: key file made`);
      output.note('keep a copy elsewhere: without a key nobody can read the replica, not even you');
      return EXIT.done;
    });
  });
};
