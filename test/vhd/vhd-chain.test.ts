import { mkdir, mkdtemp, rename, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import type { RandomAccessFile } from '../../src/ports.ts';
import { ChainDisk } from '../../src/vhd/chain-disk.ts';
import { createDisk } from '../../src/vhd/create-disk.ts';
import type { Layer, LayerExtent } from '../../src/vhd/layer.ts';
import { openDisk } from '../../src/vhd/open-disk.ts';
import {
  edit,
  editFooters,
  editHeader,
  expectSame,
  extentList,
  filled,
  MIB,
  makeVhd,
  readAll,
  type TestPorts,
  testPorts,
} from './vhd-image.ts';

const SIZE = 4 * MIB;
const BASE = { offset: 0, lengthBytes: 3 * MIB, value: 0x11 };
const MIDDLE = { offset: MIB, lengthBytes: 512 * 3, value: 0x22 };
const TOP = { offset: MIB + 512, lengthBytes: 512, value: 0x33 };

let ports: TestPorts;

beforeEach(async () => {
  ports = testPorts();
  await ports.files.makeDirectory('/d');
  await ports.files.makeDirectory('/other');
});

async function makeChain(directory = '/d'): Promise<void> {
  await makeVhd(ports, `${directory}/base.vhd`, {}, [BASE]);
  await makeChild(`${directory}/middle.vhd`, `${directory}/base.vhd`, [MIDDLE]);
  await makeChild('/d/top.vhd', `${directory}/middle.vhd`, [TOP]);
}

function makeChild(path: string, parent: string, fills: Parameters<typeof makeVhd>[3]): Promise<void> {
  return makeVhd(ports, path, { subformat: 'differencing', parent }, fills);
}

async function expectRefused(path: string, code: string, rule = /./): Promise<void> {
  await expect(openDisk(path, { ports })).rejects.toMatchObject({ code, message: expect.stringMatching(rule) });
}

test('each sector comes from the first disk of the chain that has it', async () => {
  await makeChain();
  expectSame(await readAll(ports, '/d/top.vhd'), filled(SIZE, [BASE, MIDDLE, TOP]));
  const disk = await openDisk('/d/top.vhd', { ports });
  expect(disk.info.chain).toEqual(['/d/top.vhd', '/d/middle.vhd', '/d/base.vhd']);
  await disk.close();
  expect(await extentList(ports, '/d/top.vhd')).toEqual([
    `data 0 ${MIB} @2`,
    `data ${MIB} 512 @1`,
    `data ${MIB + 512} 512 @0`,
    `data ${MIB + 1024} 512 @1`,
    `data ${MIB + 1536} ${MIB - 1536} @2`,
    `data ${2 * MIB} ${2 * MIB} @2`,
  ]);
});

test('a part of a disk can be asked for, at any byte', async () => {
  await makeChain();
  const whole = filled(SIZE, [BASE, MIDDLE, TOP]);
  const disk = await openDisk('/d/top.vhd', { ports });
  for (const offset of [0, 1, 511, MIB - 1, MIB + 511, MIB + 513, 2 * MIB - 700]) {
    const part = Buffer.alloc(1400);
    await disk.read(part, offset);
    expectSame(part, whole.subarray(offset, offset + 1400));
  }
  await disk.close();
});

test('a bitmap is obeyed bit by bit, high bit first', async () => {
  await makeVhd(ports, '/d/base.vhd', {}, [{ offset: 0, lengthBytes: SIZE, value: 0x11 }]);
  await makeChild('/d/top.vhd', '/d/base.vhd', [{ offset: 0, lengthBytes: 2 * MIB, value: 0x22 }]);
  const bat = Buffer.from(ports.files.get('/d/top.vhd')!).readBigUInt64BE(512 + 16);
  edit(ports, '/d/top.vhd', (bytes) => bytes.writeUInt8(0xcb, bytes.readUInt32BE(Number(bat)) * 512 + 23));
  const content = await readAll(ports, '/d/top.vhd');
  const fromChild = Array.from({ length: 8 }, (_, i) => content[(184 + i) * 512] === 0x22);
  expect(fromChild).toEqual([true, true, false, false, true, false, true, true]);
});

test('zeros that a child holds hide what its parent holds', async () => {
  await makeVhd(ports, '/d/base.vhd', {}, [BASE]);
  await makeChild('/d/top.vhd', '/d/base.vhd', [{ offset: 0, lengthBytes: 512, value: 0 }]);
  expect((await readAll(ports, '/d/top.vhd')).readUInt32BE(0)).toBe(0);
});

describe('a parent', () => {
  test('that moved with its child is found beside it', async () => {
    await makeChain('/other');
    const roots = ['/d', '/other'];
    expectSame(await readAll(ports, '/d/top.vhd', { allowedRoots: roots }), filled(SIZE, [BASE, MIDDLE, TOP]));
    await ports.files.rename('/other/base.vhd', '/d/base.vhd');
    await ports.files.rename('/other/middle.vhd', '/d/middle.vhd');
    expectSame(await readAll(ports, '/d/top.vhd'), filled(SIZE, [BASE, MIDDLE, TOP]));
  });

  test('outside the folder of the child is taken only where it is allowed', async () => {
    await makeChain('/other');
    await expectRefused('/d/top.vhd', 'CHAIN_OUTSIDE_ROOT', /other/);
    await expect(openDisk('/d/top.vhd', { ports, allowedRoots: ['/d', '/othe'] })).rejects.toMatchObject({
      code: 'CHAIN_OUTSIDE_ROOT',
    });
  });

  test('outside the allowed folders is not even touched', async () => {
    await makeChain('/other');
    const touched: string[] = [];
    const files = { ...ports.files };
    files.realPath = async (path) => {
      touched.push(path);
      return ports.files.realPath(path);
    };
    await expect(openDisk('/d/top.vhd', { ports: { files } })).rejects.toMatchObject({ code: 'CHAIN_OUTSIDE_ROOT' });
    expect(touched.filter((path) => path.startsWith('/other'))).toEqual([]);
  });

  test('that is gone is named with every place that was tried', async () => {
    await makeChain();
    await ports.files.remove('/d/base.vhd');
    await expectRefused('/d/top.vhd', 'CHAIN_PARENT_NOT_FOUND', /middle.vhd.*base.vhd is not there/);
  });

  test('that is gone under names of 32,768 characters is named in a message that one can read', async () => {
    await makeVhd(ports, '/d/base.vhd', {});
    await makeChild('/d/top.vhd', '/d/base.vhd', []);
    await ports.files.remove('/d/base.vhd');
    edit(ports, '/d/top.vhd', (bytes) => {
      editHeader(bytes, (header) => {
        for (let i = 0; i < 8; i += 1) {
          header.write('W2ru', 576 + i * 24, 'latin1');
          header.writeUInt32BE(65_536 - 2 * i, 576 + i * 24 + 8);
          header.writeBigUInt64BE(BigInt(bytes.length - 512), 576 + i * 24 + 16);
        }
      });
      return Buffer.concat([bytes.subarray(0, -512), Buffer.alloc(65_536, 0x41), bytes.subarray(-512)]);
    });
    await expectRefused('/d/top.vhd', 'CHAIN_PARENT_NOT_FOUND', /^.{300,4000}$/);
  });

  test('with another identity is refused', async () => {
    await makeChain();
    edit(ports, '/d/base.vhd', (bytes) => editFooters(bytes, (footer) => footer.writeUInt8(99, 70)));
    await expectRefused('/d/top.vhd', 'CHAIN_PARENT_MISMATCH', /not vhd:/);
  });

  test('that is a raw file is refused where the child names an identity', async () => {
    await makeChain();
    ports.files.put('/d/base.vhd', new Uint8Array(SIZE));
    await expectRefused('/d/top.vhd', 'CHAIN_PARENT_MISMATCH', /is raw/);
  });

  test('that is damaged is refused for what is wrong with it', async () => {
    await makeChain();
    edit(ports, '/d/base.vhd', (bytes) => bytes.fill(1, 600, 700));
    await expectRefused('/d/top.vhd', 'VHD_HEADER', /base.vhd/);
  });

  test('of another size is refused', async () => {
    await makeChain();
    edit(ports, '/d/top.vhd', (bytes) =>
      editFooters(bytes, (footer) => footer.writeBigUInt64BE(BigInt(SIZE - 512), 48)),
    );
    await expectRefused('/d/top.vhd', 'CHAIN_PARENT_MISMATCH', /same size/);
  });

  test('that is the child itself is a cycle', async () => {
    await makeChain();
    edit(ports, '/d/top.vhd', (bytes) => editHeader(bytes, (header) => bytes.copy(header, 40, 68, 84)));
    await ports.files.remove('/d/middle.vhd');
    await ports.files.rename('/d/top.vhd', '/d/middle.vhd');
    await expectRefused('/d/middle.vhd', 'CHAIN_CYCLE');
  });

  test('may be a raw file of the same size where the child names no identity', async () => {
    const raw = filled(SIZE, [BASE]);
    ports.files.put('/d/base.img', raw);
    await makeChild('/d/top.vhd', '/d/base.img', [TOP]);
    expectSame(await readAll(ports, '/d/top.vhd'), filled(SIZE, [BASE, TOP]));
    ports.files.put('/d/base.img', raw.subarray(512));
    await expectRefused('/d/top.vhd', 'CHAIN_PARENT_MISMATCH', /same size/);
  });

  test('that is raw stays raw, whatever its guest wrote', async () => {
    await makeVhd(ports, '/d/base.img', { subformat: 'fixed', virtualSizeBytes: SIZE - MIB }, [BASE]);
    edit(ports, '/d/base.img', (bytes) => Buffer.concat([Buffer.alloc(MIB - 512, 0x77), bytes]));
    const raw = ports.files.get('/d/base.img')!;
    ports.files.put('/d/plain.img', new Uint8Array(SIZE));
    await makeChild('/d/top.vhd', '/d/plain.img', []);
    ports.files.put('/d/plain.img', raw);
    expectSame(await readAll(ports, '/d/top.vhd'), raw);
  });

  test('that is shorter leaves the rest absent', async () => {
    const file = (path: string): RandomAccessFile => ({ path }) as RandomAccessFile;
    const layer = (path: string, virtualSizeBytes: number): Layer =>
      ({
        ...{ file: file(path), virtualSizeBytes, notes: [] },
        async *extents(offset: number, lengthBytes: number): AsyncGenerator<LayerExtent> {
          if (path === 'child') yield { kind: 'parent', offset, lengthBytes };
          else yield { kind: 'zero', offset, lengthBytes };
        },
      }) as unknown as Layer;
    const list: string[] = [];
    const disk = new ChainDisk([layer('child', 4096), layer('parent', 1024)]);
    for await (const { kind, offset, lengthBytes } of disk.extents(512, 3584))
      list.push(`${kind} ${offset} ${lengthBytes}`);
    expect(list).toEqual(['zero 512 512', 'absent 1024 3072']);
  });

  test('is found by the name in the header where no locator helps', async () => {
    await makeChain();
    edit(ports, '/d/top.vhd', (bytes) => editHeader(bytes, (header) => header.fill(0, 576, 768)));
    expectSame(await readAll(ports, '/d/top.vhd'), filled(SIZE, [BASE, MIDDLE, TOP]));
  });
});

test('a chain is bounded in depth', async () => {
  await makeVhd(ports, '/d/0.vhd', { subformat: 'fixed', virtualSizeBytes: MIB });
  for (let i = 1; i <= 256; i += 1) {
    const parent = `/d/${i - 1}.vhd`;
    await makeVhd(ports, `/d/${i}.vhd`, { subformat: 'differencing', virtualSizeBytes: MIB, parent });
  }
  await expectRefused('/d/256.vhd', 'CHAIN_TOO_DEEP');
  expect((await readAll(ports, '/d/255.vhd')).length).toBe(MIB);
});

test('every file of a chain that cannot be opened is closed again', async () => {
  await makeChain();
  await ports.files.remove('/d/base.vhd');
  let open = 0;
  const files = { ...ports.files };
  files.open = async (path, mode) => {
    const file = await ports.files.open(path, mode);
    open += 1;
    file.close = async () => {
      open -= 1;
    };
    return file;
  };
  await expect(openDisk('/d/top.vhd', { ports: { files } })).rejects.toMatchObject({ code: 'CHAIN_PARENT_NOT_FOUND' });
  expect(open).toBe(0);
});

test.for([
  ['a path that is too long', 8, '00020000'],
  ['a path of half a character', 8, '00000003'],
  ['a path outside the file', 16, '0000000100000000'],
  ['a path beyond all numbers', 16, 'ffffffffffffffff'],
] as const)('a locator with %s is refused', async ([, field, hex]) => {
  await makeChain();
  edit(ports, '/d/top.vhd', (bytes) => editHeader(bytes, (header) => header.write(hex, 576 + field, 'hex')));
  await expectRefused('/d/top.vhd', 'VHD_LOCATOR');
});

test('a block over a parent path is refused', async () => {
  await makeVhd(ports, '/d/base.vhd', {}, [BASE]);
  await makeChild('/d/top.vhd', '/d/base.vhd', []);
  edit(ports, '/d/top.vhd', (bytes) => {
    const batOffset = Number(bytes.readBigUInt64BE(512 + 16));
    const tail = bytes.length - 512;
    const longer = Buffer.concat([bytes.subarray(0, tail), Buffer.alloc(3 * MIB), bytes.subarray(tail)]);
    longer.copy(longer, 2 * MIB + 65536, batOffset, batOffset + 512);
    longer.writeUInt32BE(4096 / 512, 2 * MIB + 65536);
    editHeader(longer, (header) => header.writeBigUInt64BE(BigInt(2 * MIB + 65536), 16));
    return longer;
  });
  await expectRefused('/d/top.vhd', 'VHD_BAT', /parent path/);
});

test('a symbolic link does not lead out of the allowed folder', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'blockferry-chain-'));
  try {
    const host = nodePorts();
    const options = { format: 'vhd', virtualSizeBytes: SIZE, ports: host } as const;
    for (const name of ['in', 'out']) await mkdir(join(directory, name));
    const [base, child] = [join(directory, 'in/base.vhd'), join(directory, 'in/child.vhd')];
    await (await createDisk(base, { ...options, subformat: 'dynamic' })).finish();
    await (await createDisk(child, { ...options, subformat: 'differencing', parent: base })).finish();
    await (await openDisk(child, { ports: host })).close();
    await rename(base, join(directory, 'out/base.vhd'));
    await symlink(join(directory, 'out/base.vhd'), base);
    await expect(openDisk(child, { ports: host })).rejects.toMatchObject({ code: 'CHAIN_OUTSIDE_ROOT' });
    await (await openDisk(child, { ports: host, allowedRoots: [directory] })).close();
    await expect(openDisk(directory, { ports: host })).rejects.toMatchObject({ code: 'DISK_UNREADABLE' });
  } finally {
    await rm(directory, { recursive: true });
  }
});
