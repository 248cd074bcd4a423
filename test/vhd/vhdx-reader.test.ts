import { describe, expect, it } from 'vitest';
import type { Layer } from '../../src/vhd/layer.ts';
import { checkVhdx, openVhdx } from '../../src/vhd/vhdx-layer.ts';
import { isVhdx } from '../../src/vhd/vhdx-layout.ts';
import { describeExtents, fileOf, layerContext, readLayers } from '../support/layer-content.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import {
  type BuiltVhdx,
  buildVhdx,
  DATA_WRITE_GUID,
  guidOnDisk,
  LOG_GUID,
  locator,
  sealCrc,
  type VhdxOptions,
} from '../support/vhdx-builder.ts';

const MIB = 1024 * 1024;
const KIB = 1024;
const context = () => layerContext(memoryFileSystem());
const PARENT = { parent_linkage: `{${DATA_WRITE_GUID.toLowerCase()}}`, relative_path: '.\\parent.vhdx' };

async function open(built: BuiltVhdx): Promise<Layer> {
  return openVhdx(fileOf(built.bytes), context());
}

/** What opening refuses, check reports under the same code. */
async function expectRefused(built: BuiltVhdx, code: string, text = /./): Promise<void> {
  const file = fileOf(built.bytes);
  const opening = openVhdx(file, context());
  await expect(opening).rejects.toMatchObject({ code });
  await expect(opening).rejects.toThrow(text);
  const { faults } = await checkVhdx(file, context());
  expect(faults.map((fault) => fault.code)).toContain(code);
}

function fill(built: BuiltVhdx, atMiB: number, byte: number, lengthBytes = MIB): void {
  built.bytes.fill(byte, atMiB * MIB, atMiB * MIB + lengthBytes);
}

describe('a VHDX without parent', () => {
  it('maps every payload state to what it reads as, wherever leftover offsets point', async () => {
    const built = buildVhdx({
      virtualSize: 6 * MIB,
      bat: { 0: [6, 5], 1: [0, 5], 2: [1, 5], 3: [2, 5], 4: [3, 9999], 5: [6, 4] },
    });
    fill(built, 5, 0xaa);
    fill(built, 4, 0xbb);
    const layer = await open(built);
    expect(await describeExtents(layer)).toEqual([
      `data 0+${MIB}@${5 * MIB}`,
      `parent ${MIB}+${MIB}`,
      `zero ${2 * MIB}+${3 * MIB}`,
      `data ${5 * MIB}+${MIB}@${4 * MIB}`,
    ]);
    const content = await readLayers([layer], 0, 6 * MIB);
    expect([content[0], content[MIB], content[2 * MIB], content[4 * MIB], content[5 * MIB]]).toEqual([
      0xaa, 0, 0, 0, 0xbb,
    ]);
  });

  it('tells what it is', async () => {
    const layer = await open(buildVhdx({ virtualSize: 3 * MIB, blockSize: 2 * MIB, fileFlags: 1 }));
    expect(layer).toMatchObject({
      format: 'vhdx',
      subformat: 'fixed',
      virtualSizeBytes: 3 * MIB,
      blockSizeBytes: 2 * MIB,
      logicalSectorBytes: 512,
      physicalSectorBytes: 4096,
      identity: LOG_GUID,
      contentId: DATA_WRITE_GUID,
      linkId: `vhdx:${DATA_WRITE_GUID}`,
      parent: undefined,
      log: 'clean',
      notes: [],
    });
  });

  it('joins blocks that follow each other in the file, and cuts extents to the range asked for', async () => {
    const layer = await open(buildVhdx({ virtualSize: 4 * MIB, bat: { 0: [6, 6], 1: [6, 7], 2: [6, 8], 3: [6, 5] } }));
    expect(await describeExtents(layer)).toEqual([`data 0+${3 * MIB}@${6 * MIB}`, `data ${3 * MIB}+${MIB}@${5 * MIB}`]);
    expect(await describeExtents(layer, 512, 2 * MIB)).toEqual([`data 512+${2 * MIB}@${6 * MIB + 512}`]);
    expect(await describeExtents(layer, 4 * MIB, 0)).toEqual([]);
  });

  it('skips the bitmap entries between chunks and ignores garbage in them', async () => {
    // 256 MiB blocks of 512-byte sectors: 16 blocks a chunk, entry 16 is the bitmap's.
    const built = buildVhdx({
      virtualSize: 18 * 256 * MIB,
      blockSize: 256 * MIB,
      bat: { 15: [2, 0], 17: [2, 0] },
      rawBat: { 16: 0xdeadbeefdeadbeefn },
    });
    const layer = await open(built);
    expect(await describeExtents(layer)).toEqual([
      `parent 0+${15 * 256 * MIB}`,
      `zero ${15 * 256 * MIB}+${2 * 256 * MIB}`,
      `parent ${17 * 256 * MIB}+${256 * MIB}`,
    ]);
  });

  it('accepts a table region that is larger than needed, and 4 KiB sectors', async () => {
    const layer = await open(
      buildVhdx({ virtualSize: 4 * MIB, logicalSector: 4096, physicalSector: 512, batMiB: 3, bat: { 1: [6, 7] } }),
    );
    expect([layer.logicalSectorBytes, layer.physicalSectorBytes]).toEqual([4096, 512]);
    expect((await describeExtents(layer))[1]).toBe(`data ${MIB}+${MIB}@${7 * MIB}`);
  });

  it('lets the file end inside the last block, behind the last byte of the disk', async () => {
    const built = buildVhdx({ virtualSize: 512 * KIB, blockSize: 2 * MIB, bat: { 0: [6, 4] }, fileMiB: 5 });
    const cut = (lengthBytes: number): BuiltVhdx => ({ ...built, bytes: built.bytes.subarray(0, lengthBytes) });
    const layer = await open(cut(4 * MIB + 512 * KIB));
    expect(await describeExtents(layer)).toEqual([`data 0+${512 * KIB}@${4 * MIB}`]);
    await expectRefused(cut(4 * MIB + 512 * KIB - 1), 'VHDX_BAT', /ends inside the file/);
  });
});

