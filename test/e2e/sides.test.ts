/**
 * A machine that goes to another side and comes home, with the real program, real stores and a real guest: at each turn both
 * sides hold the same bytes, and what moves is what changed.
 */
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { DISK_BYTES, type Report, Sides, type SidesOptions, sum } from '../support/sides.ts';
import { missingTool } from '../support/tools.ts';
import { qemuIo } from '../support/tracker.ts';

const KIB = 1024;
const CHUNK = 64 * KIB;

let scratch: string;
let azurite: Azurite;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'bf-sides-'));
  azurite = await startAzurite(join(scratch, 'blobs'));
});
afterAll(async () => {
  await azurite.stop();
  await rm(scratch, { recursive: true, force: true });
});

const missing = missingTool('qemu-io') ?? missingTool('qemu-img');

async function begin(options: Partial<SidesOptions> & { readonly place?: string } = {}): Promise<Sides> {
  const directory = await mkdtemp(join(scratch, 'm-'));
  const { place = 'a folder', layout = 'sealed', formats = ['raw'] } = options;
  const url =
    place === 'Azurite'
      ? `${azurite.account}/sides/${basename(directory).toLowerCase()}`
      : `file://${join(directory, 'store')}`;
  return Sides.begin({ directory, url, layout, formats });
}

/** What moved at a step, beside what had changed. */
function tell(step: string, moved: number, changed: number): void {
  console.info(`${step}: ${moved} bytes moved for ${changed} bytes that changed`);
}

