/** upload: a fixed VHD to a page blob as it is, against azcopy at the same server. */
import { Ferry, sumOfDisks } from '../blockferry.ts';
import { converted, incompressible } from '../input.ts';
import { GIB, type Lab, MIB } from '../lab.ts';
import { sending } from '../limits.ts';
import { measure } from '../measure.ts';
import { race } from '../race.ts';

export async function upload(lab: Lab): Promise<void> {
  // Random bytes: azcopy sends what is not zeros, and so there is nothing here that either could leave out.
  const input = await converted(lab, await incompressible(lab, lab.size(GIB, 32 * MIB)), 'fixed vhd');
  const [home, logs] = [lab.target('home'), lab.target('azcopy')];
  let ferry: Ferry;
  const counted = async (): Promise<Record<string, number>> => {
    const { requests, bodyBytes, atOnce, writingMs, serverCpuMs } = await lab.store.counts();
    return { puts: requests['PUT blob page update'] ?? 0, sentBytes: bodyBytes, atOnce, writingMs, serverCpuMs };
  };
  await race(lab, { bench: 'upload', task: 'raw', input: input.recipe }, [
    {
      name: 'blockferry',
      command: 'blockferry protect vm disk.vhd --layout raw --to http://DISCARDING',
      prepare: async () => {
        ferry = await Ferry.make(home);
        await lab.store.reset();
      },
      run: async () => {
        const { report, ...cost } = await ferry.protect([input.path], lab.discarding(), '--layout', 'raw');
        return { ...cost, counts: { ...(await counted()), chunks: sumOfDisks(report, 'chunksSent') } };
      },
    },
    sending(input.path, lab, counted),
    {
      name: 'azcopy',
      tool: 'azcopy',
      command: 'azcopy copy disk.vhd http://DISCARDING/disk.vhd --blob-type PageBlob --from-to LocalBlob',
      prepare: () => lab.store.reset(),
      run: async () => {
        const env = { AZCOPY_LOG_LOCATION: logs, AZCOPY_JOB_PLAN_LOCATION: logs, AZCOPY_DISABLE_SYSLOG: 'true' };
        const target = `${lab.discarding()}.vhd?sv=2023-11-03&sig=bench`;
        const options = ['--blob-type', 'PageBlob', '--from-to', 'LocalBlob', '--log-level', 'NONE'];
        const cost = await measure(['azcopy', 'copy', input.path, target, ...options], { env });
        return { ...cost, counts: await counted() };
      },
    },
  ]);
}
