import { mkdtemp, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { checkDisk } from '../../src/vhd/check-disk.ts';
import { createDisk } from '../../src/vhd/create-disk.ts';
import { openDisk } from '../../src/vhd/open-disk.ts';
import { expectSame, extentList, filled, MIB, makeVhd, readAll, type TestPorts, testPorts } from './vhd-image.ts';

const PATH = '/d/disk.img';

let ports: TestPorts;

beforeEach(async () => {
  ports = testPorts();
  await ports.files.makeDirectory('/d');
});

test('a file that is neither VHD nor VHDX is a raw disk', async () => {
  const bytes = filled(MIB, [{ offset: 512, lengthBytes: 512, value: 1 }]);
  ports.files.put(PATH, bytes);
  expectSame(await readAll(ports, PATH), bytes);
  const disk = await openDisk(PATH, { ports });
  expect(disk.info).toMatchObject({ format: 'raw', subformat: 'fixed', blockSizeBytes: 0, notes: [], log: 'none' });
  await disk.close();
});

test('a size that is no multiple of 512 is padded with zeros, and noted', async () => {
  ports.files.put(PATH, Buffer.alloc(1000, 7));
  expectSame(await readAll(ports, PATH), filled(1024, [{ offset: 0, lengthBytes: 1000, value: 7 }]));
  const disk = await openDisk(PATH, { ports });
  expect(disk.info.notes).toEqual([expect.stringContaining('1000 bytes')]);
  await disk.close();
});

test('an empty file is no disk', async () => {
  ports.files.put(PATH, new Uint8Array(0));
  await expect(openDisk(PATH, { ports })).rejects.toMatchObject({ code: 'DISK_TRUNCATED' });
  expect((await checkDisk(PATH, { ports })).faults).toMatchObject([{ code: 'DISK_TRUNCATED', offset: 0, file: PATH }]);
});

test('more than 64 TiB is UNSUPPORTED', async () => {
  await (await ports.files.open(PATH, 'create')).truncate(64 * 2 ** 40 + 512);
  await expect(openDisk(PATH, { ports })).rejects.toMatchObject({ code: 'UNSUPPORTED' });
});

test('a file that occupies no space is one absent range', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'blockferry-raw-'));
  try {
    const path = join(directory, 'disk.img');
    await writeFile(path, '');
    await truncate(path, 8 * 2 ** 40);
    expect(await extentList(nodePorts(), path)).toEqual([`absent 0 ${8 * 2 ** 40} @0`]);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('a file system that reports no space for every file does not make data absent', async () => {
  ports.files.put(PATH, Buffer.alloc(MIB, 1));
  const files = { ...ports.files };
  files.open = async (path, mode) => {
    const file = await ports.files.open(path, mode);
    const stamp = await file.stamp();
    file.stamp = async () => ({ ...stamp, allocatedBytes: 0 });
    return file;
  };
  expectSame(await readAll({ files }, PATH), Buffer.alloc(MIB, 1));
});

test('a raw disk is written sparse, in its full size', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'blockferry-raw-'));
  try {
    const path = join(directory, 'disk.img');
    const options = { format: 'raw', subformat: 'fixed', virtualSizeBytes: 1024 * MIB, ports: nodePorts() } as const;
    const writer = await createDisk(path, options);
    await writer.write(Buffer.alloc(4096, 1), 512 * MIB);
    await writer.finish();
    const { size, blocks } = await stat(path);
    expect(size).toBe(1024 * MIB);
    expect(blocks * 512).toBeLessThan(MIB);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('whoever knows that a disk is raw is not misled by what its guest wrote', async () => {
  await makeVhd(ports, PATH, {}, [{ offset: 0, lengthBytes: 512, value: 1 }]);
  const bytes = ports.files.get(PATH)!;
  expectSame(await readAll(ports, PATH, { format: 'raw' }), bytes);
});