describe.skipIf(missing)('the full circle', () => {
  test.each([
    ['sealed', 'Azurite', ['raw', 'vhdx']],
    ['raw', 'a folder', ['vhdx', 'vpc']],
  ] as const)('of two homes, layout %s, to %s, disks %j', async (layout, place, formats) => {
    const sides = await begin({ layout, place, formats });
    const out = join(sides.directory, 'b-disks');
    const there = sides.brought(out, 'vhdx');
    const disks = sides.disks.length;

    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x31 1M 300k']);
      await sides.run('a', ['ship', 'vm']);
      await sides.write(tracker, ['write -P 0x32 5M 100k', 'write -z 20M 256k']);
      const stopped = await sides.run('a', ['failover', 'vm', '--planned']);
      expect(stopped['proof']).toMatchObject({ pointId: stopped['pointId'], item: 'vm' });
      for (const disk of (stopped['proof'] as { disks: Report[] }).disks) {
        expect(disk).toMatchObject({ differingChunks: 0, virtualSizeBytes: DISK_BYTES });
      }
      // The guest is stopped, and nothing lets it go on by accident.
      await expect(qemuIo(tracker.uri('d0'), ['write -P 0x33 5M 4k'])).rejects.toThrow();
    });
    await sides.serve('a', async (tracker) => {
      await expect(qemuIo(tracker.uri('d0'), ['write -P 0x33 5M 4k'])).rejects.toThrow();
    });
    await sides.refuse('a', ['ship', 'vm'], 6, 'for a planned failover');

    await sides.run('b', ['failover', 'vm', '--planned', ...sides.from, '--out', out, '--format', 'vhdx']);
    expect(await sides.content(there)).toEqual(await sides.content());
    expect(await sides.run('b', ['commit', 'vm'])).toMatchObject({ epoch: 2, tracking: 'logging' });
    await sides.refuse('a', ['ship', 'vm'], 6, 'follows other disks');
    await sides.refuse('a', ['resync', 'vm'], 6, 'follows other disks');

    await sides.serve('b', async (tracker) => {
      await sides.write(tracker, ['write -P 0x41 10M 64k', 'write -P 0x42 1M 4k']);
      const reversed = await sides.run('b', ['reverse', 'vm']);
      expect(reversed).toMatchObject({ by: 'logs', readBytes: disks * 68 * KIB });
      tell('reverse', Number(reversed['sentBytes']), disks * 68 * KIB);
      expect(reversed['sentBytes']).toBeLessThanOrEqual(disks * 68 * KIB * 1.1);
      await sides.write(tracker, ['write -P 0x43 15M 64k']);
      await sides.run('b', ['ship', 'vm']);

      const staging = await sides.at('a', ['failback', 'vm', '--mode', 'delta']);
      expect(staging.code, staging.stderr).toBe(3);
      expect(JSON.parse(staging.stdout)).toMatchObject({ state: 'waiting-for-owner' });
      expect(sum(JSON.parse(staging.stdout), 'differingChunks')).toBe(disks * 3);
      await sides.write(tracker, ['write -P 0x44 16M 64k']);
      await sides.run('b', ['failover', 'vm', '--planned']);
    });
    const back = await sides.run('a', ['failback', 'vm', '--mode', 'delta']);
    // One chunk since it was staged, and no byte of the disk is read again to find it.
    expect(back).toMatchObject({ state: 'ready' });
    expect([sum(back, 'differingChunks'), sum(back, 'readBytes')]).toEqual([disks, 0]);
    expect(sum(back, 'writtenBytes')).toBe(disks * 4 * CHUNK);
    tell('failback', sum(back, 'fetchedBytes'), disks * 64 * KIB);
    expect(await sides.content()).toEqual(await sides.content(there));
    expect(await sides.run('a', ['commit', 'vm'])).toMatchObject({ epoch: 3, tracking: 'logging' });
    await sides.refuse('b', ['ship', 'vm'], 6, 'follows other disks');

    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x51 25M 64k']);
      expect(await sides.run('a', ['reverse', 'vm'])).toMatchObject({ by: 'logs', readBytes: disks * 64 * KIB });
      await sides.write(tracker, ['write -P 0x52 26M 64k']);
      expect(await sides.run('a', ['ship', 'vm'])).toMatchObject({ dataBytes: disks * 64 * KIB });
    });
    const test = join(sides.directory, 'test');
    await sides.run('b', ['failover', 'vm', '--test', ...sides.from, '--out', test, '--format', 'raw']);
    expect(await sides.content(sides.brought(test, 'raw'))).toEqual(await sides.content());
  });

  test('of one home: the former disks get what differs', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'new');
    const there = sides.brought(out, 'vhdx');
    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x31 1M 300k']);
      await sides.run('a', ['failover', 'vm', '--planned', '--out', out]);
    });
    await sides.run('a', ['commit', 'vm']);
    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x41 10M 64k']);
      expect(await sides.run('a', ['reverse', 'vm'])).toMatchObject({ by: 'logs' });
      await sides.write(tracker, ['write -P 0x42 11M 64k']);
      const back = await sides.run('a', ['failback', 'vm']);
      expect(sum(back, 'writtenBytes')).toBe(2 * CHUNK);
    });
    expect(await sides.content()).toEqual(await sides.content(there));
    await sides.run('a', ['commit', 'vm']);
    expect(await sides.run('a', ['reverse', 'vm'])).toMatchObject({ by: 'logs', sentBytes: 0 });
    expect(await sides.run('a', ['commit', 'vm', '--end'])).toMatchObject({ phase: 'ended' });
    await sides.refuse('a', ['ship', 'vm'], 6, 'protection was ended');
  });

  test('with new files: failback --mode full', async () => {
    const sides = await begin({ formats: ['vhdx'] });
    const out = join(sides.directory, 'b-disks');
    await sides.run('a', ['failover', 'vm', '--planned']);
    await sides.run('b', ['failover', 'vm', '--planned', ...sides.from, '--out', out]);
    await sides.run('b', ['commit', 'vm']);
    await sides.serve('b', async (tracker) => {
      await sides.write(tracker, ['write -P 0x41 10M 64k']);
      await sides.run('b', ['reverse', 'vm']);
      expect((await sides.at('a', ['failback', 'vm', '--mode', 'full'])).code).toBe(3);
      await sides.run('b', ['failover', 'vm', '--planned']);
    });
    const home = join(sides.directory, 'home-again');
    await sides.run('a', ['failback', 'vm', '--mode', 'full', '--out', home]);
    expect(await sides.content(sides.brought(home, 'vhdx'))).toEqual(await sides.content(sides.brought(out, 'vhdx')));
    expect(await sides.run('a', ['commit', 'vm'])).toMatchObject({ disks: sides.brought(home, 'vhdx') });
    expect(await sides.run('a', ['reverse', 'vm'])).toMatchObject({ by: 'logs' });
  });
});

