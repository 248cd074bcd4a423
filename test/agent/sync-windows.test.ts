/**
 * A disk of several windows: what an interrupted sync keeps, in exact numbers, and what a checkpoint may claim while
 * writing goes on beside it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { protect, resync, type SyncReport } from '../../src/agent/index.ts';
import { isBlockferryError } from '../../src/errors.ts';
import { prose } from '../chunker/support.ts';
import { poolLog } from '../support/in-process-pool.ts';
import { CHUNK, Lab, readReplicaChunks, STORE_URL } from '../support/replica-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));

/** 64 MiB, the grain of checkpoints. */
const WINDOW_CHUNKS = 1024;
const WINDOWS = 4;
const CHUNKS = WINDOWS * WINDOW_CHUNKS;
/** Every so many chunks one is data, the others are zeros in the file. */
const STEP = 32;
const DATA_CHUNKS = CHUNKS / STEP;

let lab: Lab;

beforeEach(() => {
  lab = new Lab();
  poolLog.forget();
});
afterEach(() => lab.close());

/** Data chunks of a version of the disk, by their numbers. */
function content(seed: number): ReadonlyMap<number, Buffer> {
  const text = prose(CHUNK, seed);
  const chunks = new Map<number, Buffer>();
  for (let chunk = 0; chunk < CHUNKS; chunk += STEP) {
    const bytes = Buffer.from(text);
    bytes.writeUInt32LE(chunk);
    chunks.set(chunk, bytes);
  }
  return chunks;
}

const FIRST = content(1);
const SECOND = content(2);

function write(version: ReadonlyMap<number, Buffer>): void {
  lab.sparseDisk('disk.img', CHUNKS, version);
}

function begin(): Promise<SyncReport> {
  const disks = [`${lab.directory}/disk.img`];
  return protect(lab.session, { name: 'web', disks, url: STORE_URL, chunkBytes: CHUNK, keys: [] });
}

/** The live base holds exactly this version. */
async function expectLive(version: ReadonlyMap<number, Buffer>): Promise<void> {
  const replica = await lab.replica();
  const { tables } = replica.record.root.disks[0]!;
  const found: number[] = [];
  for await (const { chunk, bytes } of readReplicaChunks(replica, 0, { tables, live: true }, lab.ports)) {
    found.push(chunk);
    expect(version.get(chunk)?.equals(bytes), `chunk ${chunk}`).toBe(true);
  }
  expect(found).toEqual([...version.keys()]);
}

/** How far the committed root says that the sync is. */
async function committed(): Promise<{ readonly cursor: number }> {
  const { sync } = (await lab.replica()).record.root;
  return sync && sync.kind !== 'apply' ? sync : { cursor: CHUNKS };
}

/** Chunks that the pools were asked to read, in order of number. */
function scanned(): number[] {
  return poolLog.scans.flatMap(({ chunks }) => [...chunks]).sort((a, b) => a - b);
}

/** Chunks [from, to). */
function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

describe('a sync of several windows', () => {
  it.each([1, 2, 3])('interrupted after commit %i goes on where that commit stands', async (hit) => {
    write(FIRST);
    lab.arm({ name: 'sync.after-anchor', hit });
    await expect(begin()).rejects.toMatchObject({ code: 'FAILPOINT' });
    const { cursor } = await committed();
    expect(cursor % WINDOW_CHUNKS).toBe(0);

    poolLog.forget();
    lab.arm();
    const report = (await begin()).disks[0]!;
    expect(scanned()).toEqual(range(cursor, CHUNKS));
    expect(report.chunksCompared).toBe(CHUNKS - cursor);
    expect(report.readBytes).toBe((CHUNKS - cursor) * CHUNK);
    expect(report.chunksSent).toBe(DATA_CHUNKS - cursor / STEP);
    await expectLive(FIRST);
  });

  it('sends at most two windows twice, wherever it is interrupted', async () => {
    const sentTwice: number[] = [];
    for (let hit = 1; ; hit += 1) {
      lab.close();
      lab = new Lab();
      write(FIRST);
      let written = 0;
      lab.arm({ name: 'sync.after-anchor', hit });
      lab.onFailpoint = (name) => {
        if (name === 'folder.after-write') written += 1;
      };
      const ended = await begin().then(
        () => true,
        () => false,
      );
      if (ended) break;
      lab.onFailpoint = undefined;
      const { cursor } = await committed();
      lab.arm();
      const rest = (await begin()).disks[0]!;
      expect(rest.chunksSent).toBe(DATA_CHUNKS - cursor / STEP);
      // Of the first run only what was written is known, and that includes pages of the manifest.
      sentTwice.push(Math.max(0, written - cursor / STEP));
    }
    expect(sentTwice.length).toBeGreaterThanOrEqual(WINDOWS);
    expect(Math.max(...sentTwice)).toBeLessThanOrEqual((2 * WINDOW_CHUNKS) / STEP + 16);
  });

  it('names as suspect what was written while its checkpoint was on its way', async () => {
    write(FIRST);
    await begin();
    write(SECOND);
    // The commit that allows the third window waits until the first two are written, then the run ends at once.
    lab.arm({ name: 'sync.after-root', hit: 2 });
    lab.onFailpoint = async (name, hit) => {
      if (name === 'sync.after-pages' && hit === 2) await delay(400);
    };
    await expect(resync(lab.session, 'web')).rejects.toMatchObject({ code: 'FAILPOINT' });
    lab.onFailpoint = undefined;
    write(FIRST);
    lab.arm();
    await resync(lab.session, 'web');
    await expectLive(FIRST);
  });

  it('starts from the front, and reads all, where the source changed meanwhile', async () => {
    write(FIRST);
    lab.arm({ name: 'sync.after-anchor', hit: 3 });
    const failed = await begin().catch((error: unknown) => error);
    expect(isBlockferryError(failed, 'FAILPOINT')).toBe(true);
    write(SECOND);
    poolLog.forget();
    lab.arm();
    await begin();
    expect(scanned()).toEqual(range(0, CHUNKS));
    await expectLive(SECOND);
  });
});
