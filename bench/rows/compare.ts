/** compare: reading a disk that has not changed and finding that out, against one hash of the file and against rsync. */
import { copyFile } from 'node:fs/promises';
import { Ferry, sumOfDisks } from '../blockferry.ts';
import { type Input, realContent, repeated } from '../input.ts';
import { GIB, type Lab, MIB, removeTree } from '../lab.ts';
import { reading } from '../limits.ts';
import { measure } from '../measure.ts';
import { type Contestant, race } from '../race.ts';

/** Makes a disk so large that the start of a command is a small part of it. */
const LARGE_TIMES = 4;

function ours(ferry: Ferry): Contestant {
  return {
    name: 'blockferry',
    command: 'blockferry resync vm, after protect',
    run: async () => {
      const { report, ...cost } = await ferry.run('resync', 'vm');
      const [readBytes, sentBytes] = [sumOfDisks(report, 'readBytes'), sumOfDisks(report, 'sentBytes')];
      return { ...cost, counts: { readBytes, sentBytes } };
    },
  };
}

function oneHash({ path }: Input): Contestant {
  return {
    name: 'xxh64sum',
    tool: 'xxh64sum',
    command: 'xxh64sum content.raw',
    run: () => measure(['xxh64sum', path]),
  };
}

async function protectedFerry(lab: Lab, { path }: Input): Promise<Ferry> {
  const ferry = await Ferry.make(lab.target('home'));
  await ferry.protect([path], lab.discarding());
  return ferry;
}

export async function compare(lab: Lab): Promise<void> {
  const input = await realContent(lab, lab.size(GIB, 32 * MIB));
  const copy = lab.target('copy.raw');
  await copyFile(input.path, copy);
  await race(lab, { bench: 'compare', task: 'nothing changed', input: input.recipe }, [
    ours(await protectedFerry(lab, input)),
    oneHash(input),
    reading(input.path, 'read'),
    {
      name: 'rsync',
      tool: 'rsync',
      command: 'rsync --ignore-times --inplace --no-whole-file content.raw copy.raw, both here',
      run: () => measure(['rsync', '--ignore-times', '--inplace', '--no-whole-file', input.path, copy]),
    },
  ]);
  await removeTree(copy);
  const large = await repeated(lab, input, LARGE_TIMES);
  await race(lab, { bench: 'compare', task: 'nothing changed, 4 GiB', input: large.recipe }, [
    ours(await protectedFerry(lab, large)),
    oneHash(large),
    reading(large.path, 'read'),
  ]);
}