describe('a differencing VHDX', () => {
  const layers = async (child: BuiltVhdx, parent: BuiltVhdx): Promise<Layer[]> => [
    await open(child),
    await open(parent),
  ];

  it('names its parent', async () => {
    const layer = await open(
      buildVhdx({
        parent: {
          ...PARENT,
          parent_linkage2: '{00000000-0000-0000-0000-000000000000}',
          absolute_win32_path: 'C:\\vm\\parent.vhdx',
          volume_path: '\\\\?\\Volume{1}\\parent.vhdx',
        },
      }),
    );
    expect(layer.subformat).toBe('differencing');
    expect(layer.parent).toEqual({
      paths: [
        { kind: 'relative', path: '.\\parent.vhdx' },
        { kind: 'absolute', path: 'C:\\vm\\parent.vhdx' },
        { kind: 'volume', path: '\\\\?\\Volume{1}\\parent.vhdx' },
      ],
      linkIds: [`vhdx:${DATA_WRITE_GUID}`],
      sameSize: false,
    });
  });

  it('takes a parent_linkage2 that is set as a second identity', async () => {
    const layer = await open(buildVhdx({ parent: { ...PARENT, parent_linkage2: `{${LOG_GUID}}` } }));
    expect(layer.parent?.linkIds).toEqual([`vhdx:${DATA_WRITE_GUID}`, `vhdx:${LOG_GUID}`]);
  });

  it('mixes all states in one chunk; only not-present falls through', async () => {
    const child = buildVhdx({
      virtualSize: 6 * MIB,
      parent: PARENT,
      bat: { 0: [6, 5], 1: [7, 6], 2: [0, 0], 3: [2, 0], 4: [1, 7], 5: [3, 0], 4096: [6, 4] },
    });
    fill(child, 5, 0xc0);
    fill(child, 6, 0xc1);
    // Block 1: sectors 0, 3, 4, 6 and 7 (0xD9, least bit first), then from 2040 on.
    child.bytes[4 * MIB + 2048 / 8] = 0xd9;
    child.bytes[4 * MIB + (2048 + 2040) / 8] = 0xff;
    // Bits of the fully present block 0 mean nothing.
    child.bytes[4 * MIB] = 0x0f;
    const parent = buildVhdx({
      virtualSize: 6 * MIB,
      bat: { 0: [6, 4], 1: [6, 5], 2: [6, 6], 3: [6, 7], 4: [6, 8], 5: [6, 9] },
    });
    for (let i = 0; i < 6; i += 1) fill(parent, 4 + i, 0xa0 + i);

    const stack = await layers(child, parent);
    expect(await describeExtents(stack[0]!, MIB, MIB)).toEqual([
      `data ${MIB}+512@${6 * MIB}`,
      `parent ${MIB + 512}+1024`,
      `data ${MIB + 1536}+1024@${6 * MIB + 1536}`,
      `parent ${MIB + 2560}+512`,
      `data ${MIB + 3072}+1024@${6 * MIB + 3072}`,
      `parent ${MIB + 4096}+${2032 * 512}`,
      `data ${MIB + 2040 * 512}+4096@${6 * MIB + 2040 * 512}`,
    ]);
    const content = await readLayers(stack, 0, 6 * MIB);
    const expected = Buffer.concat([0xc0, 0xa1, 0xa2, 0, 0, 0].map((byte) => Buffer.alloc(MIB, byte)));
    for (const sector of [0, 3, 4, 6, 7, 2040, 2041, 2042, 2043, 2044, 2045, 2046, 2047]) {
      expected.fill(0xc1, MIB + sector * 512, MIB + sector * 512 + 512);
    }
    expect(content.equals(expected)).toBe(true);
  });

  it('finds the bitmap of a later chunk, and the bits of a block inside it, with 4 KiB sectors', async () => {
    // 256 MiB blocks, 4 KiB sectors: 128 blocks a chunk, 8 KiB of bits a block. Block 130 is the third of chunk 1.
    const child = buildVhdx({
      virtualSize: 131 * 256 * MIB,
      blockSize: 256 * MIB,
      logicalSector: 4096,
      parent: PARENT,
      bat: { 131: [7, 8], 257: [6, 5] },
      fileMiB: 8 + 256,
    });
    child.bytes[5 * MIB + 2 * 8192 + 1] = 0x02;
    const layer = await open(child);
    const start = 130 * 256 * MIB;
    expect(await describeExtents(layer, start, 64 * KIB)).toEqual([
      `parent ${start}+${9 * 4096}`,
      `data ${start + 9 * 4096}+4096@${8 * MIB + 9 * 4096}`,
      `parent ${start + 10 * 4096}+${6 * 4096}`,
    ]);
  });

  it('resolves a chain whose block sizes and disk sizes differ', async () => {
    const child = buildVhdx({ virtualSize: 5 * MIB, blockSize: MIB, parent: PARENT, bat: { 1: [6, 5] } });
    fill(child, 5, 0xcc);
    const parent = buildVhdx({ virtualSize: 3 * MIB, blockSize: 4 * MIB, bat: { 0: [6, 4] } });
    fill(parent, 4, 0xaa, 3 * MIB);
    const content = await readLayers(await layers(child, parent), 0, 5 * MIB);
    expect([0, 1, 2, 3, 4].map((i) => content[i * MIB + 77])).toEqual([0xaa, 0xcc, 0xaa, 0, 0]);
  });

  it('refuses a partially present block without its bitmap', async () => {
    await expectRefused(buildVhdx({ parent: PARENT, bat: { 0: [7, 5] } }), 'VHDX_BITMAP', /bitmap.*is present/);
  });

  it('refuses a bitmap entry in a payload state', async () => {
    await expectRefused(buildVhdx({ parent: PARENT, bat: { 0: [7, 5], 4096: [7, 6] } }), 'VHDX_BITMAP', /state 0 or 6/);
  });

  it('refuses a bitmap over the log', async () => {
    await expectRefused(buildVhdx({ parent: PARENT, bat: { 0: [7, 5], 4096: [6, 1] } }), 'VHDX_BITMAP', /over the log/);
  });

  it.each([
    ['no parent_linkage', { relative_path: 'p' }],
    ['a nil parent_linkage', { ...PARENT, parent_linkage: '{00000000-0000-0000-0000-000000000000}' }],
    ['a parent_linkage that is no GUID', { ...PARENT, parent_linkage: 'parent' }],
    ['no path', { parent_linkage: PARENT.parent_linkage }],
  ])('refuses a locator with %s', async (_, parent: Record<string, string>) => {
    await expectRefused(buildVhdx({ parent }), 'VHDX_LOCATOR');
  });

  it.each([
    ['another type', (item: Buffer) => item.fill(0x11, 0, 16)],
    ['no entries', (item: Buffer) => item.writeUInt16LE(0, 18)],
    ['more entries than are possible', (item: Buffer) => item.writeUInt16LE(257, 18)],
    ['text outside the item', (item: Buffer) => item.writeUInt32LE(0xfffffffe, 20)],
    ['text at an odd offset', (item: Buffer) => item.writeUInt32LE(61, 20)],
  ])('refuses a locator with %s', async (_, damage) => {
    const item = locator(PARENT);
    damage(item);
    const guid = 'A8D35F2D-B30B-454D-ABF7-D3D84834AB0C';
    await expectRefused(buildVhdx({ fileFlags: 2, extraItems: [{ guid, bytes: item, flags: 4 }] }), 'VHDX_LOCATOR');
  });
});

