/**
 * A machine with a second store, with the real program, real stores and a real guest: whatever is killed, away or at work at the same
 * time, the second store alone brings every point back byte for byte, and what is carried is what differs.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { failover, points } from '../../dist/index.js';
import type { FailpointName } from '../../src/ports.ts';
import { type Azurite, startAzurite } from '../support/azurite.ts';
import { type Report, Sides } from '../support/sides.ts';
import { missingTool } from '../support/tools.ts';
import type { RunningTracker } from '../support/tracker.ts';

const KIB = 1024;

let scratch: string;
let azurite: Azurite;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'bf-mirror-'));
  azurite = await startAzurite(join(scratch, 'blobs'));
});
afterAll(async () => {
  await azurite.stop();
  await rm(scratch, { recursive: true, force: true });
});

type Place = 'a folder' | 'Azurite';

function urlOf(place: Place, directory: string, name: string): string {
  return place === 'Azurite'
    ? `${azurite.account}/mirror/${basename(directory).toLowerCase()}/${name}`
    : `file://${join(directory, name)}`;
}

/** A machine with two stores, and what its disks held at each point. */
class TwoStores {
  readonly sides: Sides;
  readonly to: string;
  readonly points: Map<string, readonly unknown[]> = new Map();

  private constructor(sides: Sides, to: string) {
    this.sides = sides;
    this.to = to;
  }

  static async begin(first: Place, second: Place, layout: 'sealed' | 'raw'): Promise<TwoStores> {
    const directory = await mkdtemp(join(scratch, 'm-'));
    const url = urlOf(first, directory, 'first');
    const stores = new TwoStores(
      await Sides.begin({ directory, url, layout, formats: ['raw', 'vhdx'] }),
      urlOf(second, directory, 'second'),
    );
    for (const id of await stores.pointsOf(url)) stores.points.set(id, await stores.sides.content());
    return stores;
  }

  /** The guest writes, and a cycle ships it. */
  async ship(tracker: RunningTracker, writes: readonly string[]): Promise<Report> {
    await this.sides.write(tracker, writes);
    const report = await this.sides.run('a', ['ship', 'vm']);
    this.points.set(String(report['pointId']), await this.sides.content());
    return report;
  }

  mirror(): Promise<Report> {
    return this.sides.run('a', ['mirror', 'vm', '--to', this.to]);
  }

  /** Runs a mirror that is killed with SIGKILL at a failpoint. */
  async kill(failpoint: FailpointName): Promise<void> {
    const env = { BLOCKFERRY_FAILPOINTS: `${failpoint}:1=kill` };
    const { signal } = await this.sides.at('a', ['mirror', 'vm', '--to', this.to], env);
    expect(signal, failpoint).toBe('SIGKILL');
  }

