/** What other people's tools find in disks that were written in place: after closing, and after a crash. */
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { openDiskForWriting } from '../../src/vhd/index.ts';
import { Dice } from '../support/dice.ts';
import { missingTool } from '../support/tools.ts';
import { expectSame } from './vhd-image.ts';
import { changeOnce, type DiskKind, KINDS, makeDisk, runSchedule } from './write-model.ts';

const run = promisify(execFile);
const ports = nodePorts();
const OUTPUT_MAX = 64 * 1024 * 1024;
const STEPS = 40;

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'blockferry-write-peers-'));
});

afterAll(() => rm(directory, { recursive: true }));

function qemuFormat(kind: DiskKind): string {
  return kind.format === 'vhd' ? 'vpc' : kind.format;
}

async function convertedByQemu(path: string, kind: DiskKind): Promise<Buffer> {
  const raw = `${path}.img`;
  await run('qemu-img', ['convert', '-f', qemuFormat(kind), '-O', 'raw', path, raw]);
  return await readFile(raw);
}

/** A disk, its content beside it, in a folder of its own. */
async function made(kind: DiskKind, seed: number): Promise<{ readonly path: string; readonly content: Buffer }> {
  const dice = new Dice(seed);
  const folder = await mkdtemp(join(directory, 'disk-'));
  return await makeDisk(ports, folder, kind, dice);
}

const isChain = (kind: DiskKind): boolean => kind.subformat === 'differencing';
// qemu reads disks with 512-byte sectors only.
const plain = KINDS.filter((kind) => !isChain(kind) && kind.logicalSectorBytes !== 4096);

describe.skipIf(missingTool('qemu-img') !== undefined)('qemu-img', () => {
  test.for(plain)('finds what was written into a $name', async (kind) => {
    const { path, content } = await made(kind, 11);
    await runSchedule(ports, path, content, kind, new Dice(12), STEPS);
    expectSame(await convertedByQemu(path, kind), content);
    if (kind.format === 'vhdx') await run('qemu-img', ['check', '-f', 'vhdx', path]);
  });

  test('replays the log of a VHDX that was not closed', async () => {
    const kind = KINDS.find(({ name }) => name === 'dynamic VHDX')!;
    const { path, content } = await made(kind, 13);
    const disk = await openDiskForWriting(path, { ports });
    const dice = new Dice(14);
    for (let i = 0; i < 12; i += 1) await changeOnce(disk, content, kind, dice);
    await disk.flush();
    const copy = `${path}.copy`;
    await copyFile(path, copy);
    await disk.close();
    await run('qemu-img', ['check', '-r', 'all', '-f', 'vhdx', copy]);
    expectSame(await convertedByQemu(copy, kind), content);
  });
});

describe.skipIf(missingTool('7zz') !== undefined)('7zz', () => {
  // It demands an even number of sectors of a VHDX.
  test.for(KINDS.filter(isChain))('finds what was written into a $name', async (kind) => {
    const even = { ...kind, sizeBytes: kind.sizeBytes - (kind.sizeBytes % 8192) };
    const { path, content } = await made(even, 21);
    await runSchedule(ports, path, content, even, new Dice(22), STEPS);
    const type = kind.format === 'vhd' ? '-tVHD' : '-tVHDX';
    const options = { encoding: 'buffer', maxBuffer: OUTPUT_MAX, cwd: join(path, '..') } as const;
    const { stdout } = await run('7zz', ['e', '-so', type, path], options);
    expectSame(stdout, content);
    expect(stdout.length).toBe(even.sizeBytes);
  });
});
