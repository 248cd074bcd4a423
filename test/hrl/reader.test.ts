import { describe, expect, it } from 'vitest';
import { formatGuid } from '../../src/guid.ts';
import { BlockMarks } from '../../src/hrl/block-marks.ts';
import { ChangeLog, coalesceLogs, fromLogTime, verifyLog } from '../../src/hrl/index.ts';
import { type BuiltWrite, buildLog, LOG_TIME, sealLogBlock, sealLogHeader } from '../support/hrl-builder.ts';
import { collect, entriesOf, openBytes, sectors, testPorts } from './support.ts';

function writes(count: number, from = 0): BuiltWrite[] {
  return Array.from({ length: count }, (_, i) => ({
    at: 4096 * (from + i),
    data: sectors(1 + (i % 3), from + i),
    time: LOG_TIME + i,
  }));
}

describe('a log that was built by hand from the published rules', () => {
  const three = [[], writes(3), writes(5, 100)];

  it('reads right, entry by entry', async () => {
    const id = Uint8Array.from({ length: 16 }, (_, i) => i);
    const built = buildLog({ blocks: three, uniqueId: id, previousUniqueId: id.toReversed(), dataWriteGuid: id });
    const log = await openBytes(built.bytes);
    expect(log.header).toMatchObject({
      version: 2,
      timeStamp: LOG_TIME,
      metadataBytes: 4096,
      uniqueId: '03020100-0504-0706-0809-0A0B0C0D0E0F',
      previousUniqueId: formatGuid(id.toReversed()),
      dataWriteGuid: '03020100-0504-0706-0809-0A0B0C0D0E0F',
      entryCount: 8,
    });
    expect(log.isClosed).toBe(true);
    expect(fromLogTime(log.header.timeStamp)).toBe(Date.UTC(2024, 0, 1));
    const expected = three.flat();
    const entries = await entriesOf(log);
    expect(entries.map(({ byteOffset, dataLength, timeStamp }) => [byteOffset, dataLength, timeStamp])).toEqual(
      expected.map(({ at, data, time }) => [at, data.byteLength, time]),
    );
    for (const [i, { fileOffset, dataLength }] of entries.entries()) {
      const data = Buffer.alloc(dataLength);
      await log.read(data, fileOffset);
      expect(data.equals(expected[i]!.data)).toBe(true);
    }
    expect(await verifyLog(log)).toEqual({
      blocks: 3,
      entries: 8,
      dataBytes: 15 * 512,
      checkedBytes: 15 * 512,
    });
  });

  it.each([
    ['version 1, which has no DataWriteGuid', { version: 1 as const }],
    ['blocks of 512 bytes', { metadataBytes: 512 }],
    ['blocks of 64 KiB', { metadataBytes: 65_536 }],
    ['entries that fill a block from its end', { tailFilled: true }],
    ['a cookie that ends in a zero byte', { cookieEnd: 0 }],
    ['data right behind the header', { blocks: [writes(3), writes(5, 100)] }],
    ['empty blocks anywhere', { blocks: [[], [], writes(3), [], writes(5, 100), [], []] }],
    ['data without checksums', { blocks: three.map((list) => list.map((write) => ({ ...write, unchecked: true }))) }],
    ['stale bytes behind its end', {}],
  ])('reads right with %s', async (_, options) => {
    const { bytes } = buildLog({ blocks: three, ...options });
    const log = await openBytes(Buffer.concat([bytes, bytes.subarray(4096)]));
    expect(log.header.dataWriteGuid).toBe('version' in options ? undefined : '00000000-0000-0000-0000-000000000000');
    expect((await entriesOf(log)).map(({ byteOffset }) => byteOffset)).toEqual(three.flat().map(({ at }) => at));
    const check = await verifyLog(log);
    expect(check.checkedBytes).toBe(_.startsWith('data without') ? 0 : check.dataBytes);
  });

  it.each([0, 1, 126, 127])('reads right with a block of %i writes', async (count) => {
    const log = await openBytes(buildLog({ blocks: [[], writes(count)] }).bytes);
    expect(await entriesOf(log)).toHaveLength(count);
  });

  it('reads newest first what it reads oldest first', async () => {
    const log = await openBytes(
      buildLog({ blocks: [[], ...Array.from({ length: 40 }, (_, i) => writes(i % 5, i))] }).bytes,
    );
    expect((await collect(log.blocksNewestFirst())).reverse()).toEqual(await collect(log.blocks()));
  });

  it.each([1, 2, 3, 7, 64])('reads in order when only %i places of blocks are kept', async (marksMax) => {
    const log = await openBytes(buildLog({ blocks: Array.from({ length: 100 }, (_, i) => writes(1, i)) }).bytes);
    const blocks = await collect(log.blocks({ marksMax }));
    expect(blocks.map(({ entries }) => entries[0]!.byteOffset)).toEqual(
      Array.from({ length: 100 }, (_, i) => i * 4096),
    );
  });

  it.each([1, 2, 5, 64])('keeps at most %i places, evenly apart, the newest among them', (marksMax) => {
    const marks = new BlockMarks(marksMax);
    for (let i = 0; i < 1000; i += 1) {
      marks.note(1000 - i);
      expect(marks.offsets.length).toBeLessThanOrEqual(marksMax);
      const stride = marks.offsets.length > 1 ? 1000 - marks.offsets[1]! : 1;
      expect(marks.offsets).toEqual(marks.offsets.map((_, n) => 1000 - n * stride));
    }
    expect(marks.offsets.length).toBeGreaterThanOrEqual(Math.ceil(marksMax / 2));
  });

  it('is empty if its end is that of its header', async () => {
    const log = await openBytes(buildLog({ blocks: [] }).bytes);
    expect(await collect(log.blocks())).toEqual([]);
    expect(await collect(log.blocksNewestFirst())).toEqual([]);
  });
});

