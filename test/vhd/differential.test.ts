/**
 * Random sound disks, read by us and by others: none may differ. `BLOCKFERRY_SEED`, `BLOCKFERRY_CASE` and
 * `BLOCKFERRY_CASES` choose other cases, or one of them again.
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { convertDisk, type MapEntry, mapDisk } from '../../src/tools/index.ts';
import { checkDisk, createDisk, openDisk, type VirtualDisk } from '../../src/vhd/index.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import {
  fromQemu,
  fromQemuIo,
  fromUs,
  type MakeDisk,
  type Peer,
  type RandomDisk,
  vhdByHand,
  vhdxByHand,
} from './random-disks.ts';
import { MIB, readAll } from './vhd-image.ts';

const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const FIRST_CASE = numberFromEnvironment('BLOCKFERRY_CASE', 0);
const CASES = numberFromEnvironment('BLOCKFERRY_CASES', 150);
/** Cases in work at a time: the other programs run beside us. */
const LANES = 3;
const ROUND_TRIP_ONE_IN = 5;

/** In CI all are there. */
const missing = ['qemu-img', 'qemu-io', '7zz'].filter((tool) => spawnSync(tool, ['--help']).error !== undefined);
if (missing.length > 0 && process.env['CI'] === 'true') throw new Error(`not installed: ${missing.join(', ')}`);
if (missing.length > 0) console.warn(`skipped, not installed: ${missing.join(', ')}`);

const ports = nodePorts();
const runFile = promisify(execFile);
let scratch: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'blockferry-differential-'));
});

afterAll(() => rm(scratch, { recursive: true }));

function peerIn(directory: string): Peer {
  const options = { cwd: directory, encoding: 'buffer', maxBuffer: 64 * MIB } as const;
  return async (tool, ...args) => (await runFile(tool, args, options)).stdout;
}

function expectEqual(actual: Buffer, expected: Buffer, who: string): void {
  if (actual.equals(expected)) return;
  const at = expected.findIndex((byte, i) => byte !== actual[i]);
  throw new Error(`${who}: ${actual.length} bytes for ${expected.length}, the first that differs at ${at}`);
}

const MAKERS: readonly MakeDisk[] = [fromQemu, fromQemu, fromQemuIo, fromUs, fromUs, vhdByHand, vhdxByHand, vhdxByHand];

