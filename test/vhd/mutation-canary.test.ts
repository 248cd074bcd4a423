/** Bugs planted in a reader of disks: the campaigns of damaged images find every one of them. */
import { expect, test } from 'vitest';
import { BlockferryError, isBlockferryError } from '../../src/errors.ts';
import type { FileSystem } from '../../src/ports.ts';
import { checkDisk, type Extent, type OpenDiskOptions, openDisk, type VirtualDisk } from '../../src/vhd/index.ts';
import { type Finding, runCampaign, type Subject } from '../support/hostile-run.ts';
import { hostileVhds } from './hostile-vhd.ts';
import { MIB } from './vhd-image.ts';

const CASES = 3000;

/** A reader that stumbles over what it reads: `trap` sees the bytes of every read. */
function stumblingOver(trap: (bytes: Buffer) => void): Subject {
  const files = (port: FileSystem): FileSystem => ({
    ...port,
    open: async (path, mode) => {
      const file = await port.open(path, mode);
      const read: typeof file.read = async (into, position) => {
        const n = await file.read(into, position);
        trap(Buffer.from(into.buffer, into.byteOffset, n));
        return n;
      };
      return { ...file, read };
    },
  });
  const trapped = (options: OpenDiskOptions): OpenDiskOptions => ({
    ...options,
    ports: { files: files(options.ports.files) },
  });
  return { openDisk: (path, options) => openDisk(path, trapped(options)), checkDisk };
}

/** A reader with `change` done to the disks that it opens. */
function opening(change: (disk: VirtualDisk, options: OpenDiskOptions) => VirtualDisk | Promise<VirtualDisk>): Subject {
  return { openDisk: async (path, options) => change(await openDisk(path, options), options), checkDisk };
}

function isTableTooLong(bytes: Buffer): boolean {
  return bytes.length === 1024 && bytes.readUInt32BE(28) > 2 ** 31;
}

function withExtents(disk: VirtualDisk, change: (extent: Extent) => Extent | undefined): VirtualDisk {
  async function* extents(offset: number, lengthBytes: number): AsyncGenerator<Extent> {
    for await (const extent of disk.extents(offset, lengthBytes)) {
      const changed = change(extent);
      if (changed !== undefined) yield changed;
    }
  }
  return {
    ...disk,
    info: disk.info,
    files: disk.files,
    extents,
    read: disk.read.bind(disk),
    close: disk.close.bind(disk),
  };
}

const isInSavedState = (disk: VirtualDisk): boolean => disk.info.notes.some((note) => note.includes('saved state'));

const PLANTED: Readonly<Record<string, readonly [Subject, RegExp]>> = {
  'an error that is none of ours': [
    stumblingOver((bytes) => {
      if (isTableTooLong(bytes)) throw new TypeError('planted');
    }),
    /TypeError: planted/,
  ],
  'a code that is no fault of the source': [
    {
      openDisk: (path, options) =>
        openDisk(path, options).catch((error: unknown) => {
          const isPlanted = isBlockferryError(error, 'VHD_LOCATOR');
          throw isPlanted ? new BlockferryError('UNSUPPORTED', 'planted') : error;
        }),
      checkDisk,
    },
    /UNSUPPORTED is no error of a source/,
  ],
  'two blocks at one place': [
    opening((disk) => {
      if (!isInSavedState(disk)) return disk;
      return withExtents(disk, (extent) => (extent.kind === 'data' ? { ...extent, fileOffset: 4096 } : extent));
    }),
    /are read from the same place, 4096/,
  ],
  'an extent left out': [
    opening((disk) => (isInSavedState(disk) ? withExtents(disk, (one) => (one.offset > 0 ? one : undefined)) : disk)),
    /extent of \d+ at \d+, not 0|extents end at 0/,
  ],
  'a file left open': [
    opening((disk) => (isInSavedState(disk) ? { ...disk, ...bound(disk), close: async () => {} } : disk)),
    /files were left open/,
  ],
  'a length taken from the file': [
    opening(async (disk, { ports }) => {
      if (!isInSavedState(disk)) return disk;
      const file = await ports.files.open(disk.info.chain[0]!, 'read');
      await file.read(new Uint8Array(64 * MIB), 0).finally(() => file.close());
      return disk;
    }),
    /a read of 67108864 bytes/,
  ],
  'a loop over the disk': [
    opening((disk) => {
      // In the time of the processor, as the campaign counts: a busy machine must not hide it.
      for (const start = process.cpuUsage(); isInSavedState(disk) && cpuMs(start) < 1050; );
      return disk;
    }),
    /took 1\d\d\d ms/,
  ],
  'bytes that depend on where a read begins': [
    opening((disk) => {
      const read = async (into: Uint8Array): Promise<void> => void into.fill(into.byteLength);
      return isInSavedState(disk) ? { ...disk, ...bound(disk), read } : disk;
    }),
    /read otherwise in two pieces/,
  ],
  'a check that misses a fault': [
    { openDisk, checkDisk: async (path, options) => ({ ...(await checkDisk(path, options)), faults: [] }) },
    /but the check finds no fault/,
  ],
};

function cpuMs(since: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1000;
}

function bound(disk: VirtualDisk): Pick<VirtualDisk, 'info' | 'files' | 'extents' | 'read' | 'close'> {
  const { info, files } = disk;
  return { info, files, extents: disk.extents.bind(disk), read: disk.read.bind(disk), close: disk.close.bind(disk) };
}

test.for(Object.entries(PLANTED))('the campaign finds %s', async ([, [subject, problem]]) => {
  const [finding] = await findingsOf(subject, 0, CASES);
  expect(finding).toMatchObject({ problem: expect.stringMatching(problem) });
  // The numbers of a finding are enough to make it again.
  const { caseNumber, steps } = finding!;
  expect(await findingsOf(subject, caseNumber, 1)).toMatchObject([{ caseNumber, steps }]);
});

test('the campaign finds nothing in the reader itself', async () => {
  expect(await findingsOf({ openDisk, checkDisk }, 0, CASES)).toEqual([]);
});

async function findingsOf(subject: Subject, firstCase: number, cases: number): Promise<readonly Finding[]> {
  const images = await hostileVhds();
  return (await runCampaign({ subject, ...images, seed: 1, firstCase, cases, checkedOneIn: 1, findingsMax: 1 }))
    .findings;
}
