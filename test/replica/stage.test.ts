/** A delta failback through a stage: what differs is fetched, nothing else is, and the disk is the point's in the end. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { nodePorts } from '../../src/host/index.ts';
import type { Clock } from '../../src/ports.ts';
import { discardStage, openStage } from '../../src/replica/index.ts';
import { canonicalJson } from '../../src/replica/json.ts';
import { baseKey } from '../../src/replica/layout.ts';
import { noise, prose } from '../chunker/support.ts';
import { ApplyLab, type GuestWrite } from '../support/apply-lab.ts';
import { countRequests, requests } from '../support/counting-store.ts';
import { Dice, numberFromEnvironment } from '../support/dice.ts';
import { everyFault, fails, metBy } from '../support/every-fault.ts';
import { poolLog } from '../support/in-process-pool.ts';
import { CHUNK } from '../support/replica-lab.ts';
import { StageLab } from '../support/stage-lab.ts';

vi.mock('../../src/workers/pool.ts', async () => ({
  WorkerPool: (await import('../support/in-process-pool.ts')).InProcessPool,
}));
vi.mock('../../src/transport/open-store.ts', async (original) => {
  const real = await original<typeof import('../../src/transport/open-store.ts')>();
  return {
    ...real,
    openStore: async (...args: Parameters<typeof real.openStore>) => countRequests(await real.openStore(...args)),
  };
});

const SEED = numberFromEnvironment('BLOCKFERRY_SEED', 1);
const FIRST_CASE = numberFromEnvironment('BLOCKFERRY_CASE', 0);
const CASES = numberFromEnvironment('BLOCKFERRY_CASES', 6);
/** A full slot: what does not compress. */
const SLOT = CHUNK + 512;

let item: ApplyLab;
afterEach(() => item.close());

const data = (disk: number, offset: number, lengthBytes: number, seed: number): GuestWrite => {
  return { disk, offset, lengthBytes, bytes: noise(lengthBytes, seed) };
};
const zeros = (disk: number, offset: number, lengthBytes: number): GuestWrite => ({ disk, offset, lengthBytes });

/** Nine chunks and a short one, two of them zeros. */
function content(): Buffer {
  return Buffer.concat([
    noise(2 * CHUNK, 1),
    Buffer.alloc(2 * CHUNK),
    noise(CHUNK, 2),
    noise(3 * CHUNK, 3),
    prose(CHUNK, 4),
    noise(1536, 5),
  ]);
}

/** A replica that went on from what the target has; the target did so too, in chunk 6. */
async function begin(layout: 'sealed' | 'raw' = 'sealed'): Promise<StageLab> {
  item = new ApplyLab([content()]);
  await item.protect(layout);
  const before = Buffer.from(item.disks[0]!);
  await item.ship([data(0, 512, 1024, 10), zeros(0, 4 * CHUNK, CHUNK), data(0, 2 * CHUNK, CHUNK, 11)]);
  await item.apply();
  before.set(noise(4096, 12), 6 * CHUNK);
  const lab = new StageLab(item, 0);
  await lab.makeTarget(before);
  return lab;
}

async function finish(lab: StageLab): Promise<void> {
  await lab.complete();
  await lab.lay();
  await lab.prove();
  expect((await lab.read()).equals(item.disks[lab.disk]!)).toBe(true);
}

/** Changes bytes of a file of the stage. */
function damage(lab: StageLab, name: string, change: (bytes: Buffer) => Buffer | undefined): void {
  const path = `${lab.directory}/${name}`;
  const bytes = readFileSync(path);
  writeFileSync(path, change(bytes) ?? bytes);
}

