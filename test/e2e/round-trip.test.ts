/**
 * The main job on real disks with the real program: protect, delete the source and all local state, fail over from the
 * store's URL and a key, compare. Each disk in both layouts, on a folder and on the blob emulator, with the peak memory
 * of every run.
 */
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDisk, nodePorts } from '../../dist/index.js';
import { records, runCli } from '../cli/support.ts';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { corpusImages, unpackImage } from '../support/corpus.ts';
import { Dice } from '../support/dice.ts';
import { contentSha256 } from '../support/disk-content.ts';
import { missingTool } from '../support/tools.ts';

const MEMORY_MIB_MAX = 300;
const MIB = 1024 * 1024;
const MEASURE = new URL('../support/peak-memory.mjs', import.meta.url).href;

let scratch: string;
let azurite: Azurite;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'blockferry-e2e-'));
  azurite = await startAzurite(join(scratch, 'blobs'));
});
afterAll(async () => {
  await azurite.stop();
  await rm(scratch, { recursive: true, force: true });
});

interface Source {
  readonly path: string;
  /** What is compared before and after. */
  readonly content: (path: string) => Promise<unknown>;
}

/** Of 64 TiB of nothing the map says as much as a checksum would in a day and a half. */
async function emptiness(path: string): Promise<unknown> {
  const info = records(await runCli(['info', path, '--json']))[0];
  const { stdout } = await runCli(['map', path, '--json']);
  const data = (JSON.parse(stdout) as { data: boolean }[]).filter((extent) => extent.data);
  return { virtualSizeBytes: info?.['virtualSizeBytes'], data };
}

/** 1 GiB of ext4 with the files of this project's own dependencies, as a dynamic VHDX. */
async function makeExt4(directory: string): Promise<Source> {
  const raw = join(directory, 'ext4.raw');
  execFileSync('truncate', ['-s', '1G', raw]);
  execFileSync('mkfs.ext4', ['-q', '-d', resolve(import.meta.dirname, '../../node_modules'), raw], { stdio: 'pipe' });
  const path = join(directory, 'ext4.vhdx');
  const { code, stderr } = await runCli(['convert', raw, path, '--format', 'vhdx', '--subformat', 'dynamic']);
  expect(code, stderr).toBe(0);
  await rm(raw);
  return { path, content: contentSha256 };
}

async function makeEmpty(directory: string): Promise<Source> {
  const path = join(directory, 'empty.vhdx');
  const size = { virtualSizeBytes: 64 * 1024 ** 4, blockSizeBytes: MIB };
  const writer = await createDisk(path, { format: 'vhdx', subformat: 'dynamic', ...size, ports: nodePorts() });
  await writer.finish();
  return { path, content: emptiness };
}

/** Three differencing disks over a dynamic one, each with its own scattered writes. */
async function makeChain(directory: string): Promise<Source> {
  const dice = new Dice(4);
  let parent: string | undefined;
  for (let depth = 0; depth < 4; depth += 1) {
    const path = join(directory, `depth${depth}.vhdx`);
    const kind =
      parent === undefined ? { subformat: 'dynamic' as const } : { subformat: 'differencing' as const, parent };
    const writer = await createDisk(path, { format: 'vhdx', virtualSizeBytes: 24 * MIB, ...kind, ports: nodePorts() });
    for (let i = 0; i < 60; i += 1) {
      const bytes = Buffer.alloc(512 * dice.between(1, 64), dice.next() & 0xff);
      await writer.write(bytes, dice.below((24 * MIB - bytes.length) / 512) * 512);
    }
    await writer.finish();
    parent = path;
  }
  return { path: parent!, content: contentSha256 };
}

/** An image of the corpus with its parents, or the reason why there is none. */
async function unpack(file: string, directory: string): Promise<Source | string> {
  const images = corpusImages();
  if (typeof images === 'string') return images;
  const image = images.find((each) => each.file === file);
  if (!image) throw new Error(`${file} is not in the corpus`);
  return { path: await unpackImage(images, image, directory), content: contentSha256 };
}

const SOURCES: Readonly<Record<string, (directory: string) => Promise<Source | string>>> = {
  '1 GiB of ext4': async (directory) => missingTool('mkfs.ext4') ?? (await makeExt4(directory)),
  'an empty 64 TiB VHDX': makeEmpty,
  'a VHDX with a dirty log': (directory) => unpack('discutils/vhdx-log-replay.vhdx.gz', directory),
  'a chain of four VHDX': makeChain,
  'a VHD over its parent': (directory) => unpack('dfvfs/fat-differential.vhd.gz', directory),
};

