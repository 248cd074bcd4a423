/** Reading VHD files that are damaged, deviate from the specification, or want to mislead. */
import { beforeEach, describe, expect, test } from 'vitest';
import { openDisk } from '../../src/vhd/open-disk.ts';
import { errno } from '../support/memory-files.ts';
import {
  edit,
  editFooters,
  editHeader,
  expectSame,
  extentList,
  type Fill,
  filled,
  KIB,
  MIB,
  makeVhd,
  readAll,
  sealFooter,
  type TestPorts,
  testPorts,
} from './vhd-image.ts';

const PATH = '/d/disk.vhd';
const FILLS: readonly Fill[] = [
  { offset: 0, lengthBytes: 4 * KIB, value: 0x11 },
  { offset: 3 * MIB, lengthBytes: MIB, value: 0x22 },
];
const CONTENT = filled(4 * MIB, FILLS);

let ports: TestPorts;

beforeEach(async () => {
  ports = testPorts();
  await ports.files.makeDirectory('/d');
});

async function notesOf(path = PATH): Promise<readonly string[]> {
  const disk = await openDisk(path, { ports });
  await disk.close();
  return disk.info.notes;
}

async function expectRefused(code: string, rule: RegExp): Promise<void> {
  await expect(openDisk(PATH, { ports })).rejects.toMatchObject({ code, message: expect.stringMatching(rule) });
}

describe('a fixed disk', () => {
  beforeEach(() => makeVhd(ports, PATH, { subformat: 'fixed' }, FILLS));

  test('reads back', async () => {
    expectSame(await readAll(ports, PATH), CONTENT);
    expect(await extentList(ports, PATH)).toEqual([`data 0 ${4 * MIB} @0`]);
  });

  test('whose guest data is a whole dynamic disk stays fixed', async () => {
    await makeVhd(ports, '/d/inner.vhd', {}, FILLS);
    const inner = ports.files.get('/d/inner.vhd')!;
    edit(ports, PATH, (bytes) => bytes.set(inner.subarray(0, 2 * MIB), 0));
    const expected = Buffer.from(CONTENT);
    expected.set(inner.subarray(0, 2 * MIB), 0);
    expectSame(await readAll(ports, PATH), expected);
  });

  test('with a damaged footer is refused, though its guest data is a dynamic disk', async () => {
    await makeVhd(ports, '/d/inner.vhd', {}, FILLS);
    const inner = ports.files.get('/d/inner.vhd')!;
    edit(ports, PATH, (bytes) => {
      bytes.set(inner.subarray(0, 2 * MIB), 0);
      bytes[bytes.length - 512 + 90] = 1;
    });
    await expectRefused('VHD_FOOTER', /checksum/);
  });

  test('with the 511-byte footer of old Virtual PC reads whole', async () => {
    edit(ports, PATH, (bytes) => bytes.subarray(0, bytes.length - 1));
    expectSame(await readAll(ports, PATH), CONTENT);
  });

  test('shorter than its size is refused', async () => {
    edit(ports, PATH, (bytes) => bytes.subarray(MIB));
    await expectRefused('DISK_TRUNCATED', /before its footer/);
  });

  test('takes its size from the footer, not from the geometry, and says so', async () => {
    edit(ports, PATH, (bytes) => {
      const footer = bytes.subarray(bytes.length - 512);
      footer.writeUInt16BE(1, 56);
      sealFooter(bytes, bytes.length - 512);
    });
    expect((await readAll(ports, PATH)).length).toBe(4 * MIB);
    expect(await notesOf()).toEqual([expect.stringContaining('1x4x17')]);
  });

  test.for([
    ['a size of zero', 48, '0000000000000000'],
    ['a size of half a sector', 48, '0000000000000100'],
    ['a size that is no safe number', 48, 'fffffffffffffe00'],
    ['an unknown type', 60, '00000005'],
    ['an unknown version', 12, '00020000'],
  ] as const)('with %s is refused', async ([, offset, hex]) => {
    edit(ports, PATH, (bytes) => {
      bytes.write(hex, bytes.length - 512 + offset, 'hex');
      sealFooter(bytes, bytes.length - 512);
    });
    await expect(openDisk(PATH, { ports })).rejects.toMatchObject({ code: 'VHD_FOOTER' });
  });
});

