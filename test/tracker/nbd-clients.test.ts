/** Real clients: what they write is what the disk holds, and what they read and report is what it is. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync } from 'node:fs';
import { mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { Dice } from '../support/dice.ts';
import { fio } from '../support/fio.ts';
import { type DeviceCall, MemoryDevice, UNIT_BYTES } from '../support/memory-device.ts';
import { startNbdkitLog } from '../support/nbdkit.ts';
import { missingTool } from '../support/tools.ts';
import { type NbdLab, newFolder, startNbdLab } from './nbd-lab.ts';

const run = promisify(execFile);
const MIB = 1024 * 1024;

/** A disk with data here and there, beside a file with the same content and holes. */
async function filledLab(sizeBytes: number): Promise<NbdLab & { readonly path: string }> {
  const lab = await startNbdLab([new MemoryDevice({ sizeBytes }), new MemoryDevice({ name: 'second' })]);
  const path = join(await newFolder(), 'disk.img');
  const file = await open(path, 'w');
  await file.truncate(sizeBytes);
  const dice = new Dice(5);
  for (let i = 0; i < 20; i += 1) {
    const bytes = dice.bytes(512 * dice.between(1, 500));
    const offset = 512 * dice.below((sizeBytes - bytes.byteLength) / 512);
    await lab.device.write(bytes, offset, false);
    await file.write(bytes, 0, bytes.byteLength, offset);
  }
  await file.close();
  return { ...lab, path };
}

/** The changes and flushes that a device is asked for. */
function recorded(device: MemoryDevice): readonly DeviceCall[] {
  const calls: DeviceCall[] = [];
  device.gate = (call) => {
    if (call.name === 'write' || call.name === 'zero' || call.name === 'flush') calls.push(call);
    return undefined;
  };
  return calls;
}

/** Each call ends at some later moment, so that answers overtake each other. */
function shuffle(device: MemoryDevice): void {
  const dice = new Dice(9);
  device.gate = () => (dice.oneIn(3) ? undefined : new Promise((resolve) => setTimeout(resolve, dice.below(3))));
}

describe.skipIf(missingTool('qemu-io') !== undefined)('qemu-io', () => {
  const commands = ['write -P 0xab 4096 8192', 'write -z 8192 1024', 'read -P 0xab 4096 4096', 'read -P 0 8192 1024'];
  const flags = (text: string): readonly string[] => text.split(' ');

  test('writes through by default: each change is durable before its answer', async () => {
    const { device, uri } = await startNbdLab();
    const calls = recorded(device);
    await run('qemu-io', ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri]);
    expect(calls.filter(({ name }) => name !== 'flush').map(({ name, fua }) => [name, fua])).toEqual([
      ['write', true],
      ['zero', true],
    ]);
    expect(device.content.subarray(4096, 8192)).toEqual(Buffer.alloc(4096, 0xab));
    expect(device.content.subarray(8192, 9216)).toEqual(Buffer.alloc(1024));
  });

  test('with a write-back cache flushes when it is told to', async () => {
    const { device, uri } = await startNbdLab();
    const calls = recorded(device);
    const all = [...commands, 'flush', 'write -f 0 512', 'discard 65536 131072', 'aio_write 512 512', 'aio_flush'];
    await run('qemu-io', [...flags('-t writeback -f raw'), ...all.flatMap((command) => ['-c', command]), uri]);
    expect(calls.slice(0, 6).map(({ name, fua, unmap }) => [name, fua, unmap])).toEqual([
      ['write', false, undefined],
      ['zero', false, false],
      ['flush', undefined, undefined],
      ['write', true, undefined],
      ['zero', false, true],
      ['write', false, undefined],
    ]);
  });
});

