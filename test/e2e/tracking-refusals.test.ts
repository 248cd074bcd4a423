/** What the program says when tracking cannot go on as it did, or somebody else is at it: exit codes, reasons, the way out. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type RunResult, records, runCli } from '../cli/support.ts';
import { missingTool } from '../support/tools.ts';
import { qemuIo, type RunningTracker, startTracker } from '../support/tracker.ts';

let directory: string;
let tracker: RunningTracker;

async function run(args: readonly string[]): Promise<RunResult> {
  return await runCli([...args, '--json', '--home', join(directory, 'home')]);
}

async function done(args: readonly string[]): Promise<Record<string, unknown>> {
  const result = await run(args);
  expect(result.code, `${args.join(' ')}: ${result.stderr}`).toBe(0);
  return records(result).at(-1)!;
}

async function start(): Promise<RunningTracker> {
  return await startTracker('vm', join(directory, 'home'));
}

/** The newest point is the disk as it is. */
async function expectCurrent(): Promise<void> {
  const out = join(directory, `out-${Math.random().toString(36).slice(2)}`);
  await done(['failover', 'vm', '--out', out, '--format', 'raw']);
  execFileSync('cmp', [join(out, 'disk.raw'), join(directory, 'disk.raw')]);
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'bf-refuse-'));
  execFileSync('truncate', ['-s', '16M', join(directory, 'disk.raw')]);
  await done([
    'protect',
    'vm',
    join(directory, 'disk.raw'),
    '--to',
    `file://${directory}/store`,
    '--chunk-size',
    '64KiB',
  ]);
  tracker = await start();
});
afterEach(async () => {
  if (tracker.child.exitCode === null) await tracker.kill();
  await rm(directory, { recursive: true, force: true });
});

describe.skipIf(missingTool('qemu-io'))('a tracked item', () => {
  test('has one tracker and one shipper at a time: exit 6', async () => {
    const second = await run(['track', 'vm', '--listen', '127.0.0.1:0']);
    expect(second.code).toBe(6);
    expect(second.stderr).toContain('tracking of item "vm"');
    const first = run(['ship', 'vm', '--consistency', 'app', '--freeze', 'sleep 3', '--thaw', 'true']);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect((await run(['ship', 'vm'])).code).toBe(6);
    expect((await first).code).toBe(0);
  });

  test('whose logs reach half of its disk is marked, writes on, and is repaired while it writes', async () => {
    await qemuIo(tracker.uri('d0'), ['write -P 1 0 5M', 'write -P 2 5M 5M', 'flush']);
    const refused = await run(['ship', 'vm']);
    expect(refused.code).toBe(4);
    expect(refused.stderr).toContain('half of its 16777216');
    expect(await done(['status', 'vm'])).toMatchObject({ state: 'resync-required', health: 'critical' });
    await qemuIo(tracker.uri('d0'), ['write -P 3 12M 64k', 'flush']);
    const estimate = await done(['resync', 'vm', '--dry-run']);
    expect(estimate).toMatchObject({ type: 'estimate', differingBytes: 161 * 65_536 });
    const writing = qemuIo(tracker.uri('d0'), ['write -P 4 13M 64k', 'write -P 5 1M 4k', 'flush']);
    const repaired = await done(['resync', 'vm']);
    await writing;
    // Ten MiB and one chunk: nothing else is looked at.
    expect((repaired['disks'] as { chunksCompared: number }[])[0]!.chunksCompared).toBeLessThanOrEqual(163);
    expect(await done(['status', 'vm'])).toMatchObject({ state: 'protected', health: 'normal' });
    await done(['ship', 'vm']);
    await expectCurrent();
  });

  test('whose log is damaged: exit 4 with the place, then a resync over what the map knows', async () => {
    await qemuIo(tracker.uri('d0'), ['write -P 7 3M 64k', 'flush']);
    const log = (await readdir(directory)).find((name) => name.endsWith('.hrl'))!;
    const file = await open(join(directory, log), 'r+');
    await file.write(Buffer.from([0x99]), 0, 1, 8192 + 4096);
    await file.close();
    const refused = await run(['ship', 'vm']);
    expect(refused.code, refused.stderr).toBe(4);
    expect(refused.stderr).toContain('.hrl: offset');
    expect(await done(['status', 'vm'])).toMatchObject({ state: 'resync-required' });
    const repaired = await done(['resync', 'vm']);
    expect((repaired['disks'] as { chunksCompared: number }[])[0]!.chunksCompared).toBe(1);
    await expectCurrent();
  });

  test('is thawed whatever happens: a freeze that fails, and one that takes too long', async () => {
    const thawed = join(directory, 'thawed');
    const ship = ['ship', 'vm', '--consistency', 'app', '--thaw', `touch ${thawed}`];
    for (const freeze of [
      ['--freeze', 'false'],
      ['--freeze', 'sleep 20', '--freeze-timeout', '1'],
    ]) {
      const result = await run([...ship, ...freeze]);
      expect(result.code, result.stderr).toBe(1);
      expect(records(result).at(-1)).toMatchObject({ type: 'error', code: 'FREEZE_FAILED' });
      expect(existsSync(thawed)).toBe(true);
      await rm(thawed);
    }
    const points = records(await run(['points', 'vm']));
    expect(points.filter(({ consistency }) => consistency === 'app')).toEqual([]);
    await done([...ship, '--freeze', 'true']);
    expect(existsSync(thawed)).toBe(true);
  });

  test('whose tracker was killed is shipped again once it runs again', async () => {
    await qemuIo(tracker.uri('d0'), ['write -P 7 3M 64k', 'flush', 'write -P 8 4M 4k']);
    await tracker.kill();
    const refused = await run(['ship', 'vm']);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('blockferry track vm');
    tracker = await start();
    expect(tracker.listening.tracking.mode).toBe('logging');
    expect(tracker.talk()).toContain('were read and logged again');
    await done(['ship', 'vm']);
    await expectCurrent();
  });

  test('listens on this machine only', async () => {
    await tracker.stop();
    for (const listen of ['0.0.0.0:10809', '192.0.2.1:10809', 'example.org:1', 'unix:relative', '127.0.0.1']) {
      const result = await run(['track', 'vm', '--listen', listen]);
      expect(result.code, `${listen}: ${result.stderr}`).toBe(2);
    }
  });
});
