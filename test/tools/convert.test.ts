import { describe, expect, test } from 'vitest';
import { KIB, MIB } from '../../src/bytes.ts';
import { convertDisk, streamDisk } from '../../src/tools/index.ts';
import type { DiskWriter } from '../../src/vhd/index.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import { fakeDisk, patterned } from './fake-disk.ts';

interface SpyWriter extends DiskWriter {
  readonly log: string[];
  content(): Uint8Array;
  writesUnderWay(): number;
}

/** A raw writer in memory that tells what was asked of it. */
async function spyWriter(sizeBytes: number, failWriteAt = -1): Promise<SpyWriter> {
  const files = memoryFileSystem();
  const inner = await files.open('/out', 'create');
  await inner.truncate(sizeBytes);
  const log: string[] = [];
  let underWay = 0;
  let placing = false;
  const file: typeof inner = {
    path: '/out.partial',
    descriptor: undefined,
    stamp: () => inner.stamp(),
    sizeBytes: () => inner.sizeBytes(),
    read: (into, position) => inner.read(into, position),
    async write(from, position) {
      underWay += 1;
      await new Promise((resolve) => setImmediate(resolve));
      underWay -= 1;
      if (failWriteAt >= 0 && position >= failWriteAt) {
        throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
      }
      await inner.write(from, position);
    },
    truncate: (size) => inner.truncate(size),
    sync: async () => {},
    close: async () => {},
  };
  return {
    path: '/out',
    log,
    content: () => files.get('/out') ?? new Uint8Array(0),
    writesUnderWay: () => underWay,
    async place(offset, lengthBytes) {
      expect(placing, 'calls of place do not overlap').toBe(false);
      placing = true;
      await new Promise((resolve) => setImmediate(resolve));
      placing = false;
      log.push(`place ${offset}+${lengthBytes}`);
      const half = Math.floor(lengthBytes / 1024) * 512;
      return [
        { file, fileOffset: offset, lengthBytes: half },
        { file, fileOffset: offset + half, lengthBytes: lengthBytes - half },
      ];
    },
    write: () => Promise.reject(new Error('the tool places and writes by itself')),
    async finish() {
      expect(underWay, 'all is written before finish').toBe(0);
      log.push('finish');
    },
    async abort() {
      expect(underWay, 'nothing is being written any more when the file is removed').toBe(0);
      log.push('abort');
    },
  };
}

describe('convertDisk', () => {
  test('the image holds the same content, and only what is not zeros is placed', async () => {
    const sparse = patterned(512 * KIB, 2);
    sparse.fill(0, 128 * KIB, 320 * KIB);
    const disk = await fakeDisk([
      { kind: 'absent', lengthBytes: MIB },
      { kind: 'data', bytes: sparse },
      { kind: 'zero', lengthBytes: 3 * MIB },
      { kind: 'memory', bytes: patterned(64 * KIB, 9) },
      { kind: 'data', bytes: new Uint8Array(12 * MIB) },
      { kind: 'data', bytes: patterned(10 * MIB, 4) },
    ]);
    const writer = await spyWriter(disk.info.virtualSizeBytes);
    const report = await convertDisk(disk, writer);
    expect(Buffer.from(writer.content()).equals(disk.content())).toBe(true);
    expect(writer.log.slice(0, 3)).toEqual([
      `place ${MIB}+${128 * KIB}`,
      `place ${MIB + 320 * KIB}+${192 * KIB}`,
      `place ${4 * MIB + 512 * KIB}+${64 * KIB}`,
    ]);
    expect(writer.log.at(-1)).toBe('finish');
    expect(report).toEqual({
      virtualSizeBytes: disk.info.virtualSizeBytes,
      readBytes: 22 * MIB + 576 * KIB,
      writtenBytes: 10 * MIB + 384 * KIB,
    });
  });

  test('a full volume is OUTPUT_FAILED with place and hint, and the partial image is removed', async () => {
    const disk = await fakeDisk([{ kind: 'data', bytes: patterned(12 * MIB, 1) }]);
    const writer = await spyWriter(disk.info.virtualSizeBytes, 4 * MIB);
    await expect(convertDisk(disk, writer)).rejects.toMatchObject({
      code: 'OUTPUT_FAILED',
      message: '/out.partial: 524288 bytes at offset 4194304 cannot be written: ENOSPC: no space left on device, write',
      hint: 'free space on the volume, or name an output on another one',
    });
    expect(writer.log.at(-1)).toBe('abort');
    expect(writer.log).not.toContain('finish');
  });

  test('an error of the source removes the partial image and is the error reported', async () => {
    const disk = await fakeDisk([{ kind: 'data', bytes: patterned(4 * MIB, 1) }]);
    disk.failReads(new Error('EIO'));
    const writer = await spyWriter(disk.info.virtualSizeBytes);
    await expect(convertDisk(disk, writer)).rejects.toMatchObject({ code: 'DISK_UNREADABLE' });
    expect(writer.log).toEqual(['abort']);
  });

  test('an abort removes the partial image', async () => {
    const disk = await fakeDisk([{ kind: 'data', bytes: patterned(20 * MIB, 1) }]);
    const writer = await spyWriter(disk.info.virtualSizeBytes);
    const controller = new AbortController();
    const converting = convertDisk(disk, writer, {
      signal: controller.signal,
      onProgress: ({ doneBytes }) => {
        if (doneBytes === 3 * MIB) controller.abort();
      },
    });
    await expect(converting).rejects.toMatchObject({ code: 'ABORTED' });
    expect(writer.log.at(-1)).toBe('abort');
  });
});

describe('streamDisk', () => {
  test('hands over every byte in order, holes as zeros', async () => {
    const disk = await fakeDisk([
      { kind: 'absent', lengthBytes: 20 * MIB + 512 },
      { kind: 'data', bytes: patterned(3 * MIB, 5) },
      { kind: 'zero', lengthBytes: 1024 },
    ]);
    const parts: Buffer[] = [];
    const report = await streamDisk(disk, async (bytes) => {
      parts.push(Buffer.from(bytes));
    });
    expect(Buffer.concat(parts).equals(disk.content())).toBe(true);
    expect(report.readBytes).toBeLessThan(3 * MIB + 2048);
  });

  test('waits for the sink before the next bytes', async () => {
    const disk = await fakeDisk([{ kind: 'data', bytes: patterned(4 * MIB, 5) }]);
    let taking = false;
    await streamDisk(disk, async () => {
      expect(taking).toBe(false);
      taking = true;
      await new Promise((resolve) => setImmediate(resolve));
      taking = false;
    });
  });

  test('an error of the sink ends the reading', async () => {
    const disk = await fakeDisk([{ kind: 'data', bytes: patterned(20 * MIB, 5) }]);
    const broken = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
    await expect(streamDisk(disk, () => Promise.reject(broken))).rejects.toBe(broken);
    expect(disk.readsUnderWay()).toBe(0);
  });
});