describe('a dynamic disk', () => {
  beforeEach(() => makeVhd(ports, PATH, {}, FILLS));

  test('reads back, with what it never held absent', async () => {
    expectSame(await readAll(ports, PATH), CONTENT);
    await makeVhd(ports, '/d/hole.vhd', { virtualSizeBytes: 8 * MIB }, [
      { offset: 4 * MIB, lengthBytes: 512, value: 1 },
    ]);
    expect(await extentList(ports, '/d/hole.vhd')).toEqual([
      `absent 0 ${4 * MIB} @0`,
      `data ${4 * MIB} ${2 * MIB} @0`,
      `absent ${6 * MIB} ${2 * MIB} @0`,
    ]);
  });

  test('with a damaged spare footer is read by the footer at the end, with a note', async () => {
    edit(ports, PATH, (bytes) => bytes.fill(0, 0, 512));
    expectSame(await readAll(ports, PATH), CONTENT);
    expect(await notesOf()).toContainEqual(expect.stringContaining('copy of the footer'));
  });

  test('with a damaged footer at the end is read by the spare, with a note', async () => {
    edit(ports, PATH, (bytes) => bytes.fill(1, bytes.length - 400));
    expectSame(await readAll(ports, PATH), CONTENT);
    expect(await notesOf()).toContainEqual(expect.stringContaining('footer at the end of the file is whole'));
  });

  test('that lost its footer is read by the spare, with a note', async () => {
    edit(ports, PATH, (bytes) => bytes.subarray(0, bytes.length - 512));
    expectSame(await readAll(ports, PATH), CONTENT);
    expect(await notesOf()).toContainEqual(expect.stringContaining('a VHD ends with its footer'));
  });

  test('with both footers damaged is refused, not taken for raw', async () => {
    edit(ports, PATH, (bytes) => {
      bytes[100] = 1;
      bytes[bytes.length - 400] = 1;
    });
    await expectRefused('VHD_FOOTER', /checksum/);
  });

  test('cut short inside a block is refused', async () => {
    edit(ports, PATH, (bytes) => bytes.subarray(0, bytes.length - MIB));
    await expectRefused('VHD_BAT', /inside the file/);
  });

  test.for([
    ['a wrong cookie', 0, '00', /cxsparse/],
    ['a block size of 0', 32, '00000000', /power of two/],
    ['a block size of 3 MiB', 32, '00300000', /power of two/],
    ['a block size of 1 GiB', 32, '40000000', /power of two/],
    ['too few table entries', 28, '00000001', /every block/],
    ['more table entries than the file holds', 28, '7fffffff', /inside the file/],
    ['a table beyond all numbers', 16, 'fffffffffffffff0', /inside the file/],
    ['a table that begins inside a sector', 16, '0000000000000601', /begins on a sector/],
    ['another version', 24, '00020000', /version/],
  ] as const)('with %s is refused', async ([, offset, hex, rule]) => {
    edit(ports, PATH, (bytes) => editHeader(bytes, (header) => header.write(hex, offset, 'hex')));
    await expectRefused('VHD_HEADER', rule);
  });

  test('with a wrong header checksum is refused', async () => {
    edit(ports, PATH, (bytes) => bytes.writeUInt8(1, 1500));
    await expectRefused('VHD_HEADER', /checksum/);
  });

  test.for([
    [512 * 3, /cxsparse/],
    [2 ** 50, /inside the file/],
    [0, /behind the footer copy/],
    [768, /begins on a sector/],
  ] as const)('whose footer names a header at %d is refused', async ([offset, rule]) => {
    edit(ports, PATH, (bytes) => editFooters(bytes, (footer) => footer.writeBigUInt64BE(BigInt(offset), 16)));
    await expectRefused('VHD_HEADER', rule);
  });

  test.for([
    ['past the end', 0x7fffff00, /inside the file/],
    ['past the end as an unsigned number', 0x80000010, /inside the file/],
    ['over the footer', 4120, /inside the file/],
    ['where the first block is', 15, /share a byte/],
    ['half over the first block', 15 + 2000, /share a byte/],
  ] as const)('with a block %s is refused', async ([, sector, rule]) => {
    edit(ports, PATH, (bytes) => bytes.writeUInt32BE(sector, 1536 + 4));
    await expectRefused('VHD_BAT', rule);
  });

  test.for([
    [0, /spare footer/],
    [1, /dynamic header/],
    [3, /block table/],
  ] as const)('with a block over the structure in sector %d is refused', async ([sector, rule]) => {
    await makeVhd(ports, '/d/one.vhd', {}, FILLS.slice(1));
    edit(ports, '/d/one.vhd', (bytes) => bytes.writeUInt32BE(sector, 1536 + 4));
    const refused = { code: 'VHD_BAT', message: expect.stringMatching(rule) };
    await expect(openDisk('/d/one.vhd', { ports })).rejects.toMatchObject(refused);
  });

  test('with blocks packed without gaps reads', async () => {
    edit(ports, PATH, (bytes) => {
      bytes.copy(bytes, (15 + 4097) * 512, 4119 * 512, (4119 + 4097) * 512);
      bytes.writeUInt32BE(15 + 4097, 1536 + 4);
    });
    expectSame(await readAll(ports, PATH), CONTENT);
  });

  test('ignores clear bits in its bitmaps', async () => {
    edit(ports, PATH, (bytes) => bytes.fill(0, 15 * 512, 16 * 512));
    expectSame(await readAll(ports, PATH), CONTENT);
  });

  test('may have a table longer than it needs', async () => {
    edit(ports, PATH, (bytes) => editHeader(bytes, (header) => header.writeUInt32BE(100, 28)));
    expectSame(await readAll(ports, PATH), CONTENT);
  });

  test('with a block over the block map of XenServer is refused', async () => {
    edit(ports, PATH, (bytes) => {
      bytes.write('tdbatmap', 2048, 'latin1');
      bytes.writeBigUInt64BE(7680n, 2048 + 8);
      bytes.writeUInt32BE(1, 2048 + 16);
    });
    await expectRefused('VHD_BAT', /block map/);
  });

  test('whose last block ends inside the disk has only the guest part of it', async () => {
    const virtualSizeBytes = 5 * MIB;
    await makeVhd(ports, '/d/odd.vhd', { virtualSizeBytes }, [{ offset: 4 * MIB, lengthBytes: MIB, value: 7 }]);
    expect(await extentList(ports, '/d/odd.vhd')).toEqual([`absent 0 ${4 * MIB} @0`, `data ${4 * MIB} ${MIB} @0`]);
    edit(ports, '/d/odd.vhd', (bytes) => {
      const footer = Buffer.from(bytes.subarray(bytes.length - 512));
      return Buffer.concat([bytes.subarray(0, bytes.length - 512 - MIB), footer]);
    });
    expectSame((await readAll(ports, '/d/odd.vhd')).subarray(4 * MIB), Buffer.alloc(MIB, 7));
  });
});