  async pointsOf(url: string): Promise<readonly string[]> {
    return (await points(this.sides.session('b'), this.#replicaAt(url))).map(({ id }) => id);
  }

  #replicaAt(url: string) {
    return { name: 'vm', url, keys: [{ type: 'key-file' as const, path: this.sides.key }] };
  }

  /** Brings points of the second store back, without the first, and compares them; returns their ids. */
  async check(which: 'all' | 'newest' = 'all'): Promise<readonly string[]> {
    const ids = await this.pointsOf(this.to);
    for (const point of which === 'all' ? ids : ids.slice(-1)) {
      const outDirectory = await mkdtemp(join(this.sides.directory, 'out-'));
      const request = { point, outDirectory, format: 'raw', test: true } as const;
      await failover(this.sides.session('b'), this.#replicaAt(this.to), request);
      const found = await this.sides.content(this.sides.brought(outDirectory, 'raw'));
      expect(found, point).toEqual(this.points.get(point));
      await rm(outDirectory, { recursive: true });
    }
    return ids;
  }
}

const missing = missingTool('qemu-io') ?? missingTool('qemu-img');

describe.skipIf(missing)('a second store', () => {
  test.each([
    ['a folder', 'Azurite', 'sealed'],
    ['Azurite', 'a folder', 'raw'],
  ] as const)('from %s to %s, layout %s', { timeout: 280_000 }, async (first, second, layout) => {
    const stores = await TwoStores.begin(first, second, layout);
    const { sides } = stores;
    for (const name of ['mirror.after-intent', 'mirror.after-pages'] as const) await stores.kill(name);
    expect(await stores.mirror()).toMatchObject({ by: 'copy', points: 1 });
    await sides.serve('a', async (tracker) => {
      // By logs, killed behind the first of them, beside a cycle and an apply.
      await stores.ship(tracker, ['write -P 0x31 1M 300k']);
      await stores.ship(tracker, ['write -P 0x32 5M 100k', 'write -z 20M 256k']);
      await stores.kill('mirror.after-log');
      await stores.check('newest');
      const [, report] = await Promise.all([stores.ship(tracker, ['write -P 0x33 9M 64k']), stores.mirror()]);
      expect(report).toMatchObject({ by: 'logs' });
      await Promise.all([sides.run('a', ['apply', 'vm']), stores.mirror()]);
      await stores.mirror();
      expect(await stores.pointsOf(stores.to)).toHaveLength(4);
      // Away while the first store folds and gives its logs up: what differs comes, and no more.
      await stores.ship(tracker, ['write -P 0x41 1M 4k', 'write -P 0x42 12M 1M']);
      await sides.run('a', ['apply', 'vm']);
      await stores.ship(tracker, ['write -z 2M 64k', 'write -P 0x43 12M 4k']);
      await sides.run('a', ['apply', 'vm']);
    });
    for (const name of ['mirror.after-slots', 'mirror.after-snapshots'] as const) await stores.kill(name);
    await stores.check('newest');
    const report = await stores.mirror();
    console.info(`caught up: ${report['fetchedBytes']} bytes fetched, ${report['chunksCopied']} chunks`);
    // A chunk at 1 MiB, 16 at 12 MiB; and of one disk alone: the other was settled before the kills.
    expect(report).toMatchObject({ by: 'copy', chunksCopied: 17 });
    expect(report['sentBytes']).toBeLessThanOrEqual(17 * 64 * KIB);
    expect(report['fetchedBytes']).toBeLessThanOrEqual(Number(report['sentBytes']) * 1.1);
    await sides.refuse('a', ['mirror', 'vm', '--to', sides.url], 2, 'itself');
    if (first === 'a folder') await rm(join(sides.directory, 'first'), { recursive: true });
    await stores.check();
  });

  test('takes over: nothing more is carried there, and the first store follows it home', {
    timeout: 280_000,
  }, async () => {
    const stores = await TwoStores.begin('a folder', 'a folder', 'sealed');
    const { sides, to } = stores;
    await sides.serve('a', async (tracker) => {
      await stores.ship(tracker, ['write -P 0x31 1M 300k']);
    });
    await stores.mirror();
    const out = join(sides.directory, 'b-disks');
    const from = ['--from', to, '--key-file', sides.key];
    await sides.run('b', ['failover', 'vm', ...from, '--out', out, '--format', 'raw']);
    expect(await sides.run('b', ['commit', 'vm'])).toMatchObject({ epoch: 2, tracking: 'logging' });
    await sides.refuse('a', ['mirror', 'vm', '--to', to], 6, 'another side took over');
    await sides.serve('b', async (tracker) => {
      await sides.write(tracker, ['write -P 0x51 3M 64k']);
      expect(await sides.run('b', ['reverse', 'vm'])).toMatchObject({ by: 'logs', readBytes: 2 * 64 * KIB });
    });
    expect(await sides.run('b', ['mirror', 'vm', '--to', sides.url])).toMatchObject({ by: 'logs', points: 1 });
    await sides.refuse('a', ['ship', 'vm'], 6, 'follows');
    const home = await mkdtemp(join(sides.directory, 'out-'));
    await sides.run('b', ['failover', 'vm', '--test', ...sides.from, '--out', home, '--format', 'raw']);
    expect(await sides.content(sides.brought(home, 'raw'))).toEqual(await sides.content(sides.brought(out, 'raw')));
  });
});
