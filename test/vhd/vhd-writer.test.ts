import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkDisk } from '../../src/vhd/check-disk.ts';
import { createDisk } from '../../src/vhd/create-disk.ts';
import { openDisk } from '../../src/vhd/open-disk.ts';
import { errno } from '../support/memory-files.ts';
import { expectSame, filled, KIB, MIB, makeVhd, readAll, type TestPorts, testPorts } from './vhd-image.ts';

const PATH = '/d/disk.vhd';

async function freshPorts(): Promise<TestPorts> {
  const ports = testPorts();
  await ports.files.makeDirectory('/d');
  return ports;
}

describe('the layout', () => {
  test('of a dynamic disk is that of Windows: data on 4 KiB, the first block at sector 15, 4104 apart', async () => {
    const ports = await freshPorts();
    await makeVhd(ports, PATH, { virtualSizeBytes: 8 * MIB }, [
      { offset: 4 * MIB, lengthBytes: 512, value: 1 },
      { offset: 0, lengthBytes: 512, value: 2 },
    ]);
    const bytes = Buffer.from(ports.files.get(PATH)!);
    const table = [0, 1, 2, 3].map((i) => bytes.readUInt32BE(1536 + i * 4));
    expect(table).toEqual([4119, 0xffffffff, 15, 0xffffffff]);
    expect(bytes.subarray(1552, 4096).every((byte) => byte === 0xff)).toBe(true);
    expect(bytes.subarray(15 * 512, 16 * 512).every((byte) => byte === 0xff)).toBe(true);
    expect(bytes.length).toBe((4119 + 4097) * 512 + 512);
    expectSame(bytes.subarray(0, 512), bytes.subarray(bytes.length - 512));
  });

  test('of a fixed disk is its data and the footer', async () => {
    const ports = await freshPorts();
    await makeVhd(ports, PATH, { subformat: 'fixed' }, [{ offset: MIB, lengthBytes: MIB, value: 3 }]);
    const bytes = Buffer.from(ports.files.get(PATH)!);
    expect(bytes.length).toBe(4 * MIB + 512);
    expectSame(bytes.subarray(0, 4 * MIB), filled(4 * MIB, [{ offset: MIB, lengthBytes: MIB, value: 3 }]));
  });

  test.for([64 * KIB, 512 * KIB, 2 * MIB, 32 * MIB])(
    'with blocks of %d bytes keeps data on 4 KiB',
    async (blockSizeBytes) => {
      const ports = await freshPorts();
      const fills = [0, 2, 1].map((i) => ({ offset: i * 33 * MIB, lengthBytes: 64 * KIB, value: i + 1 }));
      await makeVhd(ports, PATH, { virtualSizeBytes: 100 * MIB, blockSizeBytes }, fills);
      const disk = await openDisk(PATH, { ports });
      for await (const extent of disk.extents(0, 100 * MIB)) {
        if (extent.kind === 'data') expect(extent.fileOffset % 4096).toBe(0);
      }
      expect(disk.info.blockSizeBytes).toBe(blockSizeBytes);
      await disk.close();
      expectSame(await readAll(ports, PATH), filled(100 * MIB, fills));
      expect((await checkDisk(PATH, { ports })).faults).toEqual([]);
    },
  );
});

test('a disk of 2040 GiB takes data at its end', async () => {
  const ports = await freshPorts();
  const virtualSizeBytes = 2040 * 1024 * MIB;
  await makeVhd(ports, PATH, { virtualSizeBytes }, [{ offset: virtualSizeBytes - 512, lengthBytes: 512, value: 9 }]);
  const disk = await openDisk(PATH, { ports });
  const sector = Buffer.alloc(512);
  await disk.read(sector, virtualSizeBytes - 512);
  expect(sector.every((byte) => byte === 9)).toBe(true);
  await disk.close();
});

test('what was written in any order and size reads back, and passes the check', async () => {
  const sectors = (8 * MIB) / 512;
  const fill = fc
    .tuple(fc.nat(sectors - 1), fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 0, max: 255 }))
    .map(([first, count, value]) => ({
      offset: first * 512,
      lengthBytes: Math.min(count, sectors - first) * 512,
      value,
    }));
  const disks = fc.record({
    fills: fc.array(fill, { maxLength: 8 }),
    subformat: fc.constantFrom('fixed' as const, 'dynamic' as const, 'differencing' as const),
    blockSizeBytes: fc.constantFrom(64 * KIB, 512 * KIB, 2 * MIB),
  });
  await fc.assert(
    fc.asyncProperty(disks, async ({ fills, subformat, blockSizeBytes }) => {
      const ports = await freshPorts();
      const base = [{ offset: MIB, lengthBytes: 6 * MIB, value: 0x5a }];
      const virtualSizeBytes = 8 * MIB;
      await makeVhd(ports, '/d/base.vhd', { virtualSizeBytes }, base);
      const isChild = subformat === 'differencing';
      const parent = isChild ? { parent: '/d/base.vhd' } : {};
      await makeVhd(ports, PATH, { virtualSizeBytes, subformat, blockSizeBytes, ...parent }, fills);
      expectSame(await readAll(ports, PATH), filled(virtualSizeBytes, isChild ? [...base, ...fills] : fills));
      expect((await checkDisk(PATH, { ports })).faults).toEqual([]);
    }),
    { numRuns: 25 },
  );
});

