/** A disk under random writes, with a model beside it that says what every sector may hold. */
import { expect } from 'vitest';
import type { Ports } from '../../src/ports.ts';
import { type CreateDiskOptions, createDisk, openDiskForWriting, type WritableDisk } from '../../src/vhd/index.ts';
import type { Dice } from '../support/dice.ts';
import { expectSame } from './vhd-image.ts';

export type WritePorts = Pick<Ports, 'files' | 'clock' | 'random'>;

/** A kind of disk to try. `parents` are made first; each disk of the chain lies over the one before it. */
export interface DiskKind {
  readonly name: string;
  readonly format: 'raw' | 'vhd' | 'vhdx';
  readonly subformat: 'fixed' | 'dynamic' | 'differencing';
  readonly sizeBytes: number;
  readonly blockSizeBytes?: number;
  readonly logicalSectorBytes?: 512 | 4096;
  /** Nothing is written to the top disk before it is opened. */
  readonly isEmpty?: boolean;
  /** Disks below this one. */
  readonly parents?: number;
}

const KIB = 1024;
const MIB: number = 1024 * KIB;

/** Every format and subformat, block sizes, sector sizes, chains. */
export const KINDS: readonly DiskKind[] = [
  { name: 'raw', format: 'raw', subformat: 'fixed', sizeBytes: 300 * KIB + 512 },
  { name: 'fixed VHD', format: 'vhd', subformat: 'fixed', sizeBytes: 300 * KIB + 512 },
  { name: 'dynamic VHD', format: 'vhd', subformat: 'dynamic', sizeBytes: 700 * KIB, blockSizeBytes: 64 * KIB },
  {
    name: 'dynamic VHD, 2 MiB',
    format: 'vhd',
    subformat: 'dynamic',
    sizeBytes: 9 * MIB + 512,
    blockSizeBytes: 2 * MIB,
  },
  {
    name: 'VHD chain',
    format: 'vhd',
    subformat: 'differencing',
    sizeBytes: 700 * KIB,
    blockSizeBytes: 64 * KIB,
    parents: 2,
  },
  { name: 'fixed VHDX', format: 'vhdx', subformat: 'fixed', sizeBytes: 3 * MIB + 512, blockSizeBytes: MIB },
  { name: 'dynamic VHDX', format: 'vhdx', subformat: 'dynamic', sizeBytes: 5 * MIB + 512, blockSizeBytes: MIB },
  {
    ...{ name: 'dynamic VHDX, 4 KiB sectors', format: 'vhdx', subformat: 'dynamic' },
    ...{ sizeBytes: 5 * MIB + 4096, blockSizeBytes: 2 * MIB, logicalSectorBytes: 4096 },
  },
  {
    ...{ name: 'VHDX chain', format: 'vhdx', subformat: 'differencing', parents: 2 },
    ...{ sizeBytes: 5 * MIB + 512, blockSizeBytes: MIB },
  },
  {
    ...{ name: 'VHDX chain, 4 KiB sectors', format: 'vhdx', subformat: 'differencing', parents: 1 },
    ...{ sizeBytes: 5 * MIB + 4096, blockSizeBytes: 2 * MIB, logicalSectorBytes: 4096 },
  },
];

/** What `make` left: path of the top disk and its content. */
export interface MadeDisk {
  readonly path: string;
  readonly parentPaths: readonly string[];
  readonly content: Buffer;
}

