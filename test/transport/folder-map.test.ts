/** The map of written granules: clears and ranges rely on it, so it must never say "zeros" where bytes may be. */
import { describe, expect, it } from 'vitest';
import { isBlockferryError } from '../../src/errors.ts';
import type { FileSystem } from '../../src/ports.ts';
import { openStore, type PageBlob } from '../../src/transport/index.ts';
import { type CrashOptions, crashFileSystem } from '../support/crash-files.ts';
import { memoryFileSystem } from '../support/memory-files.ts';
import { seededRandom, virtualClock } from '../support/virtual-clock.ts';
import { collectAll, filled } from './contract.ts';

const MIB = 1024 * 1024;
const TIB = 1024 ** 4;
const GUARD = { fence: 1 };

async function blobOn(files: FileSystem): Promise<PageBlob> {
  const clock = virtualClock();
  const store = await openStore('file:///store', {
    ports: { files, clock, random: seededRandom(1), failpoint: () => {} },
  });
  return store.pages('disk');
}

/** A file system that counts the bytes it is asked to read and write. */
function counting(): { files: FileSystem; bytes: () => number } {
  const files = memoryFileSystem();
  let bytes = 0;
  const open: FileSystem['open'] = async (path, mode) => {
    const file = await files.open(path, mode);
    return {
      path,
      descriptor: undefined,
      stamp: () => file.stamp(),
      sizeBytes: () => file.sizeBytes(),
      read: async (into, position) => {
        const got = await file.read(into, position);
        bytes += got;
        return got;
      },
      write: async (from, position) => {
        bytes += from.byteLength;
        await file.write(from, position);
      },
      truncate: (size) => file.truncate(size),
      sync: () => file.sync(),
      close: () => file.close(),
    };
  };
  return { files: { ...files, open }, bytes: () => bytes };
}

describe('the map of written granules', () => {
  it('lets a clear of 8 TiB that were never written cost next to nothing', async () => {
    const { files, bytes } = counting();
    const blob = await blobOn(files);
    await blob.create(8 * TIB, 1);
    await blob.clear(0, 8 * TIB, GUARD);
    expect(bytes()).toBeLessThan(1 * MIB);
  });

  it('lets ranges of a large blob name only what was written', async () => {
    const blob = await blobOn(memoryFileSystem());
    await blob.create(8 * TIB, 1);
    await blob.write(filled(512, 1), 5 * TIB + 512, GUARD);
    await blob.write(filled(512, 1), 8 * TIB - 512, GUARD);
    expect(await collectAll(blob.ranges())).toEqual([
      { offset: 5 * TIB, lengthBytes: 4 * MIB },
      { offset: 8 * TIB - 4 * MIB, lengthBytes: 4 * MIB },
    ]);
  });

  it('writes zeros only where something was', async () => {
    const { files, bytes } = counting();
    const blob = await blobOn(files);
    await blob.create(64 * MIB, 1);
    await blob.write(filled(4096, 1), 8 * MIB, GUARD);
    const before = bytes();
    await blob.clear(0, 64 * MIB, GUARD);
    expect(bytes() - before).toBeLessThan(4 * MIB + 256 * 1024);
    expect((await blob.read(8 * MIB, 1))[0]).toBe(0);
  });

  it('counts everything as written where the map is missing', async () => {
    const files = memoryFileSystem();
    const blob = await blobOn(files);
    await blob.create(8 * MIB, 1);
    await blob.write(filled(512, 1), 0, GUARD);
    await files.remove('/store/disk@blob/map');
    const other = await blobOn(files);
    expect(await collectAll(other.ranges())).toEqual([{ offset: 0, lengthBytes: 8 * MIB }]);
    await other.clear(0, 512, GUARD);
    expect((await other.read(0, 1))[0]).toBe(0);
  });

  /** Whether a power cut in a first write leaves bytes where the map says zeros. */
  async function liesAfterCut(options: CrashOptions): Promise<boolean> {
    for (let cutAt = 20; cutAt < 60; cutAt += 1) {
      const files = crashFileSystem(new Map(), options);
      const blob = await blobOn(files);
      await blob.create(8 * MIB, 1);
      files.stopAt = files.operations + cutAt - 20;
      await blob.write(filled(4096, 7), 5 * MIB, GUARD).catch((error: unknown) => {
        if (!isBlockferryError(error)) throw error;
      });
      for (let draw = 0; draw < 4; draw += 1) {
        const after = await blobOn(files.powerCut(seededRandom(cutAt * 10 + draw)));
        const holds = Buffer.from(await after.read(5 * MIB, 4096)).some((byte) => byte !== 0);
        if (holds && (await collectAll(after.ranges())).length === 0) return true;
      }
      if (files.operations < files.stopAt) return false;
    }
    return false;
  }

  /** The same, where the process was killed in the write and another one wrote into the granule before the cut. */
  async function liesAfterKill(skipNextSyncOf?: RegExp): Promise<boolean> {
    for (let killAt = 0; killAt < 3; killAt += 1) {
      const files = crashFileSystem(new Map());
      const blob = await blobOn(files);
      await blob.create(8 * MIB, 1);
      await blob.write(filled(512, 1), 0, GUARD);
      await blob.flush();
      files.stopAt = files.operations + killAt;
      await blob.write(filled(512, 7), 5 * MIB, GUARD).catch(() => {});
      files.stopAt = Number.POSITIVE_INFINITY;
      files.skipNextSyncOf = skipNextSyncOf;
      await (await blobOn(files)).write(filled(512, 7), 6 * MIB, GUARD);
      for (let draw = 0; draw < 24; draw += 1) {
        const after = await blobOn(files.powerCut(seededRandom(killAt * 10 + draw)));
        const holds = Buffer.from(await after.read(6 * MIB, 512)).some((byte) => byte !== 0);
        if (holds && !(await collectAll(after.ranges())).some((range) => range.offset + range.lengthBytes > 6 * MIB)) {
          return true;
        }
      }
    }
    return false;
  }

  it('is made durable by the next process where one was killed', async () => {
    expect(await liesAfterKill()).toBe(false);
    expect(await liesAfterKill(/map$/)).toBe(true);
  });

  it('is durable before the bytes are', async () => {
    expect(await liesAfterCut({})).toBe(false);
  });

  it('would lie after a power cut if it were not synced first', async () => {
    expect(await liesAfterCut({ ignoreSyncOf: /map$/ })).toBe(true);
  });
});