describe.skipIf(missingTool('qemu-img') !== undefined)('qemu-img', () => {
  test('copies a disk out of the server, and into it', async () => {
    const { device, uri, path } = await filledLab(16 * MIB);
    const [out, other] = [`${path}.out`, await startNbdLab([new MemoryDevice({ sizeBytes: 16 * MIB })])];
    await run('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', uri, out]);
    expect((await readFile(out)).equals(device.content)).toBe(true);
    // Over a disk full of other things, out of order.
    other.device.content.fill(0x77);
    await other.device.zero(0, 1, { unmap: false, fua: false });
    shuffle(other.device);
    await run('qemu-img', ['convert', '-n', '-W', '-m', '8', '-f', 'raw', '-O', 'raw', path, other.uri]);
    expect(other.device.content.equals(device.content)).toBe(true);
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uri, other.uri]);
  });
});

describe.skipIf(missingTool('nbdinfo') !== undefined)('nbdinfo', () => {
  test('lists the disks with all they can do', async () => {
    const { uri } = await filledLab(MIB);
    const { stdout } = await run('nbdinfo', ['--list', '--json', uri]);
    const { exports } = JSON.parse(stdout) as { exports: readonly Record<string, unknown>[] };
    expect(exports.map((one) => one['export-name'])).toEqual(['disk', 'second']);
    expect(exports[0]).toMatchObject({
      'export-size': MIB,
      contexts: ['base:allocation', 'x-blockferry:dirty'],
      is_read_only: false,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 512,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    });
  });

  test.for(['base:allocation', 'x-blockferry:dirty'])('maps the context %s', async (context) => {
    const { device, uri } = await startNbdLab([new MemoryDevice({ sizeBytes: 100 * UNIT_BYTES })]);
    await device.write(Buffer.alloc(2 * UNIT_BYTES, 1), 3 * UNIT_BYTES, false);
    await device.write(Buffer.alloc(1, 1), 99 * UNIT_BYTES, false);
    const { stdout } = await run('nbdinfo', [`--map=${context}`, '--json', uri]);
    const extents = JSON.parse(stdout) as readonly { offset: number; length: number; type: number }[];
    const [clean, changed] = context === 'base:allocation' ? [3, 0] : [0, 1];
    expect(extents.map(({ offset, length, type }) => [offset / UNIT_BYTES, length / UNIT_BYTES, type])).toEqual([
      [0, 3, clean],
      [3, 2, changed],
      [5, 94, clean],
      [99, 1, changed],
    ]);
  });
});

describe.skipIf(missingTool('nbdcopy') !== undefined)('nbdcopy', () => {
  test('copies both ways over four connections', async () => {
    const { device, uri, path, events } = await filledLab(16 * MIB);
    shuffle(device);
    await run('nbdcopy', ['--threads=4', '--connections=4', '--requests=16', uri, `${path}.out`]);
    device.gate = undefined;
    expect((await readFile(`${path}.out`)).equals(device.content)).toBe(true);
    const content = Buffer.from(device.content);
    device.content.fill(0x55);
    await device.zero(0, 1, { unmap: false, fua: false });
    shuffle(device);
    await run('nbdcopy', ['--threads=4', '--connections=4', '--requests=16', '--flush', path, uri]);
    device.gate = undefined;
    expect(device.content.equals(content)).toBe(true);
    await vi.waitFor(() => {
      const count = (code: string): number => events.filter((event) => event.code === code).length;
      expect(count('CLIENT_CLOSED')).toBe(count('CLIENT_OPENED'));
    });
    expect(events.filter(({ code }) => code === 'CLIENT_OPENED').length).toBeGreaterThanOrEqual(8);
  });
});

describe.skipIf(missingTool('fio') !== undefined)('fio', () => {
  test('finds each of its random writes again, of any size, sixteen at a time', async () => {
    const { device, uri, events } = await startNbdLab([new MemoryDevice({ sizeBytes: 32 * MIB })]);
    const calls = recorded(device);
    const stdout = await fio(uri, await newFolder(), {
      ...{ rw: 'randwrite', bsrange: '512-65536', blockalign: '512', size: '32m', iodepth: '16' },
      ...{ verify: 'crc32c', verify_fatal: '1', fsync: '64', randseed: '4242' },
    });
    expect(stdout).toMatch(/err= 0/);
    expect(calls.filter(({ name }) => name === 'write').length).toBeGreaterThan(500);
    expect(calls.filter(({ name }) => name === 'flush').length).toBeGreaterThan(5);
    expect(events.filter(({ code }) => code === 'DEVICE_FAILED' || code === 'CLIENT_DROPPED')).toEqual([]);
  });
});

