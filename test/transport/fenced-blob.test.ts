/** The fence protocol: by example, and under a seeded simulation of a network that delivers late. */
import { describe, expect, it } from 'vitest';
import { BlockferryError } from '../../src/errors.ts';
import { FencedBlob, Lanes, type PageBlob, Retry, type WriteGuard } from '../../src/transport/index.ts';
import { type UnreliableBlob, unreliableBlob } from '../support/unreliable-blob.ts';
import { seededRandom, type VirtualClock, virtualClock } from '../support/virtual-clock.ts';

const LANES = 4;
const CHUNKS = 4;
const WRITES = 60;
const SEEDS = Number(process.env['BLOCKFERRY_SEEDS'] ?? 2000);

type Write = (bytes: Uint8Array, offset: number) => Promise<void>;

/** Lanes that each write one chunk again and again; returns the number of chunks that ended older than acknowledged. */
async function rolledBackChunks(clock: VirtualClock, blob: UnreliableBlob, write: Write): Promise<number> {
  const acknowledged = new Uint8Array(CHUNKS);
  const lane = async (chunk: number): Promise<void> => {
    for (let value = 1; value <= WRITES / LANES; value += 1) {
      await write(new Uint8Array(512).fill(value), chunk * 512);
      acknowledged[chunk] = value;
    }
  };
  await clock.run(Promise.all(Array.from({ length: LANES }, (_, chunk) => lane(chunk))));
  await clock.drain();
  return blob.content.filter((value, chunk) => value !== acknowledged[chunk]).length;
}

function setup(seed: number, rate: number): { clock: VirtualClock; blob: UnreliableBlob; retry: Retry } {
  const clock = virtualClock();
  const random = seededRandom(seed);
  const policy = { triesMax: 100, elapsedMsMax: 3_600_000, firstWaitMs: 10, waitMsMax: 200 };
  return { clock, blob: unreliableBlob(clock, random, CHUNKS, { rate }), retry: new Retry({ clock, random, policy }) };
}

function fencedOver(blob: UnreliableBlob | PageBlob, clock: VirtualClock, retry: Retry): FencedBlob {
  return new FencedBlob({ blob: blob as PageBlob, fence: 1, retry, lanes: new Lanes({ clock, limit: LANES }) });
}

describe('late writes', () => {
  it(`never roll a fenced chunk back (${SEEDS} seeds, 5 % each of lost, late and unanswered)`, async () => {
    const bad: number[] = [];
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const { clock, blob, retry } = setup(seed, 0.05);
      const fenced = fencedOver(blob, clock, retry);
      if ((await rolledBackChunks(clock, blob, (bytes, at) => fenced.write(bytes, at))) > 0) bad.push(seed);
    }
    expect(bad).toEqual([]);
  });

  it('do roll chunks back where retries are not fenced: the simulation can find it', async () => {
    let bad = 0;
    for (let seed = 1; seed <= 200; seed += 1) {
      const { clock, blob, retry } = setup(seed, 0.05);
      const write: Write = (bytes, at) => retry.run('write', () => blob.write(bytes, at, { fence: 1 }));
      if ((await rolledBackChunks(clock, blob, write)) > 0) bad += 1;
    }
    expect(bad).toBeGreaterThan(50);
  });
});

/** A blob that answers by script and notes what it was asked. */
function scripted(clock: VirtualClock): {
  blob: PageBlob;
  asked: string[];
  answers: ((guard: WriteGuard) => Promise<void>)[];
} {
  const asked: string[] = [];
  const answers: ((guard: WriteGuard) => Promise<void>)[] = [];
  const blob = {
    key: 'blob',
    async write(_: Uint8Array, offset: number, guard: WriteGuard): Promise<void> {
      asked.push(`write ${offset} fence ${guard.fence}`);
      await clock.sleep(10);
      await answers.shift()?.(guard);
    },
    async raiseFence(fence: number): Promise<void> {
      asked.push(`raise ${fence}`);
      await clock.sleep(10);
    },
  };
  return { blob: blob as unknown as PageBlob, asked, answers };
}

