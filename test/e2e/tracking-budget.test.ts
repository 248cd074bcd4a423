/** What a cycle and a resync of a large disk may cost: bytes sent, bytes read, memory of the tracker. */
import { mkdtemp, open, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createCodec } from '../../src/chunker/index.ts';
import { runCli } from '../cli/support.ts';
import { fio } from '../support/fio.ts';
import { CMD, NbdClient, requestBytes } from '../support/nbd-client.ts';
import { missingTool } from '../support/tools.ts';
import { emptyDisk, expectSameDisk, type TrackedItem, trackItem } from '../support/tracked-item.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const CHUNK_BYTES = 64 * KIB;
const DISK_BYTES = 1024 * MIB;
const WRITES = 1000;
const WRITE_BYTES = 4 * KIB;
const MEMORY_MIB_MAX = 300;

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'bf-budget-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** Writes a thousand blocks that lie anywhere, none twice; where they lie, ascending. */
async function scatter(
  item: TrackedItem,
  seed: number,
  job: Readonly<Record<string, string>>,
): Promise<readonly number[]> {
  const log = join(item.directory, `writes${seed}`);
  const output = await fio(item.uri, item.directory, {
    ...{ rw: 'randwrite', bs: String(WRITE_BYTES), size: String(DISK_BYTES), io_size: String(WRITES * WRITE_BYTES) },
    ...{ iodepth: '16', refill_buffers: '1', end_fsync: '1', randseed: String(seed), write_iolog: log, ...job },
  });
  expect(output).toMatch(/err= 0/);
  const writes = (await readFile(log, 'utf8')).matchAll(/ write (\d+) (\d+)$/gm);
  const offsets = [...writes].map(([, offset, lengthBytes]) => {
    expect(Number(lengthBytes)).toBe(WRITE_BYTES);
    return Number(offset);
  });
  expect(new Set(offsets).size).toBe(WRITES);
  return offsets.sort((a, b) => a - b);
}

/** The bytes of these blocks, compressed in pieces of a MiB: nobody could send much less. */
async function compressedBytes({ socket }: TrackedItem, offsets: readonly number[]): Promise<number> {
  const client = await NbdClient.open({ path: socket });
  const blocks: Buffer[] = [];
  for (const offset of offsets) {
    client.send(requestBytes({ type: CMD.read, offset, length: WRITE_BYTES }));
    blocks.push((await client.reply(WRITE_BYTES)).data);
  }
  await client.disconnect();
  const data = Buffer.concat(blocks);
  const codec = createCodec('lz4');
  let sum = 0;
  for (let at = 0; at < data.byteLength; at += MIB) {
    const piece = data.subarray(at, at + MIB);
    sum += codec.compress(piece)?.byteLength ?? piece.byteLength;
  }
  return sum;
}

async function sizeOfTree(folder: string): Promise<number> {
  let sum = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) sum += (await stat(join(entry.parentPath, entry.name))).size;
  }
  return sum;
}

const missing = missingTool('fio') ?? missingTool('qemu-img');
describe.skipIf(missing !== undefined)('a thousand scattered writes of 4 KiB on 1 GiB', () => {
  test.each(['raw', 'vhdx'] as const)('of %s cost what is in them, shipped or compared', async (format) => {
    const item = await trackItem(scratch, format, emptyDisk(format, DISK_BYTES));
    const store = join(item.directory, 'store');
    for (const [seed, name, job, ratioMax] of [
      [1, 'compressible', { buffer_compress_percentage: '70', buffer_compress_chunk: '1k' }, 0.6],
      [2, 'incompressible', {}, 1.01],
    ] as const) {
      const offsets = await scatter(item, seed, job);
      const reference = await compressedBytes(item, offsets);
      expect(reference).toBeLessThan(ratioMax * WRITES * WRITE_BYTES);
      const before = await sizeOfTree(store);
      const { dataBytes, sentBytes } = await item.run('ship');
      const grown = (await sizeOfTree(store)) - before;
      const ratio = (Number(sentBytes) / reference).toFixed(4);
      console.info(`${format}, ${name}: ${dataBytes} bytes, ${sentBytes} sent, ${ratio} of what they compress to`);
      console.info(`${format}, ${name}: the store has grown by ${grown} bytes`);
      expect(dataBytes).toBe(WRITES * WRITE_BYTES);
      expect(Number(sentBytes)).toBeLessThanOrEqual(1.1 * reference);
      expect(grown).toBeLessThanOrEqual(1.1 * reference + 64 * KIB);
    }

    const touched = new Set((await scatter(item, 3, {})).map((offset) => Math.floor(offset / CHUNK_BYTES)));
    await damageNewestLog(item);
    const refused = await runCli(['ship', 'vm', '--home', join(item.directory, 'home')]);
    expect(refused.code, refused.stderr).toBe(4);
    expect(await item.run('status')).toMatchObject({ state: 'resync-required' });
    const report = await item.run('resync');
    const [disk] = report['disks'] as { readBytes: number; chunksCompared: number; sentBytes: number }[];
    const { readBytes, chunksCompared, sentBytes } = disk!;
    console.info(`${format}, resync: ${touched.size} chunks touched, ${chunksCompared} compared`);
    console.info(`${format}, resync: ${readBytes} bytes read, ${sentBytes} sent`);
    expect(chunksCompared).toBe(touched.size);
    expect(readBytes).toBeLessThanOrEqual(touched.size * CHUNK_BYTES);
    expect(await item.run('status')).toMatchObject({ state: 'protected', health: 'normal' });

    const restored = await item.restore();
    const peakMib = await item.stop();
    await expectSameDisk(item, restored);
    console.info(`${format}: tracker: peak ${peakMib.toFixed()} MiB`);
    expect(peakMib).toBeLessThan(MEMORY_MIB_MAX);
  });
});

/** Makes a sector in the middle of the log that is running one that no writer left so. */
async function damageNewestLog(item: TrackedItem): Promise<void> {
  const file = await open((await item.logs()).at(-1)!, 'r+');
  const { size } = await file.stat();
  await file.write(Buffer.alloc(512, 0xff), 0, 512, Math.floor(size / 1024) * 512);
  await file.close();
}