describe('the worked example of the specification', () => {
  it('has its figures in a log of the same shape', async () => {
    const list: BuiltWrite[] = [];
    const add = (at: number, count: number): void => {
      list.push({ at: at * 512, data: sectors(count, list.length), time: LOG_TIME + list.length, unchecked: true });
    };
    // 42 runs of 551 sectors, then 74 sectors again: 58 writes, 48 of them aligned to 4 KiB in offset and length.
    for (let run = 0; run < 40; run += 1) add(run * 64, 8);
    add(40 * 64, 224);
    add(60 * 64 + 1, 7);
    for (let run = 0; run < 7; run += 1) add(run * 64, 8);
    for (let run = 0; run < 9; run += 1) add(40 * 64 + 8 * run + 1, 2);
    const isAligned = ({ at, data }: BuiltWrite): boolean => at % 4096 === 0 && data.byteLength % 4096 === 0;
    expect(list.filter(isAligned)).toHaveLength(48);

    const built = buildLog({ blocks: [[], list] });
    expect(built.blocks).toEqual([
      { dataAt: 4096, at: 4096 },
      { dataAt: 8192, at: 328_192 },
    ]);
    const log = await openBytes(built.bytes);
    expect(log.header.entryCount).toBe(58);
    expect(await verifyLog(log)).toEqual({ blocks: 2, entries: 58, dataBytes: 320_000, checkedBytes: 0 });
    const ranges = await collect(coalesceLogs([log]));
    expect(ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(282_112);
    const runs = ranges.filter(({ byteOffset }, i) => {
      const before = ranges[i - 1];
      return before === undefined || before.byteOffset + before.lengthBytes < byteOffset;
    });
    expect(runs).toHaveLength(42);
  });
});

describe('a log that breaks a rule is refused with the place', () => {
  type Damage = (log: Buffer, blocks: readonly { readonly at: number }[]) => Buffer | undefined;
  const header =
    (edit: (log: Buffer) => void): Damage =>
    (log) => {
      edit(log);
      sealLogHeader(log);
      return undefined;
    };
  const block =
    (edit: (block: Buffer, at: number) => void): Damage =>
    (log, blocks) => {
      const { at } = blocks[1]!;
      edit(log.subarray(at), at);
      sealLogBlock(log, at);
      return undefined;
    };
  const end = 4096 + 4096 + 3 * 1024 + 4096;
  const at = end - 4096;

  it.each<[rule: string, code: string, offset: number, damage: Damage]>([
    ['shorter than a header', 'HRL_HEADER', 0, (log) => log.subarray(0, 4095)],
    ['no cookie', 'HRL_HEADER', 0, header((log) => log.write('M', 0))],
    ['another end of the cookie', 'HRL_HEADER', 0, header((log) => log.write('!', 7))],
    ['version 3', 'HRL_HEADER', 8, header((log) => log.writeUInt32LE(0x30000, 8))],
    ['a checksum of the header that is wrong', 'HRL_HEADER', 40, (log) => void log.writeUInt8(9, 2000)],
    ['MetadataSize 0', 'HRL_HEADER', 56, header((log) => log.writeUInt32LE(0, 56))],
    ['MetadataSize 500', 'HRL_HEADER', 56, header((log) => log.writeUInt32LE(500, 56))],
    ['MetadataSize 128 KiB', 'HRL_HEADER', 56, header((log) => log.writeUInt32LE(131_072, 56))],
    ['another FileType', 'HRL_HEADER', 104, header((log) => log.writeUInt32LE(1, 104))],
    ['an end far beyond all files', 'HRL_HEADER', 44, header((log) => log.writeBigUInt64LE(2n ** 63n, 44))],
    ['an end beyond the file', 'HRL_TORN', 44, (log) => log.subarray(0, end - 1)],
    ['an end inside the header', 'HRL_HEADER', 44, header((log) => log.writeBigUInt64LE(3584n, 44))],
    ['an end without room for a block', 'HRL_HEADER', 44, header((log) => log.writeBigUInt64LE(4608n, 44))],
    ['an end beside a sector', 'HRL_HEADER', 44, header((log) => log.writeBigUInt64LE(BigInt(end - 1), 44))],
    ['an end with no block before it', 'HRL_BLOCK', 4096 + 512, header((log) => log.writeBigUInt64LE(8704n, 44))],
    ['another number of entries', 'HRL_BLOCK', 96, header((log) => log.writeBigUInt64LE(4n, 96))],
    ['a block that leads back too little', 'HRL_BLOCK', at, block((b) => b.writeBigUInt64LE(3584n, 0))],
    ['a block that leads back beside a sector', 'HRL_BLOCK', at, block((b) => b.writeBigUInt64LE(4097n, 0))],
    [
      'a block that leads back into the header',
      'HRL_BLOCK',
      at,
      block((b) => b.writeBigUInt64LE(BigInt(at - 3584), 0)),
    ],
    [
      'a block that leads back beyond all files',
      'HRL_BLOCK',
      at,
      block((b) => b.writeBigUInt64LE(2n ** 64n - 512n, 0)),
    ],
    ['a block without its checksum', 'HRL_BLOCK', at, (log) => void log.writeUInt8(1, at + 12)],
    ['a block with reserved bytes in use', 'HRL_BLOCK', at + 16, block((b) => b.writeUInt8(1, 20))],
    ['a block with more entries than slots', 'HRL_BLOCK', at + 8, block((b) => b.writeUInt32LE(128, 8))],
    ['a block with fewer entries than data', 'HRL_BLOCK', at, block((b) => b.writeUInt32LE(2, 8))],
    ['an entry without its checksum', 'HRL_ENTRY', at + 32, (log) => void log.writeUInt8(1, at + 40)],
    ['an entry that is no write', 'HRL_ENTRY', at + 52, block((b) => b.writeUInt8(2, 52))],
    ['an entry without data', 'HRL_ENTRY', at + 32, block((b) => b.writeUInt32LE(0, 44))],
    ['an entry of half a sector', 'HRL_ENTRY', at + 32, block((b) => b.writeUInt32LE(768, 44))],
    ['an entry beside a sector', 'HRL_ENTRY', at + 32, block((b) => b.writeBigUInt64LE(256n, 32))],
    ['an entry beyond all disks', 'HRL_ENTRY', at + 32, block((b) => b.writeBigUInt64LE(2n ** 64n - 512n, 32))],
    ['an entry that is longer than its data', 'HRL_BLOCK', at, block((b) => b.writeUInt32LE(1536, 44))],
    ['data that does not match its checksum', 'HRL_ENTRY', 8192, (log) => void log.writeUInt8(255, 8192)],
  ])('%s', async (_, code, offset, damage) => {
    const list = [0, 1, 2].map((i) => ({ at: i * 4096, data: sectors(2, i) }));
    const { bytes, blocks } = buildLog({ blocks: [[], list] });
    const damaged = damage(bytes, blocks) ?? bytes;
    const read = async (): Promise<unknown> => await verifyLog(await openBytes(damaged));
    await expect(read()).rejects.toMatchObject({ code, facts: { offset, source: '/disks/web1.hrl' } });
  });

  it('a log that is not there', async () => {
    const { files } = testPorts();
    await expect(ChangeLog.open('/disks/none.hrl', { ports: { files } })).rejects.toMatchObject({
      code: 'DISK_NOT_FOUND',
    });
  });

  it('a write outside the disk, or of part of its sectors', async () => {
    const log = await openBytes(buildLog({ blocks: [[{ at: 512, data: sectors(1, 1) }]] }).bytes);
    const fits = (virtualSizeBytes: number, logicalSectorBytes: number) =>
      verifyLog(log, { disk: { virtualSizeBytes, logicalSectorBytes } });
    await expect(fits(1024, 512)).resolves.toMatchObject({ entries: 1 });
    for (const [size, sector] of [
      [1023, 512],
      [4096, 4096],
    ] as const) {
      await expect(fits(size, sector)).rejects.toMatchObject({
        code: 'HRL_ENTRY',
        facts: { byteOffset: 512, dataLength: 512 },
      });
    }
  });
});
