/**
 * Random sound disks with the content that they must have, kept beside them in the obvious way: made by qemu-img and
 * qemu-io, by our writers, and byte by byte from the specifications.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Ports } from '../../src/ports.ts';
import { type CreateDiskOptions, createDisk } from '../../src/vhd/index.ts';
import type { Dice } from '../support/dice.ts';
import { buildVhd, type VhdBlock } from '../support/vhd-builder.ts';
import { type BuiltVhdx, buildVhdx, LOG_GUID, type LogChange, logEntry, putEntry } from '../support/vhdx-builder.ts';
import { KIB, MIB } from './vhd-image.ts';

export type Peer = (tool: 'qemu-img' | 'qemu-io' | '7zz', ...args: readonly string[]) => Promise<Buffer>;

/** Where and with what a disk is made. */
export interface Workshop {
  readonly directory: string;
  readonly ports: Pick<Ports, 'files' | 'clock' | 'random'>;
  readonly run: Peer;
  readonly dice: Dice;
}

/** A disk, what it holds, and who else reads it right (vhd.md's table of trust). */
export interface RandomDisk {
  readonly what: string;
  readonly file: string;
  readonly format: 'vhd' | 'vhdx';
  readonly content: Buffer;
  readonly readers: readonly ('qemu-img' | '7zz')[];
  /** Whether `qemu-img check` knows the format, and the disk has none of what it takes for wrong. */
  readonly qemuChecks: boolean;
  /** Whether `qemu-img map` tells what the tables say: for dynamic VHD it does, for VHDX it calls everything data. */
  readonly qemuMaps: boolean;
}

export type MakeDisk = (workshop: Workshop) => Promise<RandomDisk>;

/** Sizes up to 8 MiB; whole MiB, odd ones, and ends just before and behind a block. */
function randomSize(dice: Dice, unit: number): number {
  const mib = dice.between(1, 8);
  const edge = dice.pick([0, 0, unit, -unit, dice.below(MIB / unit) * unit]);
  return Math.max(unit, Math.min(8 * MIB, mib * MIB + edge));
}

/** Runs of random bytes, of one byte, of zeros: from a sector to 2 MiB. */
export function randomContent(dice: Dice, sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; ) {
    const end = Math.min(sizeBytes, at + dice.pick([1, 1, 7, 8, 128, 2048, 4096]) * 512 * dice.pick([1, 2]));
    const kind = dice.below(4);
    if (kind === 0) dice.bytes(end - at).copy(bytes, at);
    if (kind === 1) bytes.fill(dice.between(1, 255), at, end);
    at = end;
  }
  return bytes;
}

/** qemu-img, converting from raw. */
export const fromQemu: MakeDisk = async ({ directory, run, dice }) => {
  const format = dice.pick(['vhd', 'vhdx'] as const);
  const subformat = dice.pick(['fixed', 'dynamic', 'dynamic']);
  const content = randomContent(dice, randomSize(dice, 512));
  await writeFile(join(directory, 'from.raw'), content);
  const file = `disk.${format}`;
  const forced = dice.oneIn(3) ? '' : ',force_size=on';
  const blockMib = dice.pick([1, 1, 2, 8, 32]);
  const vhdx = `,block_size=${blockMib}M,block_state_zero=${dice.pick(['on', 'off'])}`;
  const options = `subformat=${subformat}${format === 'vhd' ? forced : vhdx}`;
  await run(
    'qemu-img',
    'convert',
    '-f',
    'raw',
    '-O',
    format === 'vhd' ? 'vpc' : 'vhdx',
    '-o',
    options,
    'from.raw',
    file,
  );
  // 7zz wants the last block whole in the file, and reads no odd number of sectors; qemu leaves both.
  const is7zzVhdx = content.length % 1024 === 0 && (subformat === 'dynamic' || content.length % (blockMib * MIB) === 0);
  const isRoundedUp = format === 'vhd' && forced === '';
  return {
    ...{ what: `qemu-img convert -o ${options} of ${content.length}`, file, format },
    content: isRoundedUp ? Buffer.concat([content], await virtualSizeBytes(run, file)) : content,
    readers: format === 'vhd' || is7zzVhdx ? ['7zz'] : [],
    qemuChecks: format === 'vhdx',
    qemuMaps: format === 'vhd' && subformat === 'dynamic',
  };
};

/** Without force_size qemu rounds a VHD up to whole cylinders. */
async function virtualSizeBytes(run: Peer, file: string): Promise<number> {
  const info = JSON.parse((await run('qemu-img', 'info', '-f', 'vpc', '--output=json', file)).toString());
  return info['virtual-size'];
}