test('another block may begin where the guest part of the last block ends', async () => {
  const fills = [
    { offset: 0, lengthBytes: 2 * MIB, value: 1 },
    { offset: 4 * MIB, lengthBytes: MIB, value: 2 },
  ];
  await makeVhd(ports, PATH, { virtualSizeBytes: 5 * MIB }, fills);
  edit(ports, PATH, (bytes) => {
    const [first, last] = [15, 4119];
    const blockSectors = 4097;
    const lastSectors = 1 + MIB / 512;
    const packed = Buffer.concat([
      bytes.subarray(0, first * 512),
      bytes.subarray(last * 512, (last + lastSectors) * 512),
      bytes.subarray(first * 512, (first + blockSectors) * 512),
      bytes.subarray(bytes.length - 512),
    ]);
    packed.writeUInt32BE(first + lastSectors, 1536);
    packed.writeUInt32BE(first, 1536 + 8);
    return packed;
  });
  expectSame(await readAll(ports, PATH), filled(5 * MIB, fills));
});

test('blocks beyond 1 TiB of the file are read by unsigned sectors', async () => {
  await makeVhd(ports, PATH, {}, FILLS);
  const bytes = Buffer.from(ports.files.get(PATH)!);
  const far = 0xf000_0007;
  const file = await ports.files.open(PATH, 'modify');
  const block = bytes.subarray(4119 * 512, (4119 + 4097) * 512);
  const entry = Buffer.alloc(4);
  entry.writeUInt32BE(far);
  await file.write(block, far * 512);
  await file.write(entry, 1536 + 4);
  await file.write(bytes.subarray(bytes.length - 512), (far + 4097) * 512);
  expectSame(await readAll(ports, PATH), CONTENT);
});

