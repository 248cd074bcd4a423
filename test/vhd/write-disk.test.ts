/** The contract of WritableDisk, and what each format says of itself while it is written. */
import { describe, expect, test } from 'vitest';
import type { FileSystem, RandomAccessFile } from '../../src/ports.ts';
import { checkDisk, createDisk, openDisk, openDiskForWriting } from '../../src/vhd/index.ts';
import { buildVhdx, sealCrc } from '../support/vhdx-builder.ts';
import {
  edit,
  expectSame,
  extentList,
  filled,
  KIB,
  MIB,
  makeVhd,
  readAll,
  type TestPorts,
  testPorts,
} from './vhd-image.ts';

async function makeVhdx(ports: TestPorts, path: string, options: object = {}): Promise<void> {
  const common = {
    format: 'vhdx',
    subformat: 'dynamic',
    virtualSizeBytes: 4 * MIB,
    blockSizeBytes: MIB,
    ports,
  } as const;
  await (await createDisk(path, { ...common, ...options })).finish();
}

function header(ports: TestPorts, path: string): { file: string; data: string; log: string; sequences: bigint[] } {
  const bytes = Buffer.from(ports.files.get(path)!);
  const sequences = [64 * KIB, 128 * KIB].map((at) => bytes.readBigUInt64LE(at + 8));
  const at = sequences[1]! > sequences[0]! ? 128 * KIB : 64 * KIB;
  const guid = (from: number): string => bytes.toString('hex', at + from, at + from + 16);
  return { file: guid(16), data: guid(32), log: guid(48), sequences };
}

const NO_GUID = '0'.repeat(32);
const NEXT = '01234567-89AB-4CDE-8F01-23456789ABCD';
const ANOTHER = '11234567-89AB-4CDE-8F01-23456789ABCD';

describe('any disk', () => {
  test.for([
    [0, 100],
    [100, 512],
    [4 * MIB, 512],
    [4 * MIB - 512, 1024],
    [-512, 512],
    [0.5, 512],
  ] as const)('takes no write of part of a sector or outside: %s', async ([offset, lengthBytes]) => {
    const ports = testPorts();
    await makeVhd(ports, '/a.vhd', {});
    const disk = await openDiskForWriting('/a.vhd', { ports });
    await expect(disk.write(Buffer.alloc(lengthBytes), offset)).rejects.toThrow(RangeError);
    await expect(disk.zero(offset, lengthBytes)).rejects.toThrow(RangeError);
    await disk.write(Buffer.alloc(512, 1), 0);
    await disk.close();
  });

  test('that has no id for its content keeps what it has', async () => {
    const ports = testPorts();
    await makeVhd(ports, '/a.vhd', {});
    const bytes = Buffer.from(ports.files.get('/a.vhd')!);
    const disk = await openDiskForWriting('/a.vhd', { ports });
    const { contentId } = disk;
    await disk.renewContentId(NEXT);
    expect(disk.contentId).toBe(contentId);
    await disk.close();
    expectSame(Buffer.from(ports.files.get('/a.vhd')!), bytes);
  });

  test('with 4 KiB sectors takes no 512 bytes', async () => {
    const ports = testPorts();
    await makeVhdx(ports, '/a.vhdx', { logicalSectorBytes: 4096 });
    const disk = await openDiskForWriting('/a.vhdx', { ports });
    await expect(disk.write(Buffer.alloc(512), 0)).rejects.toThrow(RangeError);
    await disk.close();
  });

  test.for(['vhd', 'vhdx'] as const)('takes many calls at once (%s)', async (format) => {
    const ports = testPorts();
    const path = `/a.${format}`;
    if (format === 'vhd') await makeVhd(ports, path, {});
    else await makeVhdx(ports, path);
    const disk = await openDiskForWriting(path, { ports });
    const fills = Array.from({ length: 64 }, (_, i) => ({ offset: i * 60 * KIB, lengthBytes: 30 * KIB, value: i + 1 }));
    await Promise.all(
      fills.map(async ({ offset, lengthBytes, value }) => {
        await disk.write(Buffer.alloc(lengthBytes, value), offset);
        if (value % 7 === 0) await disk.flush();
        const back = Buffer.alloc(lengthBytes);
        await disk.read(back, offset);
        expectSame(back, Buffer.alloc(lengthBytes, value));
      }),
    );
    await disk.close();
    expectSame(await readAll(ports, path), filled(4 * MIB, fills));
  });

  test('is not written any more after an error, and closes as it is', async () => {
    const ports = testPorts();
    await makeVhdx(ports, '/a.vhdx');
    let isFull = false;
    const open: FileSystem['open'] = async (path, mode) => {
      const file = await ports.files.open(path, mode);
      const write = async (from: Uint8Array, at: number): Promise<void> => {
        if (isFull) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
        await file.write(from, at);
      };
      return { ...bound(file), path, descriptor: undefined, write };
    };
    const disk = await openDiskForWriting('/a.vhdx', { ports: { ...ports, files: { ...ports.files, open } } });
    await disk.write(Buffer.alloc(512, 1), 0);
    await disk.flush();
    isFull = true;
    await expect(disk.write(Buffer.alloc(512, 2), MIB)).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    isFull = false;
    for (const call of [disk.write(Buffer.alloc(512), 0), disk.zero(0, 512), disk.flush()]) {
      await expect(call).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    }
    await disk.close();
    expect(header(ports, '/a.vhdx').log).not.toBe(NO_GUID);
    expectSame(await readAll(ports, '/a.vhdx'), filled(4 * MIB, [{ offset: 0, lengthBytes: 512, value: 1 }]));
    await expect(disk.flush()).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
  });
});

