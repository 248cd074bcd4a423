/**
 * A machine goes to another side and home while every command on the way is killed at every failpoint it meets, one after the
 * other, and run again: what it ends with is what it would have ended with.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FAILPOINT_NAMES, type FailpointName } from '../../src/ports.ts';
import { records } from '../cli/support.ts';
import { type Home, type Report, Sides } from '../support/sides.ts';
import { missingTool } from '../support/tools.ts';

/** Reached by no other test of kills. */
const OURS: readonly FailpointName[] = FAILPOINT_NAMES.filter((name) => /^(planned|commit|stage|lay)\./.test(name));
const reached = new Set<string>();

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'bf-sides-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** Runs a command, killed at each of these, until it comes to its end; its record and exit code then. */
async function through(
  sides: Sides,
  home: Home,
  args: readonly string[],
  points: readonly string[],
): Promise<Report & { readonly exit: number | null }> {
  for (const point of points) {
    const killed = await sides.at(home, args, { BLOCKFERRY_FAILPOINTS: `${point}=kill` });
    expect(killed.signal, `${args.join(' ')} at ${point}: ${killed.stderr}`).toBe('SIGKILL');
    reached.add(point.split(':')[0]!);
  }
  const result = await sides.at(home, args);
  expect([0, 3], `${args.join(' ')}: ${result.stderr}`).toContain(result.code);
  return { ...records(result).at(-1), exit: result.code };
}

describe.skipIf(missingTool('qemu-io') ?? missingTool('qemu-img'))('killed at every failpoint', () => {
  it('the full circle ends with equal disks', async () => {
    const url = `file://${join(directory, 'store')}`;
    const sides = await Sides.begin({
      directory: join(directory, 'm'),
      url,
      layout: 'sealed',
      formats: ['raw', 'vhdx'],
    });
    const out = join(directory, 'out');
    const there = sides.brought(out, 'raw');
    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x31 1M 300k']);
      await through(
        sides,
        'a',
        ['failover', 'vm', '--planned'],
        ['ship.before-acknowledge:1', 'planned.after-stop:1', 'sync.after-root:2', 'planned.after-proof:1'],
      );
    });
    const failover = ['failover', 'vm', '--planned', ...sides.from, '--out', out, '--format', 'raw'];
    await through(sides, 'b', failover, ['restore.after-data:1', 'restore.after-rename:2']);
    expect(await sides.content(there)).toEqual(await sides.content());
    const taken = await through(sides, 'b', ['commit', 'vm'], ['sync.after-root:1', 'commit.after-tracking:1']);
    expect(taken).toMatchObject({ epoch: 2, tracking: 'logging' });
    await sides.serve('b', async (tracker) => {
      await sides.write(tracker, ['write -P 0x41 10M 64k', 'write -z 20M 128k']);
      const reversed = await through(sides, 'b', ['reverse', 'vm'], ['sync.after-root:1', 'ship.before-acknowledge:1']);
      expect(reversed).toMatchObject({ by: 'logs' });
      await sides.write(tracker, ['write -P 0x42 11M 640k']);
      await sides.run('b', ['ship', 'vm']);
      const points = ['stage.after-chunks:1', 'stage.after-index:1'];
      expect((await through(sides, 'a', ['failback', 'vm'], points)).exit).toBe(3);
      await sides.write(tracker, ['write -P 0x43 12M 64k']);
      await sides.run('b', ['failover', 'vm', '--planned']);
    });
    await through(sides, 'a', ['failback', 'vm'], ['stage.after-complete:1', 'lay.after-write:2', 'lay.after-sync:2']);
    expect(await sides.content()).toEqual(await sides.content(there));
    const home = await through(sides, 'a', ['commit', 'vm'], ['sync.after-anchor:1', 'commit.after-tracking:1']);
    expect(home).toMatchObject({ epoch: 3, tracking: 'logging' });
    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x51 25M 64k']);
      await sides.run('a', ['reverse', 'vm']);
      await sides.run('a', ['failover', 'vm', '--planned']);
      await through(sides, 'a', ['cancel', 'vm'], ['sync.after-root:1']);
      await sides.write(tracker, ['write -P 0x52 26M 64k']);
      await sides.run('a', ['ship', 'vm']);
    });
    const test = join(directory, 'test');
    await sides.run('b', ['failover', 'vm', '--test', ...sides.from, '--out', test, '--format', 'raw']);
    expect(await sides.content(sides.brought(test, 'raw'))).toEqual(await sides.content());
  });

  it('and there is none that no run reaches', () => {
    expect(OURS.filter((name) => !reached.has(name))).toEqual([]);
  });
});
