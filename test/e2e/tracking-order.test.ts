/**
 * The order of a change log is one that a file system can rely on: cut at any flush that its client made, what is left is
 * a disk that checks. The client sits behind nbdkit, whose log says when flushes came.
 */
import { execFile, execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import { ChangeLog, isZeroEntry } from '../../src/hrl/index.ts';
import { runCli } from '../cli/support.ts';
import { Dice } from '../support/dice.ts';
import { CMD, NbdClient, requestBytes } from '../support/nbd-client.ts';
import { type LoggedCall, startNbdkitLog } from '../support/nbdkit.ts';
import { missingTool } from '../support/tools.ts';
import { type TrackedFormat, type TrackedItem, trackItem } from '../support/tracked-item.ts';

const execute = promisify(execFile);
const MIB = 1024 * 1024;
const DISK_BYTES = 32 * MIB;
const BLOCK_BYTES = 1024;
const STEPS = 24;

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'bf-order-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** An empty ext4 with a journal, tracked. */
async function trackExt4(format: TrackedFormat): Promise<{ readonly item: TrackedItem; readonly image: string }> {
  const image = join(await mkdtemp(join(scratch, 'ext4-')), 'image');
  await writeFile(image, '');
  await execute('truncate', ['-s', String(DISK_BYTES), image]);
  await execute('mkfs.ext4', ['-q', '-F', '-b', String(BLOCK_BYTES), '-J', 'size=4', image]);
  const item = await trackItem(scratch, format, async (path) => {
    await execute('qemu-img', ['convert', '-f', 'raw', '-O', format, image, path]);
  });
  return { item, image };
}

interface LoggedWrite {
  readonly offset: number;
  readonly bytes: Buffer;
}

/** Ends the tracker and reads the writes of its log, in its order. */
async function loggedWrites(item: TrackedItem): Promise<readonly LoggedWrite[]> {
  await item.stop();
  const logs = await item.logs();
  expect(logs).toHaveLength(1);
  const log = await ChangeLog.open(logs[0]!, { ports: nodePorts(), signal: new AbortController().signal });
  const writes: LoggedWrite[] = [];
  for await (const { entries } of log.blocks()) {
    for (const entry of entries) {
      const bytes = Buffer.alloc(entry.dataLength);
      if (!isZeroEntry(entry)) await log.read(bytes, entry.fileOffset);
      writes.push({ offset: entry.byteOffset, bytes });
    }
  }
  await log.close();
  return writes;
}

/** For each flush how much of the log it vouches for: up to the last write that was answered before it came. */
function flushedPrefixes(calls: readonly LoggedCall[], writes: readonly LoggedWrite[]): readonly number[] {
  const places = new Map<string, number[]>();
  for (const [place, { offset, bytes }] of writes.entries()) {
    const key = `${offset}+${bytes.byteLength}`;
    places.set(key, [...(places.get(key) ?? []), place]);
  }
  const changes = calls.filter(({ name }) => name !== 'flush');
  const placed = changes.map(({ answered, offset, lengthBytes }) => {
    const place = places.get(`${offset}+${lengthBytes}`)?.shift();
    return { answered, place: place ?? expect.fail(`the log lacks ${lengthBytes} bytes at ${offset}`) };
  });
  const prefixes = calls.flatMap(({ name, came }) => {
    if (name !== 'flush') return [];
    return placed.reduce((end, { answered, place }) => (answered < came ? Math.max(end, place + 1) : end), 0);
  });
  return [...new Set(prefixes)].sort((a, b) => a - b);
}

/** The base with so many of the writes, for one length after the other. */
class Rebuilt {
  readonly disk: Buffer;
  readonly #writes: readonly LoggedWrite[];
  #count = 0;

  constructor(base: Buffer, writes: readonly LoggedWrite[]) {
    this.disk = base;
    this.#writes = writes;
  }

  goOnTo(count: number): void {
    for (; this.#count < count; this.#count += 1) {
      const { offset, bytes } = this.#writes[this.#count]!;
      bytes.copy(this.disk, offset);
    }
  }

  /** Whether e2fsck accepts it, or repairs it by itself, as a machine does when it starts. */
  async checks(): Promise<boolean> {
    const path = join(scratch, 'rebuilt');
    await writeFile(path, this.disk);
    return execute('e2fsck', ['-f', '-p', path]).then(
      () => true,
      ({ code }: { readonly code: number }) => code === 1,
    );
  }
}

/** Changes an ext4 with debugfs, a little at a time; the disk after each step. */
async function* workload(image: string): AsyncGenerator<Buffer> {
  const dice = new Dice(21);
  const source = `${image}.source`;
  const commands = `${image}.commands`;
  for (let step = 0; step < STEPS; step += 1) {
    await writeFile(source, dice.bytes(dice.between(1, 200_000)));
    const lines = [`mkdir d${step}`, `write ${source} d${step}/a`, `write ${source} f${step}`];
    lines.push(`symlink d${step}/s ${'x'.repeat(dice.between(1, 900))}`);
    if (step > 3) lines.push(`rm f${step - 3}`, `rm d${step - 4}/a`);
    await writeFile(commands, lines.join('\n'));
    await execute('debugfs', ['-w', '-f', commands, image]);
    yield await readFile(image);
  }
}

/** Sends the blocks that differ, all at once and in no order, then flushes. */
async function send(client: NbdClient, before: Buffer, after: Buffer, dice: Dice): Promise<void> {
  const blocks: { readonly at: number; readonly order: number }[] = [];
  for (let at = 0; at < DISK_BYTES; at += BLOCK_BYTES) {
    if (before.compare(after, at, at + BLOCK_BYTES, at, at + BLOCK_BYTES) === 0) continue;
    blocks.push({ at, order: dice.next() });
  }
  blocks.sort((a, b) => a.order - b.order);
  for (const { at } of blocks) {
    client.send(requestBytes({ type: CMD.write, offset: at, data: after.subarray(at, at + BLOCK_BYTES) }));
  }
  for (let i = 0; i < blocks.length; i += 1) expect((await client.reply()).error).toBe(0);
  expect(await client.errorOf({ type: CMD.flush })).toBe(0);
}

const missing = missingTool('nbdkit') ?? missingTool('mkfs.ext4') ?? missingTool('qemu-img');
describe.skipIf(missing !== undefined)('a change log cut at a flush', () => {
  test.each(['raw', 'vhdx'] as const)('leaves the ext4 that its client had written to a %s disk', async (format) => {
    const { item, image } = await trackExt4(format);
    const base = await readFile(image);
    const nbdkit = await startNbdkitLog(item.socket, item.directory);
    const client = await NbdClient.open({ path: new URL(nbdkit.uri).searchParams.get('socket')! });
    const states: Buffer[] = [base];
    const dice = new Dice(22);
    for await (const state of workload(image)) {
      await send(client, states.at(-1)!, state, dice);
      states.push(state);
    }
    await client.disconnect();
    const writes = await loggedWrites(item);
    const prefixes = flushedPrefixes(await nbdkit.calls(), writes);
    expect(prefixes).toHaveLength(STEPS);
    const rebuilt = new Rebuilt(Buffer.from(base), writes);
    let before = 0;
    let broken = 0;
    for (const [i, prefix] of prefixes.entries()) {
      // Control: between two flushes it need not be a file system, and that is seen.
      rebuilt.goOnTo(Math.floor((before + prefix) / 2));
      if (i % 4 === 0 && !(await rebuilt.checks())) broken += 1;
      rebuilt.goOnTo(prefix);
      expect(rebuilt.disk.equals(states[i + 1]!), `flush ${i}`).toBe(true);
      expect(await rebuilt.checks(), `flush ${i}`).toBe(true);
      before = prefix;
    }
    expect(prefixes.at(-1)).toBe(writes.length);
    expect(broken).toBeGreaterThan(0);
    console.info(
      `${format}: ${prefixes.length} flushes over ${writes.length} writes; ${broken} cuts between are broken`,
    );
  });
});

/** Of a shell whose mounts end with it. */
const NAMESPACE = ['--mount', '--pid', '--fork', '--kill-child'];

/** Whether this machine can mount what nbdfuse serves; says so where it cannot. What needs no mount is tested above. */
function canMount(): boolean {
  if ((missing ?? missingTool('nbdfuse') ?? missingTool('unshare')) !== undefined) return false;
  for (const device of ['/dev/fuse', '/dev/loop-control']) {
    try {
      closeSync(openSync(device, 'r+'));
    } catch (error) {
      console.warn(`nothing is mounted: ${device} cannot be opened: ${(error as Error).message}`);
      return false;
    }
  }
  try {
    execFileSync('unshare', [...NAMESPACE, 'true'], { stdio: 'pipe' });
    return true;
  } catch (error) {
    console.warn(`nothing is mounted: no namespace of its own: ${(error as Error).message}`);
    return false;
  }
}

/** Runs in a namespace of its own: whatever happens, nothing stays mounted. */
const MOUNTED = `
set -e
mkdir fuse mnt
nbdfuse fuse/disk "$1" &
until [ -e fuse/disk ]; do sleep 0.05; done
mount -t ext4 -o loop fuse/disk mnt
for i in $(seq 1 30); do
  mkdir mnt/d$i
  head -c $((i * 4321)) /dev/urandom > mnt/d$i/a
  sync mnt/d$i/a
  head -c $((i * 999)) /dev/urandom > mnt/new
  mv mnt/new mnt/kept
  ln mnt/d$i/a mnt/hard$i
  if [ $i -gt 5 ]; then rm -r mnt/d$((i - 5)) mnt/hard$((i - 5)); fi
  sync -f mnt/kept
done
umount mnt
umount fuse
wait
`;

if (canMount()) {
  test('a change log of a mounted ext4 leaves an ext4 wherever it is cut', async () => {
    const { item, image } = await trackExt4('vhdx');
    const nbdkit = await startNbdkitLog(item.socket, item.directory);
    await execute('unshare', [...NAMESPACE, 'sh', '-c', MOUNTED, 'sh', nbdkit.uri], { cwd: item.directory });
    const writes = await loggedWrites(item);
    const flushed = flushedPrefixes(await nbdkit.calls(), writes);
    expect(flushed.length).toBeGreaterThanOrEqual(20);
    const rebuilt = new Rebuilt(await readFile(image), writes);
    // Any other place is one where the power may go: the journal is for that.
    const sample = (all: readonly number[], count: number) =>
      all.filter((_, i) => i % Math.ceil(all.length / count) === 0);
    const between = sample(
      writes.map((_, i) => i),
      15,
    );
    const cuts = new Set([...sample(flushed, 30), ...between, writes.length]);
    for (const cut of [...cuts].sort((a, b) => a - b)) {
      rebuilt.goOnTo(cut);
      expect(await rebuilt.checks(), `${cut} of ${writes.length} writes`).toBe(true);
    }
    console.info(`${flushed.length} flushes over ${writes.length} writes; ${cuts.size} cuts check`);
    const copy = join(item.directory, 'replayed');
    await copyFile(image, copy);
    expect((await runCli(['hrl', 'replay', (await item.logs())[0]!, '--onto', copy])).code).toBe(0);
    expect((await readFile(copy)).equals(rebuilt.disk)).toBe(true);
  });
}
