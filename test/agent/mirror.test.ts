/** mirror: the second store has the points of the first, byte for byte and for itself, whatever happened to either. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { prune, resync } from '../../src/agent/index.ts';
import { noise, prose } from '../chunker/support.ts';
import type { GuestWrite } from '../support/apply-lab.ts';
import { FIRST_URL, MirrorLab, SECOND_URL } from '../support/mirror-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const LAYOUTS = ['sealed', 'raw'] as const;

let item: MirrorLab;
afterEach(() => item.close());

/** Two disks, the first with a short last chunk; some chunks are zeros. */
function contents(): readonly Buffer[] {
  const first = Buffer.concat([
    noise(CHUNK, 1),
    prose(CHUNK, 2),
    Buffer.alloc(2 * CHUNK),
    noise(CHUNK, 3),
    prose(1536, 4),
  ]);
  return [first, Buffer.concat([prose(CHUNK, 5), noise(CHUNK, 6)])];
}

async function begin(layout: 'sealed' | 'raw'): Promise<void> {
  item = new MirrorLab(contents());
  await item.protect(layout);
}

const data = (disk: number, offset: number, lengthBytes: number, seed: number): GuestWrite => ({
  ...{ disk, offset, lengthBytes, bytes: noise(lengthBytes, seed) },
});
const zeros = (disk: number, offset: number, lengthBytes: number): GuestWrite => ({ disk, offset, lengthBytes });

describe.each(LAYOUTS)('mirror, layout %s', (layout) => {
  it('makes a second replica, whose points come back while the first store is gone', async () => {
    await begin(layout);
    await item.ship([data(0, 512, 1024, 10)]);
    await item.ship([zeros(0, 4 * CHUNK, CHUNK), data(1, CHUNK - 512, 1024, 11)]);
    const report = await item.mirror();
    expect(report).toMatchObject({ by: 'copy', points: 3, logs: 2, appliedLogs: 2, from: FIRST_URL, to: SECOND_URL });
    const first = await item.pointsAt(FIRST_URL);
    await item.lab.ports.files.removeTree('/memory/store');
    expect(await item.checkAt()).toEqual(first);
    await item.checkLiveAt();
  });

  it('carries logs as they are, whichever side has folded them', async () => {
    await begin(layout);
    await item.mirror();
    await item.ship([data(0, 512, 1024, 10)]);
    await item.ship([data(0, 3 * CHUNK, 1024, 11)]);
    expect(await item.mirror()).toMatchObject({ by: 'logs', points: 2, logs: 2, chunksCopied: 0, appliedLogs: 2 });
    await item.apply();
    await item.ship([data(1, 0, 512, 12)]);
    expect(await item.mirror()).toMatchObject({ by: 'logs', points: 1, logs: 1, chunksCopied: 0 });
    await item.ship([data(1, 512, 512, 13)]);
    await item.apply();
    await item.ship([zeros(0, 0, CHUNK)]);
    // The first store folded log 4 and gave it up: the chunk comes as it is there.
    expect(await item.mirror()).toMatchObject({ by: 'copy', points: 2, logs: 1, chunksCopied: 1 });
    expect(await item.checkAt()).toEqual(await item.pointsAt(FIRST_URL));
    await item.checkLiveAt();
    expect(await item.mirror()).toMatchObject({ by: 'nothing', points: 0, logs: 0 });
  });

  it('catches up by what differs after the first store gave logs up', async () => {
    await begin(layout);
    await item.mirror();
    for (let n = 0; n < 3; n += 1) await item.ship([data(0, CHUNK + n * 512, 512, n), zeros(1, CHUNK, CHUNK)]);
    await item.apply();
    const all = await item.pointsAt(FIRST_URL);
    await prune(item.session, 'web', { drop: new Set(all.slice(0, -1)) });
    const before = await item.pointsAt();
    const report = await item.mirror();
    expect(report).toMatchObject({ by: 'copy', points: 1, logs: 0, chunksCopied: 1, chunksCleared: 1 });
    expect(await item.checkAt()).toEqual([...before, all.at(-1)]);
    await item.checkLiveAt();
    await item.ship([data(0, 0, 512, 77)]);
    expect(await item.mirror()).toMatchObject({ by: 'logs', points: 1 });
    await item.checkAt();
  });

  it('follows a resync of the first store', async () => {
    await begin(layout);
    await item.ship([data(0, 512, 1024, 10)]);
    await item.mirror();
    item.disks[0]!.set(noise(700, 50), CHUNK + 100);
    item.lab.disk('disk0.img', item.disks[0]!);
    item.lab.disk('disk1.img', item.disks[1]!);
    await resync(item.session, 'web');
    await item.remember();
    await item.ship([data(0, 0, 512, 51)]);
    // The chunk that the guest wrote untracked, and nothing that both have.
    expect(await item.mirror()).toMatchObject({ by: 'copy', points: 2, logs: 1, chunksCopied: 1 });
    expect(await item.checkAt()).toEqual(await item.pointsAt(FIRST_URL));
    await item.checkLiveAt();
  });
});
