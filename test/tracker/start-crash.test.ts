import { expect, test } from 'vitest';
import { randomGuid } from '../../src/guid.ts';
import { openTracker, RestingTracking, type TrackedItem } from '../../src/tracker/index.ts';
import { createDisk } from '../../src/vhd/index.ts';
import { type CrashFileSystem, crashFileSystem } from '../support/crash-files.ts';
import type { MemoryFileSystem } from '../support/memory-files.ts';
import { seededRandom, virtualClock } from '../support/virtual-clock.ts';
import { CHUNK_BYTES, labPorts } from './tracking-lab.ts';

const MIB = 1 << 20;
const PATH = '/disks/disk.vhdx';

function itemOn(files: CrashFileSystem | MemoryFileSystem, seed: number): TrackedItem {
  const ports = labPorts(files, virtualClock(), seed);
  const disk = { id: 'd0', guid: Buffer.alloc(16, 1), path: PATH, format: 'vhdx' as const, chunkBytes: CHUNK_BYTES };
  return {
    ...{ name: 'lab', directory: '/home/tracking', disks: [{ ...disk, virtualSizeBytes: 4 * MIB }], ports },
    onEvent: () => {},
  };
}

/** An item at rest whose replica has all, with a tracker behind it that ended in order or did not. */
async function tracked(end: 'clean' | 'hard'): Promise<CrashFileSystem> {
  const files = crashFileSystem(new Map());
  const item = itemOn(files, 1);
  const size = { virtualSizeBytes: 4 * MIB, blockSizeBytes: MIB };
  const writer = await createDisk(PATH, { format: 'vhdx', subformat: 'dynamic', ...size, ports: item.ports });
  await writer.finish();
  const resting = await RestingTracking.open(item);
  await resting.settle([randomGuid(Buffer.alloc(16, 7))], ['']);
  await resting.close();
  const tracker = await openTracker(item);
  await tracker.devices[0]!.write(Buffer.alloc(4096, 1), 0, true);
  // No stamp: files that come back from a power cut have others here, so only the disk's own id tells.
  if (end === 'clean') await tracker.close(async () => '');
  else await tracker.abandon();
  return files;
}

/** The same files, which can be cut off again. */
async function revived(files: MemoryFileSystem): Promise<CrashFileSystem> {
  const contents = new Map<string, Uint8Array>();
  for (const directory of ['/disks', '/home/tracking']) {
    for (const { name } of await files.list(directory)) {
      contents.set(`${directory}/${name}`, files.get(`${directory}/${name}`)!);
    }
  }
  return crashFileSystem(contents);
}

test.each(['clean', 'hard'] as const)(
  'a start, behind a %s end, that is cut at any operation: the next one goes on logging',
  async (end) => {
    let cuts = 0;
    for (let isDone = false; !isDone; cuts += 1) {
      const files = await tracked(end);
      files.stopAt = files.operations + cuts;
      const started = await openTracker(itemOn(files, 2)).catch(() => undefined);
      isDone = started !== undefined;
      await started?.abandon().catch(() => {});
      // Cut once more, a little later: what the first start was about to do counts still.
      const survivors = await revived(files.powerCut(seededRandom(cuts)));
      survivors.stopAt = survivors.operations + (cuts % 12);
      await (await openTracker(itemOn(survivors, 3)).catch(() => undefined))?.abandon().catch(() => {});
      const last = await openTracker(itemOn(survivors.powerCut(seededRandom(cuts + 1)), 4));
      expect(last.status().mode, `cut ${cuts}: ${last.status().reason?.message}`).toBe('logging');
      await last.abandon();
    }
    expect(cuts).toBeGreaterThan(10);
  },
);