function fail(code: 'STORE_TIMEOUT' | 'STORE_THROTTLED' | 'REPLICA_FENCED' | 'REPLICA_LEASED' | 'STORE_UNREACHABLE') {
  const retryable = code.startsWith('STORE');
  return async (): Promise<void> => {
    throw new BlockferryError(code, 'scripted', { retryable });
  };
}

describe('a fenced blob', () => {
  const page = new Uint8Array(512);

  it('raises the fence after a timeout and before any lane writes again', async () => {
    const { clock, retry } = setup(1, 0);
    const { blob, asked, answers } = scripted(clock);
    const fenced = fencedOver(blob, clock, retry);
    answers.push(fail('STORE_TIMEOUT'));
    await clock.run(fenced.write(page, 0).then(() => fenced.write(page, 512)));
    expect(asked).toEqual(['write 0 fence 1', 'raise 2', 'write 0 fence 2', 'write 512 fence 2']);
    expect(fenced.fence).toBe(2);
  });

  it('sends again what its own raise has fenced', async () => {
    const { clock, retry } = setup(1, 0);
    const { blob, asked, answers } = scripted(clock);
    const fenced = fencedOver(blob, clock, retry);
    answers.push(fail('STORE_TIMEOUT'), fail('REPLICA_FENCED'));
    await clock.run(Promise.all([fenced.write(page, 0), fenced.write(page, 512)]));
    expect(asked.filter((line) => line.startsWith('raise'))).toEqual(['raise 2']);
    expect(asked).toContain('write 512 fence 2');
  });

  it.each(['REPLICA_FENCED', 'REPLICA_LEASED'] as const)('is over after %s with the current number', async (code) => {
    const { clock, retry } = setup(1, 0);
    const { blob, asked, answers } = scripted(clock);
    const fenced = fencedOver(blob, clock, retry);
    answers.push(fail(code));
    await expect(clock.run(fenced.write(page, 0))).rejects.toMatchObject({ code });
    await expect(clock.run(fenced.write(page, 512))).rejects.toMatchObject({ code });
    expect(asked).toEqual(['write 0 fence 1']);
  });

  it('does not raise where the store says that nothing was done', async () => {
    const { clock, retry } = setup(1, 0);
    const { blob, asked, answers } = scripted(clock);
    const fenced = fencedOver(blob, clock, retry);
    answers.push(fail('STORE_THROTTLED'), fail('STORE_UNREACHABLE'));
    await clock.run(fenced.write(page, 0));
    expect(asked).toEqual(['write 0 fence 1', 'write 0 fence 1', 'write 0 fence 1']);
  });

  it('raises after a write that its caller aborted', async () => {
    const { clock, retry } = setup(1, 0);
    const { blob, asked, answers } = scripted(clock);
    const fenced = fencedOver(blob, clock, retry);
    answers.push(async () => {
      throw new BlockferryError('ABORTED', 'interrupted');
    });
    await expect(clock.run(fenced.write(page, 0))).rejects.toMatchObject({ code: 'ABORTED' });
    await clock.run(fenced.write(page, 0));
    expect(asked).toEqual(['write 0 fence 1', 'raise 2', 'write 0 fence 2']);
  });

  it('lets a waiting lane go when its caller aborts', async () => {
    const { clock, retry } = setup(1, 0);
    const { blob, answers } = scripted(clock);
    let release: () => void = () => {};
    blob.raiseFence = () => new Promise((resolve) => (release = resolve));
    const fenced = fencedOver(blob, clock, retry);
    answers.push(fail('STORE_TIMEOUT'));
    const first = fenced.write(page, 0);
    const controller = new AbortController();
    const second = clock.sleep(300).then(() => fenced.write(page, 512, { signal: controller.signal }));
    void clock.sleep(600).then(() => controller.abort());
    await expect(clock.run(second)).rejects.toMatchObject({ code: 'ABORTED' });
    release();
    await clock.run(first);
  });
});