describe('headers', () => {
  const smash = (built: BuiltVhdx, ...offsets: number[]): BuiltVhdx => {
    for (const at of offsets) built.bytes[at + 200]! ^= 1;
    return built;
  };

  it('are chosen by the higher sequence number, in 64 bits', async () => {
    // In doubles both would be 80117443871106380.
    const built = buildVhdx({ sequences: [80117443871106387n, 80117443871106386n] });
    guidOnDisk(LOG_GUID).copy(built.bytes, 128 * KIB + 32);
    sealCrc(built.bytes, 128 * KIB, 4096);
    expect((await open(built)).contentId).toBe(DATA_WRITE_GUID);
  });

  it.each([64 * KIB, 128 * KIB])('may be damaged in one copy (at %i), which check reports', async (offset) => {
    const built = smash(buildVhdx(), offset);
    const layer = await open(built);
    expect(layer.notes.join()).toMatch(/checksum/);
    const { faults } = await checkVhdx(fileOf(built.bytes), context());
    expect(faults).toMatchObject([{ code: 'VHDX_HEADER', offset, file: '/disk.vhdx' }]);
  });

  it('are refused if both are damaged', async () => {
    await expectRefused(smash(buildVhdx(), 64 * KIB, 128 * KIB), 'VHDX_HEADER', /CRC-32C/);
  });

  it('may have equal sequence numbers if they are equal', async () => {
    expect((await open(buildVhdx({ sequences: [5n, 5n] }))).contentId).toBe(DATA_WRITE_GUID);
  });

  it('are refused with equal sequence numbers if they differ', async () => {
    const built = buildVhdx({ sequences: [5n, 5n] });
    guidOnDisk(LOG_GUID).copy(built.bytes, 128 * KIB + 16);
    sealCrc(built.bytes, 128 * KIB, 4096);
    await expectRefused(built, 'VHDX_HEADER', /differ/);
  });

  it('must say version 1', async () => {
    await expectRefused(buildVhdx({ version: 2 }), 'VHDX_HEADER', /version/);
  });

  it('may have another log version only without a log to replay', async () => {
    expect((await open(buildVhdx({ logVersion: 1 }))).log).toBe('clean');
    await expectRefused(buildVhdx({ logVersion: 1, logGuid: LOG_GUID }), 'VHDX_LOG', /version 0/);
  });

  it('begin with the identifier', async () => {
    const built = buildVhdx();
    expect(isVhdx(built.bytes.subarray(0, 8))).toBe(true);
    built.bytes[0] = 0;
    expect(isVhdx(built.bytes)).toBe(false);
    await expectRefused(built, 'VHDX_IDENTIFIER');
  });

  it.each([0, 7, 8, 64 * KIB + 100, MIB - 1])('are refused in a file of %i bytes', async (lengthBytes) => {
    const built = buildVhdx();
    const cut = { ...built, bytes: built.bytes.subarray(0, lengthBytes) };
    await expect(open(cut)).rejects.toMatchObject({ area: 'source' });
  });
});

