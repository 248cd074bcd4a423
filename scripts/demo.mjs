// @ts-check
/**
 * The demo: a real disk is replicated to page blobs, everything on the source is deleted, and the disk comes back byte
 * for byte. Real programs only: the CLI of this checkout, and Azurite, the emulator of Azure's blob service.
 *
 * All of it happens in one temporary directory, which is removed at the end, after an error and after Ctrl-C. Sizes are
 * counted from the outside (the map of the disk, the page ranges of the blobs, the clock), not taken from our reports.
 * Exit 0: the disk came back as it was. Exit 1: anything else.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, open, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { styleText } from 'node:util';
import { ContainerClient, StorageSharedKeyCredential } from '@azure/storage-blob';
import { startAzurite } from './azurite.mjs';

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url));
const CLI = join(CHECKOUT, 'dist/cli/main.js');
/** Real files, a few hundred MiB, that are here after `npm ci`. */
const FILES = join(CHECKOUT, 'node_modules');

const MIB = 1024 * 1024;
const DISK_BYTES = 1024 * MIB;
const SCRATCH_BYTES = 2048 * MIB;
const CONTAINER = 'replicas';
/** The emulator's account key, the same everywhere and documented by its makers: no secret. */
const EMULATOR_KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

const interrupt = new AbortController();
const stopped = interrupt.signal;
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => interrupt.abort());

let steps = 0;

/** @param {string} title */
function step(title) {
  steps += 1;
  const line = `${steps}. ${title}`;
  say(`\n${process.stdout.isTTY && !process.env['NO_COLOR'] ? styleText('bold', line) : line}`);
}

/** @param {string} text */
function say(text) {
  process.stdout.write(`${text}\n`);
}

