/**
 * growth: how the cost of each verb grows with one thing, all else as it is. A machine is protected, compared, written to by a
 * guest, shipped, applied and brought back. Its disks are dynamic VHDX files, its store is a folder, and both lie on tmpfs.
 */
import { mkdir, open } from 'node:fs/promises';
import { Ferry } from '../blockferry.ts';
import { randomWrites } from '../fio.ts';
import { BLOCK_OF_HYPERV_BYTES, type Input, realContent, toVhdx } from '../input.ts';
import { GIB, KIB, type Lab, MIB, removeTree } from '../lab.ts';
import { type Outcome, reasonOf, reportRun } from '../race.ts';
import { startTrack } from '../served.ts';
import { missingTool } from '../tools.ts';

/** Content lies on a disk in pieces of so much, evenly spread: each is a block of a dynamic disk. */
const PIECE_BYTES = BLOCK_OF_HYPERV_BYTES;
/** Where guests write: in so much from the beginning, so that a larger disk does not mean that writes lie further apart. */
const WRITTEN_RANGE_BYTES = GIB;
/** Twice is enough for the shape of a curve. */
const ROUNDS = 2;

/** One life of a machine. */
interface Life {
  readonly disks: number;
  /** Of all disks together, as the next two. */
  readonly sizeBytes: number;
  readonly contentBytes: number;
  /** In writes of 4 KiB, anywhere. */
  readonly changedBytes: number;
  readonly chunkBytes: number;
  readonly workers: number;
}

const USUAL: Life = {
  disks: 1,
  sizeBytes: 4 * GIB,
  contentBytes: 256 * MIB,
  changedBytes: 8 * MIB,
  chunkBytes: 256 * KIB,
  workers: 2,
};

/** What one bench of growth varies: the unit of its axis, and the lives that are compared, by their place on it. */
export interface Growth {
  readonly unit: string;
  readonly points: readonly { readonly x: number; readonly life: Partial<Life> }[];
}

export const GROWTHS: Readonly<Record<string, Growth>> = {
  'growth-size': {
    unit: 'virtual size, GiB',
    points: [1, 16, 256, 4096].map((x) => ({ x, life: { sizeBytes: x * GIB } })),
  },
  'growth-allocated': {
    unit: 'allocated, MiB',
    points: [96, 192, 384, 768].map((x) => ({ x, life: { contentBytes: x * MIB } })),
  },
  'growth-changed': {
    unit: 'written by the guest, MiB',
    points: [1, 4, 16, 64].map((x) => ({ x, life: { changedBytes: x * MIB } })),
  },
  'growth-chunk': {
    unit: 'chunk size, KiB',
    points: [64, 256, 1024, 4096].map((x) => ({ x, life: { chunkBytes: x * KIB } })),
  },
  'growth-workers': {
    unit: 'worker threads',
    points: [1, 2].map((x) => ({ x, life: { workers: x, contentBytes: 768 * MIB } })),
  },
  'growth-disks': {
    unit: 'disks, together 256 MiB of content',
    points: [1, 2, 4, 8].map((x) => ({ x, life: { disks: x } })),
  },
};

/** In a smoke run the large things are smaller. */
function smoked(life: Life): Life {
  const { sizeBytes, contentBytes, changedBytes } = life;
  return {
    ...life,
    sizeBytes: Math.min(sizeBytes, 256 * GIB),
    contentBytes: Math.min(contentBytes, 64 * MIB),
    changedBytes: Math.min(changedBytes, 4 * MIB),
  };
}

export async function growth(lab: Lab, bench: string): Promise<void> {
  const { points } = GROWTHS[bench]!;
  const content = await realContent(lab, lab.size(GIB, 32 * MIB));
  if (missingTool('fio') === undefined) await lab.reportTool(bench, 'fio');
  for (let round = 1; round <= Math.min(ROUNDS, lab.rounds); round += 1) {
    for (const { x, life } of lab.smoke ? points.slice(0, 2) : points) {
      const whole = { ...USUAL, ...life };
      await live(lab, { bench, x, round }, content, lab.smoke ? smoked(whole) : whole);
    }
  }
}