/** qemu-img create, then writes by qemu-io. */
export const fromQemuIo: MakeDisk = async ({ run, dice }) => {
  const format = dice.pick(['vhd', 'vhdx'] as const);
  const content = Buffer.alloc(randomSize(dice, 512));
  const file = `disk.${format}`;
  const driver = format === 'vhd' ? 'vpc' : 'vhdx';
  const options = format === 'vhd' ? 'force_size=on' : `block_size=${dice.pick([1, 2, 4])}M`;
  await run('qemu-img', 'create', '-q', '-f', driver, '-o', options, file, String(content.length));
  const writes: string[] = [];
  for (let n = dice.between(1, 12); n > 0; n -= 1) {
    const offset = dice.below(content.length / 512) * 512;
    const lengthBytes = Math.min(content.length - offset, dice.pick([1, 3, 8, 100, 3000]) * 512);
    const value = dice.below(256);
    content.fill(value, offset, offset + lengthBytes);
    writes.push('-c', `write -q -P ${value} ${offset} ${lengthBytes}`);
  }
  await run('qemu-io', '-f', driver, ...writes, file);
  return {
    ...{ what: `qemu-io writes into ${options}, ${content.length}`, file, format, content },
    readers: format === 'vhd' || content.length % 1024 === 0 ? ['7zz'] : [],
    qemuChecks: format === 'vhdx',
    qemuMaps: format === 'vhd',
  };
};

/** Our writers: fixed and dynamic, and chains of up to four differencing disks. */
export const fromUs: MakeDisk = async ({ directory, ports, dice }) => {
  const format = dice.pick(['vhd', 'vhdx'] as const);
  const logicalSectorBytes = format === 'vhdx' && dice.oneIn(4) ? 4096 : 512;
  const size = randomSize(dice, logicalSectorBytes);
  const content = Buffer.alloc(size);
  const depth = dice.oneIn(2) ? 1 : dice.between(2, 4);
  let what = `ours: ${format} of ${size}, sectors of ${logicalSectorBytes}`;
  let parent: string | undefined;
  for (let i = 0; i < depth; i += 1) {
    const path = join(directory, `disk${i}.${format}`);
    const subformat = parent === undefined ? dice.pick(['fixed', 'dynamic', 'dynamic'] as const) : 'differencing';
    const blockSizeBytes = dice.pick(format === 'vhd' ? [64 * KIB, 512 * KIB, 2 * MIB] : [MIB, 2 * MIB, 4 * MIB]);
    const options: CreateDiskOptions = {
      ...{ format, subformat, virtualSizeBytes: size, blockSizeBytes, azureSize: false, ports },
      ...(parent === undefined ? {} : { parent }),
      ...(format === 'vhdx' ? { logicalSectorBytes, physicalSectorBytes: dice.pick([512, 4096] as const) } : {}),
    };
    await writeRandomly(path, options, content, dice);
    what += `, ${subformat} in blocks of ${blockSizeBytes}`;
    parent = path;
  }
  const isOdd = (size / logicalSectorBytes) % 2 === 1;
  const qemuReads = depth === 1 && logicalSectorBytes === 512;
  const readers: ('qemu-img' | '7zz')[] = format === 'vhdx' && isOdd ? [] : ['7zz'];
  if (qemuReads) readers.push('qemu-img');
  return {
    ...{ what, file: `disk${depth - 1}.${format}`, format, content, readers },
    qemuChecks: qemuReads && format === 'vhdx',
    qemuMaps: qemuReads && format === 'vhd' && what.includes('dynamic'),
  };
};

/** Some writes to a new disk, and the same to `content`. */
async function writeRandomly(path: string, options: CreateDiskOptions, content: Buffer, dice: Dice): Promise<void> {
  const sectorBytes = options.logicalSectorBytes ?? 512;
  const writer = await createDisk(path, options);
  for (let n = dice.between(0, 10); n > 0; n -= 1) {
    const offset = dice.below(content.length / sectorBytes) * sectorBytes;
    const lengthBytes = Math.min(content.length - offset, dice.pick([1, 1, 2, 9, 64, 1000]) * sectorBytes);
    const bytes = dice.oneIn(4) ? Buffer.alloc(lengthBytes) : dice.bytes(lengthBytes);
    await writer.write(bytes, offset);
    bytes.copy(content, offset);
  }
  await writer.finish();
}

