/**
 * A machine that is tracked, shipped, applied and brought back, with the real program and real clients: each recovery point
 * must be the disk as it was at that moment.
 */
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { records, runCli } from '../cli/support.ts';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { contentSha256 } from '../support/disk-content.ts';
import { missingTool } from '../support/tools.ts';
import { qemuIo, startTracker } from '../support/tracker.ts';

let scratch: string;
let azurite: Azurite;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'bf-track-'));
  azurite = await startAzurite(join(scratch, 'blobs'));
});
afterAll(async () => {
  await azurite.stop();
  await rm(scratch, { recursive: true, force: true });
});

/** A disk of 48 MiB with something in it. */
function makeDisk(path: string, format: string): void {
  execFileSync('qemu-img', ['create', '-q', '-f', format, path, '48M']);
  execFileSync('qemu-io', ['-f', format, '-c', 'write -P 0x11 0 4M', '-c', 'write -P 0x12 20M 1M', path], {
    stdio: 'pipe',
  });
}

const missing = missingTool('qemu-io') ?? missingTool('qemu-img');

describe.skipIf(missing)('track, ship, apply, failover', () => {
  describe.each([
    ['raw', 'sealed', 'a folder'],
    ['vhdx', 'sealed', 'a folder'],
    ['vhdx', 'raw', 'a folder'],
    ['vpc', 'sealed', 'a folder'],
    ['raw', 'sealed', 'Azurite'],
    ['vhdx', 'raw', 'Azurite'],
  ])('of a %s disk, layout %s, to %s', (format, layout, place) => {
    test('every point is the disk as it was', async () => {
      const directory = await mkdtemp(join(scratch, 'c-'));
      const home = join(directory, 'home');
      const disk = join(directory, `disk.${format}`);
      makeDisk(disk, format);
      const url =
        place === 'Azurite'
          ? `${azurite.account}/tracking/${basename(directory).toLowerCase()}`
          : `file://${join(directory, 'store')}`;
      const run = async (args: readonly string[]): Promise<Record<string, unknown>> => {
        const result = await runCli([...args, '--json', '--home', home]);
        expect(result.code, `${args.join(' ')}: ${result.stderr}`).toBe(0);
        return records(result).at(-1)!;
      };
      await run(['protect', 'vm', disk, '--to', url, '--layout', layout, '--chunk-size', '64KiB']);

      const tracker = await startTracker('vm', home);
      expect(tracker.listening.tracking.mode).toBe('logging');
      const uri = tracker.uri('d0');
      const images: Record<string, string> = {};
      const remember = async (point: unknown): Promise<void> => {
        const copy = join(directory, `${point}.raw`);
        execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', uri, copy]);
        images[String(point)] = await contentSha256(copy);
      };
      await qemuIo(uri, [
        'write -P 0x21 1M 64k',
        'write -P 0x22 30M 512k',
        'write -z 2M 1M',
        'discard 20M 512k',
        'flush',
      ]);
      const first = await run(['ship', 'vm']);
      expect(first).toMatchObject({ type: 'ship', consistency: 'crash', logs: 1 });
      await remember(first['pointId']);
      await qemuIo(uri, ['write -P 0x31 1040k 8k', 'write -P 0x32 47M 1M', 'flush']);
      const second = await run(['ship', 'vm', '--consistency', 'app', '--freeze', 'true', '--thaw', 'true']);
      await remember(second['pointId']);
      const applied = await run(['apply', 'vm']);
      expect(applied).toMatchObject({ type: 'apply', appliedLogs: 2 });
      await qemuIo(uri, ['write -P 0x41 12345856 4k', 'flush']);
      const third = await run(['ship', 'vm']);
      await remember(third['pointId']);

      const points = (await runCli(['points', 'vm', '--json', '--home', home])).stdout;
      console.info(points.trim());
      for (const [wanted, point] of [
        ['latest', third],
        ['latest-processed', second],
        ['latest-app-consistent', second],
        [String(first['pointId']), first],
      ] as const) {
        const out = join(directory, `out-${wanted}`);
        await mkdir(out);
        const report = await run(['failover', 'vm', '--point', wanted, '--out', out, '--format', 'raw', '--test']);
        expect(report['pointId'], wanted).toBe(point['pointId']);
        const restored = (report['disks'] as { path: string }[])[0]!.path;
        expect(await contentSha256(restored), wanted).toBe(images[String(point['pointId'])]);
      }
      expect(await tracker.stop()).toBe(0);

      // What ended in order goes on in order; what is changed meanwhile is noticed.
      const again = await startTracker('vm', home);
      expect(again.listening.tracking.mode).toBe('logging');
      expect(await again.stop()).toBe(0);
      expect(await run(['ship', 'vm'])).toMatchObject({ dataBytes: 0 });
      await copyFile(disk, `${disk}.before`);
      execFileSync('qemu-io', ['-f', format, '-c', 'write -P 0x55 5M 4k', disk], { stdio: 'pipe' });
      const refused = await runCli(['ship', 'vm', '--json', '--home', home]);
      expect(refused.code, refused.stderr).toBe(4);
      expect(refused.stderr).toContain('changed while nobody tracked it');
      expect(await run(['status', 'vm'])).toMatchObject({ state: 'resync-required', health: 'critical' });
      await run(['resync', 'vm']);
      expect(await run(['status', 'vm'])).toMatchObject({ state: 'protected', health: 'normal' });
      const last = join(directory, 'out-last');
      await run(['failover', 'vm', '--out', last, '--format', 'raw']);
      expect(await contentSha256(join(last, 'disk.raw'))).toBe(await contentSha256(disk));
    });
  });
});
