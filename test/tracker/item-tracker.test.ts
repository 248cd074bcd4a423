import { describe, expect, test } from 'vitest';
import type { FileSystem } from '../../src/ports.ts';
import type { ItemTracker } from '../../src/tracker/index.ts';
import { diskStamp, RestingTracking } from '../../src/tracker/index.ts';
import { errno, type MemoryFileSystem, memoryFileSystem } from '../support/memory-files.ts';
import { CHUNK_BYTES, TrackingLab } from './tracking-lab.ts';

const MIB = 1 << 20;
const GUIDS = ['11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'];

/** A lab whose item was copied at rest, over files in memory. */
async function settled(sizes: readonly number[], seed = 1): Promise<{ lab: TrackingLab; files: MemoryFileSystem }> {
  const lab = new TrackingLab(seed, sizes);
  const files = memoryFileSystem();
  for (const [path, bytes] of lab.before()) files.put(path, bytes);
  await lab.settle(files);
  return { lab, files };
}

/** Ends tracking in order. */
function close(lab: TrackingLab, files: FileSystem, tracker: ItemTracker): Promise<void> {
  return tracker.close(({ source }) => diskStamp(source, lab.item(files).ports));
}

/** Files whose writes wait for `before`, and fail where it does. */
function delayedWrites(files: FileSystem, suffix: string, before: (path: string) => Promise<void>): FileSystem {
  return {
    ...files,
    open: async (path, mode) => {
      const file = await files.open(path, mode);
      if (!path.endsWith(suffix)) return file;
      return new Proxy(file, {
        get(target, key) {
          const value: unknown = Reflect.get(target, key);
          if (typeof value !== 'function') return value;
          const call = value.bind(target);
          return key === 'write' ? (...args: unknown[]) => before(path).then(() => call(...args)) : call;
        },
      });
    },
  };
}

/** Files whose writes fail with the error that `fails` names. */
function failingWrites(files: FileSystem, suffix: string, fails: () => string | undefined): FileSystem {
  return delayedWrites(files, suffix, async (path) => {
    const code = fails();
    if (code !== undefined) throw errno(code, path);
  });
}

async function logFiles(files: FileSystem): Promise<readonly string[]> {
  return (await files.list('/disks')).map(({ name }) => name).filter((name) => name.endsWith('.hrl'));
}

