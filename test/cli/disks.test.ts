import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, open, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { KIB, MIB } from '../../src/bytes.ts';
import { patterned } from '../tools/fake-disk.ts';
import { expectTranscript, finished, inScratch, records, runCli, startCli } from './support.ts';

/** A raw disk of 8 MiB with data at its start, in the middle and at its end. */
function content(): Buffer {
  const bytes = Buffer.alloc(8 * MIB);
  bytes.set(patterned(100 * KIB, 1), 0);
  bytes.set(patterned(MIB, 2), 3 * MIB);
  bytes.set(patterned(512, 3), 8 * MIB - 512);
  return bytes;
}

async function inScratchWithDisk(body: (directory: string, bytes: Buffer) => Promise<void>): Promise<void> {
  await inScratch(async (directory) => {
    const bytes = content();
    await writeFile(join(directory, 'disk.raw'), bytes);
    await body(directory, bytes);
  });
}

describe('the disk commands', () => {
  test('say what a disk is, and convert it', async () => {
    await inScratchWithDisk(async (cwd) => {
      await expectTranscript(
        'disks',
        [
          ['info', 'disk.raw'],
          ['convert', 'disk.raw', 'disk.vhdx'],
          ['convert', 'disk.raw', 'disk.vhdx'],
          ['info', 'disk.vhdx'],
          ['info', 'disk.vhdx', '--json'],
          ['check', 'disk.vhdx'],
          ['check', 'disk.vhdx', '--json'],
          ['convert', 'disk.vhdx', 'disk.vhd', '--format', 'vhd', '--subformat', 'fixed', '--json'],
          ['map', 'disk.raw'],
          ['map', 'disk.raw', '--json'],
          ['digest', 'disk.vhd', '--algorithm', 'xxh64', '--chunk-size', '4M'],
          ['digest', 'disk.vhdx', '--algorithm', 'sha256', '--chunk-size', '4MiB', '--json'],
          ['keygen', 'a.key'],
          ['keygen', 'a.key'],
        ],
        { cwd },
      );
    });
  });

  test('every format and subformat gives the same content back', async () => {
    await inScratchWithDisk(async (cwd, bytes) => {
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      let source = 'disk.raw';
      for (const [format, subformat] of [
        ['vhd', 'dynamic'],
        ['vhdx', 'fixed'],
        ['vhd', 'fixed'],
        ['vhdx', 'dynamic'],
        ['raw', 'fixed'],
      ] as const) {
        const out = `${format}-${subformat}.img`;
        expect(
          await runCli(['convert', source, out, '--format', format, '--subformat', subformat], { cwd }),
        ).toMatchObject({ code: 0 });
        const digest = records(await runCli(['digest', out, '--json'], { cwd })).at(-1);
        expect(digest).toMatchObject({ type: 'digest', sha256, virtualSizeBytes: bytes.byteLength });
        source = out;
      }
    });
  });

  test('an image gets no room for zeros', async () => {
    await inScratchWithDisk(async (cwd) => {
      await runCli(['convert', 'disk.raw', 'out.raw'], { cwd });
      const { size, blocks } = await stat(join(cwd, 'out.raw'));
      expect(size).toBe(8 * MIB);
      expect(blocks * 512).toBeLessThan(1.5 * MIB);
    });
  });

  test('check names each fault and ends with 4', async () => {
    await inScratchWithDisk(async (cwd) => {
      await runCli(['convert', 'disk.raw', 'disk.vhd'], { cwd });
      const file = await open(join(cwd, 'disk.vhd'), 'r+');
      await file.write(Buffer.from('XX'), 0, 2, 512 + 20);
      await file.close();
      const result = await runCli(['check', 'disk.vhd', '--json'], { cwd });
      expect(result.code).toBe(4);
      const [first, ...rest] = records(result);
      expect(first).toMatchObject({
        type: 'fault',
        file: 'disk.vhd',
        offset: expect.any(Number),
        rule: expect.any(String),
        code: 'VHD_HEADER',
      });
      expect(rest.at(-1)).toEqual({ type: 'check', faults: rest.length });
      const text = await runCli(['check', 'disk.vhd'], { cwd });
      expect(text.stdout).toMatch(/^disk\.vhd: offset \d+: VHD_HEADER: .+\n/);
    });
  });

  test('a raw disk that looks like a VHD is raw where its owner says so', async () => {
    await inScratchWithDisk(async (cwd) => {
      await runCli(['convert', 'disk.raw', 'guest.vhd', '--subformat', 'fixed'], { cwd });
      const trusting = records(await runCli(['info', 'guest.vhd', '--json'], { cwd }))[0];
      const careful = records(await runCli(['info', 'guest.vhd', '--json', '--input-format', 'raw'], { cwd }))[0];
      expect(trusting).toMatchObject({ format: 'vhd', virtualSizeBytes: 8 * MIB });
      expect(careful).toMatchObject({ format: 'raw', virtualSizeBytes: 8 * MIB + 512 });
    });
  });

  test('parents elsewhere are found only under an allowed root', async () => {
    await inScratch(async (cwd) => {
      await mkdir(join(cwd, 'base'));
      await mkdir(join(cwd, 'child'));
      await writeFile(join(cwd, 'base', 'disk.raw'), content());
      await runCli(['convert', 'base/disk.raw', 'base/parent.vhdx'], { cwd });
      const { createDisk, nodePorts } = await import('../../src/index.ts');
      const writer = await createDisk(join(cwd, 'child', 'child.vhdx'), {
        format: 'vhdx',
        subformat: 'differencing',
        virtualSizeBytes: 8 * MIB,
        parent: join(cwd, 'base', 'parent.vhdx'),
        ports: nodePorts(),
      });
      await writer.finish();
      const refused = await runCli(['info', 'child/child.vhdx', '--json'], { cwd });
      expect(refused.code).toBe(4);
      expect(records(refused)[0]).toMatchObject({ code: expect.stringMatching(/^CHAIN_/) });
      const allowed = await runCli(['info', 'child/child.vhdx', '--json', '--parent-root', 'base'], { cwd });
      expect(records(allowed)[0]).toMatchObject({
        subformat: 'differencing',
        chain: ['child/child.vhdx', expect.stringContaining('parent.vhdx')],
      });
    });
  });
});

