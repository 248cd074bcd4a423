import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ChangeLog,
  coalesceLogs,
  compactLogs,
  LogWriter,
  type ReplayTarget,
  replayLogs,
  verifyLog,
} from '../../src/hrl/index.ts';
import { PieceMap } from '../../src/hrl/piece-map.ts';
import type { FileSystem } from '../../src/ports.ts';
import { Dice } from '../support/dice.ts';
import { buildLog, LOG_TIME } from '../support/hrl-builder.ts';
import { errno } from '../support/memory-files.ts';
import {
  collect,
  entriesOf,
  openBytes,
  PATH,
  playForward,
  SECTOR,
  sectors,
  type TestPorts,
  testPorts,
} from './support.ts';

const DISK_SECTORS = 96;

/** Groups of writes of one log: sector, sectors, mark. */
const writesOfLog = fc.array(
  fc.array(fc.tuple(fc.nat(DISK_SECTORS - 1), fc.integer({ min: 1, max: 12 }), fc.nat(255)), { maxLength: 20 }),
  { maxLength: 6 },
);

type Groups = readonly (readonly (readonly [number, number, number])[])[];

function logsOf(chain: readonly Groups[]): Promise<ChangeLog[]> {
  return Promise.all(
    chain.map((groups, n) => {
      const blocks = groups.map((group) =>
        group.map(([sector, count, mark], i) => {
          const data = sectors(Math.min(count, DISK_SECTORS - sector), mark);
          return { at: sector * SECTOR, data, time: LOG_TIME + n * 1000 + i };
        }),
      );
      const id = (i: number): Uint8Array => new Uint8Array(16).fill(i);
      return openBytes(buildLog({ blocks, uniqueId: id(n + 1), previousUniqueId: id(n) }).bytes, `/disks/${n}.hrl`);
    }),
  );
}

/** A disk in memory that notes what is done to it. */
class Disk implements ReplayTarget {
  readonly info = { virtualSizeBytes: DISK_SECTORS * SECTOR, logicalSectorBytes: SECTOR };
  readonly bytes: Buffer = Buffer.alloc(DISK_SECTORS * SECTOR, 0xee);
  readonly calls: string[] = [];

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    this.calls.push(`write ${offset} ${bytes.byteLength}`);
    this.bytes.set(bytes, offset);
  }

  async zero(offset: number, lengthBytes: number): Promise<void> {
    this.calls.push(`zero ${offset} ${lengthBytes}`);
    this.bytes.fill(0, offset, offset + lengthBytes);
  }

  async flush(): Promise<void> {
    this.calls.push('flush');
  }
}

async function playedForward(logs: readonly ChangeLog[]): Promise<Buffer> {
  const disk = new Disk().bytes;
  for (const log of logs) await playForward(log, disk);
  return disk;
}

describe('reverse play with coalescing', () => {
  it('leaves the same disk as forward play, each sector written once, also in passes by region', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(writesOfLog, { maxLength: 4 }),
        fc.integer({ min: 2, max: 30 }),
        async (chain, piecesMax) => {
          const logs = await logsOf(chain);
          const expected = await playedForward(logs);
          for (const options of [{}, { piecesMax }]) {
            const ranges = await collect(coalesceLogs(logs, options));
            for (const [i, { byteOffset, lengthBytes }] of ranges.entries()) {
              const before = ranges[i - 1];
              expect(lengthBytes).toBeGreaterThan(0);
              if (before) expect(byteOffset).toBeGreaterThanOrEqual(before.byteOffset + before.lengthBytes);
            }
            const disk = new Disk();
            await replayLogs(logs, disk, options);
            expect(disk.bytes.equals(expected)).toBe(true);
          }
        },
      ),
      { numRuns: 150 },
    );
  });

  it('takes the time of the write that a range comes from', async () => {
    const logs = await logsOf([[[[0, 8, 1]]], [[[2, 2, 2]]]]);
    const ranges = await collect(coalesceLogs(logs));
    expect(
      ranges.map(({ byteOffset, lengthBytes, log, timeStamp }) => [byteOffset, lengthBytes, log, timeStamp]),
    ).toEqual([
      [0, 1024, logs[0], LOG_TIME],
      [1024, 1024, logs[1], LOG_TIME + 1000],
      [2048, 2048, logs[0], LOG_TIME],
    ]);
  });

  it('goes through the metadata once for each region, and holds no more pieces than it may', async () => {
    const blocks = Array.from({ length: 20 }, (_, b) =>
      Array.from({ length: 50 }, (_, i) => ({
        at: (((b * 50 + i) * 7919) % 1000) * 1024,
        data: sectors(1, i),
        unchecked: true,
      })),
    );
    const { bytes } = buildLog({ blocks });
    let readBytes = 0;
    const file = {
      path: PATH,
      sizeBytes: async () => bytes.byteLength,
      read: async (into: Uint8Array, position: number) => {
        readBytes += into.byteLength;
        return bytes.copy(into, 0, position);
      },
      close: async () => {},
    };
    const log = await ChangeLog.open(PATH, { ports: { files: { open: async () => file } as unknown as FileSystem } });
    readBytes = 0;
    expect(await collect(coalesceLogs([log], { piecesMax: 100 }))).toHaveLength(1000);
    const passes = readBytes / (20 * 4096);
    expect(passes).toBeGreaterThanOrEqual(10);
    expect(passes).toBeLessThanOrEqual(20);
  });
});

