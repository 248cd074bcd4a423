/** `info DISK`: what a disk is. */
import { openDisk } from '../index.ts';
import type { AddCommand } from './context.ts';
import { EXIT } from './exit-codes.ts';
import { formatBytes } from './format.ts';
import { type DiskOptions, openOptions, withDiskOptions, withExample } from './options.ts';

export const addInfo: AddCommand = (program, start) => {
  const command = program
    .command('info')
    .summary('what a disk is: format, size, sectors, chain')
    .description('Tells format, virtual size, sectors, parents and the state of the log of a disk.')
    .argument('<disk>', 'VHD, VHDX or raw file');
  withExample(withDiskOptions(command), 'blockferry info web1.vhdx --json');
  command.action(async (path: string, options: DiskOptions) => {
    await start(command, async (context) => {
      const disk = await openDisk(path, openOptions(options, context));
      await disk.close();
      const { notes, ...info } = disk.info;
      await context.output.result({ type: 'disk', ...info }, () => [
        `format:       ${info.format}, ${info.subformat}`,
        `virtual size: ${formatBytes(info.virtualSizeBytes)}`,
        `block size:   ${info.blockSizeBytes === 0 ? 'none' : formatBytes(info.blockSizeBytes)}`,
        `sectors:      ${info.logicalSectorBytes} bytes logical, ${info.physicalSectorBytes} physical`,
        `log:          ${info.log}`,
        ...info.chain.map((file, depth) => `${depth === 0 ? 'file:  ' : 'parent:'}       ${file}`),
      ]);
      for (const note of notes) context.output.note(note);
      return EXIT.done;
    });
  });
};
