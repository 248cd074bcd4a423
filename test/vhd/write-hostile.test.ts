/**
 * Writing into damaged images: each is refused with a typed error, or takes writes like a sound one: what was written is
 * read back, all else is as before, and the image is as sound as it was. A write that went outside its own block would
 * show as a change elsewhere.
 */
import { expect, test } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import type { FileStamp, FileSystem, RandomAccessFile } from '../../src/ports.ts';
import { openDisk, openDiskForWriting } from '../../src/vhd/index.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { DIRECTORY } from '../support/hostile-run.ts';
import { errno } from '../support/memory-files.ts';
import { mutate } from '../support/mutator.ts';
import { PAGE_BYTES, type PagedImage } from '../support/paged-image.ts';
import { hostileVhds } from './hostile-vhd.ts';
import { hostileVhdxs } from './hostile-vhdx.ts';

const PATH = `${DIRECTORY}/damaged`;
const seed = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const vhdCases = numberFromEnvironment('BLOCKFERRY_CASES', 400);
/** A VHDX takes longer to read whole. */
const vhdxCases = Math.ceil(vhdCases / 4);
/** Larger disks are opened, but not compared whole. */
const COMPARED_BYTES_MAX = 16 * 1024 * 1024;
const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);
const REFUSALS: ReadonlySet<string> = new Set(['source', 'usage', 'failed']);

/** Images as files; only the damaged one may be written. */
function filesOf(images: ReadonlyMap<string, PagedImage>): FileSystem {
  const imageAt = (path: string): PagedImage => {
    const image = images.get(path);
    if (image === undefined) throw errno('ENOENT', path);
    return image;
  };
  const open = async (path: string, mode: string): Promise<RandomAccessFile> => {
    const image = imageAt(path);
    if (mode !== 'read' && path !== PATH) throw new Error(`${path} is a parent and is not opened for writing`);
    const stamp = async (): Promise<FileStamp> => ({
      ...{ sizeBytes: image.sizeBytes, modifiedNs: 0n, identity: path },
      allocatedBytes: image.pageCount * PAGE_BYTES,
    });
    return {
      ...{ path, descriptor: undefined, stamp },
      sizeBytes: async () => image.sizeBytes,
      read: async (into, position) => image.read(into, position),
      write: async (from, position) => {
        if (mode === 'read') throw new Error('opened for reading');
        writeSparse(image, from, position);
      },
      truncate: async (sizeBytes) => image.resize(sizeBytes),
      sync: async () => {},
      close: async () => {},
    };
  };
  const realPath = async (path: string): Promise<string> => (path === DIRECTORY ? path : imageAt(path) && path);
  return { open, realPath } as Partial<FileSystem> as FileSystem;
}

/** Zeros over zeros take no memory. */
function writeSparse(image: PagedImage, from: Uint8Array, position: number): void {
  for (let at = 0; at < from.byteLength; ) {
    const end = Math.min(from.byteLength, at + PAGE_BYTES - ((position + at) % PAGE_BYTES));
    const piece = from.subarray(at, end);
    const isKnownZero =
      ZERO_PAGE.compare(piece, 0, piece.length, 0, piece.length) === 0 &&
      image.slice(position + at, piece.length).equals(ZERO_PAGE.subarray(0, piece.length));
    if (!isKnownZero) image.write(piece, position + at);
    at = end;
  }
  image.resize(Math.max(image.sizeBytes, position + from.byteLength));
}

/** Writes into one image. `refused` or `written`; throws where something is wrong. */
async function judge(files: FileSystem, dice: Dice): Promise<'refused' | 'written'> {
  const random = { bytes: (n: number) => dice.bytes(n), fraction: () => 0.5 };
  const ports = { files, random };
  const disk = await openDiskForWriting(PATH, { ports }).catch((error: unknown) => {
    if (isBlockferryError(error) && REFUSALS.has(error.area)) return undefined;
    throw error;
  });
  if (disk === undefined) return 'refused';
  const { virtualSizeBytes, logicalSectorBytes } = disk.info;
  const windowBytes = Math.min(virtualSizeBytes, COMPARED_BYTES_MAX);
  const model = Buffer.alloc(windowBytes);
  await disk.read(model, 0);
  for (let i = 0; i < 5; i += 1) {
    const sectors = windowBytes / logicalSectorBytes;
    const first = dice.below(sectors);
    const count = Math.min(sectors - first, dice.pick([1, 3, 40, 300, 5000]));
    const [offset, lengthBytes] = [first * logicalSectorBytes, count * logicalSectorBytes];
    const bytes = dice.oneIn(2) ? Buffer.alloc(lengthBytes) : dice.bytes(lengthBytes);
    if (dice.oneIn(2)) await disk.write(bytes, offset);
    else await disk.zero(offset, bytes.fill(0).length, dice.oneIn(2) ? { unmap: true } : {});
    bytes.copy(model, offset);
    if (dice.oneIn(3)) await disk.flush();
  }
  await compare(disk, model, 'before closing');
  await disk.close();
  const again = await openDisk(PATH, { ports });
  await compare(again, model, 'after closing');
  return 'written';
}

async function compare(
  disk: { read(into: Uint8Array, offset: number): Promise<void> },
  model: Buffer,
  when: string,
): Promise<void> {
  const found = Buffer.alloc(model.length, 0xee);
  await disk.read(found, 0);
  if (found.equals(model)) return;
  throw new Error(`${when}: byte ${found.findIndex((byte, i) => byte !== model[i])} is not what was written`);
}

test.for([
  ['VHD', hostileVhds, vhdCases],
  ['VHDX', hostileVhdxs, vhdxCases],
] as const)('a damaged %s is refused, or takes writes without harm to its other blocks', async ([, make, cases]) => {
  const { bases, others } = await make();
  const problems: string[] = [];
  const outcomes = { refused: 0, written: 0 };
  for (let caseNumber = 0; caseNumber < cases && problems.length < 5; caseNumber += 1) {
    const dice = new Dice(seed, caseNumber);
    const [base, donor] = [dice.pick(bases), dice.pick(bases)];
    const { image, steps } = mutate(base, donor, dice);
    try {
      outcomes[await judge(filesOf(new Map([...others, [PATH, image]])), dice)] += 1;
    } catch (error) {
      problems.push(`case ${caseNumber}, ${base.name}, ${steps.join(', ')}: ${(error as Error).stack}`);
    }
  }
  expect(problems).toEqual([]);
  expect(outcomes.written).toBeGreaterThan(cases / 20);
  expect(outcomes.refused).toBeGreaterThan(cases / 20);
});