describe('a piece map', () => {
  it('agrees with a table of sectors, and never exceeds its bound', () => {
    const dice = new Dice(3);
    for (let round = 0; round < 300; round += 1) {
      const size = dice.pick([20, 300, 5000]);
      const piecesMax = dice.pick([2, 3, 10, 600, 1_000_000]);
      const [from, limit] = [dice.below(5), size - dice.below(5)];
      const map = new PieceMap(from, limit, piecesMax);
      const table = new Map<number, string>();
      for (let tag = 0; tag < dice.pick([5, 100, 1500]); tag += 1) {
        const at = dice.below(size);
        const length = dice.between(1, Math.min(size - at, dice.oneIn(10) ? size : 8));
        map.cover(at, length, at * 3 + tag, tag);
        for (let i = at; i < at + length; i += 1) {
          if (i >= from && i < limit && !table.has(i)) table.set(i, `${tag} ${at * 3 + tag + i - at}`);
        }
        if (map.pieceCount > piecesMax) throw new Error(`${map.pieceCount} pieces`);
      }
      const found = new Map<number, string>();
      let end = 0;
      for (const { byteOffset, lengthBytes, fileOffset, tag } of map.pieces()) {
        expect(byteOffset).toBeGreaterThanOrEqual(end);
        end = byteOffset + lengthBytes;
        for (let i = 0; i < lengthBytes; i += 1) found.set(byteOffset + i, `${tag} ${fileOffset + i}`);
      }
      expect(map.limitOffset).toBeGreaterThan(from);
      const expected = [...table].filter(([i]) => i < map.limitOffset).sort(([a], [b]) => a - b);
      expect([...found]).toEqual(expected);
    }
  });
});