/** Runs the program, which must succeed within the memory that is promised. */
async function run(args: readonly string[]): Promise<Record<string, unknown>[]> {
  const result = await runCli([...args, '--json', '--workers', '2'], { env: { NODE_OPTIONS: `--import=${MEASURE}` } });
  expect(result.code, result.stderr).toBe(0);
  const peakMib = Number(/peak (\d+)/.exec(result.stderr)?.[1]) / 1024;
  expect(peakMib, `${args[0]} took ${peakMib} MiB`).toBeLessThan(MEMORY_MIB_MAX);
  console.info(`${args[0]}: peak ${Math.round(peakMib)} MiB`);
  return records(result);
}

describe.each(Object.keys(SOURCES))('%s', (name) => {
  const directory = (): string => join(scratch, name.replaceAll(' ', '-'));
  let source: Source | string;
  let before: unknown;
  beforeAll(async () => {
    await mkdir(directory());
    source = await SOURCES[name]!(directory());
    if (typeof source !== 'string') before = await source.content(source.path);
  });
  afterAll(() => rm(directory(), { recursive: true, force: true }));

  it.each([
    ['sealed', 'a folder'],
    ['raw', 'a folder'],
    ['sealed', 'page blobs'],
    ['raw', 'page blobs'],
  ] as const)('comes back byte for byte: layout %s, on %s', { timeout: 240_000 }, async (layout, store) => {
    if (typeof source === 'string') {
      console.warn(`skipped: ${source}`);
      return;
    }
    const work = await mkdtemp(join(directory(), 'run-'));
    const home = join(work, 'home');
    const url =
      store === 'a folder' ? `file://${work}/store` : `${azurite.account}/e2e/${basename(work).toLowerCase()}`;
    const key = join(work, 'vm.key');
    expect((await runCli(['keygen', key])).code).toBe(0);
    const protect = ['protect', 'vm', source.path, '--to', url, '--layout', layout, '--key-file', key, '--home', home];
    if (layout === 'raw' && name.includes('64 TiB')) {
      // One page blob holds at most 8 TiB: refused before anything is stored.
      const refused = await runCli(protect);
      expect(refused.code).toBe(2);
      expect(refused.stderr).toContain('--layout sealed');
      return;
    }
    await run(protect);
    await rm(home, { recursive: true });
    const out = join(work, 'out');
    const [report] = await run(['failover', 'vm', '--from', url, '--point', 'latest', '--key-file', key, '--out', out]);
    const [disk] = report!['disks'] as { path: string }[];
    expect(await source.content(disk!.path)).toEqual(before);
    await rm(work, { recursive: true });
  });
});

describe.skipIf(missingTool('qemu-img') !== undefined)('a raw base', () => {
  it('is a fixed VHD that other tools read', async () => {
    const work = await mkdtemp(join(scratch, 'vpc-'));
    const disk = join(work, 'disk.raw');
    const file = await open(disk, 'wx');
    // No multiple of 1 MiB: the base is rounded up, with zeros.
    await file.truncate(5 * MIB + 512);
    await file.write(Buffer.alloc(700_000, 'guest data '), 0, 700_000, 123_904);
    await file.close();
    const url = `${azurite.account}/e2e/vpc`;
    const key = join(work, 'vm.key');
    await runCli(['keygen', key]);
    await run(['protect', 'vm', disk, '--to', url, '--layout', 'raw', '--key-file', key, '--home', join(work, 'home')]);
    const blob = join(work, 'base.vhd');
    await download(`${url}/disks/d0/base`, blob);
    const padded = join(work, 'padded.raw');
    await copyFile(disk, padded);
    execFileSync('truncate', ['-s', '6M', padded]);
    const compare = execFileSync('qemu-img', ['compare', '-f', 'vpc', '-F', 'raw', blob, padded], { encoding: 'utf8' });
    expect(compare).toContain('Images are identical');
    expect(records(await runCli(['info', blob, '--json']))[0]).toMatchObject({ format: 'vhd', subformat: 'fixed' });
    expect((await runCli(['check', blob])).code).toBe(0);
  });
});

/** The whole live blob, as a cloud VM would see it. */
async function download(url: string, path: string): Promise<void> {
  const { ContainerClient, StorageSharedKeyCredential } = await import('@azure/storage-blob');
  const [account, container, ...key] = url.slice(url.indexOf('/devstoreaccount1') + 1).split('/');
  const endpoint = `http://127.0.0.1:${azurite.port}/${account}/${container}`;
  const secret = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';
  const client = new ContainerClient(endpoint, new StorageSharedKeyCredential(account!, secret));
  await mkdir(dirname(path), { recursive: true });
  await client.getBlobClient(key.join('/')).downloadToFile(path);
}