describe('a delta failback', () => {
  it('fetches the chunks that differ and no others, neighbours together, and touches the disk only when it lays', async () => {
    const lab = await begin();
    const sha256 = lab.sha256();
    requests.clear();
    const counts = await lab.stage();
    expect(counts).toMatchObject({ differingChunks: 4, fetchedChunks: 3, zeroChunks: 1, reusedChunks: 0 });
    expect(counts).toMatchObject({ fetchedBytes: 3 * SLOT, readBytes: item.disks[0]!.byteLength });
    expect(Object.fromEntries(requests)).toMatchObject({ 'base read': 3 });
    await expect(lab.lay()).rejects.toMatchObject({ code: 'USAGE' });
    await lab.complete();
    expect(lab.sha256()).toBe(sha256);
    expect(await lab.lay()).toEqual({ chunksWritten: 3, chunksZeroed: 1, writtenBytes: 3 * CHUNK, writes: 4 });
    expect(await lab.prove()).toEqual({ chunks: 10, readBytes: item.disks[0]!.byteLength });
    expect((await lab.read()).equals(item.disks[0]!)).toBe(true);
    // Laid is laid.
    expect(await lab.lay()).toMatchObject({ writes: 0 });
  });

  it('joins neighbours in what it asks for and in what it writes', async () => {
    const lab = await begin();
    await lab.makeTarget(Buffer.alloc(item.disks[0]!.byteLength));
    requests.clear();
    // Chunks 0 to 2, and 5 to 9.
    expect(await lab.stage()).toMatchObject({ differingChunks: 8, fetchedChunks: 8, zeroChunks: 0 });
    expect(requests.get('base read')).toBe(2);
    await lab.complete();
    expect(await lab.lay()).toMatchObject({ chunksWritten: 8, writes: 2 });
    await lab.prove();
  });

  it('brings raw, VHD and VHDX disks of both layouts to the point, whatever changed on both sides', async () => {
    const formats = ['raw', 'vhd', 'vhdx'] as const;
    for (let n = FIRST_CASE; n < FIRST_CASE + CASES; n += 1) {
      const dice = new Dice(SEED, n);
      item = new ApplyLab([content(), Buffer.concat([prose(3 * CHUNK, 7), Buffer.alloc(CHUNK)])]);
      try {
        await item.protect(n % 2 === 0 ? 'sealed' : 'raw');
        const throwWrites = (): GuestWrite[] =>
          Array.from({ length: dice.between(1, 5) }, () => {
            const disk = dice.below(2);
            const sectors = item.disks[disk]!.byteLength / 512;
            const from = dice.below(sectors);
            const count = Math.min(dice.between(1, dice.oneIn(2) ? 400 : 12), sectors - from);
            return dice.oneIn(3)
              ? zeros(disk, from * 512, count * 512)
              : data(disk, from * 512, count * 512, dice.next());
          });
        await item.ship(throwWrites());
        const targets = item.disks.map((disk) => Buffer.from(disk));
        for (const { disk, offset, lengthBytes, bytes } of throwWrites()) {
          if (bytes) targets[disk]!.set(bytes, offset);
          else targets[disk]!.fill(0, offset, offset + lengthBytes);
        }
        await item.ship(throwWrites());
        await item.apply();
        const labs = [0, 1].map((disk) => new StageLab(item, disk, dice.pick(formats)));
        for (const lab of labs) {
          await lab.makeTarget(targets[lab.disk]!);
          await lab.stage();
        }
        await item.ship(throwWrites());
        await item.apply();
        for (const lab of labs) {
          await lab.catchUp();
          await finish(lab);
        }
      } catch (error) {
        throw new Error(`BLOCKFERRY_SEED=${SEED} BLOCKFERRY_CASE=${n}`, { cause: error });
      } finally {
        item.close();
      }
    }
  });

  it('refuses a disk of another size, and a point with logs to play', async () => {
    const lab = await begin();
    await lab.makeTarget(Buffer.alloc(item.disks[0]!.byteLength + 512));
    await expect(lab.stage()).rejects.toMatchObject({ code: 'SOURCE_CHANGED', hint: expect.stringMatching(/full/) });
    await item.ship([data(0, 512, 512, 13)]);
    await expect(lab.stage()).rejects.toMatchObject({ code: 'USAGE', hint: expect.stringMatching(/apply/) });
    await expect(lab.prove()).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('of a disk that is already right fetches nothing and writes nothing', async () => {
    const lab = await begin();
    await lab.makeTarget(item.disks[0]!);
    expect(await lab.stage()).toMatchObject({ differingChunks: 0, fetchedBytes: 0 });
    await lab.complete();
    expect(await lab.lay()).toMatchObject({ writes: 0 });
  });

  it('proves what it did: a chunk that is another is named', async () => {
    const lab = await begin();
    await lab.bringBack();
    const bytes = await lab.read();
    bytes[5 * CHUNK + 7]! ^= 1;
    bytes[7 * CHUNK]! ^= 1;
    await lab.makeTarget(bytes);
    await expect(lab.prove()).rejects.toMatchObject({ code: 'DISK_DIFFERS', facts: { chunk: 5, offset: 5 * CHUNK } });
  });
});

describe('catching up with a newer point', () => {
  it('looks at what the trees have differently only, and the newest content wins', async () => {
    const lab = await begin();
    await lab.stage();
    // Chunk 0 again, 7 anew, 4 back to bytes, 2 to zeros.
    await item.ship([data(0, 512, 512, 20), data(0, 7 * CHUNK, CHUNK, 21), data(0, 4 * CHUNK, CHUNK, 22)]);
    await item.ship([zeros(0, 2 * CHUNK, CHUNK)]);
    await item.apply();
    poolLog.forget();
    const counts = await lab.catchUp();
    expect(counts).toMatchObject({
      differingChunks: 4,
      fetchedChunks: 3,
      zeroChunks: 1,
      fetchedBytes: 3 * SLOT,
      readBytes: 0,
    });
    expect(poolLog.scans).toEqual([]);
    await finish(lab);
  });

  it('does nothing where the point is the same', async () => {
    const lab = await begin();
    await lab.stage();
    requests.clear();
    expect(await lab.catchUp()).toMatchObject({ differingChunks: 0, fetchedBytes: 0 });
    expect(requests.get('manifest read')).toBeUndefined();
    await finish(lab);
  });

  it('needs a stage that is whole, of a disk that nobody wrote to since', async () => {
    const lab = await begin();
    await expect(lab.catchUp()).rejects.toMatchObject({ code: 'USAGE' });
    await lab.stage();
    await lab.makeTarget(await lab.read());
    await expect(lab.catchUp()).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    // Comparing anew fetches nothing again.
    expect(await lab.stage()).toMatchObject({ fetchedBytes: 0, reusedChunks: 4 });
    await finish(lab);
  });

  it('is what a stage needs before it leads to another point', async () => {
    const lab = await begin();
    await lab.stage();
    await item.ship([data(0, 512, 512, 20)]);
    await item.apply();
    await expect(lab.complete()).rejects.toMatchObject({ code: 'USAGE' });
  });
});

describe('a delta failback that is interrupted', () => {
  it('at any failpoint leaves the disk untouched, or is repaired by running again', async () => {
    const lab = await begin();
    const before = await lab.read();
    const reset = async (): Promise<void> => {
      rmSync(lab.directory, { recursive: true, force: true });
      await lab.makeTarget(before);
    };
    const met = await metBy(item.lab, () => lab.bringBack());
    let afterStaged = 0;
    const failures = await everyFault(met, async (name, hit) => {
      await reset();
      const sha256 = lab.sha256();
      item.lab.arm({ name, hit });
      const failed = await fails(lab.bringBack());
      item.lab.arm();
      if (!failed) return false;
      const phase = await lab.withStage(async ({ stage }) => stage.phase);
      if (phase === 'staging') expect(lab.sha256()).toBe(sha256);
      else afterStaged += 1;
      await lab.bringBack();
      expect((await lab.read()).equals(item.disks[0]!)).toBe(true);
      return true;
    });
    expect(failures).toMatchObject({
      'stage.after-chunks': 3,
      'stage.after-index': 3,
      'stage.after-complete': 1,
      'lay.after-write': 4,
      'lay.after-sync': 1,
    });
    expect(afterStaged).toBeGreaterThan(5);
  });

  it('at any moment of a long comparison goes on behind what is durable, and misses nothing', async () => {
    const chunks = 96;
    item = new ApplyLab([noise(chunks * CHUNK, 1)]);
    await item.protect();
    const lab = new StageLab(item, 0);
    await lab.makeTarget(noise(chunks * CHUNK, 2));
    const eager = { ports: { ...item.lab.ports, clock: everLater(item.lab.ports.clock) } };
    let skipped = 0;
    for (let hit = 1; ; hit += 25) {
      rmSync(lab.directory, { recursive: true, force: true });
      item.lab.arm({ name: 'stage.after-chunks', hit });
      if (!(await fails(lab.stage(eager)))) break;
      item.lab.arm();
      const { readBytes } = await lab.stage();
      await lab.withStage(async ({ stage }) => {
        for (let chunk = 0; chunk < chunks; chunk += 1) {
          expect((await stage.index.get(chunk))?.kind, `hit ${hit} chunk ${chunk}`).toBe('bytes');
        }
      });
      if (readBytes < chunks * CHUNK) skipped += 1;
    }
    item.lab.arm();
    expect(skipped).toBeGreaterThan(1);
    await finish(lab);
  });

  it('by somebody who writes to the disk says so, and compares anew', async () => {
    const lab = await begin();
    item.lab.onFailpoint = async () => {
      item.lab.onFailpoint = undefined;
      writeFileSync(lab.path, noise(item.disks[0]!.byteLength, 40));
    };
    await expect(lab.stage()).rejects.toMatchObject({ code: 'SOURCE_CHANGED' });
    expect(await lab.stage()).toMatchObject({ differingChunks: 10, reusedChunks: 4 });
    await finish(lab);
  });

  it('compares anew with a point that is another', async () => {
    const lab = await begin();
    await lab.stage();
    await item.ship([data(0, 8 * CHUNK, 512, 30)]);
    await item.apply();
    expect(await lab.stage()).toMatchObject({ differingChunks: 5, fetchedChunks: 1, reusedChunks: 4 });
    await finish(lab);
  });

  it('goes on where it was: reads no chunk and fetches no byte again that it has durably', async () => {
    const lab = await begin();
    item.lab.arm({ name: 'stage.after-index', hit: 1 });
    expect(await fails(lab.stage())).toBe(true);
    item.lab.arm();
    // The records are durable, the cursor is not: what was fetched is found again.
    expect(await lab.stage()).toMatchObject({ differingChunks: 4, fetchedBytes: 0, reusedChunks: 4 });
    poolLog.forget();
    expect(await lab.stage()).toMatchObject({ readBytes: 0, differingChunks: 0, fetchedBytes: 0 });
    expect(poolLog.scans).toEqual([]);
    await finish(lab);
  });

  it('by its signal keeps what it has, and discarding leaves the disk as it was', async () => {
    const lab = await begin();
    const sha256 = lab.sha256();
    const interrupted = lab.stage({ onProgress: () => lab.controller.abort() });
    await expect(interrupted).rejects.toMatchObject({ code: 'ABORTED' });
    lab.controller = new AbortController();
    await lab.stage();
    await discardStage(lab.directory, item.lab.ports.files);
    expect(existsSync(lab.directory)).toBe(false);
    expect(lab.sha256()).toBe(sha256);
    await discardStage(lab.directory, item.lab.ports.files);
  });

  it('cannot be given up once it may be half laid', async () => {
    const lab = await begin();
    await lab.stage();
    await lab.complete();
    await expect(discardStage(lab.directory, item.lab.ports.files)).rejects.toMatchObject({ code: 'LOCAL_STATE' });
    await lab.lay();
    await discardStage(lab.directory, item.lab.ports.files);
    expect(existsSync(lab.directory)).toBe(false);
    expect((await lab.read()).equals(item.disks[0]!)).toBe(true);
  });
});

describe('what is damaged', () => {
  it('in the store ends the staging with a typed error, and the disk was not touched', async () => {
    const lab = await begin();
    const sha256 = lab.sha256();
    // The slot of chunk 0.
    const offset = 1024 * 1024;
    const real = await item.lab.replica();
    const read = real.store.pages.bind(real.store);
    vi.spyOn(Object.getPrototypeOf(real.store), 'pages').mockImplementation((key) => {
      const pages = read(key as string);
      return Object.assign(Object.create(pages), {
        read: async (...args: Parameters<typeof pages.read>) => {
          const got = Buffer.from(await pages.read(...args));
          if (key === baseKey('d0', 0) && args[0] === offset) got[200]! ^= 1;
          return got;
        },
      });
    });
    try {
      await expect(lab.stage()).rejects.toMatchObject({ code: 'REPLICA_SLOT' });
    } finally {
      vi.restoreAllMocks();
    }
    expect(lab.sha256()).toBe(sha256);
    await lab.stage();
    await finish(lab);
  });

  it('in stage.bin is found before anything is laid, and fetched again', async () => {
    const lab = await begin();
    await lab.stage();
    damage(lab, 'stage.bin', (bytes) => {
      bytes[CHUNK + 5]! ^= 1;
      return undefined;
    });
    requests.clear();
    await lab.complete();
    expect(requests.get('base read')).toBe(1);
    damage(lab, 'stage.bin', (bytes) => bytes.fill(0));
    await lab.lay();
    await lab.prove();
    expect((await lab.read()).equals(item.disks[0]!)).toBe(true);
  });

  it('in stage.bin, cut off, is fetched again', async () => {
    const lab = await begin();
    await lab.stage();
    damage(lab, 'stage.bin', (bytes) => bytes.subarray(0, 2 * CHUNK - 100));
    await finish(lab);
  });

  it('in stage.index counts as not staged, and is fetched again by the next comparison', async () => {
    for (let bit = 0; bit < 32 * 8; bit += 5) {
      const lab = bit === 0 ? await begin() : new StageLab(item, 0);
      await lab.stage();
      damage(lab, 'stage.index', (bytes) => {
        bytes[bit >> 3]! ^= 1 << (bit & 7);
        return undefined;
      });
      damage(lab, 'stage.json', rewound);
      expect(await lab.stage()).toMatchObject({ fetchedChunks: 1, reusedChunks: 3 });
    }
    const lab = new StageLab(item, 0);
    await finish(lab);
  });

  it('in stage.index, moved to the place of another chunk, is not taken for it', async () => {
    const lab = await begin();
    await lab.stage();
    damage(lab, 'stage.index', (bytes) => {
      bytes.copyWithin(5 * 32, 0, 32);
      return undefined;
    });
    await lab.complete();
    expect(await lab.lay()).toMatchObject({ chunksWritten: 3, chunksZeroed: 1 });
    await lab.prove();
  });

  it('in stage.json, or files that do not belong to it, are refused', async () => {
    const lab = await begin();
    await lab.stage();
    const path = `${lab.directory}/stage.json`;
    const good = readFileSync(path);
    for (let at = 0; at < good.byteLength; at += 1) {
      damage(lab, 'stage.json', (bytes) => {
        bytes[at]! ^= 1;
        return undefined;
      });
      await expect(lab.stage(), `byte ${at}`).rejects.toMatchObject({ code: 'LOCAL_STATE' });
      writeFileSync(path, good);
    }
    for (const bytes of [Buffer.alloc(0), good.subarray(0, 100), Buffer.alloc(2 << 20, 'x')]) {
      writeFileSync(path, bytes);
      await expect(lab.stage()).rejects.toMatchObject({ code: 'LOCAL_STATE' });
    }
    writeFileSync(path, good);
    const index = readFileSync(`${lab.directory}/stage.index`);
    damage(lab, 'stage.index', (bytes) => bytes.subarray(32));
    await expect(lab.stage()).rejects.toMatchObject({ code: 'LOCAL_STATE' });
    writeFileSync(`${lab.directory}/stage.index`, index);
    rmSync(`${lab.directory}/stage.bin`);
    await expect(lab.stage()).rejects.toMatchObject({ code: 'LOCAL_STATE' });
  });
});

describe('the folder of a stage', () => {
  it('is of one disk of one replica', async () => {
    const lab = await begin();
    await lab.stage();
    const path = `${lab.directory}/stage.json`;
    const { check: _, ...body } = JSON.parse(readFileSync(path, 'utf8'));
    const other = { ...body, disk: '00'.repeat(16) };
    writeFileSync(path, canonicalJson({ ...other, check: crc32(canonicalJson(other)) }));
    await expect(lab.stage()).rejects.toMatchObject({ code: 'LOCAL_STATE', message: expect.stringMatching(/another/) });
  });

  it('holds nothing else, and has room', async () => {
    const lab = await begin();
    const { files } = nodePorts();
    await files.makeDirectory(lab.directory);
    writeFileSync(`${lab.directory}/letter.txt`, 'dear');
    await expect(lab.stage()).rejects.toMatchObject({ code: 'OUTPUT_EXISTS' });
    await discardStage(lab.directory, files);
    expect(readFileSync(`${lab.directory}/letter.txt`, 'utf8')).toBe('dear');
    rmSync(`${lab.directory}/letter.txt`);
    const replica = await item.lab.replica();
    const open = openStage({ directory: lab.directory, replica, disk: 0, files, neededBytes: 2 ** 60 });
    await expect(open).rejects.toMatchObject({ code: 'OUTPUT_FAILED', facts: { neededBytes: 2 ** 60 } });
  });

  it('takes the place of one that a kill left before its stage.json', async () => {
    const lab = await begin();
    await lab.stage();
    rmSync(`${lab.directory}/stage.json`);
    expect(await lab.stage()).toMatchObject({ fetchedChunks: 3 });
    await finish(lab);
  });
});

/** Much time has passed whenever it is asked. */
function everLater(clock: Clock): Clock {
  let nowMs = 0;
  return {
    ...clock,
    nowMs: () => clock.nowMs(),
    sleep: (ms, signal) => clock.sleep(ms, signal),
    monotonicMs: () => {
      nowMs += 10_000;
      return nowMs;
    },
  };
}

/** The same stage.json with nothing compared yet. */
function rewound(bytes: Buffer): Buffer {
  const { check: _, ...body } = JSON.parse(bytes.toString('utf8'));
  const changed = { ...body, cursor: 0 };
  return Buffer.from(canonicalJson({ ...changed, check: crc32(canonicalJson(changed)) }));
}
