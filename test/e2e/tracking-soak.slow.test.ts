/**
 * A guest that writes 4 KiB at random places as fast as it can, shipped every 30 seconds for ten minutes: how old the newest
 * recovery point gets, and how much memory tracker and shipper take. The last point must be the disk.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { records, runCli } from '../cli/support.ts';
import { numberFromEnvironment } from '../support/dice.ts';
import { missingTool } from '../support/tools.ts';
import { startTracker } from '../support/tracker.ts';

const SECONDS = numberFromEnvironment('BLOCKFERRY_SOAK_SECONDS', 600);
const CYCLE_SECONDS = 30;
const MEMORY_MIB_MAX = 300;
const MEASURE = { NODE_OPTIONS: `--import=${new URL('../support/peak-memory.mjs', import.meta.url).href}` };

function peakMib(stderr: string): number {
  return Number(/peak (\d+)/.exec(stderr)?.[1]) / 1024;
}

test.skipIf(missingTool('fio'))(
  'the age of the newest point stays bounded',
  { timeout: (SECONDS + 600) * 1000 },
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'bf-soak-'));
    const home = join(directory, 'home');
    const disk = join(directory, 'disk.raw');
    try {
      execFileSync('truncate', ['-s', '16G', disk]);
      const protect = ['protect', 'vm', disk, '--to', `file://${directory}/store`, '--home', home];
      expect((await runCli(protect)).code).toBe(0);
      const tracker = await startTracker('vm', home, { env: MEASURE });
      const fio = spawn('fio', [
        ...['--name=soak', '--ioengine=nbd', `--uri=${tracker.uri('d0')}`, '--rw=randwrite', '--bs=4k', '--iodepth=16'],
        ...[
          '--size=2G',
          '--time_based=1',
          `--runtime=${SECONDS}`,
          '--buffer_compress_percentage=60',
          '--output-format=json',
        ],
      ]);
      let report = '';
      fio.stdout.on('data', (bytes: Buffer) => {
        report += bytes.toString('utf8');
      });
      const ended = new Promise<number | null>((resolve) => fio.once('close', resolve));
      let writing = true;
      void ended.then(() => {
        writing = false;
      });
      const cycles: { ageMs: number; elapsedMs: number; sentBytes: number; mib: number }[] = [];
      let newestMs = Date.now();
      while (writing) {
        const startedMs = Date.now();
        const ship = await runCli(['ship', 'vm', '--json', '--workers', '2', '--home', home], { env: MEASURE });
        expect(ship.code, ship.stderr).toBe(0);
        const { pointTimeMs, elapsedMs, sentBytes } = records(ship)[0] as Record<string, number>;
        // Just before this point was committed, the newest was the one before.
        cycles.push({
          ageMs: Date.now() - newestMs,
          elapsedMs: elapsedMs!,
          sentBytes: sentBytes!,
          mib: peakMib(ship.stderr),
        });
        newestMs = pointTimeMs!;
        await Promise.race([ended, delay(Math.max(0, CYCLE_SECONDS * 1000 - (Date.now() - startedMs)))]);
      }
      expect(await ended).toBe(0);
      expect((await runCli(['ship', 'vm', '--home', home])).code).toBe(0);
      expect(await tracker.stop()).toBe(0);
      const out = join(directory, 'out');
      expect((await runCli(['failover', 'vm', '--out', out, '--format', 'raw', '--home', home])).code).toBe(0);
      execFileSync('cmp', [join(out, 'disk.raw'), disk]);
      const { write } = (JSON.parse(report.slice(report.indexOf('{'))) as { jobs: { write: { iops: number } }[] })
        .jobs[0]!;
      const max = (values: number[]): number => Math.round(Math.max(...values));
      console.info(
        `${cycles.length} cycles at ${Math.round(write.iops)} writes/s: age of the newest point at most ` +
          `${max(cycles.map(({ ageMs }) => ageMs / 1000))} s, ship ${max(cycles.map(({ elapsedMs }) => elapsedMs / 1000))} s, ` +
          `${max(cycles.map(({ sentBytes }) => sentBytes / 2 ** 20))} MiB; memory: tracker ` +
          `${Math.round(peakMib(tracker.talk()))} MiB, ship ${max(cycles.map(({ mib }) => mib))} MiB`,
      );
      expect(max(cycles.map(({ ageMs }) => ageMs))).toBeLessThan(3 * CYCLE_SECONDS * 1000);
      expect(peakMib(tracker.talk())).toBeLessThan(MEMORY_MIB_MAX);
      expect(max(cycles.map(({ mib }) => mib))).toBeLessThan(MEMORY_MIB_MAX);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  },
);
