/**
 * CrashLab: a disk that is written while the power may fail after any operation on its file. After each of them it takes
 * what a new start would find (writes that were not synced are there, or not, or in part) and asks whether the image opens,
 * passes the check, and holds in every sector the last flushed value or a later one.
 */
import type { FileSystem, RandomAccessFile } from '../../src/ports.ts';
import { checkDisk, openDisk, openDiskForWriting, type WritableDisk } from '../../src/vhd/index.ts';
import { type CrashFileSystem, crashFileSystem } from '../support/crash-files.ts';
import { Dice } from '../support/dice.ts';
import type { MemoryFileSystem } from '../support/memory-files.ts';
import { type DiskKind, randomRange } from './write-model.ts';

const SECTOR_BYTES = 512;

/** What a sync is for: the n-th of a flush or of closing, or one of another step (a footer's, a header's). */
export type SyncRole = 'flush 1' | 'flush 2' | 'flush 3' | 'step';

/** What every sector may hold: what it held at the last flush, or what was written since. */
export class SectorModel {
  readonly #flushed: Buffer;
  readonly #later = new Map<number, Buffer[]>();
  readonly #latest: Buffer;
  #writes: number;

  constructor(flushed: Buffer, writes = 0) {
    this.#flushed = Buffer.from(flushed);
    this.#latest = Buffer.from(flushed);
    this.#writes = writes;
  }

