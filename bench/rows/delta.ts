/** delta: bytes that are sent when 1 % of a disk has changed, in blocks of 4 KiB that lie anywhere. Bytes, not times, count here. */
import { copyFile, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Ferry, sumOfDisks } from '../blockferry.ts';
import { randomWrites } from '../fio.ts';
import { type Input, overwrite, realContent, scatteredBlocks } from '../input.ts';
import { GIB, KIB, type Lab, MIB, removeTree } from '../lab.ts';
import { type Contestant, race } from '../race.ts';
import { emptyRaw, startTrack } from '../served.ts';

const SHARE = 0.01;
const BLOCK_BYTES = 4 * KIB;
const CHUNK_BYTES = 256 * KIB;

/** Blocks are overwritten behind our back, and a resync finds them. The store is a folder: it has to hold the disk. */
function resynced(lab: Lab, layout: 'sealed' | 'raw', input: Input): Contestant {
  const [disk, folder, home] = [lab.target('disk.raw'), lab.target('replica'), lab.target('home')];
  const offsets = scatteredBlocks(input.sizeBytes, SHARE);
  const touchedChunks = new Set(offsets.map((offset) => Math.floor(offset / CHUNK_BYTES))).size;
  let ferry: Ferry;
  return {
    name: `resync, ${layout}`,
    command: `blockferry resync vm, layout ${layout}`,
    prepare: async () => {
      ferry = await Ferry.make(home);
      await copyFile(input.path, disk);
      await ferry.protect([disk], `file://${folder}`, '--layout', layout);
      await overwrite(disk, offsets);
    },
    run: async () => {
      const { report, ...cost } = await ferry.run('resync', 'vm');
      const changedBytes = offsets.length * BLOCK_BYTES;
      const [sentBytes, sentChunks] = [sumOfDisks(report, 'sentBytes'), sumOfDisks(report, 'chunksSent')];
      return { ...cost, counts: { changedBytes, touchedChunks, sentChunks, sentBytes } };
    },
    clean: async () => {
      await removeTree(disk);
      await removeTree(folder);
    },
  };
}

/** A guest writes through the tracker, and a cycle ships what it wrote. */
function shipped(lab: Lab, sizeBytes: number): Contestant {
  const [disk, home] = [`${lab.target('tracked')}/disk.raw`, lab.target('home')];
  let ferry: Ferry;
  let writtenBytes = 0;
  return {
    name: 'ship',
    tool: 'fio',
    command: 'blockferry ship vm, after fio --rw=randwrite --bs=4k through blockferry track',
    prepare: async () => {
      ferry = await Ferry.make(home);
      await mkdir(dirname(disk), { recursive: true });
      await emptyRaw(disk, sizeBytes);
      await ferry.protect([disk], lab.discarding());
      const tracker = await startTrack(ferry);
      const job = { bs: BLOCK_BYTES, size: sizeBytes, io_size: sizeBytes * SHARE, iodepth: 16 };
      ({ writtenBytes } = await randomWrites(tracker.uri, job));
      await tracker.stop();
    },
    run: async () => {
      const { report, ...cost } = await ferry.run('ship', 'vm');
      return { ...cost, counts: { changedBytes: writtenBytes, sentBytes: Number(report['sentBytes']) } };
    },
    clean: () => removeTree(dirname(disk)),
  };
}

export async function delta(lab: Lab): Promise<void> {
  const input = await realContent(lab, lab.size(GIB, 32 * MIB));
  const heat = {
    bench: 'delta',
    task: '1 % changed',
    input: `${input.recipe}; 1 % of its 4 KiB blocks random`,
    rounds: 1,
  };
  await race(lab, heat, [resynced(lab, 'sealed', input), resynced(lab, 'raw', input), shipped(lab, input.sizeBytes)]);
}