/** One case: a disk is made, and everybody who can reads it. `spoil` is for the canary. */
async function play(caseNumber: number, spoil: (content: Buffer, dice: Dice) => void = () => {}): Promise<void> {
  const dice = new Dice(SEED, caseNumber);
  const directory = join(scratch, String(caseNumber));
  await mkdir(directory);
  const run = peerIn(directory);
  const disk = await dice.pick(MAKERS)({ directory, ports, run, dice });
  spoil(disk.content, dice);
  try {
    await readByUs(directory, disk, dice);
    for (const reader of disk.readers) await readBy[reader](run, directory, disk);
    if (disk.qemuChecks) await run('qemu-img', 'check', '-q', '-f', driverOf(disk.format), disk.file);
    if (disk.qemuMaps) await compareMaps(run, directory, disk);
    if (dice.oneIn(ROUND_TRIP_ONE_IN)) await roundTrip(run, directory, disk, dice);
  } catch (cause) {
    throw new Error(`seed ${SEED}, case ${caseNumber} (${disk.what}): ${String(cause)}`, { cause });
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function readByUs(directory: string, { file, content }: RandomDisk, dice: Dice): Promise<void> {
  const path = join(directory, file);
  expectEqual(await readAll(ports, path), content, 'we');
  const disk = await openDisk(path, { ports });
  const offset = dice.below(content.length);
  const piece = Buffer.alloc(dice.between(0, content.length - offset), 0xee);
  await disk.read(piece, offset);
  await disk.close();
  expectEqual(piece, content.subarray(offset, offset + piece.length), `we, from ${offset}`);
  const { faults } = await checkDisk(path, { ports });
  expect(faults).toEqual([]);
}

const readBy: Readonly<Record<'qemu-img' | '7zz', (run: Peer, directory: string, disk: RandomDisk) => Promise<void>>> =
  {
    '7zz': async (run, _, { format, file, content }) => {
      expectEqual(await run('7zz', 'e', '-so', `-t${format}`, file), content, '7zz');
    },
    'qemu-img': async (run, directory, { format, file, content }) => {
      await run('qemu-img', 'convert', '-f', driverOf(format), '-O', 'raw', file, 'qemu.raw');
      expectEqual(await readFile(join(directory, 'qemu.raw')), content, 'qemu-img');
    },
  };

function driverOf(format: 'raw' | 'vhd' | 'vhdx'): string {
  return format === 'vhd' ? 'vpc' : format;
}

/** The allocated ranges of both maps, with their places. What no table holds is zeros for both. */
async function compareMaps(run: Peer, directory: string, { file, format }: RandomDisk): Promise<void> {
  const theirs: MapEntry[] = JSON.parse(
    (await run('qemu-img', 'map', '--output=json', '-f', driverOf(format), file)).toString(),
  );
  const disk = await openDisk(join(directory, file), { ports });
  const ours: MapEntry[] = [];
  for await (const entry of mapDisk(disk)) ours.push(entry);
  await disk.close();
  expect(allocated(ours)).toEqual(allocated(theirs));
  expect(ours.every(({ data, zero }) => data !== zero)).toBe(true);
}

/** qemu divides its ranges at blocks and at holes of the file; what continues the range before it is joined to it. */
function allocated(entries: readonly MapEntry[]): readonly { start: number; end: number; offset: number }[] {
  const ranges: { start: number; end: number; offset: number }[] = [];
  for (const { start, length, offset } of entries) {
    if (offset === undefined) continue;
    const last = ranges.at(-1);
    const continues = last?.end === start && last.offset + start - last.start === offset;
    if (continues) last.end += length;
    else ranges.push({ start, end: start + length, offset });
  }
  return ranges;
}

/** Ours to another image of ours, that to raw by qemu, that to an image of qemu's, and back to us. */
async function roundTrip(run: Peer, directory: string, { file, content }: RandomDisk, dice: Dice): Promise<void> {
  const path = (name: string): string => join(directory, name);
  const format = dice.pick(['raw', 'vhd', 'vhdx'] as const);
  const subformat = format === 'raw' ? 'fixed' : dice.pick(['fixed', 'dynamic'] as const);
  await withDisk(path(file), async (disk) => {
    const virtualSizeBytes = content.length;
    const options = { format, subformat, virtualSizeBytes, azureSize: false, ports } as const;
    await convertDisk(disk, await createDisk(path('ours'), options));
  });
  if (format === 'vhdx') await run('qemu-img', 'check', '-q', '-f', 'vhdx', 'ours');
  await run('qemu-img', 'convert', '-f', driverOf(format), '-O', 'raw', 'ours', 'there.raw');
  expectEqual(await readFile(path('there.raw')), content, `qemu-img of our ${subformat} ${format}`);
  const back = dice.pick(['vpc', 'vhdx']);
  const options = back === 'vpc' ? ['-o', 'force_size=on'] : [];
  await run('qemu-img', 'convert', '-f', 'raw', '-O', back, ...options, 'there.raw', 'back');
  expectEqual(await readAll(ports, path('back')), content, `we, of qemu's ${back}`);
}

async function withDisk(path: string, use: (disk: VirtualDisk) => Promise<void>): Promise<void> {
  const disk = await openDisk(path, { ports });
  try {
    await use(disk);
  } finally {
    await disk.close();
  }
}

/** What a large disk holds: runs of one byte, the newest last. */
interface Run {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly value: number;
}

const GIB = 1024 * MIB;

/** Runs that do not overlap, near the ends, near 2 TiB and 4 GiB where there is such a place, and anywhere. */
function sparseRuns(dice: Dice, sizeBytes: number): readonly Run[] {
  const places = [0, 2 ** 32 - 4096, 2 ** 41 - 4096, sizeBytes - 65_536, dice.below(sizeBytes / MIB) * MIB + 512];
  const inOrder = places.filter((offset) => offset + 65_536 <= sizeBytes).sort((a, b) => a - b);
  return inOrder
    .filter((offset, i) => i === 0 || offset - inOrder[i - 1]! >= 65_536)
    .map((offset) => ({ offset, lengthBytes: dice.between(1, 128) * 512, value: dice.between(1, 255) }));
}

async function expectSparse(path: string, sizeBytes: number, runs: readonly Run[]): Promise<void> {
  await withDisk(path, async (disk) => {
    expect(disk.info.virtualSizeBytes).toBe(sizeBytes);
    for (const { offset, lengthBytes } of runs) {
      const from = Math.max(0, offset - 4096);
      const bytes = Buffer.alloc(Math.min(lengthBytes + 8192, sizeBytes - from), 0xee);
      await disk.read(bytes, from);
      const expected = Buffer.alloc(bytes.length);
      for (const one of runs) {
        const start = Math.min(Math.max(0, one.offset - from), bytes.length);
        expected.fill(one.value, start, Math.max(start, Math.min(bytes.length, one.offset + one.lengthBytes - from)));
      }
      expectEqual(bytes, expected, `we, at ${from}`);
    }
  });
  expect((await checkDisk(path, { ports })).faults).toEqual([]);
}

describe.skipIf(missing.length > 0)('others and we', () => {
  test(`read ${CASES} random disks alike`, { timeout: Math.max(300_000, CASES * 2000) }, async () => {
    let next = FIRST_CASE;
    const lane = async (): Promise<void> => {
      while (next < FIRST_CASE + CASES) {
        next += 1;
        await play(next - 1);
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
  });

  test('are seen to differ in a single bit', async () => {
    const flipBit = (content: Buffer, dice: Dice): void => {
      content[dice.below(content.length)]! ^= 1 << dice.below(8);
    };
    for (const caseNumber of [0, 1, 2, 3]) {
      await expect(play(caseNumber, flipBit)).rejects.toThrow(
        new RegExp(`seed ${SEED}, case ${caseNumber} .* differs`),
      );
    }
  });

  test.for([
    ['vhd', 3 * GIB],
    ['vhd', 2039 * GIB],
    ['vhdx', 5 * GIB + 512],
    ['vhdx', 3 * 1024 * GIB],
  ] as const)('read a large sparse %s of %d bytes alike, whoever wrote it', async ([format, sizeBytes], { task }) => {
    const directory = join(scratch, String(task.id));
    await mkdir(directory);
    const run = peerIn(directory);
    const runs = sparseRuns(new Dice(SEED, sizeBytes), sizeBytes);
    const commands = (verb: 'write' | 'read'): string[] =>
      runs.flatMap(({ offset, lengthBytes, value }) => ['-c', `${verb} -P ${value} ${offset} ${lengthBytes}`]);

    const options = { format, subformat: 'dynamic', virtualSizeBytes: sizeBytes, azureSize: false, ports } as const;
    const writer = await createDisk(join(directory, 'ours'), options);
    for (const { offset, lengthBytes, value } of runs) await writer.write(Buffer.alloc(lengthBytes, value), offset);
    await writer.finish();
    await expectSparse(join(directory, 'ours'), sizeBytes, runs);
    const said = await run('qemu-io', '-r', '-f', driverOf(format), ...commands('read'), 'ours');
    expect(said.toString()).not.toMatch(/fail/i);

    const size = format === 'vhd' ? ['-o', 'force_size=on'] : [];
    await run('qemu-img', 'create', '-q', '-f', driverOf(format), ...size, 'theirs', String(sizeBytes));
    await run('qemu-io', '-f', driverOf(format), ...commands('write'), 'theirs');
    await expectSparse(join(directory, 'theirs'), sizeBytes, runs);
    await rm(directory, { recursive: true });
  });
});
