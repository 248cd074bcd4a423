/** restore: 1 GiB of real files brought back from a folder, against those who bring it back from their repositories. All on tmpfs. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Ferry } from '../blockferry.ts';
import { realContent } from '../input.ts';
import { GIB, type Lab, MIB, removeTree } from '../lab.ts';
import { copying } from '../limits.ts';
import { measure, run } from '../measure.ts';
import { borgRepository, resticRepository } from '../peers.ts';
import { race } from '../race.ts';
import { missingTool } from '../tools.ts';

export async function restore(lab: Lab): Promise<void> {
  const input = await realContent(lab, lab.size(GIB, 32 * MIB));
  const [folder, out] = [lab.target('replica'), lab.target('out')];
  const ferry = await Ferry.make(lab.target('home'));
  await ferry.protect([input.path], `file://${folder}`);
  const restic = resticRepository(lab);
  if (missingTool('restic') === undefined) {
    await restic.make();
    await run(restic.command('backup', '--no-cache', input.path), restic);
  }
  const borg = borgRepository(lab);
  if (missingTool('borg') === undefined) {
    await borg.make();
    await run(borg.command('create', '--chunker-params', 'fixed,262144', `${borg.path}::one`, input.path), borg);
  }
  const clean = (): Promise<void> => removeTree(out);
  await race(lab, { bench: 'restore', task: 'full', input: input.recipe }, [
    {
      name: 'blockferry',
      command: 'blockferry failover vm --test --format raw --out OUT, from a folder',
      run: async () => {
        const { report: _, ...cost } = await ferry.run('failover', 'vm', '--test', '--format', 'raw', '--out', out);
        return cost;
      },
      clean: async () => {
        await ferry.run('cancel', 'vm', '--test');
        await clean();
      },
    },
    { ...copying(input.path, `${out}.limit`, lab.size(GIB, 32 * MIB)), clean: () => removeTree(`${out}.limit`) },
    {
      name: 'restic',
      tool: 'restic',
      command: 'restic restore latest --no-cache --target OUT',
      run: () => measure(restic.command('restore', 'latest', '--no-cache', '--target', out), restic),
      clean,
    },
    {
      name: 'borg',
      tool: 'borg',
      command: 'borg extract --sparse repository::one',
      prepare: async () => void (await mkdir(out)),
      run: () => measure(borg.command('extract', '--sparse', `${borg.path}::one`), { ...borg, cwd: join(out) }),
      clean,
    },
  ]);
  for (const path of [folder, restic.path, borg.path]) await removeTree(path);
}