describe('convert to stdout', () => {
  test('streams the raw bytes, and nothing else, also with --json', async () => {
    await inScratchWithDisk(async (cwd, bytes) => {
      await runCli(['convert', 'disk.raw', 'disk.vhdx'], { cwd });
      for (const extra of [[], ['--json'], ['--verbose']]) {
        const result = await runCli(['convert', 'disk.vhdx', '-', ...extra], { cwd });
        expect(result.code).toBe(0);
        expect(result.bytes.equals(bytes)).toBe(true);
      }
    });
  });

  test('an error goes to stderr only: stdout carries a disk', async () => {
    await inScratchWithDisk(async (cwd) => {
      const result = await runCli(['convert', 'missing.vhdx', '-', '--json'], { cwd });
      expect(result).toMatchObject({ code: 4, stdout: '', stderr: expect.stringContaining('blockferry: error:') });
    });
  });

  test('a reader that leaves early ends it quietly with 0', async () => {
    await inScratchWithDisk(async (cwd) => {
      await truncate(join(cwd, 'disk.raw'), 512 * MIB);
      const child = startCli(['convert', 'disk.raw', '-'], { cwd });
      child.stdout?.once('data', () => child.stdout?.destroy());
      const [code] = await once(child, 'exit');
      expect(code).toBe(0);
    });
  });

  test('a slow reader gets every byte', async () => {
    await inScratch(async (cwd) => {
      const bytes = patterned(16 * MIB, 1);
      await writeFile(join(cwd, 'disk.raw'), bytes);
      const child = startCli(['convert', 'disk.raw', '-'], { cwd });
      const reading = finished(child);
      for (let i = 0; i < 5; i += 1) {
        child.stdout?.pause();
        await new Promise((resolve) => setTimeout(resolve, 60));
        child.stdout?.resume();
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const result = await reading;
      expect(result.code).toBe(0);
      expect(result.bytes.equals(bytes)).toBe(true);
    });
  });
});

describe('stdout that goes away or fills up', () => {
  test('is no crash for a long listing', async () => {
    await inScratch(async (cwd) => {
      await writeFile(join(cwd, 'disk.raw'), '');
      await truncate(join(cwd, 'disk.raw'), 2048 * MIB);
      const child = startCli(['digest', 'disk.raw', '--json', '--chunk-size', '64K'], { cwd });
      let stderr = '';
      child.stderr?.on('data', (bytes: Buffer) => {
        stderr += bytes.toString();
      });
      child.stdout?.once('data', () => child.stdout?.destroy());
      const [code] = await once(child, 'exit');
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    });
  });

  test.runIf(process.platform === 'linux')('is an error with its reason when the volume is full', async () => {
    await inScratchWithDisk(async (cwd) => {
      const { spawnSync } = await import('node:child_process');
      const main = join(import.meta.dirname, '../../dist/cli/main.js');
      const full = await open('/dev/full', 'w');
      const result = spawnSync(process.execPath, [main, 'info', 'disk.raw'], {
        cwd,
        stdio: ['ignore', full.fd, 'pipe'],
        encoding: 'utf8',
      });
      await full.close();
      expect(result.status).toBe(1);
      expect(result.stderr).toMatch(/^blockferry: error: stdout cannot be written: ENOSPC/);
    });
  });
});

describe('interruption', () => {
  async function bigDisk(cwd: string): Promise<void> {
    const file = await open(join(cwd, 'big.raw'), 'w');
    for (let i = 0; i < 256; i += 1) await file.write(patterned(MIB, i), 0, MIB, i * MIB);
    await file.truncate(64 * 1024 * MIB);
    await file.close();
  }

  async function waitForFile(path: string): Promise<void> {
    for (let i = 0; i < 200; i += 1) {
      if ((await stat(path).catch(() => undefined)) !== undefined) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`${path} did not appear`);
  }

  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    '%s stops a conversion with 130 and removes the partial file',
    async (name) => {
      await inScratch(async (cwd) => {
        await bigDisk(cwd);
        const child = startCli(['convert', 'big.raw', 'out.vhdx', '--json'], { cwd });
        const ended = finished(child);
        await waitForFile(join(cwd, 'out.vhdx.partial'));
        child.kill(name);
        const result = await ended;
        expect(result).toMatchObject({ code: 130, signal: null });
        expect(result.stderr).toBe(
          `blockferry: stopping; once more to stop at once\nblockferry: error: interrupted by ${name}\n`,
        );
        expect(records(result)).toEqual([
          { type: 'error', code: 'ABORTED', message: `interrupted by ${name}`, signal: name },
        ]);
        expect(await readdir(cwd)).toEqual(['big.raw']);
      });
    },
  );

  test('reaches a run whose reader has stopped reading', async () => {
    await inScratch(async (cwd) => {
      await bigDisk(cwd);
      const child = startCli(['convert', 'big.raw', '-'], { cwd });
      child.stdout?.pause();
      await new Promise((resolve) => setTimeout(resolve, 700));
      child.kill('SIGINT');
      const [code, signal] = await once(child, 'exit');
      // A write that hangs in the kernel cannot be waited for: the process ends as an interrupted one does.
      expect([code, signal]).toEqual([null, 'SIGINT']);
      child.stdout?.destroy();
    });
  });

  test.runIf(process.platform !== 'win32')('SIGUSR1 prints where the work is and lets it go on', async () => {
    await inScratch(async (cwd) => {
      await bigDisk(cwd);
      const child = startCli(['digest', 'big.raw', '--quiet'], { cwd });
      let stderr = '';
      child.stderr?.on('data', (bytes: Buffer) => {
        stderr += bytes.toString();
      });
      child.stdout?.once('data', () => child.kill('SIGUSR1'));
      child.stdout?.resume();
      while (!stderr.includes('\n')) await new Promise((resolve) => setTimeout(resolve, 10));
      expect(stderr).toMatch(/^blockferry: digest: [\d.]+ \w+ of 64 GiB \(\d+ %\)/);
      expect(child.exitCode).toBe(null);
      child.kill('SIGINT');
      await once(child, 'exit');
    });
  });
});

test('a key file is for its owner only and holds one line', async () => {
  await inScratch(async (cwd) => {
    const result = await runCli(['keygen', 'a.key', '--json'], { cwd });
    expect(records(result)).toEqual([{ type: 'key-file', path: 'a.key' }]);
    expect(await readFile(join(cwd, 'a.key'), 'utf8')).toMatch(/^blockferry-key-1 [A-Za-z0-9+/]{43}=\n$/);
    expect((await stat(join(cwd, 'a.key'))).mode & 0o077).toBe(process.platform === 'win32' ? 0o066 : 0);
  });
});