/** One life, reported verb by verb. A verb that fails ends it: those behind it build on it. */
async function live(
  lab: Lab,
  place: { readonly bench: string; readonly x: number; readonly round: number },
  content: Input,
  life: Life,
): Promise<void> {
  const [folder, out, source] = [lab.target('replica'), lab.target('out'), lab.target('disks')];
  const workers = ['--workers', String(life.workers)];
  const report = (task: string, command: string, outcome: Outcome): void => {
    const about = { ...place, task, contestant: 'blockferry', command, input: describe(life) };
    reportRun(lab, about, outcome);
  };
  try {
    const disks = await makeDisks(source, content, life);
    const ferry = await Ferry.make(lab.target('home'));
    const options = ['--chunk-size', String(life.chunkBytes), ...workers];
    report('sync', 'blockferry protect', await ferry.protect(disks, `file://${folder}`, ...options));
    report('compare', 'blockferry resync', await ferry.run('resync', 'vm', ...workers));
    await guestWrites(ferry, life);
    report('ship', 'blockferry ship', await ferry.run('ship', 'vm', ...workers));
    report('apply', 'blockferry apply', await ferry.run('apply', 'vm', ...workers));
    const failover = ['failover', 'vm', '--test', '--format', 'vhdx', '--out', out, ...workers];
    report('restore', 'blockferry failover --test --format vhdx', await ferry.run(...failover));
  } catch (error) {
    lab.report({ type: 'failed', bench: place.bench, task: `at ${place.x}`, reason: reasonOf(error) });
  } finally {
    for (const path of [folder, out, source]) await removeTree(path);
  }
}

function describe({ disks, sizeBytes, contentBytes, changedBytes, chunkBytes, workers }: Life): string {
  const disk = `${disks} dynamic VHDX, together ${sizeBytes / GIB} GiB`;
  const bytes = `${contentBytes / MIB} MiB of real content and ${changedBytes / MIB} MiB of writes of 4 KiB`;
  return `${disk} with ${bytes}; chunks of ${chunkBytes / KIB} KiB, ${workers} workers`;
}

/** Disks with their share of the content, in pieces that are spread evenly. */
async function makeDisks(directory: string, content: Input, life: Life): Promise<string[]> {
  await mkdir(directory, { recursive: true });
  const source = await open(content.path);
  const piece = Buffer.alloc(PIECE_BYTES);
  const [sizeBytes, pieces] = [life.sizeBytes / life.disks, life.contentBytes / life.disks / PIECE_BYTES];
  const disks: string[] = [];
  for (let disk = 0; disk < life.disks; disk += 1) {
    const raw = `${directory}/disk${disk}.raw`;
    const file = await open(raw, 'wx');
    await file.truncate(sizeBytes);
    for (let i = 0; i < pieces; i += 1) {
      await source.read(piece, 0, PIECE_BYTES, ((disk * pieces + i) * PIECE_BYTES) % content.sizeBytes);
      await file.write(piece, 0, PIECE_BYTES, Math.floor((i * sizeBytes) / pieces / PIECE_BYTES) * PIECE_BYTES);
    }
    await file.close();
    const vhdx = `${directory}/disk${disk}.vhdx`;
    await toVhdx(raw, vhdx);
    await removeTree(raw);
    disks.push(vhdx);
  }
  await source.close();
  return disks;
}

/** A guest writes to each disk, through a tracker that ends afterwards. */
async function guestWrites(ferry: Ferry, life: Life): Promise<void> {
  const tracker = await startTrack(ferry);
  try {
    const size = Math.min(life.sizeBytes, WRITTEN_RANGE_BYTES) / life.disks;
    const job = { bs: 4 * KIB, size, io_size: life.changedBytes / life.disks, iodepth: 16 };
    for (const uri of tracker.uris) await randomWrites(uri, job);
  } finally {
    await tracker.stop();
  }
}
