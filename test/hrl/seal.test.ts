/** Logs that are closed in place of their writer. */
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import { ChangeLog, LogWriter, type SealedLog, sealLog, verifyLog } from '../../src/hrl/index.ts';
import type { Random } from '../../src/ports.ts';
import { type CrashFileSystem, crashFileSystem } from '../support/crash-files.ts';
import { Dice } from '../support/dice.ts';
import { buildLog, sealLogHeader } from '../support/hrl-builder.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import { entriesOf, PATH, sectors, testPorts } from './support.ts';

const WRITES = Array.from({ length: 9 }, (_, i) => ({ at: i * 4096, data: sectors(1 + (i % 3), i) }));
const BLOCKS = [[], WRITES.slice(0, 4), WRITES.slice(4, 7), WRITES.slice(7)];

function portsWith(bytes: Uint8Array) {
  const ports = testPorts();
  ports.files.put(PATH, bytes);
  return ports;
}

describe('sealing', () => {
  it('closes an unclosed log byte for byte as its writer would have', async () => {
    const ports = testPorts();
    const writer = await LogWriter.create(PATH, { ports });
    await writer.append(WRITES.map(({ at, data }) => ({ byteOffset: at, bytes: data })));
    await writer.sync();
    const open = ports.files.get(PATH)!;
    await writer.close();
    const closed = ports.files.get(PATH)!;
    ports.files.put(PATH, open);
    expect(await sealLog(PATH, { ports })).toEqual({
      ...{ uniqueId: writer.uniqueId, previousUniqueId: '00000000-0000-0000-0000-000000000000' },
      ...{ entries: 9, endOffset: closed.byteLength, wasClosed: false, cutBytes: 0 },
    });
    expect(Buffer.from(ports.files.get(PATH)!).equals(closed)).toBe(true);
  });

  it('cuts the torn tail off, wherever the log is torn', async () => {
    const built = buildLog({ blocks: BLOCKS, open: true });
    const ends = built.blocks.map(({ at }) => at + 4096);
    const before = [0, 4, 7, 9];
    for (let size = 4096; size <= built.bytes.byteLength; size += 512) {
      const ports = portsWith(built.bytes.subarray(0, size));
      const whole = ends.filter((end) => end <= size).length;
      const endOffset = ends[whole - 1] ?? 4096;
      const entries = before[whole - 1] ?? 0;
      const sealed = await sealLog(PATH, { ports });
      expect(sealed).toMatchObject({ entries, endOffset, wasClosed: false, cutBytes: size - endOffset });
      expect(ports.files.get(PATH)!.byteLength).toBe(endOffset);
      const log = await ChangeLog.open(PATH, { ports });
      expect(log).toMatchObject({ isClosed: true, endOffset });
      expect(log.header.entryCount).toBe(entries);
      expect(await verifyLog(log)).toMatchObject({ entries });
      expect(await sealLog(PATH, { ports })).toEqual({ ...sealed, wasClosed: true, cutBytes: 0 });
    }
  });

  it('leaves a closed log alone, with what stands behind it', async () => {
    const { bytes } = buildLog({ blocks: BLOCKS });
    const files = memoryFileSystem();
    files.put(PATH, Buffer.concat([bytes, sectors(3, 9)]));
    const open = files.open.bind(files);
    files.open = (path, mode) => {
      if (mode !== 'read') throw new Error('opened for writing');
      return open(path, mode);
    };
    const sealed = await sealLog(PATH, { ports: { ...testPorts(), files } });
    expect(sealed).toMatchObject({ entries: 9, endOffset: bytes.byteLength, wasClosed: true, cutBytes: 0 });
  });

  it('keeps what another program put into the header', async () => {
    const { bytes } = buildLog({ blocks: BLOCKS, open: true, version: 1, creator: 'ct  ' });
    bytes.writeUInt16LE(0x1234, 200);
    sealLogHeader(bytes);
    const ports = portsWith(bytes);
    await sealLog(PATH, { ports });
    const header = Buffer.from(ports.files.get(PATH)!.subarray(0, 4096));
    for (const [at, end] of [
      [32, 52],
      [92, 104],
    ] as const) {
      header.fill(0, at, end);
      bytes.fill(0, at, end);
    }
    expect(header.equals(bytes.subarray(0, 4096))).toBe(true);
  });

  it('refuses what is no log, and changes nothing', async () => {
    const bytes = buildLog({ blocks: BLOCKS, open: true }).bytes.fill(1, 60, 61);
    const ports = portsWith(bytes);
    await expect(sealLog(PATH, { ports })).rejects.toMatchObject({ code: 'HRL_HEADER' });
    expect(Buffer.from(ports.files.get(PATH)!).equals(bytes)).toBe(true);
    await expect(sealLog('/disks/none.hrl', { ports })).rejects.toMatchObject({ code: 'DISK_NOT_FOUND' });
  });
});

describe('a power cut while a log is sealed', () => {
  const random = (dice: Dice): Random => ({ bytes: (n) => dice.bytes(n), fraction: () => dice.next() / 2 ** 32 });

  /** A log of which the process died: 7 writes are durable, 2 more lie in the page cache only, and a torn tail. */
  async function unclosed(ignoreSyncFrom = false): Promise<CrashFileSystem> {
    const files = crashFileSystem(new Map([['/disks/web1.vhdx', new Uint8Array(0)]]));
    const writer = await LogWriter.create(PATH, { ports: { ...testPorts(), files } });
    const writes = WRITES.map(({ at, data }) => ({ byteOffset: at, bytes: data }));
    await writer.append(writes.slice(0, 7));
    await writer.sync();
    await writer.append(writes.slice(7));
    files.skipNextSyncOf = /\.hrl$/;
    await writer.sync();
    await writer.append([{ byteOffset: 0, bytes: sectors(20, 1) }]);
    if (ignoreSyncFrom) files.skipNextSyncOf = /\.hrl$/;
    return files;
  }

  /** How many draws are refused, or have other entries than were promised. */
  async function broken(skipFirstSync: boolean): Promise<number> {
    const dice = new Dice(3);
    let count = 0;
    for (let stop = 0; stop <= 4; stop += 1) {
      for (let draw = 0; draw < 100; draw += 1) {
        const files = await unclosed(skipFirstSync);
        files.stopAt = files.operations + stop;
        let sealed: SealedLog | undefined;
        try {
          sealed = await sealLog(PATH, { ports: { ...testPorts(), files } });
        } catch (error) {
          if (!isBlockferryError(error, 'OUTPUT_FAILED')) throw error;
        }
        expect(sealed?.entries).toBe(stop === 4 ? 9 : undefined);
        const ports = { ...testPorts(), files: files.powerCut(random(dice)) };
        try {
          const again = await sealLog(PATH, { ports });
          const log = await ChangeLog.open(PATH, { ports });
          await verifyLog(log);
          const entries = await entriesOf(log);
          const isPrefix = entries.every(({ byteOffset }, i) => byteOffset === WRITES[i]!.at);
          const enough = sealed ? again.wasClosed && entries.length === 9 : entries.length >= 7;
          if (!isPrefix || !enough || entries.length !== again.entries) count += 1;
        } catch (error) {
          if (!isBlockferryError(error)) throw error;
          count += 1;
        }
      }
    }
    return count;
  }

  it('leaves what sealing again makes whole', async () => {
    expect(await broken(false)).toBe(0);
  });

  it('leaves a closed log without its end where the first sync is left out', async () => {
    expect(await broken(true)).toBeGreaterThan(20);
  });
});