describe('region tables', () => {
  const OPTIONAL = { guid: LOG_GUID, offset: 11 * MIB, length: MIB, required: false };

  it.each([192 * KIB, 256 * KIB])('may be damaged in one copy (at %i), which check reports', async (offset) => {
    const built = buildVhdx();
    built.bytes[offset + 5000] = 1;
    expect((await open(built)).notes).toHaveLength(1);
    const { faults } = await checkVhdx(fileOf(built.bytes), context());
    expect(faults).toMatchObject([{ code: 'VHDX_REGION', offset }]);
  });

  it('are refused if both are damaged', async () => {
    const built = buildVhdx();
    built.bytes[192 * KIB + 5000] = 1;
    built.bytes[256 * KIB + 5000] = 1;
    await expectRefused(built, 'VHDX_REGION', /CRC-32C/);
  });

  it('may have unknown optional regions, in which no block may lie', async () => {
    const layer = await open(buildVhdx({ extraRegions: [OPTIONAL] }));
    expect(layer.virtualSizeBytes).toBe(4 * MIB);
    await expectRefused(buildVhdx({ extraRegions: [OPTIONAL], bat: { 0: [6, 11] } }), 'VHDX_BAT', /over region/);
  });

  it.each([
    ['an unknown required region', [{ ...OPTIONAL, required: true }], /required region is known/],
    ['a region twice', [OPTIONAL, OPTIONAL], /occurs once/],
    ['a region over the log', [{ ...OPTIONAL, offset: MIB }], /overlap/],
    ['a region over another', [{ ...OPTIONAL, offset: 3 * MIB }], /overlap/],
    ['a region in the header section', [{ ...OPTIONAL, offset: 0 }], /whole MiB/],
    ['a region off its alignment', [{ ...OPTIONAL, offset: 11 * MIB + 4096 }], /whole MiB/],
    ['a region of half a MiB', [{ ...OPTIONAL, length: 512 * KIB }], /whole MiB/],
    ['a region of no length', [{ ...OPTIONAL, length: 0 }], /whole MiB/],
    ['a region past the end', [{ ...OPTIONAL, offset: 12 * MIB }], /inside the file/],
  ])('are refused with %s', async (_, extraRegions, text) => {
    await expectRefused(buildVhdx({ extraRegions }), 'VHDX_REGION', text);
  });

  it('are refused without a BAT, and with more entries than are possible', async () => {
    for (const [at, count] of [
      [8, 2048],
      [8, 1],
      [8, 0],
    ] as const) {
      const built = buildVhdx();
      for (const copy of [192 * KIB, 256 * KIB]) {
        built.bytes.writeUInt32LE(count, copy + at);
        sealCrc(built.bytes, copy, 64 * KIB);
      }
      await expectRefused(built, 'VHDX_REGION');
    }
  });
});

