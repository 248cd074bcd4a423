/** compare: reading a disk that has not changed and finding that out, against one hash of the file and against rsync. */
import { copyFile } from 'node:fs/promises';
import { Ferry, sumOfDisks } from '../blockferry.ts';
import { realContent } from '../input.ts';
import { GIB, type Lab, MIB, removeTree } from '../lab.ts';
import { measure } from '../measure.ts';
import { race } from '../race.ts';

export async function compare(lab: Lab): Promise<void> {
  const input = await realContent(lab, lab.size(GIB, 32 * MIB));
  const copy = lab.target('copy.raw');
  await copyFile(input.path, copy);
  const ferry = await Ferry.make(lab.target('home'));
  await ferry.protect([input.path], lab.discarding());
  await race(lab, { bench: 'compare', task: 'nothing changed', input: input.recipe }, [
    {
      name: 'blockferry',
      command: 'blockferry resync vm, after protect',
      run: async () => {
        const { report, ...cost } = await ferry.run('resync', 'vm');
        return {
          ...cost,
          counts: { readBytes: sumOfDisks(report, 'readBytes'), sent: sumOfDisks(report, 'sentBytes') },
        };
      },
    },
    {
      name: 'xxh64sum',
      tool: 'xxh64sum',
      command: 'xxh64sum content.raw',
      run: () => measure(['xxh64sum', input.path]),
    },
    {
      name: 'rsync',
      tool: 'rsync',
      command: 'rsync --ignore-times --inplace --no-whole-file content.raw copy.raw, both here',
      run: () => measure(['rsync', '--ignore-times', '--inplace', '--no-whole-file', input.path, copy]),
    },
  ]);
  await removeTree(copy);
}
