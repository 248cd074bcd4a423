/** Writes of zeros: entries like any other for every reader, and holes in the file. */
import { describe, expect, it } from 'vitest';
import { MIB } from '../../src/bytes.ts';
import {
  ChangeLog,
  coalesceLogs,
  compactLogs,
  isZeroEntry,
  LogWriter,
  replayLogs,
  verifyLog,
} from '../../src/hrl/index.ts';
import { crashFileSystem } from '../support/crash-files.ts';
import { Dice } from '../support/dice.ts';
import { buildLog } from '../support/hrl-builder.ts';
import { collect, entriesOf, openBytes, PATH, playForward, sectors, type TestPorts, testPorts } from './support.ts';

const GUID = '03020100-0504-0706-0809-0A0B0C0D0E0F';
const GUID_IN_FILE = Uint8Array.from({ length: 16 }, (_, i) => i);

async function reopen({ files }: Pick<TestPorts, 'files'>): Promise<ChangeLog> {
  return await ChangeLog.open(PATH, { ports: { files } });
}

/** Ports that count what is written to their files. */
function counting(): { readonly ports: TestPorts; writtenBytes: number } {
  const ports = testPorts();
  const count = { ports, writtenBytes: 0 };
  const open = ports.files.open.bind(ports.files);
  ports.files.open = async (path, mode) => {
    const file = await open(path, mode);
    const write = file.write.bind(file);
    file.write = async (from, position) => {
      count.writtenBytes += from.byteLength;
      await write(from, position);
    };
    return file;
  };
  return count;
}

describe('zeros in a log', () => {
  it('stand there as if they had been written, byte for byte', async () => {
    const ports = testPorts();
    const ids = { uniqueId: GUID, previousUniqueId: GUID, dataWriteGuid: GUID };
    const writer = await LogWriter.create(PATH, { ports, ...ids });
    await writer.append([
      { byteOffset: 0, bytes: sectors(3, 1) },
      { byteOffset: 512, zeroBytes: 700 * 512 },
      { byteOffset: 1024, bytes: sectors(1, 2) },
    ]);
    await writer.append([{ byteOffset: MIB, zeroBytes: 512 }]);
    await writer.close();
    const blocks = [
      [],
      [
        { at: 0, data: sectors(3, 1) },
        { at: 512, data: Buffer.alloc(700 * 512) },
        { at: 1024, data: sectors(1, 2) },
        { at: MIB, data: Buffer.alloc(512) },
      ],
    ];
    const inFile = { uniqueId: GUID_IN_FILE, previousUniqueId: GUID_IN_FILE, dataWriteGuid: GUID_IN_FILE };
    const built = buildLog({ blocks, ...inFile, creator: 'bfry', creatorVersion: 0x10000 });
    expect(Buffer.from(ports.files.get(PATH)!).equals(built.bytes)).toBe(true);
  });

  it('take no space, however many they are, and are told by their metadata', async () => {
    const count = counting();
    const writer = await LogWriter.create(PATH, { ports: count.ports });
    await writer.append([{ byteOffset: 0, zeroBytes: 3 * 2 ** 30 + 512 }]);
    expect(writer.entryCount).toBe(193);
    expect(writer.sizeBytes - writer.storedBytes).toBe(3 * 2 ** 30 + 512);
    await writer.append([{ byteOffset: 0, bytes: sectors(1, 1) }]);
    await writer.close();
    // The header is written twice.
    expect(writer.storedBytes).toBe(count.writtenBytes - 4096);
    expect(writer.storedBytes).toBeLessThan(256 * 1024);
    const log = await reopen(count.ports);
    expect(log.endOffset).toBe(writer.sizeBytes);
    const entries = await entriesOf(log);
    expect(entries.map(isZeroEntry)).toEqual([...Array(193).fill(true), false]);
    expect(entries.slice(0, -1).reduce((sum, { dataLength }) => sum + dataLength, 0)).toBe(3 * 2 ** 30 + 512);
  });

  it('get a block before so many have gathered that a scan would give up', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    await writer.append([{ byteOffset: 0, zeroBytes: 200 * MIB }]);
    await writer.close();
    const blocks = await collect((await reopen(ports)).blocks());
    expect(blocks.map(({ entries }) => entries.length)).toEqual([0, 4, 4, 4, 1]);
  });

  it('are whole sectors inside a disk', async () => {
    const writer = await LogWriter.create(PATH, { ports: testPorts() });
    for (const [byteOffset, zeroBytes] of [
      [1, 512],
      [0, 0],
      [0, 100],
      [0, -512],
      [2 ** 46 - 512, 1024],
    ] as const) {
      expect(() => writer.append([{ byteOffset, zeroBytes }])).toThrow(RangeError);
    }
    await writer.close();
  });

  it('are verified: a hole that is none is found', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    await writer.append([{ byteOffset: 0, zeroBytes: 4096 }]);
    await writer.close();
    expect(await verifyLog(await reopen(ports))).toMatchObject({ entries: 1, dataBytes: 4096, checkedBytes: 4096 });
    const damaged = Buffer.from(ports.files.get(PATH)!).fill(1, 8192 + 100, 8192 + 101);
    await expect(verifyLog(await openBytes(damaged))).rejects.toMatchObject({ code: 'HRL_ENTRY' });
  });

  it('are recovered like data where the log was not closed, whatever of it survives a power cut', async () => {
    const dice = new Dice(7);
    const random = { bytes: (n: number) => dice.bytes(n), fraction: () => dice.next() / 2 ** 32 };
    const found: number[] = [];
    for (let stopAt = 0; stopAt <= 14; stopAt += 1) {
      for (let draw = 0; draw < 10; draw += 1) {
        const files = crashFileSystem(new Map([['/disks/web1.vhdx', new Uint8Array(0)]]));
        files.stopAt = stopAt;
        let synced = 0;
        const run = async (): Promise<void> => {
          const writer = await LogWriter.create(PATH, { ports: { ...testPorts(), files } });
          for (let i = 0; i < 3; i += 1) {
            await writer.append([
              { byteOffset: 0, zeroBytes: 16_384 },
              { byteOffset: 0, bytes: sectors(2, i) },
            ]);
            await writer.append([{ byteOffset: 0, zeroBytes: 512 }]);
            await writer.sync();
            synced += 3;
          }
        };
        await run().catch(() => {});
        const survivors = files.powerCut(random);
        if (synced === 0 && !(await survivors.exists(PATH))) continue;
        const log = await reopen({ files: survivors }).catch((error) => {
          if (synced > 0) throw error;
        });
        if (log === undefined) continue;
        await verifyLog(log);
        const entries = await entriesOf(log);
        expect(entries.length).toBeGreaterThanOrEqual(synced);
        found.push(entries.length);
      }
    }
    expect(new Set(found)).toEqual(new Set([0, 3, 6, 9]));
  });
});

