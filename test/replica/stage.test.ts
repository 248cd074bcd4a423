/** A delta failback through a stage: what differs is fetched, nothing else is, and the disk is the point's in the end. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { noise, prose } from '../chunker/support.ts';
import { ApplyLab, type GuestWrite } from '../support/apply-lab.ts';
import { CHUNK } from '../support/replica-lab.ts';
import { StageLab } from '../support/stage-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

let item: ApplyLab;
afterEach(() => item.close());

const data = (disk: number, offset: number, lengthBytes: number, seed: number): GuestWrite => {
  return { disk, offset, lengthBytes, bytes: noise(lengthBytes, seed) };
};
const zeros = (disk: number, offset: number, lengthBytes: number): GuestWrite => ({ disk, offset, lengthBytes });

/** Eight chunks and a short one, two of them zeros. */
function content(): Buffer {
  return Buffer.concat([
    noise(2 * CHUNK, 1),
    Buffer.alloc(2 * CHUNK),
    prose(CHUNK, 2),
    noise(2 * CHUNK, 3),
    prose(CHUNK, 4),
    noise(1536, 5),
  ]);
}

async function begin(layout: 'sealed' | 'raw' = 'sealed'): Promise<void> {
  item = new ApplyLab([content()]);
  await item.protect(layout);
}

describe('a delta failback', () => {
  it('brings a raw disk to the point, and fetches the chunks that differ and no others', async () => {
    await begin();
    const before = Buffer.from(item.disks[0]!);
    await item.ship([data(0, 512, 1024, 10), zeros(0, 4 * CHUNK, CHUNK), data(0, 2 * CHUNK, 512, 11)]);
    await item.apply();
    // The other side changed one as well.
    before.set(noise(4096, 12), 6 * CHUNK);
    const lab = new StageLab(item, 0);
    await lab.makeTarget(before);
    const sha256 = lab.sha256();
    const counts = await lab.stage();
    expect(counts).toMatchObject({ differingChunks: 4, fetchedChunks: 3, zeroChunks: 1, reusedChunks: 0 });
    await lab.complete();
    expect(lab.sha256()).toBe(sha256);
    expect(await lab.lay()).toMatchObject({ chunksWritten: 3, chunksZeroed: 1 });
    expect(await lab.prove()).toMatchObject({ chunks: 9 });
    expect((await lab.read()).equals(item.disks[0]!)).toBe(true);
  });
});