/** Makes the disk with some content in every file of its chain. */
export async function makeDisk(ports: WritePorts, directory: string, kind: DiskKind, dice: Dice): Promise<MadeDisk> {
  await ports.files.makeDirectory(directory);
  const content = Buffer.alloc(kind.sizeBytes);
  const paths: string[] = [];
  for (let depth = kind.parents ?? 0; depth >= 0; depth -= 1) {
    const path = `${directory}/${depth}-${kind.name.replaceAll(/\W+/g, '-')}.${kind.format}`;
    const parent = paths.at(-1);
    const isTop = depth === 0;
    const options: CreateDiskOptions = {
      format: kind.format,
      subformat: parent !== undefined ? 'differencing' : isTop ? kind.subformat : 'dynamic',
      virtualSizeBytes: kind.sizeBytes,
      ...(kind.blockSizeBytes === undefined ? {} : { blockSizeBytes: kind.blockSizeBytes }),
      ...(kind.logicalSectorBytes === undefined ? {} : { logicalSectorBytes: kind.logicalSectorBytes }),
      ...(parent === undefined ? {} : { parent }),
      azureSize: false,
      ports,
    };
    const writer = await createDisk(path, options);
    const writes = isTop && kind.isEmpty === true ? 0 : 6;
    for (let i = 0; i < writes; i += 1) {
      const { offset, lengthBytes } = randomRange(kind, dice);
      const bytes = dice.bytes(lengthBytes);
      await writer.write(bytes, offset);
      bytes.copy(content, offset);
    }
    await writer.finish();
    paths.push(path);
  }
  return { path: paths.at(-1)!, parentPaths: paths.slice(0, -1), content };
}

/** A range of whole sectors: mostly short, sometimes around a block's end, a whole block or several. */
export function randomRange(kind: DiskKind, dice: Dice): { readonly offset: number; readonly lengthBytes: number } {
  const unit = kind.logicalSectorBytes ?? 512;
  const sectors = kind.sizeBytes / unit;
  const block = (kind.blockSizeBytes ?? 2 ** 20) / unit;
  const blocks = Math.ceil(sectors / block);
  const clip = (first: number, count: number) => {
    const from = Math.min(Math.max(first, 0), sectors - 1);
    return { offset: from * unit, lengthBytes: Math.min(count, sectors - from) * unit };
  };
  switch (dice.below(8)) {
    case 0:
      return clip(dice.below(blocks) * block, block * dice.between(1, 2));
    case 1:
      return clip(dice.below(blocks + 1) * block - dice.between(0, 3), dice.between(1, 6));
    case 2:
      return clip(sectors - dice.between(1, 4), 4);
    case 3:
      return clip(dice.below(sectors), dice.between(1, block));
    default:
      return clip(dice.below(sectors), dice.between(1, 24));
  }
}

/** One random change of the disk and of the model. */
export async function changeOnce(disk: WritableDisk, model: Buffer, kind: DiskKind, dice: Dice): Promise<void> {
  const { offset, lengthBytes } = randomRange(kind, dice);
  if (dice.oneIn(3)) {
    model.fill(0, offset, offset + lengthBytes);
    await disk.zero(offset, lengthBytes, dice.oneIn(2) ? { unmap: true } : {});
  } else {
    const bytes = dice.bytes(lengthBytes);
    bytes.copy(model, offset);
    await disk.write(bytes, offset);
  }
}

/** Random changes, reads, flushes and reopenings; ends with the disk closed. */
export async function runSchedule(
  ports: WritePorts,
  path: string,
  model: Buffer,
  kind: DiskKind,
  dice: Dice,
  steps: number,
): Promise<void> {
  const { format } = kind;
  let disk = await openDiskForWriting(path, { ports, format });
  for (let step = 0; step < steps; step += 1) {
    const choice = dice.below(12);
    if (choice === 0) await disk.flush();
    else if (choice === 1) {
      await disk.close();
      disk = await openDiskForWriting(path, { ports, format });
    } else if (choice === 2) {
      const { offset, lengthBytes } = randomRange(kind, dice);
      const bytes = Buffer.alloc(lengthBytes, 0xee);
      await disk.read(bytes, offset);
      expectSame(bytes, model.subarray(offset, offset + lengthBytes));
    } else {
      await changeOnce(disk, model, kind, dice);
    }
  }
  const all = Buffer.alloc(kind.sizeBytes, 0xee);
  await disk.read(all, 0);
  expectSame(all, model);
  await disk.close();
  expect(disk.info.virtualSizeBytes).toBe(kind.sizeBytes);
}
