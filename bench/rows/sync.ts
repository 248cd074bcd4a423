/** sync: the first copy of 1 GiB of real files, sealed, against the first backup of those who also compress and encrypt. */
import { Ferry, sumOfDisks } from '../blockferry.ts';
import { realContent } from '../input.ts';
import { GIB, type Lab, MIB, removeTree } from '../lab.ts';
import { reading } from '../limits.ts';
import { measure } from '../measure.ts';
import { borgRepository, resticRepository } from '../peers.ts';
import { race } from '../race.ts';

export async function sync(lab: Lab): Promise<void> {
  const input = await realContent(lab, lab.size(GIB, 32 * MIB));
  const [home, folder] = [lab.target('home'), lab.target('replica')];
  let ferry: Ferry;
  const prepare = async (): Promise<void> => {
    ferry = await Ferry.make(home);
    await lab.store.reset();
  };
  const restic = resticRepository(lab);
  const borg = borgRepository(lab);
  await race(lab, { bench: 'sync', task: 'first copy', input: input.recipe }, [
    {
      name: 'blockferry',
      command: 'blockferry protect vm content.raw --to http://DISCARDING --key-file key',
      prepare,
      run: async () => {
        const { report, ...cost } = await ferry.protect([input.path], lab.discarding());
        const { requests, bodyBytes, serverCpuMs } = await lab.store.counts();
        const counts = {
          sentBytes: bodyBytes,
          requests: Object.values(requests).reduce((a, b) => a + b, 0),
          serverCpuMs,
        };
        return { ...cost, counts: { ...counts, chunks: sumOfDisks(report, 'chunksSent') } };
      },
    },
    {
      name: 'blockferry, to a folder',
      command: 'blockferry protect vm content.raw --to file:///TMPFS --key-file key',
      prepare,
      run: async () => ferry.protect([input.path], `file://${folder}`),
      clean: () => removeTree(folder),
    },
    reading(input.path, 'compress'),
    {
      name: 'restic',
      tool: 'restic',
      command: 'restic backup --no-cache content.raw, into a new repository on tmpfs',
      prepare: restic.make,
      run: () => measure(restic.command('backup', '--no-cache', input.path), restic),
      clean: restic.remove,
    },
    {
      name: 'borg',
      tool: 'borg',
      command: 'borg create --compression lz4 --chunker-params fixed,262144, into a new repokey repository on tmpfs',
      prepare: borg.make,
      run: () => {
        const options = ['--compression', 'lz4', '--chunker-params', 'fixed,262144', '--files-cache', 'disabled'];
        return measure(borg.command('create', ...options, `${borg.path}::one`, input.path), borg);
      },
      clean: borg.remove,
    },
  ]);
}
