import { describe, expect, it } from 'vitest';
import { NIL_GUID } from '../../src/guid.ts';
import { ChangeLog, LogWriter, verifyLog } from '../../src/hrl/index.ts';
import { HRL_WRITE_BYTES_MAX } from '../../src/limits.ts';
import type { FailpointName, RandomAccessFile } from '../../src/ports.ts';
import { buildLog } from '../support/hrl-builder.ts';
import { errno } from '../support/memory-files.ts';
import { collect, entriesOf, PATH, sectors, type TestPorts, testPorts } from './support.ts';

const GUID = '03020100-0504-0706-0809-0A0B0C0D0E0F';
const GUID_IN_FILE = Uint8Array.from({ length: 16 }, (_, i) => i);

async function reopen({ files }: TestPorts): Promise<ChangeLog> {
  return await ChangeLog.open(PATH, { ports: { files } });
}

describe('a log that we write', () => {
  it('is byte for byte the one that is built by hand', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, {
      ports,
      uniqueId: GUID,
      previousUniqueId: GUID,
      dataWriteGuid: GUID,
    });
    const group = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => ({
        at: (from + i) * 4096,
        data: sectors(1 + ((from + i) % 9), from + i),
      }));
    const blocks = [[], group(0, 3), group(3, 127), group(130, 127), group(257, 1), group(258, 2)];
    for (const [i, list] of blocks.entries()) {
      if (i === 3) continue;
      const writes = (i === 2 ? [...list, ...blocks[3]!] : list).map(({ at, data }) => ({
        byteOffset: at,
        bytes: data,
      }));
      await writer.append(writes);
      await writer.sync();
    }
    await writer.close();
    const ids = { uniqueId: GUID_IN_FILE, previousUniqueId: GUID_IN_FILE, dataWriteGuid: GUID_IN_FILE };
    const built = buildLog({ blocks, ...ids, creator: 'bfry', creatorVersion: 0x10000 });
    expect(Buffer.from(ports.files.get(PATH)!).equals(built.bytes)).toBe(true);
  });

  it('is open, empty and readable from the start', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports, dataWriteGuid: '' });
    const log = await reopen(ports);
    expect(log).toMatchObject({ isClosed: false, endOffset: 8192 });
    expect(log.header).toMatchObject({ endOffset: 0, previousUniqueId: NIL_GUID, dataWriteGuid: NIL_GUID });
    expect(await collect(log.blocks())).toHaveLength(1);
    await writer.close();
    expect(await reopen(ports)).toMatchObject({ isClosed: true, endOffset: 8192 });
  });

  it('holds every write at once, of any size, in the order of the calls', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    const sizes = [1, 4000, 1, 2048, 2049, 1, 300, 8192];
    const calls = sizes.map((count, i) =>
      writer.append([{ byteOffset: i * 2 ** 23, bytes: sectors(count, i), timeStamp: i }]),
    );
    const closed = writer.close();
    await Promise.all([...calls, closed]);
    const log = await reopen(ports);
    expect(
      (await entriesOf(log)).map(({ byteOffset, dataLength, timeStamp }) => [byteOffset, dataLength, timeStamp]),
    ).toEqual(sizes.map((count, i) => [i * 2 ** 23, count * 512, i]));
    expect(await verifyLog(log)).toMatchObject({ entries: 8 });
    expect(writer).toMatchObject({ entryCount: 8, sizeBytes: log.endOffset });
  });

  it('gets a block before so much data has gathered that a scan would give up', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    const bytes = Buffer.alloc(HRL_WRITE_BYTES_MAX / 2);
    for (let i = 0; i < 5; i += 1) await writer.append([{ byteOffset: 0, bytes }]);
    await writer.close();
    const blocks = await collect((await reopen(ports)).blocks());
    expect(blocks.map(({ entries }) => entries.length)).toEqual([0, 2, 2, 1]);
  });

  it('is durable up to a sync, also when further writes come meanwhile', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    await writer.append([{ byteOffset: 0, bytes: sectors(3, 1) }]);
    const synced = writer.sync();
    const later = writer.append([{ byteOffset: 4096, bytes: sectors(3, 2) }]);
    await synced;
    expect((await entriesOf(await reopen(ports))).length).toBeGreaterThanOrEqual(1);
    await later;
    await writer.close({ dataWriteGuid: GUID });
    const log = await reopen(ports);
    expect(await entriesOf(log)).toHaveLength(2);
    expect(log.header.dataWriteGuid).toBe(GUID);
  });

  it('takes whole sectors inside a disk only', async () => {
    const writer = await LogWriter.create(PATH, { ports: testPorts() });
    const bytes = sectors(1, 1);
    expect(() => writer.append([{ byteOffset: 1, bytes }])).toThrow(RangeError);
    expect(() => writer.append([{ byteOffset: -512, bytes }])).toThrow(RangeError);
    expect(() => writer.append([{ byteOffset: 2 ** 46, bytes }])).toThrow(RangeError);
    expect(() => writer.append([{ byteOffset: 0, bytes: bytes.subarray(1) }])).toThrow(RangeError);
    expect(() => writer.append([{ byteOffset: 0, bytes: bytes.subarray(512) }])).toThrow(RangeError);
    expect(() => writer.append([{ byteOffset: 0, bytes: new Uint8Array(HRL_WRITE_BYTES_MAX + 512) }])).toThrow(
      RangeError,
    );
    await writer.append([{ byteOffset: 2 ** 46 - 512, bytes }]);
    await writer.close();
  });

  it('is never put over another file', async () => {
    const ports = testPorts();
    ports.files.put(PATH, sectors(1, 1));
    await expect(LogWriter.create(PATH, { ports })).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
    await expect(LogWriter.create('/none/web1.hrl', { ports })).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
  });

  it('has the time of its clock, held where a u32 ends', async () => {
    for (const [nowMs, seconds] of [
      [Date.UTC(1999, 0), 0],
      [Date.UTC(2000, 0, 1, 0, 1), 60],
      [Date.UTC(2200, 0), 2 ** 32 - 1],
    ]) {
      const ports = testPorts(nowMs);
      const writer = await LogWriter.create(PATH, { ports });
      await writer.append([{ byteOffset: 0, bytes: sectors(1, 1) }]);
      await writer.close();
      const log = await reopen(ports);
      expect(log.header).toMatchObject({ timeStamp: seconds, lastModified: seconds });
      expect((await entriesOf(log))[0]!.timeStamp).toBe(seconds);
    }
  });
});

