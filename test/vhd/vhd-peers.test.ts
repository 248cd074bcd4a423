/**
 * Other people's tools as oracles: what they write we read, what we write they read. qemu-img for fixed and dynamic
 * VHD (its reading of differencing VHD is wrong, and it has no check for VHD), 7zz for all three.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { checkDisk } from '../../src/vhd/check-disk.ts';
import { createDisk } from '../../src/vhd/create-disk.ts';
import { openDisk } from '../../src/vhd/open-disk.ts';
import { missingTool } from '../support/tools.ts';
import { expectSame, MIB, readAll } from './vhd-image.ts';

const run = promisify(execFile);
const ports = nodePorts();
const OUTPUT_MAX = 64 * MIB;

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'blockferry-peers-'));
});

afterAll(() => rm(directory, { recursive: true }));

/** Content with data, zeros, and both in one block. */
function content(sizeBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let i = 0; i < sizeBytes; i += 4) bytes.writeUInt32LE((i * 2654435761 + seed) >>> 0, i);
  bytes.fill(0, MIB, 5 * MIB);
  bytes.fill(0, 6 * MIB + 512, 6 * MIB + 1536);
  return bytes;
}

async function writeDisk(
  path: string,
  options: Partial<Parameters<typeof createDisk>[1]>,
  bytes: Buffer,
): Promise<void> {
  const common = { format: 'vhd', subformat: 'dynamic', virtualSizeBytes: bytes.length, ports } as const;
  const writer = await createDisk(path, { ...common, ...options });
  for (let offset = 0; offset < bytes.length; offset += 64 * 1024) {
    const piece = bytes.subarray(offset, offset + 64 * 1024);
    if (piece.some((byte) => byte !== 0)) await writer.write(piece, offset);
  }
  await writer.finish();
}

async function extracted7zz(path: string): Promise<Buffer> {
  const options = { encoding: 'buffer', maxBuffer: OUTPUT_MAX, cwd: directory } as const;
  return (await run('7zz', ['e', '-so', '-tVHD', path], options)).stdout;
}

describe.skipIf(missingTool('qemu-img') !== undefined)('qemu-img', () => {
  test.for(['fixed', 'dynamic'] as const)('writes %s disks that we read', async (subformat) => {
    const bytes = content(9 * MIB, 1);
    const [raw, vhd] = [join(directory, `q-${subformat}.img`), join(directory, `q-${subformat}.vhd`)];
    await writeFile(raw, bytes);
    await run('qemu-img', [
      'convert',
      '-f',
      'raw',
      '-O',
      'vpc',
      '-o',
      `subformat=${subformat},force_size=on`,
      raw,
      vhd,
    ]);
    expectSame(await readAll(ports, vhd), bytes);
    const { info, faults } = await checkDisk(vhd, { ports });
    expect(faults).toEqual([]);
    expect(info).toMatchObject({ format: 'vhd', subformat, virtualSizeBytes: 9 * MIB });
  });

  test('writes disks of odd sizes that we read', async () => {
    const vhd = join(directory, 'q-odd.vhd');
    await run('qemu-img', ['create', '-f', 'vpc', vhd, '10489344']);
    const disk = await openDisk(vhd, { ports });
    expect(disk.info.virtualSizeBytes).toBe(10514432);
    await disk.close();
  });

  test.for(['fixed', 'dynamic'] as const)('reads our %s disks', async (subformat) => {
    const bytes = content(9 * MIB, 2);
    const [vhd, raw] = [join(directory, `o-${subformat}.vhd`), join(directory, `o-${subformat}.img`)];
    await writeDisk(vhd, { subformat }, bytes);
    await run('qemu-img', ['convert', '-f', 'vpc', '-O', 'raw', vhd, raw]);
    expectSame(await readFile(raw), bytes);
  });

  test('sees the size of our largest disk', async () => {
    const vhd = join(directory, 'largest.vhd');
    const virtualSizeBytes = 2040 * 1024 * MIB;
    await (await createDisk(vhd, { format: 'vhd', subformat: 'dynamic', virtualSizeBytes, ports })).finish();
    const { stdout } = await run('qemu-img', ['info', '-f', 'vpc', '--output=json', vhd]);
    expect(JSON.parse(stdout)['virtual-size']).toBe(virtualSizeBytes);
  });
});

describe.skipIf(missingTool('7zz') !== undefined)('7zz', () => {
  test.for(['fixed', 'dynamic'] as const)('reads our %s disks', async (subformat) => {
    const bytes = content(9 * MIB, 3);
    const vhd = join(directory, `z-${subformat}.vhd`);
    await writeDisk(vhd, { subformat }, bytes);
    expectSame(await extracted7zz(vhd), bytes);
  });

  test('reads our differencing disks over two parents', async () => {
    const base = content(9 * MIB, 4);
    await writeDisk(join(directory, 'z-base.vhd'), {}, base);
    const middle = Buffer.alloc(9 * MIB);
    middle.fill(0x5a, 2 * MIB, 2 * MIB + 64 * 1024);
    middle.fill(0x5b, 8 * MIB, 9 * MIB);
    const child = { subformat: 'differencing', parent: join(directory, 'z-base.vhd') } as const;
    await writeDisk(join(directory, 'z-middle.vhd'), child, middle);
    const top = await createDisk(join(directory, 'z-top.vhd'), {
      ...{ format: 'vhd', subformat: 'differencing', virtualSizeBytes: 9 * MIB, ports },
      parent: join(directory, 'z-middle.vhd'),
    });
    for (const sector of [0, 3, 5, 4096 + 7, 4096 + 8]) await top.write(Buffer.alloc(512, 0xc1), sector * 512);
    await top.finish();
    const ours = await readAll(ports, join(directory, 'z-top.vhd'));
    expect(ours.readUInt8(3 * 512)).toBe(0xc1);
    expect(ours.readUInt8(8 * MIB)).toBe(0x5b);
    expect(ours.readUInt32LE(4 * 512)).toBe(base.readUInt32LE(4 * 512));
    expectSame(await extracted7zz(join(directory, 'z-top.vhd')), ours);
  });
});