describe('metadata', () => {
  const ITEM = { guid: LOG_GUID, bytes: Buffer.from('whatever'), flags: 0 };
  const INCOMPLETE = { guid: '71CC85F0-1B69-4E28-9558-C3BF83AE75D3', bytes: Buffer.alloc(0), flags: 0 };

  it.each([
    ['unknown optional items', [ITEM]],
    [
      'items of the user, also with the GUID of a system item',
      [{ ...ITEM, guid: 'CAA16737-FA36-4D43-B3B6-33F0AA44E76B', flags: 1 }],
    ],
    ['the geometry that Hyper-V writes', [{ ...ITEM, guid: 'DA02D7BC-3D3A-423C-AC88-2A36AB21479B', flags: 6 }]],
    ['the label area that Hyper-V writes', [{ ...ITEM, guid: '10E1AE8A-4B7E-4169-A40F-CD70DE928393', flags: 6 }]],
    ['items without bytes', [{ ...ITEM, bytes: Buffer.alloc(0) }]],
  ])('may have %s', async (_, extraItems) => {
    expect((await open(buildVhdx({ extraItems }))).virtualSizeBytes).toBe(4 * MIB);
  });

  it.each<[string, VhdxOptions, RegExp]>([
    ['an unknown required item', { extraItems: [{ ...ITEM, flags: 4 }] }, /required metadata item is known/],
    ['a required item of the user', { extraItems: [{ ...ITEM, flags: 5 }] }, /user is not required/],
    ['an item twice', { extraItems: [ITEM, ITEM] }, /occurs once/],
    ['the mark of an incomplete file', { extraItems: [INCOMPLETE] }, /never finished/],
    ['an item above 1 MiB', { extraItems: [{ ...ITEM, bytes: Buffer.alloc(MIB + 1) }], batMiB: 4 }, /1048576/],
    ['no size', { withoutItems: ['2FA54224-CD1B-4876-B211-5DBED83BF4B8'] }, /no item 2FA54224/],
    ['no identity', { withoutItems: ['BECA12AB-B2E6-4523-93EF-C309E000C746'] }, /no item BECA12AB/],
    ['no locator in a child', { fileFlags: 2 }, /no item A8D35F2D/],
    ['blocks of 3 MiB', { blockSize: 3 * MIB }, /power of two/],
    ['blocks of 512 KiB', { blockSize: 512 * KIB }, /power of two/],
    ['blocks of 512 MiB', { blockSize: 512 * MIB }, /power of two/],
    ['blocks of no size', { blockSize: 0 }, /power of two/],
    ['reserved file flags', { fileFlags: 4 }, /reserved file flags/],
    ['sectors of 520 bytes', { logicalSector: 520 }, /512 or 4096/],
    ['physical sectors of 8 KiB', { physicalSector: 8192 }, /512 or 4096/],
    ['a disk of no size', { virtualSize: 0 }, /1 sector/],
    ['a disk of a sector and a half', { virtualSize: 768 }, /1 sector/],
    ['a disk of half a 4 KiB sector', { virtualSize: 2048, logicalSector: 4096 }, /1 sector/],
    ['a disk above 64 TiB', { virtualSize: 64 * 1024 ** 4 + 512 }, /64 TiB/],
  ])('is refused with %s', async (_, options, text) => {
    await expectRefused(buildVhdx(options), 'VHDX_METADATA', text);
  });

  it.each<[string, (bytes: Buffer, at: number) => unknown]>([
    ['no signature', (bytes, at) => bytes.fill(0, at, at + 8)],
    ['more entries than are possible', (bytes, at) => bytes.writeUInt16LE(2048, at + 10)],
    ['an item inside the table', (bytes, at) => bytes.writeUInt32LE(65_535, at + 32 + 16)],
    ['an item past the region', (bytes, at) => bytes.writeUInt32LE(MIB - 4, at + 32 + 16)],
    ['an item of the wrong length', (bytes, at) => bytes.writeUInt32LE(7, at + 32 + 20)],
    ['an empty item with an offset', (bytes, at) => bytes.writeUInt32LE(0, at + 32 + 20)],
  ])('is refused with %s', async (_, damage) => {
    const built = buildVhdx();
    damage(built.bytes, built.metadataOffset);
    await expectRefused(built, 'VHDX_METADATA');
  });
});