describe('zeros in a chain', () => {
  async function chain(): Promise<{ readonly ports: TestPorts; readonly log: ChangeLog }> {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    await writer.append([
      { byteOffset: 0, bytes: sectors(8, 1) },
      { byteOffset: 512, zeroBytes: 1024 },
      { byteOffset: 8192, zeroBytes: 4096 },
      { byteOffset: 12_288, zeroBytes: 4096 },
      { byteOffset: 8704, bytes: sectors(1, 2) },
      { byteOffset: 16_384, bytes: Buffer.alloc(512) },
    ]);
    await writer.close();
    return { ports, log: await reopen(ports) };
  }

  it('are known to be zeros without being read', async () => {
    const { log } = await chain();
    const ranges = await collect(coalesceLogs([log]));
    expect(ranges.map(({ byteOffset, lengthBytes, zero }) => [byteOffset, lengthBytes, zero])).toEqual([
      [0, 512, false],
      [512, 1024, true],
      [1536, 2560, false],
      [8192, 512, true],
      [8704, 512, false],
      [9216, 3072, true],
      [12_288, 4096, true],
      [16_384, 512, true],
    ]);
  });

  it('are made by their length when they are played, and stay holes when they are compacted', async () => {
    const { ports, log } = await chain();
    const calls: unknown[] = [];
    const disk = Buffer.alloc(32_768, 0xee);
    const target = {
      info: { virtualSizeBytes: disk.byteLength, logicalSectorBytes: 512 },
      async write(bytes: Uint8Array, offset: number) {
        calls.push(['write', offset, bytes.byteLength]);
        disk.set(bytes, offset);
      },
      async zero(offset: number, lengthBytes: number) {
        calls.push(['zero', offset, lengthBytes]);
        disk.fill(0, offset, offset + lengthBytes);
      },
      flush: async () => {},
    };
    const report = await replayLogs([log], target);
    expect(calls).toEqual([
      ['write', 0, 512],
      ['zero', 512, 1024],
      ['write', 1536, 2560],
      ['zero', 8192, 512],
      ['write', 8704, 512],
      ['zero', 9216, 7680],
    ]);
    expect(report.writtenBytes).toBe(4096 + 8192 + 512);
    const expected = Buffer.alloc(32_768, 0xee);
    await playForward(log, expected);
    expect(disk.equals(expected)).toBe(true);

    const out = '/disks/all.hrl';
    await compactLogs([log], out, { ports });
    const compacted = await ChangeLog.open(out, { ports });
    expect((await collect(coalesceLogs([compacted]))).map(({ zero }) => zero)).toEqual(
      (await collect(coalesceLogs([log]))).map(({ zero }) => zero),
    );
    const again = Buffer.alloc(32_768, 0xee);
    await playForward(compacted, again);
    expect(again.equals(expected)).toBe(true);
  });
});

describe('an entry', () => {
  it.each([
    [512, 0xffff_ffff, true],
    [16_843_009, 0xffff_ffff, true],
    // 255 · 16,843,010 is above 2^32: a sum of 0 needs not be zeros.
    [16_843_010, 0xffff_ffff, false],
    [512, 0, false],
    [512, 0xffff_fffe, false],
  ])('of %i bytes with checksum %i is proven zeros: %s', (dataLength, dataChecksum, expected) => {
    expect(isZeroEntry({ dataLength, dataChecksum })).toBe(expected);
  });
});
