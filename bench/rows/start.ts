/** start: what a command costs before it has moved a byte that matters. It is in every other figure of a command. */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { Ferry } from '../blockferry.ts';
import { type Lab, MIB } from '../lab.ts';
import { measure } from '../measure.ts';
import { race } from '../race.ts';

export async function start(lab: Lab): Promise<void> {
  const disk = lab.target('disk.raw');
  await writeFile(disk, randomBytes(MIB));
  const home = lab.target('home');
  let ferry = await Ferry.make(home);
  const [restoring, out] = [await Ferry.make(lab.target('home')), lab.target('out')];
  await restoring.protect([disk], `file://${lab.target('replica')}`);
  await race(lab, { bench: 'start', task: 'a disk of 1 MiB', input: '1 MiB of random bytes' }, [
    { name: 'node', command: "node -e ''", run: () => measure([process.execPath, '-e', '']) },
    {
      name: 'version',
      command: 'blockferry --version',
      run: () => measure(ferry.command('--version')),
    },
    {
      name: 'protect',
      command: 'blockferry protect vm disk.raw --to http://DISCARDING',
      prepare: async () => {
        ferry = await Ferry.make(home);
      },
      run: () => ferry.protect([disk], lab.discarding()),
    },
    { name: 'resync', command: 'blockferry resync vm, after protect', run: () => ferry.run('resync', 'vm') },
    {
      name: 'failover',
      command: 'blockferry failover vm --test --format raw --out OUT, from a folder',
      run: () => restoring.run('failover', 'vm', '--test', '--format', 'raw', '--out', out),
      clean: async () => void (await restoring.run('cancel', 'vm', '--test')),
    },
  ]);
}
