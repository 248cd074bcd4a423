/** sparse: what a disk costs that is large and holds little. The same 1 GiB lies in a disk of 1 GiB and in one of 2 TiB. */
import { Ferry, sumOfDisks } from '../blockferry.ts';
import { converted, emptyVhdx, type Input, realContent, spread } from '../input.ts';
import { GIB, type Lab, MIB } from '../lab.ts';
import { type Contestant, race } from '../race.ts';

const TIB = 1024 * GIB;

/** A first copy of `input` to the discarding store. */
function firstCopy(lab: Lab, name: string, input: Input): Contestant {
  const home = lab.target('home');
  let ferry: Ferry;
  return {
    name,
    command: `blockferry protect vm ${name}.vhdx --to http://DISCARDING`,
    prepare: async () => {
      ferry = await Ferry.make(home);
      await lab.store.reset();
    },
    run: async () => {
      const { report, ...cost } = await ferry.protect([input.path], lab.discarding());
      const [readBytes, chunks] = [sumOfDisks(report, 'readBytes'), sumOfDisks(report, 'chunksCompared')];
      return { ...cost, counts: { readBytes, chunks, sentBytes: (await lab.store.counts()).bodyBytes } };
    },
  };
}

export async function sparse(lab: Lab): Promise<void> {
  const empty = await emptyVhdx(lab, 64 * TIB);
  await race(lab, { bench: 'sparse', task: 'empty', input: empty.recipe }, [firstCopy(lab, 'empty 64 TiB', empty)]);
  const content = await realContent(lab, lab.size(GIB, 32 * MIB));
  const small = await converted(lab, content, 'vhdx');
  const large = await converted(lab, await spread(lab, content, lab.size(2 * TIB, 64 * GIB)), 'vhdx');
  await race(lab, { bench: 'sparse', task: '1 GiB of content', input: large.recipe }, [
    firstCopy(lab, '1 GiB in 1 GiB', small),
    firstCopy(lab, '1 GiB in 2 TiB', large),
  ]);
}