/** VHD by hand: blocks in any order and place, any block size, odd bitmaps over a parent, longer tables. */
export const vhdByHand: MakeDisk = async ({ directory, dice }) => {
  const blockSize = dice.pick([4 * KIB, 64 * KIB, 512 * KIB, 2 * MIB]);
  const virtualSize = Math.ceil(randomSize(dice, 512) / (blockSize < 64 * KIB ? 16 : 1) / 512) * 512;
  const content = Buffer.alloc(virtualSize);
  const depth = dice.between(1, 3);
  const ids = Array.from({ length: depth }, () => dice.bytes(16));
  const hasSpares = depth === 1 && dice.oneIn(3);
  const shortFooter = depth === 1 && dice.oneIn(8);
  for (let i = 0; i < depth; i += 1) {
    const isChild = i > 0;
    const blocks = shuffled(Math.ceil(virtualSize / blockSize), dice)
      .filter(() => !dice.oneIn(3))
      .map((index) => vhdBlock(index, blockSize, isChild, dice));
    for (const block of blocks) overlay(content, block, blockSize);
    const image = buildVhd({
      ...{ virtualSize, blockSize, blocks, uniqueId: ids[i]!, headerOffset: dice.pick([512, 1024, 4096]), shortFooter },
      spareEntries: hasSpares ? dice.between(1, 300) : 0,
      ...(isChild ? { parent: { uniqueId: ids[i - 1]!, fileName: `disk${i - 1}.vhd` } } : {}),
    });
    await writeFile(join(directory, `disk${i}.vhd`), image);
  }
  return {
    what: `by hand: VHD of ${virtualSize} in blocks of ${blockSize}, ${depth} deep`,
    ...{ file: `disk${depth - 1}.vhd`, format: 'vhd', content },
    readers: [
      ...(hasSpares || shortFooter ? [] : (['7zz'] as const)),
      ...(depth === 1 && !shortFooter ? (['qemu-img'] as const) : []),
    ],
    ...{ qemuChecks: false, qemuMaps: depth === 1 && !shortFooter },
  };
};

function vhdBlock(index: number, blockSize: number, isChild: boolean, dice: Dice): VhdBlock {
  const data = dice.oneIn(3) ? Buffer.alloc(blockSize, dice.between(1, 255)) : dice.bytes(blockSize);
  const gapSectors = dice.pick([0, 0, 1, 7, 100]);
  if (!isChild) return { index, gapSectors, data };
  const density = dice.pick([2, 2, 8, 64]);
  const sectors = Array.from({ length: blockSize / 512 }, () => (density === 2 ? dice.oneIn(2) : !dice.oneIn(density)));
  return { index, gapSectors, data, sectors };
}

function overlay(content: Buffer, { index, data, sectors }: VhdBlock, blockSize: number): void {
  for (let s = 0; s < blockSize / 512; s += 1) {
    if (sectors !== undefined && sectors[s] !== true) continue;
    const offset = index * blockSize + s * 512;
    if (offset < content.length) data.copy(content, offset, s * 512, (s + 1) * 512);
  }
}

const PARENT_GUID = '77777777-2222-3333-4444-555555555555';
const MAX_ENTRY_BLOCKS = 8;

/** VHDX by hand: every state, blocks in any order, sector bitmaps over a parent, a log to replay. */
export const vhdxByHand: MakeDisk = async ({ directory, dice }) => {
  const logicalSector = dice.pick([512, 512, 4096]);
  const virtualSize = randomSize(dice, logicalSector);
  const base = Buffer.alloc(virtualSize);
  const common = { virtualSize, logicalSector };
  const parent = vhdxFile({ ...common, isChild: false, hasLog: dice.oneIn(3), dice }, base);
  const hasChild = dice.oneIn(2);
  if (hasChild) await writeFile(join(directory, 'parent.vhdx'), parent.bytes);
  const hasLog = hasChild ? dice.oneIn(3) : parent.hasLog;
  const top = hasChild ? vhdxFile({ ...common, isChild: true, hasLog, dice }, base) : parent;
  await writeFile(join(directory, 'disk.vhdx'), top.bytes);
  const isOdd = (virtualSize / logicalSector) % 2 === 1;
  const isClean = !parent.hasLog && !hasLog;
  return {
    what: `by hand: VHDX of ${virtualSize}, sectors of ${logicalSector}${hasChild ? ', child' : ''}${isClean ? '' : ', log'}`,
    ...{ file: 'disk.vhdx', format: 'vhdx', content: base },
    readers: [
      ...(isClean && !isOdd ? (['7zz'] as const) : []),
      ...(isClean && !hasChild && logicalSector === 512 ? (['qemu-img'] as const) : []),
    ],
    ...{ qemuChecks: false, qemuMaps: false },
  };
};