describe.skipIf(missing)('an unplanned failover', () => {
  // An older point on the newest base is that base with fewer logs; one on an older base is found again by comparing.
  test.each([
    ['logs', []],
    ['compare', ['apply', 'vm']],
  ] as const)(
    'leaves the owner alone until it is committed; goes on from an older point by %s',
    async (by, between) => {
      const sides = await begin();
      const out = join(sides.directory, 'b-disks');
      const tracked = async (writes: readonly string[]): Promise<Report> => {
        let shipped: Report = {};
        await sides.serve('a', async (tracker) => {
          await sides.write(tracker, writes);
          shipped = await sides.run('a', ['ship', 'vm']);
        });
        return shipped;
      };
      const first = await tracked(['write -P 0x31 1M 64k']);
      const before = await sides.content();
      await tracked(['write -P 0x32 2M 64k']);
      const args = ['failover', 'vm', ...sides.from, '--out', out, '--format', 'raw', '--point'];
      await sides.run('b', [...args, 'latest']);
      // The point can be another one until the commit.
      await sides.run('b', [...args, String(first['pointId']), '--out', join(sides.directory, 'older')]);
      expect(await sides.content(sides.brought(join(sides.directory, 'older'), 'raw'))).toEqual(before);
      if (between.length > 0) await sides.run('a', between);
      await tracked(['write -P 0x33 3M 64k']);

      await sides.refuse('b', ['commit', 'vm'], 6, 'the owner has made 1 recovery points since');
      expect(await sides.run('b', ['commit', 'vm', '--discard-newer'])).toMatchObject({
        tracking: by === 'logs' ? 'logging' : 'resync-required',
      });
      await sides.refuse('a', ['ship', 'vm'], 6, 'follows other disks');
      const points = await sides.at('b', ['points', 'vm']);
      expect(points.stdout.trim().split('\n')).toHaveLength(1);
      expect(await sides.run('b', ['reverse', 'vm'])).toMatchObject({ by });
      const test = join(sides.directory, 'test');
      await sides.run('b', ['failover', 'vm', '--test', '--out', test, '--format', 'raw']);
      expect(await sides.content(sides.brought(test, 'raw'))).toEqual(before);
    },
  );

  test('of disks that were written before the commit: reverse compares, and finds it', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'b-disks');
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out, '--format', 'raw']);
    const [disk] = sides.brought(out, 'raw');
    await sides.run('b', ['digest', disk!]);
    await qemuIo(disk!, ['write -P 0x77 4M 64k', 'flush']);
    expect(await sides.run('b', ['commit', 'vm'])).toMatchObject({ tracking: 'resync-required' });
    expect(await sides.run('b', ['reverse', 'vm'])).toMatchObject({ by: 'compare' });
    const test = join(sides.directory, 'test');
    await sides.run('b', ['failover', 'vm', '--test', '--out', test, '--format', 'raw']);
    expect(await sides.content(sides.brought(test, 'raw'))).toEqual(await sides.content([disk!]));
  });
});

describe.skipIf(missing)('cancel', () => {
  test('of a failover removes its disks, of a planned one lets the guest go on; after a commit it is refused', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.refuse('a', ['cancel', 'vm'], 2, 'nothing of item "vm" can be cancelled');
    await sides.refuse('b', ['commit', 'vm'], 2, 'nothing of item "vm" waits for commit');
    await sides.refuse('b', ['failover', 'vm', '--planned', ...sides.from, '--out', out], 2, 'has not stopped');
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out]);
    expect(await sides.run('b', ['cancel', 'vm'])).toMatchObject({ removed: sides.brought(out, 'vhdx') });
    expect(await sides.run('a', ['ship', 'vm'])).toMatchObject({ type: 'ship' });

    await sides.serve('a', async (tracker) => {
      await sides.run('a', ['failover', 'vm', '--planned', '--out', out]);
      await expect(qemuIo(tracker.uri('d0'), ['write -P 1 0 4k'])).rejects.toThrow();
      expect(await sides.run('a', ['cancel', 'vm'])).toMatchObject({ resumed: true });
      await sides.write(tracker, ['write -P 0x66 6M 64k']);
      expect(await sides.run('a', ['ship', 'vm'])).toMatchObject({ dataBytes: 64 * KIB });
    });
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out]);
    await sides.run('b', ['commit', 'vm']);
    await sides.refuse('b', ['cancel', 'vm'], 2, 'can be cancelled');
  });

  test('of a failback that waits leaves its disks as they were, and the owner goes on', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out, '--format', 'raw']);
    await sides.run('b', ['commit', 'vm']);
    await sides.serve('b', async (tracker) => {
      await sides.write(tracker, ['write -P 0x66 6M 64k']);
      await sides.run('b', ['reverse', 'vm']);
    });
    const before = await sides.content();
    expect((await sides.at('a', ['failback', 'vm'])).code).toBe(3);
    expect(await sides.run('a', ['cancel', 'vm'])).toMatchObject({ removed: [`${sides.disks[0]}.failback`] });
    expect(await sides.content()).toEqual(before);
    expect(await sides.run('b', ['ship', 'vm'])).toMatchObject({ type: 'ship' });
  });

  test('of test failovers removes their files, in every home', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('b', ['failover', 'vm', '--test', ...sides.from, '--out', out]);
    expect(await sides.run('b', ['cancel', 'vm', '--test'])).toMatchObject({ removed: sides.brought(out, 'vhdx') });
    expect(await sides.run('b', ['cancel', 'vm', '--test'])).toMatchObject({ removed: [] });
  });
});