test('the size is rounded up to 1 MiB for Azure, and the tail reads as zeros', async () => {
  const ports = await freshPorts();
  const virtualSizeBytes = 4 * MIB + 512;
  await makeVhd(ports, PATH, { virtualSizeBytes, subformat: 'fixed' }, [
    { offset: 4 * MIB, lengthBytes: 512, value: 7 },
  ]);
  expectSame(await readAll(ports, PATH), filled(5 * MIB, [{ offset: 4 * MIB, lengthBytes: 512, value: 7 }]));
  await makeVhd(ports, '/d/exact.vhd', { virtualSizeBytes, azureSize: false });
  expect((await readAll(ports, '/d/exact.vhd')).length).toBe(virtualSizeBytes);
});

test('place gives ranges that others may fill', async () => {
  const ports = await freshPorts();
  const options = { format: 'vhd', subformat: 'dynamic', virtualSizeBytes: 4 * MIB, ports } as const;
  const writer = await createDisk(PATH, options);
  const ranges = await writer.place(2 * MIB - 1024, 2048);
  expect(ranges.map(({ lengthBytes }) => lengthBytes)).toEqual([1024, 1024]);
  for (const { file, fileOffset, lengthBytes } of ranges) await file.write(Buffer.alloc(lengthBytes, 5), fileOffset);
  await writer.finish();
  expectSame(await readAll(ports, PATH), filled(4 * MIB, [{ offset: 2 * MIB - 1024, lengthBytes: 2048, value: 5 }]));
});

describe('a disk that is being made', () => {
  const options = { format: 'vhd', subformat: 'dynamic', virtualSizeBytes: 4 * MIB } as const;

  test('has its name only when it is whole', async () => {
    const ports = await freshPorts();
    const writer = await createDisk(PATH, { ...options, ports });
    expect(await ports.files.exists(PATH)).toBe(false);
    expect(await ports.files.exists(`${PATH}.partial`)).toBe(true);
    await writer.finish();
    expect(await ports.files.exists(PATH)).toBe(true);
    expect(await ports.files.exists(`${PATH}.partial`)).toBe(false);
  });

  test.for([PATH, `${PATH}.partial`])('never overwrites %s', async (taken) => {
    const ports = await freshPorts();
    ports.files.put(taken, new Uint8Array(1));
    await expect(createDisk(PATH, { ...options, ports })).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
    expect(ports.files.get(taken)).toEqual(new Uint8Array(1));
  });

  test('does not overwrite a file that came meanwhile', async () => {
    const ports = await freshPorts();
    const writer = await createDisk(PATH, { ...options, ports });
    ports.files.put(PATH, new Uint8Array(1));
    await expect(writer.finish()).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
    expect(ports.files.get(PATH)).toEqual(new Uint8Array(1));
  });

  test('leaves nothing behind when it is given up', async () => {
    const ports = await freshPorts();
    const writer = await createDisk(PATH, { ...options, ports });
    await writer.write(new Uint8Array(512), 0);
    await writer.abort();
    await writer.abort();
    expect(await ports.files.list('/d')).toEqual([]);
    await expect(writer.finish()).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
  });

  test('takes nothing after an error', async () => {
    const ports = await freshPorts();
    const files = { ...ports.files };
    files.open = async (path, mode) => {
      const file = await ports.files.open(path, mode);
      const write = file.write.bind(file);
      file.write = async () => {
        file.write = write;
        throw errno('ENOSPC', path);
      };
      return file;
    };
    const writer = await createDisk(PATH, { ...options, ports: { ...ports, files } });
    const full = { code: 'OUTPUT_FAILED', hint: expect.stringContaining('free space') };
    await expect(writer.write(new Uint8Array(512), 0)).rejects.toMatchObject(full);
    await expect(writer.place(0, 512)).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    await expect(writer.finish()).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    await writer.abort();
    expect(await ports.files.list('/d')).toEqual([]);
  });

  test('leaves nothing behind where the volume cannot hold its size', async () => {
    const ports = await freshPorts();
    const files = { ...ports.files };
    files.open = async (path, mode) => {
      const file = await ports.files.open(path, mode);
      file.truncate = async () => {
        throw errno('EFBIG', path);
      };
      return file;
    };
    const creating = createDisk(PATH, { ...options, subformat: 'fixed', ports: { ...ports, files } });
    await expect(creating).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    expect(await ports.files.list('/d')).toEqual([]);
  });

  test.for([
    [1, 512],
    [0, 511],
    [4 * MIB, 512],
    [-512, 512],
  ] as const)('refuses %d + %d as a wrong argument', async ([offset, lengthBytes]) => {
    const ports = await freshPorts();
    const writer = await createDisk(PATH, { ...options, ports });
    await expect(writer.place(offset, lengthBytes)).rejects.toThrow(RangeError);
    await expect(writer.write(new Uint8Array(lengthBytes), offset)).rejects.toThrow(RangeError);
    await writer.abort();
  });
});

test.for([
  ['4 KiB sectors', { logicalSectorBytes: 4096 }],
  ['more than 2040 GiB', { virtualSizeBytes: 2041 * 1024 * MIB }],
  ['blocks of 3 MiB', { blockSizeBytes: 3 * MIB }],
  ['a parent without being differencing', { parent: '/d/x.vhd' }],
  ['no parent though differencing', { subformat: 'differencing' }],
  ['a raw disk that is dynamic', { format: 'raw' }],
] as const)('%s is UNSUPPORTED', async ([, options]) => {
  const ports = await freshPorts();
  await expect(makeVhd(ports, PATH, options)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  expect(await ports.files.list('/d')).toEqual([]);
});

test.for([0, 100, -512, Number.NaN])('a size of %d is a wrong argument', async (virtualSizeBytes) => {
  await expect(makeVhd(await freshPorts(), PATH, { virtualSizeBytes })).rejects.toThrow(RangeError);
});
