/**
 * Other people's clients on the real tracker: what they write is what they read, what the change log has, and what comes
 * back from the store.
 */
import { execFile } from 'node:child_process';
import { copyFile, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { records, runCli } from '../cli/support.ts';
import { Dice } from '../support/dice.ts';
import { fio } from '../support/fio.ts';
import { type LoggedCall, startNbdkitLog } from '../support/nbdkit.ts';
import { missingTool } from '../support/tools.ts';
import { emptyDisk, expectSameDisk, type TrackedItem, trackItem } from '../support/tracked-item.ts';
import { qemuIo } from '../support/tracker.ts';

const execute = promisify(execFile);
const KIB = 1024;
const MIB = 1024 * KIB;
const CHUNK_BYTES = 64 * KIB;
const MEMORY_MIB_MAX = 300;
const HRL_ZEROS_BYTES_MAX = 16 * MIB;
const FORMATS = ['raw', 'vhdx'] as const;

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'bf-peers-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** A raw file with some 10 MiB of random bytes here and there, and holes. */
async function makeImage(path: string, sizeBytes: number, seed: number): Promise<string> {
  const dice = new Dice(seed);
  const file = await open(path, 'wx');
  await file.truncate(sizeBytes);
  for (let i = 0; i < 200; i += 1) {
    const bytes = dice.bytes(512 * dice.between(1, 200));
    await file.write(bytes, 0, bytes.length, 512 * dice.below((sizeBytes - bytes.length) / 512));
  }
  await file.close();
  return path;
}

interface MapExtent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

async function nbdMap(uri: string, context: string): Promise<readonly MapExtent[]> {
  const { stdout } = await execute('nbdinfo', [`--map=${context}`, '--json', uri]);
  return JSON.parse(stdout) as readonly MapExtent[];
}

async function dirtyChunks(uri: string): Promise<readonly number[]> {
  const chunks: number[] = [];
  for (const { offset, length, type } of await nbdMap(uri, 'x-blockferry:dirty')) {
    expect([offset % CHUNK_BYTES, length % CHUNK_BYTES]).toEqual([0, 0]);
    for (let at = offset; type === 1 && at < offset + length; at += CHUNK_BYTES) chunks.push(at / CHUNK_BYTES);
  }
  return chunks;
}

const noCopy = missingTool('qemu-img') ?? missingTool('nbdcopy') ?? missingTool('nbdinfo') ?? missingTool('qemu-io');
describe.skipIf(noCopy !== undefined).each(FORMATS)('copies into and out of a served %s disk', (format) => {
  const sizeBytes = 64 * MIB;

  test.each([
    [
      'qemu-img',
      (image: string, uri: string) => ['convert', '-n', '-W', '-m', '8', '-f', 'raw', '-O', 'raw', image, uri],
      (uri: string, copy: string) => ['convert', '-m', '8', '-f', 'raw', '-O', 'raw', uri, copy],
    ],
    [
      'nbdcopy',
      (image: string, uri: string) => ['--connections=4', '--threads=4', '--requests=16', '--flush', image, uri],
      (uri: string, copy: string) => ['--connections=4', '--threads=4', '--requests=16', uri, copy],
    ],
  ])('with %s bring the same bytes, here and from the store', async (program, into, outOf) => {
    const item = await trackItem(scratch, format, emptyDisk(format, sizeBytes));
    // The second image goes over what the first one left.
    for (const seed of [1, 2]) {
      const image = await makeImage(join(item.directory, `image${seed}`), sizeBytes, seed);
      const copy = join(item.directory, `copy${seed}`);
      await execute(program, into(image, item.uri));
      await execute(program, outOf(item.uri, copy));
      await execute('cmp', [image, copy]);
      const report = await item.run('ship');
      expect(report).toMatchObject({ logs: 1 });
      await execute('cmp', [image, await item.restore()]);
    }
    await item.stop();
  });

  test('leave a map on which nbdinfo and qemu-img agree', async () => {
    const item = await trackItem(scratch, format, async (path) => {
      await emptyDisk(format, sizeBytes)(path);
      await execute('qemu-io', ['-f', format, '-c', 'write -P 1 4M 1M', '-c', 'write -P 2 56M 8k', path]);
    });
    await qemuIo(item.uri, ['write -P 3 30M 3M', 'write -z -u 56M 8k', 'flush']);
    const [info] = records(await runCli(['info', item.disk, '--json']));
    const blockBytes = Number(info!['blockSizeBytes']);
    // A block of a VHDX that has something is there as a whole. Of a raw file nothing is known.
    const isData = (at: number): boolean =>
      blockBytes === 0 || [4, 30, 32, 56].some((mib) => Math.floor((mib * MIB) / blockBytes) === at / blockBytes);
    const step = blockBytes || sizeBytes;
    const expected = Array.from({ length: sizeBytes / step }, (_, i) => ({
      ...{ start: i * step, length: step, data: isData(i * step) },
    }));
    const seen = (await nbdMap(item.uri, 'base:allocation')).map(({ offset, length, type }) => {
      return { start: offset, length, data: type === 0 };
    });
    expect(merged(seen)).toEqual(merged(expected));
    const { stdout } = await execute('qemu-img', ['map', '--output=json', '-f', 'raw', item.uri]);
    expect(merged(JSON.parse(stdout))).toEqual(merged(expected));
    await item.stop();
  });

  test('make exactly those chunks dirty that were written, until they are shipped', async () => {
    const item = await trackItem(scratch, format, emptyDisk(format, sizeBytes));
    for (const seed of [3, 4]) {
      const dice = new Dice(seed);
      const touched = new Set<number>();
      const commands = Array.from({ length: 60 }, () => {
        const lengthBytes = 512 * dice.pick([1, 8, 127, 128, 129, 700]);
        const offset = 512 * dice.below((sizeBytes - lengthBytes) / 512);
        for (let at = Math.floor(offset / CHUNK_BYTES); at * CHUNK_BYTES < offset + lengthBytes; at += 1)
          touched.add(at);
        return `${dice.pick(['write', 'write -f', 'write -z', 'write -zu', 'discard'])} ${offset} ${lengthBytes}`;
      });
      await qemuIo(item.uri, [...commands, `write ${sizeBytes - 512} 512`]);
      touched.add(sizeBytes / CHUNK_BYTES - 1);
      expect(await dirtyChunks(item.uri)).toEqual([...touched].sort((a, b) => a - b));
      await item.run('ship');
      expect(await nbdMap(item.uri, 'x-blockferry:dirty')).toMatchObject([{ offset: 0, length: sizeBytes, type: 0 }]);
    }
    await item.stop();
  });
});

/** Extents in which neighbours differ. */
function merged(
  extents: readonly { readonly start: number; readonly length: number; readonly data: boolean }[],
): readonly [start: number, data: boolean][] {
  return extents.filter(({ data }, i) => extents[i - 1]?.data !== data).map(({ start, data }) => [start, data]);
}

const noFio = missingTool('fio') ?? missingTool('qemu-img');
describe.skipIf(noFio !== undefined)('fio', () => {
  test.concurrent.each(FORMATS)(
    'finds what it wrote to a %s disk while one cycle follows the other',
    async (format) => {
      const item = await trackItem(scratch, format, emptyDisk(format, 128 * MIB));
      const job = {
        ...{ rw: 'randwrite', bsrange: '512-65536', blockalign: '512', size: '128m', io_size: '48m', rate: '6m' },
        ...{ iodepth: '16', verify: 'crc32c', verify_fatal: '1', fsync: '64', randseed: '4242' },
      };
      let isWriting = true;
      const writing = fio(item.uri, item.directory, job).finally(() => {
        isWriting = false;
      });
      const cycles: Record<string, unknown>[] = [];
      while (isWriting) {
        cycles.push(await item.run('ship'));
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
      expect(await writing).toMatch(/err= 0/);
      cycles.push(await item.run('ship'));
      const shipped = cycles.filter(({ logs }) => logs !== 0);
      expect(shipped.length).toBeGreaterThanOrEqual(2);
      expect(await item.run('status')).toMatchObject({ state: 'protected', health: 'normal' });
      const restored = await item.restore();
      const peakMib = await item.stop();
      await expectSameDisk(item, restored);
      const dataBytes = shipped.reduce((sum, report) => sum + Number(report['dataBytes']), 0);
      console.info(
        `${format}: ${shipped.length} cycles, ${dataBytes} bytes changed; tracker: peak ${peakMib.toFixed()} MiB`,
      );
      expect(peakMib).toBeLessThan(MEMORY_MIB_MAX);
    },
  );
});

interface Entry {
  readonly byteOffset: number;
  readonly dataLength: number;
}

/** Ends the tracker and lists what the log of the disk has; played onto `base`, it must leave the disk. */
async function dumpLog(item: TrackedItem, base: string): Promise<readonly Entry[]> {
  await item.stop();
  const logs = await item.logs();
  expect(logs).toHaveLength(1);
  expect((await runCli(['hrl', 'verify', logs[0]!])).code).toBe(0);
  expect((await runCli(['hrl', 'replay', logs[0]!, '--onto', base])).code).toBe(0);
  const { stdout } = await execute('qemu-img', ['compare', '-f', item.format, '-F', item.format, item.disk, base]);
  expect(stdout).toContain('Images are identical');
  const dump = await runCli(['hrl', 'dump', logs[0]!, '--json']);
  return records(dump).filter(({ type }) => type === 'entry') as unknown as readonly Entry[];
}

const noNbdkit = missingTool('nbdkit') ?? missingTool('qemu-io') ?? missingTool('fio');
describe.skipIf(noNbdkit !== undefined).each(FORMATS)('the change log of a served %s disk', (format) => {
  async function trackedBehindNbdkit(sizeBytes: number) {
    const item = await trackItem(scratch, format, emptyDisk(format, sizeBytes));
    const base = join(item.directory, `base.${format}`);
    await copyFile(item.disk, base);
    return { item, base, nbdkit: await startNbdkitLog(item.socket, item.directory) };
  }

  test('has the very changes that nbdkit saw a client make, one by one', async () => {
    const sizeBytes = 256 * MIB;
    const { item, base, nbdkit } = await trackedBehindNbdkit(sizeBytes);
    const dice = new Dice(6);
    const commands = Array.from({ length: 300 }, () => {
      const lengthBytes = 512 * dice.between(1, 200);
      const range = `${512 * dice.below((8 * MIB - lengthBytes) / 512)} ${lengthBytes}`;
      const verb = dice.pick(['write', 'write -f', 'write -z', 'write -zu', 'write -zf', 'discard', 'flush', 'read']);
      return verb === 'flush' ? verb : `${verb.replace(/^write( -f)?$/, `$& -P ${dice.below(256)}`)} ${range}`;
    });
    // Larger than an entry of zeros may be; and the largest write there is.
    await qemuIo(nbdkit.uri, [...commands, 'write -zu 512 40M', 'discard 64M 100M', 'write -P 7 200M 32M', 'flush']);
    const changes = (await nbdkit.calls()).filter(({ name }) => name !== 'flush');
    const entries = await dumpLog(item, base);
    let at = 0;
    for (const { name, offset, lengthBytes } of changes) {
      const entryBytesMax = name === 'zero' ? HRL_ZEROS_BYTES_MAX : lengthBytes;
      for (let done = 0; done < lengthBytes; at += 1) {
        expect(entries[at]?.byteOffset).toBe(offset + done);
        expect(entries[at]!.dataLength).toBeLessThanOrEqual(Math.min(lengthBytes - done, entryBytesMax));
        done += entries[at]!.dataLength;
      }
    }
    expect(at).toBe(entries.length);
    expect(changes.length).toBeGreaterThan(200);
    console.info(`${format}: ${changes.length} changes in ${entries.length} entries`);
  });

  test('has changes of one range in the order in which nbdkit saw them answered', async () => {
    const { item, base, nbdkit } = await trackedBehindNbdkit(128 * MIB);
    const job = {
      ...{ rw: 'randwrite', bsrange: '512-32768', blockalign: '512', size: '2m', io_size: '24m', norandommap: '1' },
      ...{ iodepth: '16', refill_buffers: '1', fsync: '100', randseed: '77' },
    };
    expect(await fio(nbdkit.uri, item.directory, job)).toMatch(/err= 0/);
    const changes = (await nbdkit.calls()).filter(({ name }) => name !== 'flush');
    const places = placesInLog(changes, await dumpLog(item, base));
    let ordered = 0;
    let together = 0;
    for (const [i, first] of changes.entries()) {
      for (let j = i + 1; j < changes.length; j += 1) {
        const later = changes[j]!;
        if (first.offset + first.lengthBytes <= later.offset || later.offset + later.lengthBytes <= first.offset)
          continue;
        if (later.came < first.answered) {
          together += 1;
          continue;
        }
        ordered += 1;
        if (places[i]! >= places[j]!) expect.fail(`${JSON.stringify(later)} stands before ${JSON.stringify(first)}`);
      }
    }
    console.info(
      `${format}: ${changes.length} changes; of those that overlap, ${ordered} in order, ${together} at once`,
    );
    expect(Math.min(ordered, together * 100)).toBeGreaterThan(1000);
  });
});

/** Where each change stands among the entries, each of which is one of the changes. */
function placesInLog(changes: readonly LoggedCall[], entries: readonly Entry[]): readonly number[] {
  const places = new Map<string, number[]>();
  for (const [place, { byteOffset, dataLength }] of entries.entries()) {
    const key = `${byteOffset}+${dataLength}`;
    const known = places.get(key);
    if (known) known.push(place);
    else places.set(key, [place]);
  }
  const found = changes.map(({ offset, lengthBytes }) => {
    const place = places.get(`${offset}+${lengthBytes}`)?.shift();
    if (place === undefined) return expect.fail(`the log lacks a change of ${lengthBytes} bytes at ${offset}`);
    return place;
  });
  expect(found.length).toBe(entries.length);
  return found;
}