describe('rotation', () => {
  it('opens the next log while the first is open, and links it to the first', async () => {
    const ports = testPorts();
    const first = await LogWriter.create(PATH, { ports, dataWriteGuid: GUID });
    await first.append([{ byteOffset: 0, bytes: sectors(1, 1) }]);
    const next = await first.rotate('/disks/web1.1.hrl');
    await first.append([{ byteOffset: 512, bytes: sectors(1, 2) }]);
    await Promise.all([next.append([{ byteOffset: 1024, bytes: sectors(1, 3) }]), first.close()]);
    await next.close();
    const log = await ChangeLog.open('/disks/web1.1.hrl', { ports });
    expect(log.header).toMatchObject({ previousUniqueId: first.uniqueId, dataWriteGuid: GUID });
    expect(log.header.uniqueId).not.toBe(first.uniqueId);
    expect(await entriesOf(await reopen(ports))).toHaveLength(2);
    await expect(first.rotate('/disks/web1.1.hrl')).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
  });
});

describe('a writer', () => {
  /** Ports of which file operation `failAt` (counted from 0) fails. */
  function failing(failAt: number): { readonly ports: TestPorts; readonly operations: string[]; closed: number } {
    const ports = testPorts();
    const state = { ports, operations: [] as string[], closed: 0 };
    const open = ports.files.open.bind(ports.files);
    const step = (name: string): void => {
      if (state.operations.push(name) === failAt + 1) throw errno('ENOSPC', PATH);
    };
    ports.files.open = async (path, mode) => {
      const file = await open(path, mode);
      if (mode === 'read') return file;
      const wrapped: RandomAccessFile = Object.create(file, {
        write: {
          async value(from: Uint8Array, position: number) {
            step('write');
            await file.write(from, position);
          },
        },
        sync: { value: async () => step('sync') },
        close: {
          async value() {
            state.closed += 1;
          },
        },
      });
      return wrapped;
    };
    return state;
  }

  async function use(ports: TestPorts): Promise<void> {
    const writer = await LogWriter.create(PATH, { ports });
    try {
      for (let i = 0; i < 3; i += 1) {
        await writer.append([{ byteOffset: i * 4096, bytes: sectors(2, i) }]);
        await writer.sync();
      }
      await writer.close();
    } catch (error) {
      for (const call of [() => writer.append([]), () => writer.sync(), () => writer.close()]) {
        await expect(call()).rejects.toMatchObject({
          code: 'OUTPUT_FAILED',
          message: expect.stringContaining('broken'),
        });
      }
      await writer.abandon();
      await writer.abandon();
      throw error;
    }
  }

  it('does its durable steps in the right order', async () => {
    const { ports, operations } = failing(-1);
    await use(ports);
    const group = ['write', 'write', 'sync'];
    expect(operations).toEqual(['write', 'write', 'sync', ...group, ...group, ...group, 'sync', 'write', 'sync']);
  });

  it('refuses everything after its first error, gives its file back, and leaves a log that says it was not closed', async () => {
    const all = failing(-1);
    await use(all.ports);
    for (let failAt = 0; failAt < all.operations.length; failAt += 1) {
      const state = failing(failAt);
      await expect(use(state.ports)).rejects.toMatchObject({ code: 'OUTPUT_FAILED', cause: { code: 'ENOSPC' } });
      expect(state.closed).toBe(1);
      if (failAt < 1) continue;
      const log = await reopen(state.ports);
      expect(log.isClosed).toBe(failAt === all.operations.length - 1);
      expect((await entriesOf(log)).length).toBe(Math.max(0, Math.min(3, Math.floor((failAt - 2) / 3))));
    }
  });

  it.each<FailpointName>([
    'hrl.after-create',
    'hrl.after-block',
    'hrl.after-sync',
    'hrl.after-data',
    'hrl.after-close',
  ])('stops at failpoint %s', async (armed) => {
    const ports = testPorts();
    let hits = 0;
    const failpoint = (name: FailpointName): void => {
      if (name !== armed) return;
      hits += 1;
      throw errno('EFAILPOINT', name);
    };
    await expect(use({ ...ports, failpoint })).rejects.toMatchObject({ code: 'OUTPUT_FAILED' });
    expect(hits).toBe(1);
    const found = await entriesOf(await reopen(ports));
    const expected = { 'hrl.after-create': 0, 'hrl.after-block': 1, 'hrl.after-sync': 1 } as Record<string, number>;
    expect(found).toHaveLength(expected[armed] ?? 3);
  });

  it('is closed once, and abandoned without harm', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    const closing = writer.close();
    await expect(writer.append([])).rejects.toMatchObject({ message: expect.stringContaining('closing') });
    await closing;
    await expect(writer.close()).rejects.toMatchObject({
      code: 'OUTPUT_FAILED',
      message: expect.stringContaining('closed'),
    });
    await writer.abandon();
    expect((await reopen(ports)).isClosed).toBe(true);
  });
});