describe('what the logs hold', () => {
  test('base and logs are the disk at each of 60 rotations, over 8 random histories with clean and hard ends', async () => {
    for (let seed = 1; seed <= 8; seed += 1) {
      const { lab, files } = await settled([3 * MIB, 2 * MIB + 512], seed);
      let tracker = await lab.open(files);
      for (let round = 0; round < 60; round += 1) {
        await lab.change(tracker);
        if (lab.dice.oneIn(4)) await lab.flush(tracker);
        if (lab.dice.oneIn(5)) await tracker.devices[0]!.settle();
        if (lab.dice.oneIn(3)) {
          await lab.ship(tracker, files, !lab.dice.oneIn(3));
          for (const [i, { replica }] of lab.disks.entries()) {
            expect((await lab.content(tracker, i)).equals(replica), `seed ${seed} round ${round} disk ${i}`).toBe(true);
          }
        }
        if (!lab.dice.oneIn(12)) continue;
        if (lab.dice.oneIn(2)) await close(lab, files, tracker);
        else await tracker.abandon();
        tracker = await lab.open(files);
        if (tracker.status().mode === 'logging') continue;
        // Bridging may fill the logs of disks as small as these.
        expect(tracker.status().reason?.code).toBe('LOG_HALF_FULL');
        break;
      }
      await tracker.abandon();
    }
  });

  test('writes that overlap in time end in the log as on the disk: 40 schedules of 30 at once', async () => {
    for (let seed = 1; seed <= 40; seed += 1) {
      const { lab, files } = await settled([MIB], seed);
      const { dice } = lab;
      // The disk ends what it has at the same time in any order.
      const tracker = await lab.open(
        delayedWrites(files, '.raw', async () => {
          for (let n = dice.below(8); n > 0; n -= 1) await new Promise((resolve) => setImmediate(resolve));
        }),
      );
      await Promise.all(
        Array.from({ length: 30 }, (_, n) => {
          // Whole sectors, and such as begin and end inside of one.
          const unitBytes = dice.pick([512, 1]);
          const offset = unitBytes * dice.below((64 * 1024) / unitBytes);
          const lengthBytes = unitBytes * dice.between(1, Math.floor(5120 / unitBytes));
          const device = tracker.devices[0]!;
          if (dice.oneIn(5)) return device.zero(offset, lengthBytes, { unmap: false, fua: false });
          return device.write(Buffer.alloc(lengthBytes, n + 1), offset, dice.oneIn(6));
        }),
      );
      await lab.ship(tracker, files, true);
      expect((await lab.content(tracker, 0)).equals(lab.disks[0]!.replica), `seed ${seed}`).toBe(true);
      await tracker.abandon();
    }
  });

  test('all disks rotate at one moment: what one disk learned before the other stays so', async () => {
    const { lab, files } = await settled([MIB, MIB]);
    const tracker = await lab.open(files);
    const counter = Buffer.alloc(512);
    let stop = false;
    const writing = (async () => {
      for (let n = 1; !stop; n += 1) {
        for (const device of tracker.devices) {
          counter.writeUInt32LE(n);
          await device.write(Buffer.from(counter), 0, false);
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    for (let round = 0; round < 30; round += 1) {
      for (let turns = 0; turns < 5; turns += 1) await new Promise((resolve) => setImmediate(resolve));
      await lab.ship(tracker, files, true);
      const [first, second] = lab.disks.map(({ replica }) => replica.readUInt32LE(0)) as [number, number];
      expect(first - second, `${first} ${second}`).toBeGreaterThanOrEqual(0);
      expect(first - second).toBeLessThanOrEqual(1);
    }
    stop = true;
    await writing;
    await tracker.abandon();
  });

  test('a rotation without writes makes no files', async () => {
    const { lab, files } = await settled([MIB]);
    const tracker = await lab.open(files);
    const before = await logFiles(files);
    for (let i = 0; i < 3; i += 1) await lab.ship(tracker, files, true);
    expect(await logFiles(files)).toEqual(before);
    await tracker.abandon();
  });

  test('what the replica has is removed, also when it hears of it only at the next rotation', async () => {
    const { lab, files } = await settled([MIB]);
    const tracker = await lab.open(files);
    for (let i = 0; i < 4; i += 1) {
      await tracker.devices[0]!.write(Buffer.alloc(512, i), 0, false);
      await lab.ship(tracker, files, false);
    }
    // The last one that was shipped and not acknowledged, and the running one.
    expect(await logFiles(files)).toHaveLength(2);
    await tracker.acknowledge(lab.heads);
    expect(await logFiles(files)).toHaveLength(1);
    expect(tracker.status().disks[0]).toMatchObject({ changedChunks: 0, activeChunks: 1 });
    await tracker.abandon();
  });

  test('zeros take no space in the log', async () => {
    const { lab, files } = await settled([64 * MIB]);
    const tracker = await lab.open(files);
    await tracker.devices[0]!.zero(0, 64 * MIB, { unmap: true, fua: true });
    expect(tracker.status()).toMatchObject({ mode: 'logging' });
    expect(tracker.status().disks[0]!.logBytes).toBeLessThan(64 * 1024);
    await tracker.abandon();
  });
});

describe('the logs give way', () => {
  test('at half of one disk: guest writes go on, the map goes on, the forecast had said so', async () => {
    const { lab, files } = await settled([2 * MIB, 16 * MIB]);
    const tracker = await lab.open(files);
    const device = tracker.devices[0]!;
    for (let i = 0; i < 8; i += 1) await device.write(Buffer.alloc(CHUNK_BYTES, 1), i * CHUNK_BYTES, false);
    expect(tracker.status().mode).toBe('logging');
    for (let i = 8; i < 20; i += 1) await device.write(Buffer.alloc(CHUNK_BYTES, 1), i * CHUNK_BYTES, true);
    expect(tracker.status()).toMatchObject({ mode: 'resync-required', reason: { code: 'LOG_HALF_FULL' } });
    await expect(tracker.rotate(lab.heads)).rejects.toMatchObject({ code: 'RESYNC_REQUIRED' });
    expect(await logFiles(files)).toEqual([]);
    expect(tracker.status().disks[0]!.changedChunks).toBe(20);
    expect(lab.events.join('\n')).toContain('half of its 2097152');
    await close(lab, files, tracker);
    // It stays so over a new start.
    const again = await lab.open(files);
    expect(again.status()).toMatchObject({ mode: 'resync-required', reason: { code: 'LOG_HALF_FULL' } });
    expect(again.status().disks[0]!.changedChunks).toBe(20);
    await again.abandon();
  });

  test.each([
    ['ENOSPC', 'NO_SPACE'],
    ['EIO', 'LOG_FAILED'],
  ])('when a log cannot be written (%s): no guest notices', async (code, reason) => {
    const { lab, files } = await settled([4 * MIB]);
    let fails = false;
    const failing = failingWrites(files, '.hrl', () => (fails ? code : undefined));
    const tracker = await lab.open(failing);
    const device = tracker.devices[0]!;
    await device.write(Buffer.alloc(512, 1), 0, true);
    fails = true;
    await Promise.all([
      device.write(Buffer.alloc(512, 2), 512, true),
      device.write(Buffer.alloc(512, 3), MIB, false),
      device.flush(),
    ]);
    expect(tracker.status()).toMatchObject({ mode: 'resync-required', reason: { code: reason } });
    expect((await lab.content(tracker, 0))[MIB]).toBe(3);
    await expect(tracker.rotate(lab.heads)).rejects.toMatchObject({ code: 'RESYNC_REQUIRED' });
    await tracker.abandon();
    const again = await lab.open(files);
    expect(again.status()).toMatchObject({ mode: 'resync-required', reason: { code: reason } });
    expect([...again.devices[0]!.map.runs('changed')]).toEqual([
      { from: 0, to: 1 },
      { from: 16, to: 17 },
    ]);
    await again.abandon();
  });

  test('when the dirty map cannot be written: every chunk counts as changed, and the guest goes on', async () => {
    const { lab, files } = await settled([4 * MIB]);
    let failures = 0;
    const failing = failingWrites(files, '.map', () => {
      failures -= 1;
      return failures >= 0 ? 'EIO' : undefined;
    });
    const tracker = await lab.open(failing);
    const device = tracker.devices[0]!;
    failures = 1;
    await Promise.all([device.write(Buffer.alloc(512, 1), 0, true), device.write(Buffer.alloc(512, 2), MIB, true)]);
    expect(tracker.status()).toMatchObject({ mode: 'resync-required', reason: { code: 'MAP_LOST' } });
    expect(tracker.status().disks[0]!.changedChunks).toBe(64);
    await tracker.abandon();
    const again = await lab.open(files);
    expect(again.status()).toMatchObject({ mode: 'resync-required', reason: { code: 'MAP_LOST' } });
    expect(again.status().disks[0]!.changedChunks).toBe(64);
    await again.abandon();
  });
});

describe('a new start', () => {
  test('after a clean end goes on, and reads nothing', async () => {
    const { lab, files } = await settled([4 * MIB]);
    const tracker = await lab.open(files);
    await lab.change(tracker);
    await close(lab, files, tracker);
    lab.events.length = 0;
    const again = await lab.open(files);
    expect(again.status().mode).toBe('logging');
    expect(again.status().disks[0]!.activeChunks).toBe(0);
    expect(lab.events).toEqual([]);
    await again.abandon();
  });

  test('after a hard end reads the active chunks again, and only those', async () => {
    const { lab, files } = await settled([16 * MIB]);
    const tracker = await lab.open(files);
    await tracker.devices[0]!.write(Buffer.alloc(4096, 7), 5 * MIB, false);
    await tracker.abandon();
    const again = await lab.open(files);
    expect(lab.events.join('\n')).toContain(`${CHUNK_BYTES} bytes were read and logged again`);
    await lab.ship(again, files, true);
    expect((await lab.content(again, 0)).equals(lab.disks[0]!.replica)).toBe(true);
    await again.abandon();
  });

  test('on a disk that was edited meanwhile: a resync is required, and every chunk counts', async () => {
    const { lab, files } = await settled([4 * MIB]);
    await close(lab, files, await lab.open(files));
    const file = await files.open(lab.disks[0]!.path, 'modify');
    await file.write(Buffer.alloc(512, 9), 0);
    await file.close();
    const again = await lab.open(files);
    expect(again.status()).toMatchObject({ mode: 'resync-required', reason: { code: 'EDITED_OFFLINE' } });
    expect(again.status().disks[0]!.changedChunks).toBe(64);
    await again.abandon();
  });

  test.each([
    ['a log that is gone', async (files: MemoryFileSystem) => files.remove('/disks/disk0.raw.000001.hrl')],
    [
      'a log of another disk',
      async (files: MemoryFileSystem) => {
        await files.remove('/disks/disk0.raw.000001.hrl');
        await files.rename('/disks/disk1.raw.000001.hrl', '/disks/disk0.raw.000001.hrl');
      },
    ],
  ])('with %s: a resync over what the map knows', async (_, harm) => {
    const { lab, files } = await settled([4 * MIB, 4 * MIB]);
    const tracker = await lab.open(files);
    for (const device of tracker.devices) await device.write(Buffer.alloc(512, 9), MIB, false);
    await close(lab, files, tracker);
    await harm(files);
    const again = await lab.open(files);
    expect(again.status()).toMatchObject({ mode: 'resync-required', reason: { code: 'LOG_LOST' } });
    expect([...again.devices[0]!.map.runs('changed')]).toEqual([{ from: 16, to: 17 }]);
    await again.abandon();
  });

  test('with a dirty map that is gone or damaged: every chunk counts', async () => {
    for (const harm of ['remove', 'damage'] as const) {
      const { lab, files } = await settled([4 * MIB]);
      await close(lab, files, await lab.open(files));
      if (harm === 'remove') await files.remove('/home/tracking/d0.map');
      else files.put('/home/tracking/d0.map', Buffer.alloc(4096, 1));
      const again = await lab.open(files);
      expect(again.status()).toMatchObject({ mode: 'resync-required', reason: { code: 'MAP_LOST' } });
      expect(again.status().disks[0]!.changedChunks).toBe(64);
      await again.abandon();
    }
  });

  test('of an item that was never copied: a resync is required, and every chunk counts', async () => {
    const lab = new TrackingLab(1, [MIB]);
    const files = memoryFileSystem();
    for (const [path, bytes] of lab.before()) files.put(path, bytes);
    const tracker = await lab.open(files);
    expect(tracker.status()).toMatchObject({ mode: 'resync-required', reason: { code: 'NOT_SYNCED' } });
    expect(tracker.status().disks[0]!.changedChunks).toBe(16);
    await tracker.abandon();
  });
});

describe('a resync under a tracker', () => {
  test('begins the logs anew; what was changed before stays in the map until it ends', async () => {
    const { lab, files } = await settled([4 * MIB, MIB]);
    const tracker = await lab.open(files);
    await tracker.devices[0]!.write(Buffer.alloc(512, 1), MIB, false);
    await tracker.beginResync(GUIDS);
    expect(tracker.status().mode).toBe('resyncing');
    await expect(tracker.rotate(lab.heads)).rejects.toMatchObject({ code: 'RESYNC_REQUIRED' });
    await tracker.devices[0]!.write(Buffer.alloc(512, 2), 2 * MIB, false);
    expect([...tracker.devices[0]!.map.runs('closed')]).toEqual([{ from: 16, to: 17 }]);
    for (const [i, { replica }] of lab.disks.entries()) (await lab.content(tracker, i)).copy(replica);
    lab.heads = [...GUIDS];
    await tracker.endResync(GUIDS);
    expect(tracker.status().mode).toBe('logging');
    await tracker.devices[0]!.write(Buffer.alloc(512, 3), 3 * MIB, false);
    await lab.ship(tracker, files, true);
    expect((await lab.content(tracker, 0)).equals(lab.disks[0]!.replica)).toBe(true);
    await tracker.abandon();
  });

  test('goes on over a hard end in its middle', async () => {
    const { lab, files } = await settled([8 * MIB]);
    const tracker = await lab.open(files);
    await tracker.devices[0]!.write(Buffer.alloc(512, 1), MIB, false);
    await tracker.beginResync(GUIDS.slice(0, 1));
    await tracker.devices[0]!.write(Buffer.alloc(512, 2), 2 * MIB, false);
    await tracker.abandon();
    const again = await lab.open(files);
    expect(again.status()).toMatchObject({ mode: 'resyncing', disks: [{ head: GUIDS[0] }] });
    const before = await lab.content(again, 0);
    before.copy(lab.disks[0]!.replica);
    lab.heads = GUIDS.slice(0, 1);
    await again.devices[0]!.write(Buffer.alloc(512, 3), 3 * MIB, false);
    await again.endResync(lab.heads);
    await lab.ship(again, files, true);
    expect((await lab.content(again, 0)).equals(lab.disks[0]!.replica)).toBe(true);
    await again.abandon();
  });

  test('is not undone by a mark that waited for its turn', async () => {
    const { lab, files } = await settled([2 * MIB]);
    const tracker = await lab.open(files);
    const heads = GUIDS.slice(0, 1);
    // The first finds the logs useless while the second waits already: its mark comes behind it.
    const refused = tracker.acknowledge([GUIDS[1]!]);
    const begun = tracker.beginResync(heads);
    await expect(refused).rejects.toMatchObject({ code: 'RESYNC_REQUIRED' });
    await begun;
    await tracker.endResync(heads);
    await tracker.devices[0]!.write(Buffer.alloc(512, 1), 0, true);
    const { logs } = await tracker.rotate(heads);
    expect(logs[0]).toHaveLength(1);
    expect(tracker.status().mode).toBe('logging');
    await close(lab, files, tracker);
  });

  test('whose logs give way has to begin again', async () => {
    const { lab, files } = await settled([2 * MIB]);
    const tracker = await lab.open(files);
    await tracker.beginResync(GUIDS.slice(0, 1));
    await tracker.devices[0]!.write(Buffer.alloc(MIB + 65_536, 5), 0, false);
    expect(tracker.status().mode).toBe('resync-required');
    await expect(tracker.endResync(GUIDS.slice(0, 1))).rejects.toMatchObject({ code: 'RESYNC_REQUIRED' });
    await tracker.abandon();
  });
});

describe('a replica that ends with another log', () => {
  test('makes a resync required, with a tracker and without', async () => {
    const { lab, files } = await settled([MIB]);
    const tracker = await lab.open(files);
    await tracker.devices[0]!.write(Buffer.alloc(512, 1), 0, false);
    await expect(tracker.rotate([GUIDS[0]!])).rejects.toMatchObject({
      code: 'RESYNC_REQUIRED',
      facts: { reason: 'LOG_CHAIN' },
    });
    await tracker.abandon();
    const other = await settled([MIB]);
    const resting = await RestingTracking.open(other.lab.item(other.files));
    await expect(resting.rotate([GUIDS[0]!])).rejects.toMatchObject({
      code: 'RESYNC_REQUIRED',
      facts: { reason: 'LOG_CHAIN' },
    });
    await resting.close();
  });
});

describe('stopped writes', () => {
  test('are refused on all disks, while reads and rotations go on; over a hard end and a clean one; until they are taken again', async () => {
    const { lab, files } = await settled([2 * MIB, 2 * MIB]);
    let tracker = await lab.open(files);
    await lab.change(tracker);
    await tracker.stopWrites(true);
    for (const end of ['none', 'hard', 'clean'] as const) {
      if (end === 'hard') await tracker.abandon();
      if (end === 'clean') await close(lab, files, tracker);
      if (end !== 'none') tracker = await lab.open(files);
      expect(tracker.status().stopped, end).toBe(true);
      for (const device of tracker.devices) {
        const refused = expect.objectContaining({ code: 'WRITES_STOPPED' });
        await expect(device.write(Buffer.alloc(512), 0, false), end).rejects.toThrow(refused);
        await expect(device.write(Buffer.alloc(5), 3, false), end).rejects.toThrow(refused);
        await expect(device.zero(0, 4096, { unmap: true, fua: false }), end).rejects.toThrow(refused);
      }
      await lab.ship(tracker, files, true);
      for (const [i, { replica }] of lab.disks.entries()) {
        expect((await lab.content(tracker, i)).equals(replica), end).toBe(true);
      }
    }
    await tracker.stopWrites(false);
    expect(tracker.status().stopped).toBeUndefined();
    await lab.change(tracker);
    await close(lab, files, tracker);
    const resting = await RestingTracking.open(lab.item(files));
    expect(resting.isStopped).toBe(false);
    await resting.stopWrites(true);
    await resting.close();
    tracker = await lab.open(files);
    expect(tracker.status().stopped).toBe(true);
    await tracker.abandon();
  });

  test('each write around the stop is answered and there, or refused and not', async () => {
    const { lab, files } = await settled([2 * MIB]);
    const tracker = await lab.open(files);
    const device = tracker.devices[0]!;
    const writes: Promise<void>[] = [];
    let stopping = Promise.resolve();
    for (let i = 0; i < 60; i += 1) {
      if (i === 20) stopping = tracker.stopWrites(true);
      writes.push(device.write(Buffer.alloc(512, 0xaa), i * 512, false));
      await Promise.resolve();
    }
    const results = await Promise.allSettled(writes);
    await stopping;
    const content = await lab.content(tracker, 0);
    const isThere = results.map((_, i) => content[i * 512] === 0xaa);
    expect(isThere).toEqual(results.map(({ status }) => status === 'fulfilled'));
    expect(new Set(isThere)).toEqual(new Set([true, false]));
    await tracker.abandon();
  });

  test('do not end because the logs give way', async () => {
    const { lab, files } = await settled([2 * MIB]);
    const tracker = await lab.open(files);
    await tracker.stopWrites(true);
    await tracker.giveUp('a log is damaged');
    await tracker.abandon();
    const again = await lab.open(files);
    expect(again.status()).toMatchObject({ mode: 'resync-required', stopped: true });
    await again.abandon();
  });
});
