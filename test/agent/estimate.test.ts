/** What a dry run reads and foretells, and from which rates. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type DirtyChunks, estimateFrom, forecast } from '../../src/agent/estimate.ts';
import { estimateResync, protect, type ResyncEstimate, resync } from '../../src/agent/index.ts';
import { LocalItem } from '../../src/agent/local-state.ts';
import { withDisks, withOwn } from '../../src/agent/open-item.ts';
import { measuredRates } from '../../src/agent/run-sync.ts';
import { MIB } from '../../src/bytes.ts';
import { NO_COUNTS } from '../../src/replica/disk-sync.ts';
import { chunkRuns, type DiskDescription } from '../../src/replica/index.ts';
import { noise } from '../chunker/support.ts';
import { poolLog } from '../support/in-process-pool.ts';
import { CHUNK, Lab, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

const CHUNKS = 40;
let lab: Lab;
let source: Buffer;

beforeEach(() => {
  lab = new Lab();
  source = noise(CHUNKS * CHUNK, 1);
});
afterEach(() => lab.close());

function begin(layout: 'sealed' | 'raw'): Promise<unknown> {
  const disks = [lab.disk('disk.img', source)];
  return protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, layout, keys: [] });
}

function change(...chunks: readonly number[]): void {
  for (const chunk of chunks) source.writeUInt32LE((source.readUInt32LE(chunk * CHUNK) + 1) >>> 0, chunk * CHUNK);
  lab.disk('disk.img', source);
}

function estimate(dirty?: DirtyChunks): Promise<ResyncEstimate> {
  poolLog.forget();
  const { session } = lab;
  return withOwn(session, 'web', (own) =>
    withDisks(session, own.state, (sources) => estimateFrom(session, own, sources, dirty)),
  );
}

const scanned = (): number[] => poolLog.scans.flatMap(({ chunks }) => [...chunks]).sort((a, b) => a - b);

describe('a dry run', () => {
  it('reads all without a known set, and tells bytes, times and what is cheaper', async () => {
    await begin('sealed');
    change(3, 4, 30);
    source.fill(0, 7 * CHUNK, 8 * CHUNK);
    lab.disk('disk.img', source);
    poolLog.forget();
    const result = await estimateResync(lab.session, 'web');
    expect(result).toMatchObject({
      disks: [{ disk: 'd0', differingChunks: 4, differingBytes: 4 * CHUNK }],
      differingBytes: 4 * CHUNK,
      fullCopyBytes: CHUNKS * CHUNK,
      readBytes: CHUNKS * CHUNK,
      cheaper: 'resync',
    });
    expect(result.estimatedMs).toBeLessThanOrEqual(result.fullCopyMs!);
    expect(scanned()).toHaveLength(CHUNKS);
  });

  it('reads the dirty chunks alone where they are known', async () => {
    await begin('sealed');
    change(3, 4, 30, 31);
    // 30 and 31 are not in the set: nobody looks.
    const result = await estimate([chunkRuns([3, 4, 5, 20])]);
    expect(result).toMatchObject({ differingBytes: 2 * CHUNK, readBytes: 4 * CHUNK, fullCopyBytes: CHUNKS * CHUNK });
    expect(scanned()).toEqual([3, 4, 5, 20]);
  });

  it('counts what an interrupted sync left in doubt, in the set or not', async () => {
    await begin('sealed');
    change(10, 11);
    lab.arm({ name: 'sync.after-slots', hit: 2 });
    await expect(resync(lab.session, 'web')).rejects.toMatchObject({ code: 'FAILPOINT' });
    lab.arm();
    const { suspect } = (await lab.replica()).record.root.sync!;
    const doubted = suspect.reduce((sum, { from, to }) => sum + to - from, 0);
    expect(doubted).toBe(CHUNKS);
    expect((await estimate([[]])).disks[0]).toMatchObject({ differingChunks: CHUNKS });
  });

  it('of a raw base finds a full copy cheaper where most differs: old bytes would come back for nothing', async () => {
    await begin('raw');
    const item = new LocalItem(lab.session.home, 'web', lab.ports.files);
    await item.saveRates({ readBytesPerSecond: 1000 * MIB, sentBytesPerSecond: MIB });
    change(1, 2);
    expect((await estimate()).cheaper).toBe('resync');
    change(...Array.from({ length: CHUNKS }, (_, i) => i));
    expect((await estimate()).cheaper).toBe('full');
  });

  it('uses the rates that the last transfer left', async () => {
    await begin('sealed');
    const item = new LocalItem(lab.session.home, 'web', lab.ports.files);
    const { readBytesPerSecond, sentBytesPerSecond } = await item.loadRates();
    expect(readBytesPerSecond).toBeGreaterThan(MIB);
    expect(sentBytesPerSecond).toBeGreaterThan(MIB);
    await item.saveRates({ readBytesPerSecond: CHUNK * 10, sentBytesPerSecond: CHUNK });
    change(1, 2, 3, 4, 5, 6, 7, 8);
    expect(await estimate()).toMatchObject({ estimatedMs: 8000, fullCopyMs: 40_000 });
  });
});

describe('a forecast', () => {
  const rates = { readBytesPerSecond: 1000, sentBytesPerSecond: 100 };

  it('takes the slower of reading and sending, as they overlap', () => {
    const mostlyRead = { readBytes: 5000, sentBytes: 10, fetchedBytes: 0 };
    expect(forecast(mostlyRead, 5000, rates)).toEqual({ estimatedMs: 5000, fullCopyMs: 50_000, cheaper: 'resync' });
    const mostlySent = { readBytes: 5000, sentBytes: 900, fetchedBytes: 100 };
    expect(forecast(mostlySent, 5000, rates)).toMatchObject({ estimatedMs: 10_000 });
  });

  it('goes by bytes before there was a transfer', () => {
    expect(forecast({ readBytes: 5, sentBytes: 4, fetchedBytes: 0 }, 5, {})).toEqual({ cheaper: 'resync' });
    expect(forecast({ readBytes: 5, sentBytes: 4, fetchedBytes: 4 }, 5, {})).toEqual({ cheaper: 'full' });
  });
});

describe('measured rates', () => {
  const described = [{ layout: 'sealed', chunkBytes: MIB }] as unknown as readonly DiskDescription[];
  const raw = [{ layout: 'raw', chunkBytes: MIB }] as unknown as readonly DiskDescription[];
  const counts = { ...NO_COUNTS, readBytes: 100 * MIB, readMs: 1000, chunksSent: 50, sentBytes: 5 * MIB, sendMs: 500 };

  it('are bytes of the disk: before compression, and of a raw base what was written', () => {
    expect(measuredRates([counts], described, {})).toEqual({
      readBytesPerSecond: 100 * MIB,
      sentBytesPerSecond: 100 * MIB,
    });
    expect(measuredRates([counts], raw, {})).toMatchObject({ sentBytesPerSecond: 10 * MIB });
  });

  it('stay what they were where too little was moved to tell', () => {
    const idle = { ...counts, chunksSent: 0, sentBytes: 0, sendMs: 0 };
    expect(measuredRates([idle], described, { sentBytesPerSecond: 7 })).toMatchObject({ sentBytesPerSecond: 7 });
  });
});