describe('the block table', () => {
  it.each<[string, VhdxOptions, RegExp]>([
    ['state 4', { bat: { 0: [4, 5] } }, /4 and 5 are reserved/],
    ['state 5', { bat: { 0: [5, 5] } }, /4 and 5 are reserved/],
    ['state 7 without a parent', { bat: { 0: [7, 5] } }, /only a differencing/],
    ['reserved bits of a present block', { rawBat: { 0: (5n << 20n) | 8n | 6n } }, /reserved bits/],
    ['reserved bits of an absent block', { rawBat: { 0: 1n << 19n } }, /reserved bits/],
    ['a block over the header section', { bat: { 0: [6, 0] } }, /over the header section/],
    ['a block over the log', { bat: { 0: [6, 1] } }, /over the log/],
    ['a block that reaches into the log', { blockSize: 2 * MIB, bat: { 0: [6, 2] } }, /over region/],
    ['a block over the metadata', { bat: { 0: [6, 2] } }, /over region 8B7CA206/],
    ['a block over the table', { bat: { 0: [6, 3] } }, /over region 2DC27766/],
    ['a block past the end', { bat: { 0: [6, 12] } }, /inside the file/],
    ['a block at an offset beyond 2^53', { rawBat: { 0: 0xfffffffffff00006n } }, /inside the file/],
    ['two blocks at one place', { bat: { 0: [6, 5], 2: [6, 5] } }, /share a byte/],
    ['two blocks that overlap', { blockSize: 2 * MIB, bat: { 0: [6, 5], 1: [6, 6] } }, /share a byte/],
  ])('is refused with %s', async (_, options, text) => {
    await expectRefused(buildVhdx(options), 'VHDX_BAT', text);
  });

  it('is refused with a bitmap and a block at one place', async () => {
    await expectRefused(buildVhdx({ parent: PARENT, bat: { 0: [6, 5], 4096: [6, 5] } }), 'VHDX_BITMAP', /share a byte/);
  });

  it('is refused if its region is too small by one entry', async () => {
    const entries = MIB / 8;
    const fits = (count: number): VhdxOptions => ({ virtualSize: (count - Math.floor(count / 4097)) * MIB });
    expect((await open(buildVhdx(fits(entries)))).virtualSizeBytes).toBeGreaterThan(0);
    await expectRefused(buildVhdx(fits(entries + 1)), 'VHDX_BAT', /room for every block/);
  });

  it('is checked to its end: every fault is reported with its place', async () => {
    const built = buildVhdx({ bat: { 0: [4, 0], 1: [6, 1], 2: [6, 5], 3: [6, 5] } });
    const { faults } = await checkVhdx(fileOf(built.bytes), context());
    expect(faults.map(({ offset, code }) => [offset - built.batOffset, code])).toEqual([
      [0, 'VHDX_BAT'],
      [8, 'VHDX_BAT'],
      [24, 'VHDX_BAT'],
    ]);
  });

  it('cannot make check report without bound', async () => {
    const built = buildVhdx({ virtualSize: 100_000 * MIB });
    for (let i = 0; i < 100_000; i += 1) built.bytes[built.batOffset + i * 8] = 4;
    const { faults } = await checkVhdx(fileOf(built.bytes), context());
    expect(faults.length).toBe(1001);
  });
});