describe('a VHDX', () => {
  test('is marked as open while it is, and its data as changed from the first write on', async () => {
    const ports = testPorts();
    await makeVhdx(ports, '/a.vhdx');
    const before = header(ports, '/a.vhdx');
    const disk = await openDiskForWriting('/a.vhdx', { ports });
    const opened = header(ports, '/a.vhdx');
    expect(opened).toMatchObject({ data: before.data });
    expect(opened.file).not.toBe(before.file);
    expect(opened.log).not.toBe(NO_GUID);
    expect(opened.sequences[0]! - opened.sequences[1]!).toSatisfy((n: bigint) => n === 1n || n === -1n);
    const contentId = disk.contentId;
    await disk.write(Buffer.alloc(512, 1), 0);
    expect(header(ports, '/a.vhdx').data).not.toBe(before.data);
    expect(disk.contentId).not.toBe(contentId);
    await disk.close();
    expect(header(ports, '/a.vhdx').log).toBe(NO_GUID);
    const again = await openDisk('/a.vhdx', { ports });
    expect([again.contentId, again.info.log]).toEqual([disk.contentId, 'clean']);
    await again.close();
  });

  test('says before the first write who it will be behind it, and for good', async () => {
    const ports = testPorts();
    await makeVhdx(ports, '/a.vhdx');
    const before = header(ports, '/a.vhdx');
    const disk = await openDiskForWriting('/a.vhdx', { ports });
    await disk.renewContentId(NEXT);
    const renewed = header(ports, '/a.vhdx');
    expect(renewed.data).not.toBe(before.data);
    const { contentId } = disk;
    expect(contentId).toBe(NEXT);
    await disk.renewContentId(ANOTHER);
    await disk.write(Buffer.alloc(512, 1), 0);
    await disk.zero(512, 512);
    expect(disk.contentId).toBe(contentId);
    await disk.close();
    expect(header(ports, '/a.vhdx').data).toBe(renewed.data);
    await expect(disk.renewContentId(NEXT)).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    const again = await openDisk('/a.vhdx', { ports });
    expect(again.contentId).toBe(contentId);
    await again.close();
  });

  test('that was written has its new id already', async () => {
    const ports = testPorts();
    await makeVhdx(ports, '/a.vhdx');
    const disk = await openDiskForWriting('/a.vhdx', { ports });
    await disk.write(Buffer.alloc(512, 1), 0);
    const { contentId } = disk;
    await disk.renewContentId(NEXT);
    expect(disk.contentId).toBe(contentId);
    await disk.close();
  });

  test('gives up blocks that become zeros, and uses their place again', async () => {
    const ports = testPorts();
    await makeVhdx(ports, '/a.vhdx');
    const disk = await openDiskForWriting('/a.vhdx', { ports });
    await disk.write(Buffer.alloc(2 * MIB, 1), 0);
    await disk.flush();
    const sizeBytes = ports.files.get('/a.vhdx')!.length;
    await disk.zero(0, MIB);
    await disk.zero(MIB, MIB, { unmap: true });
    await disk.flush();
    await disk.write(Buffer.alloc(512, 2), 2 * MIB);
    await disk.write(Buffer.alloc(512, 3), 3 * MIB + 512);
    await disk.close();
    expect(ports.files.get('/a.vhdx')!.length).toBe(sizeBytes);
    const bat = Buffer.from(ports.files.get('/a.vhdx')!.subarray(3 * MIB, 3 * MIB + 32));
    expect([0, 8, 16, 24].map((at) => bat.readUInt32LE(at) & 7)).toEqual([2, 3, 6, 6]);
    expect([bat.readBigUInt64LE(0), bat.readBigUInt64LE(8)]).toEqual([2n, 3n]);
    const fills = [
      { offset: 2 * MIB, lengthBytes: 512, value: 2 },
      { offset: 3 * MIB + 512, lengthBytes: 512, value: 3 },
    ];
    expectSame(await readAll(ports, '/a.vhdx'), filled(4 * MIB, fills));
  });

  test('that is fixed keeps its blocks', async () => {
    const ports = testPorts();
    await makeVhdx(ports, '/a.vhdx', { subformat: 'fixed' });
    const disk = await openDiskForWriting('/a.vhdx', { ports });
    await disk.write(Buffer.alloc(MIB, 1), 0);
    await disk.zero(0, MIB, { unmap: true });
    await disk.close();
    expect(await extentList(ports, '/a.vhdx')).toEqual([`data 0 ${4 * MIB} @0`]);
    expectSame(await readAll(ports, '/a.vhdx'), Buffer.alloc(4 * MIB));
  });

  test('with stale bits for a block that was never there reads them as the parent', async () => {
    const ports = testPorts();
    const parentGuid = '77777777-2222-3333-4444-555555555555';
    const parent = buildVhdx({ dataWriteGuid: parentGuid, bat: { 0: [6, 4] } });
    parent.bytes.fill(0x41, 4 * MIB, 5 * MIB);
    const names = { parent_linkage: `{${parentGuid}}`, relative_path: '.\\parent.vhdx' };
    const child = buildVhdx({ parent: names, bat: { 4096: [6, 5] } });
    child.bytes.fill(0xff, 5 * MIB, 5 * MIB + 256);
    ports.files.put('/parent.vhdx', parent.bytes);
    ports.files.put('/child.vhdx', child.bytes);
    const disk = await openDiskForWriting('/child.vhdx', { ports });
    await disk.write(Buffer.alloc(512, 0x52), 1024);
    await disk.close();
    const content = filled(4 * MIB, [
      { offset: 0, lengthBytes: MIB, value: 0x41 },
      { offset: 1024, lengthBytes: 512, value: 0x52 },
    ]);
    expectSame(await readAll(ports, '/child.vhdx'), content);
    expect((await checkDisk('/child.vhdx', { ports })).faults).toEqual([]);
  });

  test('without a log, or whose sequence number cannot be raised, is refused untouched', async () => {
    for (const change of [
      (bytes: Buffer, at: number) => bytes.fill(0, at + 68, at + 80),
      (bytes: Buffer, at: number) => bytes.writeBigUInt64LE(2n ** 64n - 2n + BigInt(at === 64 * KIB), at + 8),
    ]) {
      const ports = testPorts();
      const built = buildVhdx({});
      for (const at of [64 * KIB, 128 * KIB]) {
        change(built.bytes, at);
        sealCrc(built.bytes, at, 4096);
      }
      ports.files.put('/a.vhdx', built.bytes);
      await expect(openDiskForWriting('/a.vhdx', { ports })).rejects.toMatchObject({
        code: expect.stringMatching(/^VHDX_(LOG|HEADER)$/),
      });
      expectSame(ports.files.get('/a.vhdx')!, built.bytes);
    }
  });
});