interface VhdxPlan {
  readonly virtualSize: number;
  readonly logicalSector: number;
  readonly isChild: boolean;
  readonly hasLog: boolean;
  readonly dice: Dice;
}

/** One file; `content` becomes what the disk with this file on top holds. */
function vhdxFile(plan: VhdxPlan, content: Buffer): { readonly bytes: Buffer; readonly hasLog: boolean } {
  const { virtualSize, logicalSector, isChild, hasLog, dice } = plan;
  const blocks = Math.ceil(virtualSize / MIB);
  const bitmapEntry = (2 ** 23 * logicalSector) / MIB;
  const places = shuffled(MAX_ENTRY_BLOCKS, dice);
  const bat: Record<number, readonly [number, number]> = { [bitmapEntry]: [6, 4 + MAX_ENTRY_BLOCKS] };
  if (!isChild) delete bat[bitmapEntry];
  for (let i = 0; i < blocks; i += 1) {
    const state = dice.pick(isChild ? [0, 1, 2, 3, 6, 7, 7] : [0, 1, 2, 3, 6, 6]);
    bat[i] = [state, state >= 6 ? 4 + places[i]! : 0];
  }
  const built = buildVhdx({
    ...{ virtualSize, logicalSector, bat, fileMiB: 5 + MAX_ENTRY_BLOCKS },
    ...(hasLog ? { logGuid: LOG_GUID } : {}),
    ...(isChild ? { parent: { parent_linkage: `{${PARENT_GUID}}`, relative_path: '.\\parent.vhdx' } } : {}),
    dataWriteGuid: PARENT_GUID,
  });
  for (const place of places) randomContent(dice, MIB).copy(built.bytes, (4 + place) * MIB);
  if (isChild) dice.bytes(2048).copy(built.bytes, (4 + MAX_ENTRY_BLOCKS) * MIB);
  const replayed = Buffer.from(built.bytes);
  if (hasLog) writeLog(built, replayed, dice);
  for (let i = 0; i < blocks; i += 1) readBlock(plan, bat[i]!, i, replayed, content);
  return { bytes: built.bytes, hasLog };
}

/** A log of a few entries somewhere in the ring, and in `replayed` what it makes of the blocks. */
function writeLog(built: BuiltVhdx, replayed: Buffer, dice: Dice): void {
  const tail = dice.below(256) * 4096;
  let offset = tail;
  const sequence = dice.pick([1n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n]);
  const last = BigInt(built.bytes.length);
  const entries = dice.between(1, 4);
  for (let i = 0; i < entries; i += 1) {
    const changes: LogChange[] = [];
    for (let n = dice.between(0, 5); n > 0; n -= 1) {
      const page = 4 * MIB + dice.below((MAX_ENTRY_BLOCKS * MIB) / 4096 - 4) * 4096;
      const isZero = dice.oneIn(3);
      const bytes = isZero ? Buffer.alloc(4096 * dice.between(1, 4)) : dice.bytes(4096);
      changes.push(isZero ? { zero: page, length: bytes.length } : { page, bytes });
      bytes.copy(replayed, page);
    }
    const entry = logEntry({ sequence: sequence + BigInt(i), tail, changes, flushed: last, last });
    putEntry(built, offset, entry);
    offset = (offset + entry.length) % MIB;
  }
}

function readBlock(
  { virtualSize, logicalSector }: VhdxPlan,
  [state, placeMiB]: readonly [number, number],
  block: number,
  file: Buffer,
  content: Buffer,
): void {
  const start = block * MIB;
  const end = Math.min(start + MIB, virtualSize);
  if (state >= 1 && state <= 3) content.fill(0, start, end);
  if (state === 6) file.copy(content, start, placeMiB * MIB, placeMiB * MIB + end - start);
  if (state !== 7) return;
  for (let at = start; at < end; at += logicalSector) {
    const bit = at / logicalSector;
    const isStored = (file[(4 + MAX_ENTRY_BLOCKS) * MIB + Math.floor(bit / 8)]! >> (bit % 8)) % 2 === 1;
    const from = placeMiB * MIB + at - start;
    if (isStored) file.copy(content, at, from, from + logicalSector);
  }
}

/** All numbers below `end`, in any order. */
function shuffled(end: number, dice: Dice): number[] {
  const left = Array.from({ length: end }, (_, i) => i);
  return Array.from({ length: end }, () => left.splice(dice.below(left.length), 1)[0]!);
}