  /** New content for a range, unlike that of any other place or time. To be called before it is written. */
  content(offset: number, lengthBytes: number): Buffer {
    this.#writes += 1;
    const bytes = Buffer.alloc(lengthBytes);
    for (let at = 0; at < lengthBytes; at += 4) {
      bytes.writeUInt32LE((Math.imul(this.#writes, 0x9e3779b1) ^ (offset + at) ^ 0x5a000000) >>> 0, at);
    }
    this.#note(offset, bytes);
    return bytes;
  }

  zeros(offset: number, lengthBytes: number): void {
    this.#note(offset, Buffer.alloc(lengthBytes));
  }

  /** A flush has returned. */
  settle(): void {
    this.#latest.copy(this.#flushed);
    this.#later.clear();
  }

  /** The first sector that holds what it may not; undefined if none does. */
  fault(found: Buffer): string | undefined {
    if (found.equals(this.#latest)) return undefined;
    for (let at = 0; at < found.length; at += SECTOR_BYTES) {
      const sector = found.subarray(at, at + SECTOR_BYTES);
      if (sector.equals(this.#flushed.subarray(at, at + SECTOR_BYTES))) continue;
      if (!(this.#later.get(at) ?? []).some((bytes) => bytes.equals(sector))) {
        return `sector at ${at} begins ${sector.subarray(0, 8).toString('hex')}: neither flushed nor written since`;
      }
    }
    return undefined;
  }

  #note(offset: number, bytes: Buffer): void {
    bytes.copy(this.#latest, offset);
    for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
      const known = this.#later.get(offset + at) ?? [];
      this.#later.set(offset + at, [...known, Buffer.from(bytes.subarray(at, at + SECTOR_BYTES))]);
    }
  }
}

/** What a run found. */
export interface CrashReport {
  cuts: number;
  readonly faults: string[];
}

/** How to run. */
export interface CrashPlan {
  readonly kind: DiskKind;
  readonly path: string;
  readonly seed: number;
  readonly actions: number;
  /** Syncs of this role do nothing: a negative control. */
  readonly dropped?: SyncRole;
  /** One in so many cuts is opened for writing again, with cuts of its own. */
  readonly secondLifeOneIn?: number;
  /** Power fails only while the disk is closed. */
  readonly onlyAtClose?: boolean;
  /** In which life syncs are dropped. */
  readonly droppedInLife?: 1 | 2;
}

/** Writes the disk at random; power may fail after every operation. Ends at the first fault. */
export async function crashRun(
  plan: CrashPlan,
  before: ReadonlyMap<string, Uint8Array>,
  content: Buffer,
): Promise<CrashReport> {
  const report: CrashReport = { cuts: 0, faults: [] };
  await live(plan, before, new SectorModel(content), new Dice(plan.seed), 1, report);
  return report;
}

class Stop extends Error {}

async function live(
  plan: CrashPlan,
  before: ReadonlyMap<string, Uint8Array>,
  model: SectorModel,
  dice: Dice,
  life: 1 | 2,
  report: CrashReport,
): Promise<void> {
  const { kind, path } = plan;
  const crash = crashFileSystem(before);
  const random = { bytes: (n: number) => dice.bytes(n), fraction: () => dice.next() / 2 ** 32 };
  const drops = plan.dropped !== undefined && (plan.droppedInLife ?? 1) === life ? plan.dropped : undefined;
  let isClosing = false;
  const inspect = async (): Promise<void> => {
    if (plan.onlyAtClose === true && !isClosing) return;
    report.cuts += 1;
    const image = crash.powerCut(random);
    const fault = await faultOf(image, path, kind, model);
    if (fault !== undefined) report.faults.push(`life ${life}, cut ${report.cuts}: ${fault}`);
    if (report.faults.length > 0) throw new Stop();
    if (life === 1 && plan.secondLifeOneIn !== undefined && dice.oneIn(plan.secondLifeOneIn)) {
      const found = new Map([...before.keys()].map((name) => [name, image.get(name)!]));
      const disk = await openDisk(path, { ports: { files: image }, format: kind.format });
      const now = Buffer.alloc(kind.sizeBytes);
      await disk.read(now, 0);
      await live({ ...plan, actions: 4 }, found, new SectorModel(now, 1000 + report.cuts), dice, 2, report);
    }
  };
  const watched = new WatchedFiles(crash, inspect, drops);
  const ports = { files: watched.asFileSystem(), random };
  try {
    const disk = await openDiskForWriting(path, { ports, format: kind.format });
    for (let i = 0; i < plan.actions; i += 1) await act(disk, model, kind, dice, watched);
    watched.syncsOfFlush = 0;
    isClosing = true;
    await disk.close();
    model.settle();
    await inspect();
  } catch (error) {
    if (report.faults.length === 0) throw error;
  }
}

async function act(
  disk: WritableDisk,
  model: SectorModel,
  kind: DiskKind,
  dice: Dice,
  files: WatchedFiles,
): Promise<void> {
  if (dice.oneIn(4)) {
    files.syncsOfFlush = 0;
    await disk.flush();
    files.syncsOfFlush = undefined;
    model.settle();
    return;
  }
  const { offset, lengthBytes } = randomRange(kind, dice);
  if (dice.oneIn(3)) {
    model.zeros(offset, lengthBytes);
    await disk.zero(offset, lengthBytes, dice.oneIn(2) ? { unmap: true } : {});
  } else {
    await disk.write(model.content(offset, lengthBytes), offset);
  }
}

/** What is wrong with the image after a power cut. */
async function faultOf(
  files: MemoryFileSystem,
  path: string,
  kind: DiskKind,
  model: SectorModel,
): Promise<string | undefined> {
  try {
    const disk = await openDisk(path, { ports: { files }, format: kind.format });
    const found = Buffer.alloc(kind.sizeBytes, 0xee);
    await disk.read(found, 0);
    const fault = model.fault(found);
    if (fault !== undefined) return fault;
  } catch (error) {
    return String(error);
  }
  if (kind.format === 'raw') return undefined;
  const { faults } = await checkDisk(path, { ports: { files } });
  return faults[0] === undefined ? undefined : `check: ${faults[0].rule}`;
}

/** The files of a crash test, with a look after every operation. */
class WatchedFiles {
  /** Syncs since a flush began; undefined outside of one. */
  syncsOfFlush: number | undefined;
  readonly #files: CrashFileSystem;
  readonly #afterEach: () => Promise<void>;
  readonly #dropped: SyncRole | undefined;

  constructor(files: CrashFileSystem, afterEach: () => Promise<void>, dropped: SyncRole | undefined) {
    this.#files = files;
    this.#afterEach = afterEach;
    this.#dropped = dropped;
  }

  asFileSystem(): FileSystem {
    const open: FileSystem['open'] = async (path, mode) => this.#watch(await this.#files.open(path, mode));
    return Object.assign(Object.create(this.#files), { open });
  }

  #watch(file: RandomAccessFile): RandomAccessFile {
    return {
      ...file,
      write: async (from, position) => {
        await file.write(from, position);
        await this.#afterEach();
      },
      truncate: async (sizeBytes) => {
        await file.truncate(sizeBytes);
        await this.#afterEach();
      },
      sync: async () => {
        if (this.#role() !== this.#dropped) await file.sync();
        await this.#afterEach();
      },
    };
  }

  #role(): SyncRole {
    if (this.syncsOfFlush === undefined) return 'step';
    this.syncsOfFlush += 1;
    return `flush ${this.syncsOfFlush}` as SyncRole;
  }
}