describe('a VHD', () => {
  test.for([
    ['a missing footer', (bytes: Buffer): unknown => bytes.subarray(0, bytes.length - 512)],
    ['a damaged footer', (bytes: Buffer): unknown => bytes.fill(7, bytes.length - 400, bytes.length - 300)],
    ['a damaged copy of its footer', (bytes: Buffer): unknown => bytes.fill(7, 100, 200)],
    ['a footer of 511 bytes', (bytes: Buffer): unknown => bytes.subarray(0, bytes.length - 1)],
  ] as const)('with %s is whole again', async ([, damage]) => {
    const ports = testPorts();
    const fill = { offset: MIB, lengthBytes: 4096, value: 9 };
    await makeVhd(ports, '/a.vhd', {}, [fill]);
    edit(ports, '/a.vhd', damage);
    const disk = await openDiskForWriting('/a.vhd', { ports });
    await disk.write(Buffer.alloc(512, 1), 3 * MIB);
    await disk.close();
    expect((await checkDisk('/a.vhd', { ports })).faults).toEqual([]);
    expectSame(
      await readAll(ports, '/a.vhd'),
      filled(4 * MIB, [fill, { offset: 3 * MIB, lengthBytes: 512, value: 1 }]),
    );
  });

  test('fills a place that was given up with zeros before another block gets it', async () => {
    const ports = testPorts();
    await makeVhd(ports, '/a.vhd', { blockSizeBytes: 64 * KIB }, [{ offset: 0, lengthBytes: 64 * KIB, value: 9 }]);
    const sizeBytes = ports.files.get('/a.vhd')!.length;
    const disk = await openDiskForWriting('/a.vhd', { ports });
    await disk.zero(0, 64 * KIB);
    await disk.flush();
    await disk.write(Buffer.alloc(512, 1), MIB + 512);
    await disk.close();
    expect(ports.files.get('/a.vhd')!.length).toBe(sizeBytes);
    expectSame(await readAll(ports, '/a.vhd'), filled(4 * MIB, [{ offset: MIB + 512, lengthBytes: 512, value: 1 }]));
  });
});

/** The methods of a file, to be spread. */
function bound(file: RandomAccessFile): RandomAccessFile {
  return {
    path: file.path,
    descriptor: file.descriptor,
    stamp: () => file.stamp(),
    sizeBytes: () => file.sizeBytes(),
    read: (into, at) => file.read(into, at),
    write: (from, at) => file.write(from, at),
    truncate: (sizeBytes) => file.truncate(sizeBytes),
    sync: () => file.sync(),
    close: () => file.close(),
  };
}