test('an empty disk of 2040 GiB is one absent extent and opens in well under a second', async () => {
  await makeVhd(ports, PATH, { virtualSizeBytes: 2040 * 1024 * MIB, blockSizeBytes: 512 * KIB });
  const start = performance.now();
  expect(await extentList(ports, PATH)).toEqual([`absent 0 ${2040 * 1024 * MIB} @0`]);
  expect(performance.now() - start).toBeLessThan(1000);
});

test('a range outside the disk is a wrong argument', async () => {
  await makeVhd(ports, PATH, {});
  const disk = await openDisk(PATH, { ports });
  await expect(disk.read(new Uint8Array(513), 4 * MIB - 512)).rejects.toThrow(RangeError);
  await expect(disk.read(new Uint8Array(1), -1)).rejects.toThrow(RangeError);
});

test('a file that cannot be read is DISK_UNREADABLE, on opening and later', async () => {
  await makeVhd(ports, PATH, {}, FILLS);
  let works = true;
  const files = { ...ports.files };
  files.open = async (path, mode) => {
    const file = await ports.files.open(path, mode);
    const read = file.read.bind(file);
    file.read = async (into, position) => {
      if (!works) throw errno('EIO', path);
      return read(into, position);
    };
    return file;
  };
  const disk = await openDisk(PATH, { ports: { files } });
  works = false;
  await expect(disk.read(new Uint8Array(512), 0)).rejects.toMatchObject({ code: 'DISK_UNREADABLE' });
  await expect(openDisk(PATH, { ports: { files } })).rejects.toMatchObject({ code: 'DISK_UNREADABLE' });
});

test('a table of more than 64 MiB is refused before it is read', async () => {
  await makeVhd(ports, PATH, { virtualSizeBytes: 1024 * MIB, blockSizeBytes: 64 * KIB });
  edit(ports, PATH, (bytes) => {
    editHeader(bytes, (header) => {
      header.writeUInt32BE(0x7fffffff, 28);
      header.writeUInt32BE(512, 32);
    });
    editFooters(bytes, (footer) => footer.writeBigUInt64BE(BigInt(2040 * 1024 * MIB), 48));
  });
  await expectRefused('VHD_HEADER', /at most 67108864/);
});

test('a file that is not there is DISK_NOT_FOUND', async () => {
  await expect(openDisk('/d/none', { ports })).rejects.toMatchObject({ code: 'DISK_NOT_FOUND' });
});

test('a caller who knows the format gets that or an error', async () => {
  await makeVhd(ports, PATH, {}, FILLS);
  const fileBytes = ports.files.get(PATH)!.byteLength;
  expect((await readAll(ports, PATH, { format: 'raw' })).length).toBe(fileBytes);
  await expect(openDisk(PATH, { ports, format: 'vhdx' })).rejects.toMatchObject({ code: 'VHDX_IDENTIFIER' });
  ports.files.put('/d/plain', new Uint8Array(4096));
  await expect(openDisk('/d/plain', { ports, format: 'vhd' })).rejects.toMatchObject({ code: 'VHD_FOOTER' });
});