describe('the file of a VHDX', () => {
  const TIB = 1024 ** 4;

  it('of an empty 64 TiB disk is read once: 513 MiB of block table, and never again', async () => {
    const built = buildVhdx({ virtualSize: 64 * TIB, batMiB: 513, fileMiB: 4 });
    let tableReads = 0;
    const file = {
      ...fileOf(built.bytes),
      sizeBytes: async () => (3 + 513) * MIB,
      read: async (into: Uint8Array, position: number) => {
        into.fill(0).set(built.bytes.subarray(position, position + into.byteLength));
        if (position >= built.batOffset) tableReads += 1;
        return into.byteLength;
      },
    };
    const layer = await openVhdx(file, context());
    expect(tableReads).toBe(Math.ceil((64 * 1024 * 1024 + 16_383) / 32_768));
    for (let i = 0; i < 3; i += 1) expect(await describeExtents(layer)).toEqual([`parent 0+${64 * TIB}`]);
    expect(tableReads).toBeLessThan(2060);
  });

  it('may not be longer than any VHDX', async () => {
    const file = { ...fileOf(buildVhdx().bytes), sizeBytes: async () => 128 * TIB + 1 };
    await expect(openVhdx(file, context())).rejects.toMatchObject({ code: 'VHDX_IDENTIFIER' });
  });

  it('that ends early while it is read is cut short', async () => {
    const file = { ...fileOf(buildVhdx().bytes.subarray(0, 3 * MIB)), sizeBytes: async () => 13 * MIB };
    await expect(openVhdx(file, context())).rejects.toMatchObject({ code: 'DISK_TRUNCATED' });
  });

  it('that cannot be read says where', async () => {
    const file = { ...fileOf(buildVhdx().bytes), read: () => Promise.reject(new Error('EIO')) };
    await expect(openVhdx(file, context())).rejects.toMatchObject({
      code: 'DISK_UNREADABLE',
      facts: { source: '/disk.vhdx', offset: 0 },
    });
  });
});

/** Damage must be neither caught by a checksum nor hidden by the other copy. */
function resealBothCopies(bytes: Buffer): void {
  sealCrc(bytes, 64 * KIB, 4096);
  bytes.copy(bytes, 128 * KIB, 64 * KIB, 68 * KIB);
  sealCrc(bytes, 192 * KIB, 64 * KIB);
  bytes.copy(bytes, 256 * KIB, 192 * KIB, 256 * KIB);
}

describe('any damage', () => {
  it('gives a typed error of the source or a disk that can be read, never anything else', async () => {
    const built = buildVhdx({ parent: PARENT, bat: { 0: [7, 5], 1: [6, 6], 4096: [6, 4] }, fileMiB: 7 });
    const { bytes } = built;
    const places = [
      ...Array.from({ length: 80 }, (_, i) => 64 * KIB + i),
      ...Array.from({ length: 80 }, (_, i) => 192 * KIB + i),
      ...Array.from({ length: 230 }, (_, i) => built.metadataOffset + i),
      ...Array.from({ length: 300 }, (_, i) => built.metadataOffset + 65_536 + i),
      ...Array.from({ length: 32 }, (_, i) => built.batOffset + i),
    ];
    for (const at of places) {
      for (const value of [0x00, 0x80, 0xff]) {
        const before = bytes[at]!;
        bytes[at] = value;
        resealBothCopies(bytes);
        const opening = open(built);
        const outcome = await opening.then(
          async (layer) => (await describeExtents(layer, 0, Math.min(layer.virtualSizeBytes, 4 * MIB))).length,
          (error: unknown) => error,
        );
        if (typeof outcome !== 'number') expect(outcome).toMatchObject({ area: 'source' });
        bytes[at] = before;
      }
    }
  });
});
