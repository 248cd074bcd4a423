/** `check DISK`: every structural rule of a disk and its parents. */
import { checkDisk } from '../index.ts';
import type { AddCommand } from './context.ts';
import { exitCodeOfFaults } from './exit-codes.ts';
import { count } from './format.ts';
import { type DiskOptions, withExample, withParentRoot } from './options.ts';

export const addCheck: AddCommand = (program, start) => {
  const command = program
    .command('check')
    .summary('every structural check of a disk; exit 4 with each fault named')
    .description(
      'Checks every structural rule of a disk and of its parents, and names each fault with its file, offset and rule. ' +
        'Nothing is repaired: a source is never written. Exit 0: clean, 4: there are faults.',
    )
    .argument('<disk>', 'VHD, VHDX or raw file');
  withExample(withParentRoot(command), 'blockferry check web1.vhdx');
  command.action(async (path: string, options: Pick<DiskOptions, 'parentRoot'>) => {
    await start(command, async ({ output, ports }) => {
      const { parentRoot } = options;
      const found = await checkDisk(path, { ports, ...(parentRoot === undefined ? {} : { allowedRoots: parentRoot }) });
      for (const { file, offset, rule, code } of found.faults) {
        await output.result(
          { type: 'fault', file, offset, rule, code },
          () => `${file}: offset ${offset}: ${code}: ${rule}`,
        );
      }
      await output.result({ type: 'check', faults: found.faults.length }, () =>
        found.faults.length === 0 ? `${path}: clean` : `${path}: ${count(found.faults.length, 'fault')}`,
      );
      for (const note of found.info?.notes ?? []) output.note(note);
      return exitCodeOfFaults(found.faults.length);
    });
  });
};