/** Whether this machine can mount FUSE; says so where it cannot. */
function canMount(): boolean {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    console.warn('/dev/fuse cannot be opened: the file system is made in a file and copied with nbdcopy');
    return false;
  }
}

/** Mounts the first disk as a file until the test ends. */
async function mounted(uri: string): Promise<{ readonly path: string; unmount: () => Promise<void> }> {
  const folder = join(await newFolder(), 'mnt');
  await mkdir(folder);
  const path = join(folder, 'disk');
  const child = spawn('nbdfuse', [path, uri], { stdio: 'inherit' });
  const ended = once(child, 'exit');
  onTestFinished(async () => {
    child.kill('SIGTERM');
    await ended;
  });
  await vi.waitFor(() => expect(existsSync(path)).toBe(true), { timeout: 10_000 });
  const unmount = async (): Promise<void> => {
    await run('umount', [folder]);
    await ended;
  };
  return { path, unmount };
}

const noFileSystem = missingTool('nbdfuse') ?? missingTool('nbdcopy') ?? missingTool('mkfs.ext4');
describe.skipIf(noFileSystem !== undefined)('a mounted disk', () => {
  test('carries an ext4 file system that checks, and holds its files', async () => {
    const { device, uri } = await startNbdLab([new MemoryDevice({ sizeBytes: 64 * MIB })]);
    const folder = await newFolder();
    const files = join(folder, 'files');
    await mkdir(files);
    const content = new Dice(3).bytes(5 * MIB);
    await writeFile(join(files, 'large'), content);
    const calls = recorded(device);
    if (canMount()) {
      const { path, unmount } = await mounted(uri);
      await run('mkfs.ext4', ['-q', '-F', '-d', files, path]);
      await run('e2fsck', ['-f', '-n', path]);
      await unmount();
    } else {
      const path = join(folder, 'made');
      await run('mkfs.ext4', ['-q', '-F', '-d', files, path, '64M']);
      await run('nbdcopy', ['--flush', path, uri]);
    }
    expect(calls.some(({ name }) => name === 'flush')).toBe(true);
    const image = join(folder, 'image');
    await writeFile(image, device.content);
    await run('e2fsck', ['-f', '-n', image]);
    await run('debugfs', ['-R', `dump large ${join(folder, 'dumped')}`, image]);
    expect((await readFile(join(folder, 'dumped'))).equals(content)).toBe(true);
  });
});

describe.skipIf(missingTool('nbdkit') !== undefined || missingTool('qemu-io') !== undefined)('nbdkit', () => {
  test('in front of the server logs the very changes that reach the disk', async () => {
    const { device, address } = await startNbdLab([new MemoryDevice({ sizeBytes: 4 * MIB })]);
    const calls = recorded(device);
    const nbdkit = await startNbdkitLog(address.path, await newFolder());
    const dice = new Dice(6);
    const commands = Array.from({ length: 200 }, () => {
      const lengthBytes = 512 * dice.between(1, 200);
      const range = `${512 * dice.below((4 * MIB - lengthBytes) / 512)} ${lengthBytes}`;
      return dice.pick(
        ['write', 'write -f', 'write -z', 'write -zu', 'write -zf', 'discard', 'flush', 'read'].map((verb) =>
          verb === 'flush' ? verb : `${verb} ${range}`,
        ),
      );
    });
    const clientArgs = ['-t', 'writeback', '-f', 'raw', ...commands.flatMap((command) => ['-c', command])];
    await run('qemu-io', [...clientArgs, nbdkit.uri]);
    const logged = (await nbdkit.calls()).map(({ came, answered, ...call }) => call);
    expect(logged.length).toBeGreaterThan(150);
    expect(calls).toEqual(logged);
  });
});