describe.skipIf(missing)('a planned failover', () => {
  test('that finds a disk which is not what the replica holds is refused, and the guest goes on', async () => {
    const sides = await begin();
    await sides.serve('a', async (tracker) => {
      // Past the tracker, which is what the proof is for.
      await qemuIo(sides.disks[0]!, ['write -P 0x99 7M 4k', 'flush']);
      await sides.refuse('a', ['failover', 'vm', '--planned'], 1, 'chunk 112 at offset 7340032 is not that of point');
      await sides.write(tracker, ['write -P 0x66 6M 64k']);
    });
  });

  test.each(['planned.after-stop', 'planned.after-proof'])('that fails at %s lets the guest go on', async (name) => {
    const sides = await begin();
    await sides.serve('a', async (tracker) => {
      const failed = await sides.at('a', ['failover', 'vm', '--planned'], { BLOCKFERRY_FAILPOINTS: `${name}=error` });
      expect(failed.code, failed.stderr).toBe(1);
      await sides.write(tracker, ['write -P 0x66 6M 64k']);
      expect(await sides.run('a', ['ship', 'vm'])).toMatchObject({ dataBytes: 64 * KIB });
    });
  });

  test('waits for a cycle that is under way', async () => {
    const sides = await begin();
    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x66 6M 64k']);
      const [shipped, stopped] = await Promise.all([
        sides.at('a', ['ship', 'vm', '--bandwidth', '1KiB']),
        delay(1500).then(() => sides.run('a', ['failover', 'vm', '--planned'])),
      ]);
      expect(shipped.code, shipped.stderr).toBe(0);
      expect(stopped['proof']).toBeDefined();
    });
  });

  test('of disks that a tracker still serves is not overtaken by a failback', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out]);
    await sides.run('b', ['commit', 'vm']);
    await sides.serve('a', async () => {
      await sides.refuse('a', ['failback', 'vm'], 6, 'tracking of item "vm"');
    });
  });
});