describe('replay', () => {
  it('writes neighbours together, in disk order, then flushes', async () => {
    const disk = new Disk();
    const report = await replayLogs(
      await logsOf([
        [
          [
            [4, 2, 1],
            [0, 2, 2],
            [2, 2, 3],
            [2, 2, 4],
            [90, 1, 5],
          ],
        ],
      ]),
      disk,
    );
    expect(disk.calls).toEqual(['write 0 3072', 'write 46080 512', 'flush']);
    expect(report).toEqual({ entries: 5, loggedBytes: 9 * 512, writtenBytes: 7 * 512 });
  });

  it('changes nothing if any log of the chain is bad', async () => {
    const good = buildLog({ blocks: [[{ at: 0, data: sectors(2, 1) }]] });
    const damaged = Buffer.from(good.bytes).fill(7, 4096, 4097);
    const outside = buildLog({ blocks: [[{ at: DISK_SECTORS * SECTOR, data: sectors(1, 1) }]] }).bytes;
    for (const bad of [damaged, outside]) {
      const disk = new Disk();
      const logs = [await openBytes(good.bytes), await openBytes(bad)];
      await expect(replayLogs(logs, disk)).rejects.toMatchObject({ code: 'HRL_ENTRY' });
      expect(disk.calls).toEqual([]);
    }
  });

  it('stops when it is told to', async () => {
    const disk = new Disk();
    const controller = new AbortController();
    const logs = await logsOf([
      [
        [
          [0, 1, 1],
          [10, 1, 2],
          [20, 1, 3],
        ],
      ],
    ]);
    const onProgress = (phase: string): void => {
      if (phase === 'write') controller.abort();
    };
    await expect(replayLogs(logs, disk, { signal: controller.signal, onProgress })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    expect(disk.calls).toEqual(['write 0 512']);
  });
});

describe('compaction', () => {
  const OUT = '/disks/all.hrl';

  it('leaves one log that plays like the chain, holds nothing twice, and takes its place', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(writesOfLog, { minLength: 1, maxLength: 3 }), async (chain) => {
        const logs = await logsOf(chain);
        const ports = testPorts();
        const report = await compactLogs(logs, OUT, { ports });
        const log = await ChangeLog.open(OUT, { ports });
        expect(log.isClosed).toBe(true);
        expect(log.header.uniqueId).toBe(logs.at(-1)!.header.uniqueId);
        expect(log.header.previousUniqueId).toBe(logs[0]!.header.previousUniqueId);
        expect(log.header.timeStamp).toBe(logs[0]!.header.timeStamp);
        const { dataBytes } = await verifyLog(log);
        expect(dataBytes).toBe(report.writtenBytes);
        const touched = new Set<number>();
        for (const { byteOffset, dataLength } of await entriesOf(log)) {
          for (let at = byteOffset; at < byteOffset + dataLength; at += SECTOR) {
            expect(touched.has(at)).toBe(false);
            touched.add(at);
          }
        }
        expect((await playedForward([log])).equals(await playedForward(logs))).toBe(true);
      }),
      { numRuns: 100 },
    );
  });

  it('leaves nothing behind when it fails, and never writes over a file', async () => {
    const logs = await logsOf([[[[0, 1, 1]]]]);
    const ports: TestPorts = testPorts();
    ports.files.put(OUT, sectors(1, 1));
    let lookedAt = 0;
    const onProgress = (): void => {
      lookedAt += 1;
    };
    await expect(compactLogs(logs, OUT, { ports, onProgress })).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
    expect(lookedAt).toBe(0);
    await ports.files.remove(OUT);
    const failpoint = (name: string): void => {
      if (name === 'hrl.after-data') throw errno('ENOSPC', OUT);
    };
    await expect(compactLogs(logs, OUT, { ports: { ...ports, failpoint } })).rejects.toMatchObject({
      code: 'OUTPUT_FAILED',
    });
    const damaged = await openBytes(buildLog({ blocks: [[{ at: 0, data: sectors(1, 1) }]] }).bytes.fill(9, 4096, 4097));
    await expect(compactLogs([damaged], OUT, { ports })).rejects.toMatchObject({ code: 'HRL_ENTRY' });
    expect((await ports.files.list('/disks')).map(({ name }) => name)).toEqual(['web1.vhdx']);
  });

  it('of a chain that we wrote gives the last state', async () => {
    const ports = testPorts();
    let writer = await LogWriter.create(PATH, { ports });
    const paths = [PATH];
    for (let i = 0; i < 400; i += 1) {
      await writer.append([{ byteOffset: (i % 10) * 4096, bytes: sectors(8, i) }]);
      if (i % 100 === 99 && i < 399) {
        paths.push(`/disks/web1.${i}.hrl`);
        const next = await writer.rotate(paths.at(-1)!);
        await writer.close();
        writer = next;
      }
    }
    await writer.close();
    const logs = await Promise.all(paths.map((path) => ChangeLog.open(path, { ports })));
    expect(await compactLogs(logs, OUT, { ports })).toEqual({
      entries: 400,
      loggedBytes: 400 * 4096,
      writtenBytes: 40_960,
    });
    const disk = new Disk();
    await replayLogs([await ChangeLog.open(OUT, { ports })], disk);
    for (let i = 390; i < 400; i += 1) {
      expect(disk.bytes.subarray((i % 10) * 4096, ((i % 10) + 1) * 4096).equals(sectors(8, i))).toBe(true);
    }
  });
});