/** @param {number} bytes */
function mib(bytes) {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

/**
 * Runs a program to its end; Ctrl-C ends it too. Its talk goes to the terminal, and so do its results unless they are
 * wanted here.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ readonly cwd: string, readonly capture?: boolean }} options
 * @returns {Promise<string>} what it wrote to stdout, with `capture`
 */
async function run(command, args, { cwd, capture = false }) {
  stopped.throwIfAborted();
  /** @type {NodeJS.ProcessEnv} */
  const env = { ...process.env, BLOCKFERRY_HOME: join(cwd, 'home') };
  // Where mkfs.ext4 is, also for users whose PATH leaves the administrator's programs out.
  if (process.platform !== 'win32') env['PATH'] = `${env['PATH']}:/usr/sbin:/sbin`;
  delete env['AZURE_STORAGE_CONNECTION_STRING']; // a real account is none of the demo's business
  const child = spawn(command, args, { cwd, env, stdio: ['ignore', capture ? 'pipe' : 'inherit', 'inherit'] });
  const kill = () => void child.kill('SIGTERM');
  stopped.addEventListener('abort', kill, { once: true });
  /** @type {Buffer[]} */
  const output = [];
  child.stdout?.on('data', (bytes) => output.push(bytes));
  try {
    const code = await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    stopped.throwIfAborted();
    if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}`);
    return Buffer.concat(output).toString('utf8');
  } finally {
    stopped.removeEventListener('abort', kill);
  }
}

/**
 * Runs a command of blockferry where the reader sees it.
 * @param {string} cwd
 * @param {readonly string[]} args
 */
async function show(cwd, args) {
  say(`$ blockferry ${args.join(' ')}`);
  await run(process.execPath, [CLI, ...args], { cwd });
}

/**
 * Runs a command of blockferry for its JSON.
 * @param {string} cwd
 * @param {readonly string[]} args
 */
function ask(cwd, args) {
  return run(process.execPath, [CLI, ...args, '--json'], { cwd, capture: true });
}

/**
 * @param {string} cwd
 * @param {string} disk
 * @returns {Promise<string>} the SHA-256 of all that a guest would read from the disk
 */
async function contentSha256(cwd, disk) {
  const records = await ask(cwd, ['digest', disk, '--chunk-size', '4MiB']);
  return JSON.parse(records.trimEnd().split('\n').at(-1) ?? '').sha256;
}

/**
 * @param {string} cwd
 * @param {string} disk
 * @returns {Promise<number>} bytes of the disk that hold data
 */
async function dataBytes(cwd, disk) {
  const extents = /** @type {{ length: number, data: boolean }[]} */ (JSON.parse(await ask(cwd, ['map', disk])));
  return extents.reduce((sum, { length, data }) => sum + (data ? length : 0), 0);
}

/**
 * @param {string} account
 * @returns {Promise<number>} bytes that the blobs of the container occupy, as the service would bill them
 */
async function storedBytes(account) {
  const credential = new StorageSharedKeyCredential('devstoreaccount1', EMULATOR_KEY);
  const container = new ContainerClient(`${account}/${CONTAINER}`, credential);
  let bytes = 0;
  for await (const { name, properties } of container.listBlobsFlat()) {
    if (properties.blobType !== 'PageBlob') bytes += properties.contentLength ?? 0;
    else
      for await (const range of container.getPageBlobClient(name).listPageRanges())
        bytes += range.end - range.start + 1;
  }
  return bytes;
}

/**
 * Makes `disk.raw` with real files in it: an ext4 file system where mke2fs is installed, else a tar archive.
 * @param {string} cwd
 */
async function makeRawDisk(cwd) {
  try {
    const file = await open(join(cwd, 'disk.raw'), 'wx');
    await file.truncate(DISK_BYTES);
    await file.close();
    await run('mkfs.ext4', ['-q', '-F', '-m', '0', '-L', 'demo', '-d', FILES, 'disk.raw'], { cwd });
    say(`An ext4 file system of ${mib(DISK_BYTES)}, filled with the files of node_modules:`);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT') throw error;
    await run('tar', ['-cf', 'disk.raw', '-C', CHECKOUT, 'node_modules'], { cwd });
    say('mkfs.ext4 is not installed here, so the disk holds a tar archive of node_modules instead of a file system:');
  }
}

/**
 * @param {string} cwd
 * @param {string} account
 * @returns {Promise<boolean>} whether the disk came back as it was
 */
async function tellTheStory(cwd, account) {
  const url = `${account}/${CONTAINER}/web1`;

  step('A machine with a disk');
  await makeRawDisk(cwd);
  await show(cwd, ['convert', 'disk.raw', 'disk.vhdx']);
  await rm(join(cwd, 'disk.raw'));
  await show(cwd, ['info', 'disk.vhdx']);
  const before = await contentSha256(cwd, 'disk.vhdx');
  const sourceBytes = await dataBytes(cwd, 'disk.vhdx');
  say(`its content has SHA-256 ${before}`);

  step('Protect it: every chunk is fingerprinted, compressed, sealed and sent to page blobs');
  await show(cwd, ['keygen', 'web1.key']);
  const startedMs = performance.now();
  await show(cwd, ['protect', 'web1', 'disk.vhdx', '--to', url, '--key-file', 'web1.key']);
  const seconds = (performance.now() - startedMs) / 1000;
  const replicaBytes = await storedBytes(account);
  say(`data in the disk     ${mib(sourceBytes)}`);
  say(`stored in the cloud  ${mib(replicaBytes)}, ${Math.round((replicaBytes / sourceBytes) * 100)} % of it`);
  say(`rate                 ${mib(sourceBytes / seconds)}/s, ${seconds.toFixed(1)} s from start to end`);

  step('Disaster: the disk and all local state are deleted; the blobs and a copy of the key are left');
  await rm(join(cwd, 'disk.vhdx'));
  await rm(join(cwd, 'home'), { recursive: true });
  say('$ rm -r disk.vhdx home');

  step('Fail over: the disk is brought back from the URL and the key alone');
  const from = ['--from', url, '--key-file', 'web1.key'];
  await show(cwd, ['failover', 'web1', ...from, '--point', 'latest', '--out', 'restored']);

  step('Compare');
  const after = await contentSha256(cwd, join('restored', 'disk.vhdx'));
  say(`before  ${before}`);
  say(`after   ${after}`);
  return before === after;
}

async function main() {
  const scratch = await mkdtemp(join(tmpdir(), 'blockferry-demo-'));
  /** @type {Awaited<ReturnType<typeof startAzurite>> | undefined} */
  let azurite;
  try {
    const { bavail, bsize } = await statfs(scratch);
    if (bavail * bsize < SCRATCH_BYTES) {
      throw new Error(`${tmpdir()} has ${mib(bavail * bsize)} free, the demo needs ${mib(SCRATCH_BYTES)}; set TMPDIR`);
    }
    say(`blockferry demo, in ${scratch}`);
    azurite = await startAzurite(join(scratch, 'blobs'), stopped);
    say(`the cloud is Azurite, an emulator of Azure blobs, at ${azurite.account}`);
    const same = await tellTheStory(scratch, azurite.account);
    say(same ? '\nThe disk is back, byte for byte.' : '\nThe disk that came back is another one: this is a bug.');
    return same;
  } finally {
    await azurite?.stop();
    await rm(scratch, { recursive: true, force: true });
    say(`cleaned up: the emulator has ended, ${scratch} is gone`);
  }
}

try {
  process.exitCode = (await main()) ? 0 : 1;
} catch (error) {
  process.exitCode = 1;
  const reason = error instanceof Error ? error.message : String(error);
  process.stderr.write(`demo: ${stopped.aborted ? 'interrupted' : reason}\n`);
}