describe.skipIf(missing)('nothing is lost', () => {
  test('where maps of the old disks are there: what is served next is compared, all of it', async () => {
    const sides = await begin();
    const [disk] = sides.disks;
    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x31 1M 64k']);
      await sides.run('a', ['ship', 'vm']);
    });
    const older = await sides.run('a', ['ship', 'vm']);
    const before = await sides.content();
    await qemuIo(disk!, ['write -P 0x77 4M 512k', 'flush']);
    await sides.run('a', ['resync', 'vm']);
    const out = join(sides.directory, 'out');
    await sides.run('a', ['failover', 'vm', '--point', String(older['pointId']), '--out', out, '--format', 'raw']);
    expect(await sides.run('a', ['commit', 'vm'])).toMatchObject({ tracking: 'resync-required' });
    await sides.serve('a', async () => {
      expect(await sides.run('a', ['reverse', 'vm'])).toMatchObject({ by: 'compare', sentBytes: expect.any(Number) });
    });
    const test = join(sides.directory, 'test');
    await sides.run('a', ['failover', 'vm', '--test', '--out', test, '--format', 'raw']);
    expect(await sides.content(sides.brought(test, 'raw'))).toEqual(before);
  });

  test('by a cancel behind a commit that was killed: the commit ends it', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out]);
    const killed = await sides.at('b', ['commit', 'vm'], { BLOCKFERRY_FAILPOINTS: 'commit.after-tracking=kill' });
    expect(killed.signal).toBe('SIGKILL');
    await sides.refuse('b', ['cancel', 'vm'], 2, 'has a commit that was begun');
    await sides.refuse('b', ['failover', 'vm', ...sides.from, '--out', `${out}2`], 2, 'has a commit that was begun');
    expect(await sides.run('b', ['commit', 'vm'])).toMatchObject({ epoch: 2, tracking: 'logging' });
    expect(await sides.run('b', ['reverse', 'vm'])).toMatchObject({ by: 'logs' });
  });

  test('by a commit of disks that are not there: the owner is not fenced', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out]);
    await rename(out, `${out}.away`);
    expect((await sides.at('b', ['commit', 'vm'])).code).toBe(4);
    expect(await sides.run('a', ['ship', 'vm'])).toMatchObject({ type: 'ship' });
    await rename(`${out}.away`, out);
    await sides.refuse('b', ['commit', 'vm'], 6, 'the owner has made 1 recovery points since');
    expect(await sides.run('b', ['cancel', 'vm'])).toMatchObject({ removed: sides.brought(out, 'vhdx') });
  });

  test('by cancel --test, of disks that took the place of those of a test', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    const [disk] = sides.brought(out, 'vhdx');
    await sides.run('b', ['failover', 'vm', '--test', ...sides.from, '--out', out]);
    await rm(disk!);
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out]);
    expect(await sides.run('b', ['cancel', 'vm', '--test'])).toMatchObject({ removed: [] });
    await sides.run('b', ['commit', 'vm']);
    expect(await sides.run('b', ['cancel', 'vm', '--test'])).toMatchObject({ removed: [] });
    expect(await sides.run('b', ['reverse', 'vm'])).toMatchObject({ by: 'logs' });
  });

  test('by two failovers at once into one directory', async () => {
    const sides = await begin();
    const args = ['failover', 'vm', ...sides.from, '--out', join(sides.directory, 'out')];
    const codes = (await Promise.all([sides.at('b', args), sides.at('b', args)])).map(({ code }) => code);
    expect(codes).toContain(0);
    // The other came at the same time, or after it.
    expect(codes.some((code) => code === 6 || code === 2)).toBe(true);
    expect(await sides.content(sides.brought(join(sides.directory, 'out'), 'vhdx'))).toEqual(await sides.content());
  });

  test('by a failback that cannot be written: the owner goes on, and nobody serves what is half written', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('a', ['failover', 'vm', '--planned', '--out', out]);
    await sides.run('a', ['commit', 'vm']);
    await sides.serve('a', async (tracker) => {
      await sides.write(tracker, ['write -P 0x41 10M 64k', 'write -P 0x42 20M 64k']);
      await sides.run('a', ['reverse', 'vm']);
      const failed = await sides.at('a', ['failback', 'vm'], { BLOCKFERRY_FAILPOINTS: 'lay.after-write=error' });
      expect(failed.code, failed.stderr).toBe(1);
      expect(await sides.run('a', ['cancel', 'vm'])).toMatchObject({ resumed: true });
      await sides.write(tracker, ['write -P 0x43 11M 64k']);
      expect(await sides.run('a', ['ship', 'vm'])).toMatchObject({ dataBytes: 64 * KIB });
      await sides.run('a', ['failback', 'vm']);
    });
    expect(await sides.content()).toEqual(await sides.content(sides.brought(out, 'vhdx')));
  });

  test('by a tracker on disks of which a failback was killed', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('b', ['failover', 'vm', ...sides.from, '--out', out]);
    await sides.run('b', ['commit', 'vm']);
    await sides.serve('b', async (tracker) => {
      await sides.write(tracker, ['write -P 0x41 10M 64k', 'write -P 0x42 20M 64k']);
      await sides.run('b', ['reverse', 'vm']);
      await sides.run('b', ['failover', 'vm', '--planned']);
    });
    const killed = await sides.at('a', ['failback', 'vm'], { BLOCKFERRY_FAILPOINTS: 'lay.after-write=kill' });
    expect(killed.signal).toBe('SIGKILL');
    await sides.refuse('a', ['track', 'vm'], 2, 'its failback was cut off');
    await sides.run('a', ['failback', 'vm']);
    expect(await sides.content()).toEqual(await sides.content(sides.brought(out, 'vhdx')));
  });

  test('of where a machine came from, also when its failover names the replica by its URL', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('a', ['failover', 'vm', ...sides.from, '--out', out]);
    await sides.run('a', ['commit', 'vm']);
    await sides.run('a', ['reverse', 'vm']);
    expect(await sides.run('a', ['failback', 'vm'])).toMatchObject({ disks: [{ path: sides.disks[0] }] });
  });

  test('by refusals: the guest is not stopped for what cannot be, and a stopped owner does not end protection', async () => {
    const sides = await begin();
    const out = join(sides.directory, 'out');
    await sides.run('b', ['failover', 'vm', '--test', ...sides.from, '--out', out]);
    await sides.serve('a', async (tracker) => {
      await sides.refuse('a', ['failover', 'vm', '--planned', '--out', out], 2, 'already exists');
      await sides.write(tracker, ['write -P 0x66 6M 64k']);
      await sides.run('a', ['failover', 'vm', '--planned']);
    });
    expect((await sides.at('a', ['commit', 'vm', '--end'])).code).not.toBe(0);
    expect(await sides.run('a', ['cancel', 'vm'])).toMatchObject({ resumed: true });
    expect(await sides.run('a', ['ship', 'vm'])).toMatchObject({ type: 'ship' });
  });
});
