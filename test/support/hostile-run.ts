/**
 * Judges what a disk format does with damaged images. Whatever the bytes: it opens or refuses with an error of the
 * source area, soon, with bounded reads; what it opens has extents without gaps of which no two share a byte of a file,
 * and reads the same in any pieces; and opening and checking agree. Everything else is a finding.
 */
import { ERROR_CODES, isBlockferryError } from '../../src/errors.ts';
import type { FileStamp, FileSystem, RandomAccessFile } from '../../src/ports.ts';
import type { checkDisk, Extent, openDisk, VirtualDisk } from '../../src/vhd/index.ts';
import { Dice } from './dice.ts';
import { errno } from './memory-files.ts';
import { type BaseImage, mutate } from './mutator.ts';
import { PAGE_BYTES, type PagedImage } from './paged-image.ts';
import { startWatchdog } from './watchdog.ts';

/** What is judged. A canary brings one with a bug in it. */
export interface Subject {
  readonly openDisk: typeof openDisk;
  readonly checkDisk: typeof checkDisk;
}

/** Images to damage, beside sound files that they need. */
export interface Images {
  readonly bases: readonly BaseImage[];
  /** Parents, under their paths in DIRECTORY. */
  readonly others: ReadonlyMap<string, PagedImage>;
}

export interface Campaign extends Images {
  readonly subject: Subject;
  readonly seed: number;
  readonly firstCase: number;
  readonly cases: number;
  /** One image in so many is checked as well as opened: that costs as much again as opening it twice. */
  readonly checkedOneIn: number;
  /** The campaign ends with so many findings. */
  readonly findingsMax: number;
}

/** One case that went wrong. `seed` and `caseNumber` make it again. */
export interface Finding {
  readonly seed: number;
  readonly caseNumber: number;
  readonly base: string;
  readonly steps: readonly string[];
  readonly problem: string;
}

/** What came of a campaign. `memoryGrownBytes`: the resident memory at its highest, over that at the start. */
export interface Report {
  readonly findings: readonly Finding[];
  /** Cases by what came of them: `opened`, or the code of the refusal. */
  readonly outcomes: Readonly<Record<string, number>>;
  readonly slowestMs: number;
  readonly memoryGrownBytes: number;
}

/** Where the damaged image and the others lie. */
export const DIRECTORY = '/hostile';
const PATH = `${DIRECTORY}/damaged`;
/** No structure is read in larger pieces than a window of a log or an item of metadata. */
const READ_BYTES_MAX = 1024 * 1024;
/** An image of a few MiB gives no reason for more; a sparse one of GiB may hold a log of that size. */
const READS_MAX = 20_000;
/** Of the processor: how busy the machine is does not count. */
const CASE_MS_MAX = 1000;
const HANG_MS = 30_000;
const EXTENTS_MAX = 10_000;
/** A message may quote the file, and not be filled by it. */
const MESSAGE_CHARACTERS_MAX = 4000;
const MEMORY_SAMPLE_CASES = 1000;

/** The files of a campaign are there, can be read, and stay as they are. */
const IMPOSSIBLE: ReadonlySet<string> = new Set(['DISK_NOT_FOUND', 'DISK_UNREADABLE', 'SOURCE_CHANGED']);

class Complaint extends Error {}

/** Runs the cases, in order of their numbers. */
export async function runCampaign(campaign: Campaign): Promise<Report> {
  const { bases, seed, firstCase, cases, findingsMax } = campaign;
  const findings: Finding[] = [];
  const outcomes: Record<string, number> = {};
  let slowestMs = 0;
  let memoryGrownBytes = 0;
  const memoryBytes = process.memoryUsage.rss();
  const watchdog = startWatchdog(HANG_MS, `seed ${seed}`);
  try {
    for (let caseNumber = firstCase; caseNumber < firstCase + cases && findings.length < findingsMax; caseNumber += 1) {
      watchdog.alive(caseNumber);
      const dice = new Dice(seed, caseNumber);
      const base = dice.pick(bases);
      const { image, steps } = mutate(base, dice.pick(bases), dice);
      try {
        const { outcome, ms } = await judge(campaign, image, caseNumber);
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
        slowestMs = Math.max(slowestMs, ms);
      } catch (error) {
        const problem = error instanceof Complaint ? error.message : describe(error);
        findings.push({ seed, caseNumber, base: base.name, steps, problem });
      }
      if (caseNumber % MEMORY_SAMPLE_CASES === 0) {
        memoryGrownBytes = Math.max(memoryGrownBytes, process.memoryUsage.rss() - memoryBytes);
      }
    }
  } finally {
    await watchdog.stop();
  }
  return { findings, outcomes, slowestMs, memoryGrownBytes };
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

async function judge(
  campaign: Campaign,
  image: PagedImage,
  caseNumber: number,
): Promise<{ readonly outcome: string; readonly ms: number }> {
  const once = async (clockMs: () => number): Promise<{ outcome: string; ms: number }> => {
    const startMs = clockMs();
    const outcome = await play(campaign, image, new Dice(campaign.seed + 1, caseNumber));
    return { outcome, ms: clockMs() - startMs };
  };
  // Time of the processor is dear to ask for; of one thread it is never more than what went by.
  const first = await once(() => performance.now());
  if (first.ms <= CASE_MS_MAX) return first;
  // Memory may have been tidied up just then; what is slow by itself is slow twice.
  const second = await once(cpuMs);
  if (second.ms > CASE_MS_MAX) complain(`took ${Math.round(second.ms)} ms`);
  return second;
}

async function play({ subject, others, checkedOneIn }: Campaign, image: PagedImage, dice: Dice): Promise<string> {
  const meter = new MeteredFiles(new Map([...others, [PATH, image]]));
  const ports = { files: meter.asFileSystem() };
  const outcome = await openAndJudge(subject, ports, dice);
  if (meter.openFiles !== 0) complain(`${meter.openFiles} files were left open`);
  meter.rethrow();
  if (!dice.oneIn(checkedOneIn)) return outcome;
  const { info, faults } = await subject.checkDisk(PATH, { ports });
  for (const { code, file } of faults) {
    if (!isSourceCode(code) || (IMPOSSIBLE.has(code) && file !== DIRECTORY)) complain(`the check reports ${code}`);
  }
  if (outcome === 'opened' && info === undefined) complain('opens, but the check could not open it');
  if (outcome !== 'opened' && faults.length === 0) complain(`${outcome} on opening, but the check finds no fault`);
  meter.rethrow();
  return outcome;
}

/** `opened`, or the code of the refusal. */
async function openAndJudge(subject: Subject, ports: { readonly files: FileSystem }, dice: Dice): Promise<string> {
  try {
    const disk = await subject.openDisk(PATH, { ports });
    await judgeDisk(disk, dice);
    await disk.close();
    return 'opened';
  } catch (error) {
    if (!isBlockferryError(error)) throw error;
    if (error.area !== 'source') complain(`${error.code} is no error of a source: ${error.message}`);
    if (error.message.length > MESSAGE_CHARACTERS_MAX)
      complain(`${error.code} with ${error.message.length} characters`);
    if (error.facts['source'] === undefined) complain(`${error.code} names no file: ${error.message}`);
    // A locator may name the folder of the disk, which can be looked up and not be read.
    if (IMPOSSIBLE.has(error.code) && error.facts['source'] !== DIRECTORY)
      complain(`${error.code}, but files do not fail or change here: ${error.message}`);
    return error.code;
  }
}

async function judgeDisk(disk: VirtualDisk, dice: Dice): Promise<void> {
  const { virtualSizeBytes, format } = disk.info;
  let at = 0;
  let count = 0;
  const stored: (Extent & { kind: 'data' })[] = [];
  for await (const extent of disk.extents(0, virtualSizeBytes)) {
    if (extent.offset !== at || extent.lengthBytes <= 0)
      complain(`extent of ${extent.lengthBytes} at ${extent.offset}, not ${at}`);
    if (extent.kind === 'memory' && extent.bytes.byteLength !== extent.lengthBytes)
      complain(`bytes at ${at} cut short`);
    if (extent.kind === 'data') stored.push(extent);
    at += extent.lengthBytes;
    count += 1;
    if (count === EXTENTS_MAX) break;
  }
  if (count < EXTENTS_MAX && at !== virtualSizeBytes) complain(`extents end at ${at} of ${virtualSizeBytes}`);
  if (format !== 'raw') complainAboutPlaces(stored);
  for (const offset of [dice.below(virtualSizeBytes), virtualSizeBytes - 700]) {
    await complainAboutReading(disk, Math.max(0, offset), dice);
  }
}

/** No two extents share a byte of a file: what one block of the guest holds, no other reads. */
function complainAboutPlaces(stored: readonly (Extent & { kind: 'data' })[]): void {
  const inOrder = [...stored].sort((a, b) => a.depth - b.depth || a.fileOffset - b.fileOffset);
  for (const [i, { depth, offset, fileOffset }] of inOrder.entries()) {
    const before = inOrder[i - 1];
    if (before?.depth !== depth) continue;
    if (before.fileOffset + before.lengthBytes > fileOffset) {
      complain(`${before.offset} and ${offset} are read from the same place, ${fileOffset}`);
    }
  }
}

/** A range reads the same in one piece and in two. */
async function complainAboutReading(disk: VirtualDisk, offset: number, dice: Dice): Promise<void> {
  const lengthBytes = Math.min(dice.pick([1, 700, 5000]), disk.info.virtualSizeBytes - offset);
  const whole = Buffer.alloc(lengthBytes, 0xaa);
  await disk.read(whole, offset);
  const pieces = Buffer.alloc(lengthBytes, 0x55);
  const middle = dice.between(0, lengthBytes);
  await disk.read(pieces.subarray(0, middle), offset);
  await disk.read(pieces.subarray(middle), offset + middle);
  if (!whole.equals(pieces)) complain(`${lengthBytes} bytes at ${offset} read otherwise in two pieces`);
}

/** Sound and damaged images as files, of which a reader may not ask too much. */
class MeteredFiles {
  openFiles = 0;
  #reads = 0;
  /** Thrown where it is met, and again at the end: a reader may take it for an error of its file. */
  #complaint: Complaint | undefined;
  readonly #images: ReadonlyMap<string, PagedImage>;

  constructor(images: ReadonlyMap<string, PagedImage>) {
    this.#images = images;
  }

  /** As a port; what no reader needs is refused. */
  asFileSystem(): FileSystem {
    const refuse = (): never => this.#complain('a reader changes nothing, and looks for nothing but its files');
    return {
      open: async (path, mode) => (mode === 'read' ? this.#open(path) : refuse()),
      realPath: async (path) => (path === DIRECTORY ? path : this.#imageAt(path) && path),
      ...{ readSmall: refuse, replace: refuse, createExclusive: refuse, rename: refuse, remove: refuse },
      ...{
        removeTree: refuse,
        removeEmpty: refuse,
        makeDirectory: refuse,
        list: refuse,
        exists: refuse,
        syncDirectory: refuse,
      },
      freeBytes: refuse,
      volumeBytes: refuse,
      volume: refuse,
    };
  }

  #imageAt(path: string): PagedImage {
    const image = this.#images.get(path);
    if (image === undefined) throw errno('ENOENT', path);
    return image;
  }

  #open(path: string): RandomAccessFile {
    const image = this.#imageAt(path);
    const refuse = async (): Promise<never> => this.#complain('a source is never written');
    this.openFiles += 1;
    return {
      path,
      descriptor: undefined,
      stamp: async (): Promise<FileStamp> => ({
        sizeBytes: image.sizeBytes,
        modifiedNs: 0n,
        identity: path,
        allocatedBytes: image.pageCount * PAGE_BYTES,
      }),
      sizeBytes: async () => image.sizeBytes,
      read: async (into, position) => {
        this.#meter(into.byteLength, position);
        return image.read(into, position);
      },
      write: refuse,
      truncate: refuse,
      sync: refuse,
      close: async () => {
        this.openFiles -= 1;
      },
    };
  }

  rethrow(): void {
    if (this.#complaint !== undefined) throw this.#complaint;
  }

  #meter(lengthBytes: number, position: number): void {
    this.#reads += 1;
    if (this.#reads > READS_MAX) this.#complain(`more than ${READS_MAX} reads`);
    if (lengthBytes > READ_BYTES_MAX) this.#complain(`a read of ${lengthBytes} bytes at ${position}`);
    if (!Number.isSafeInteger(position) || position < 0) this.#complain(`a read at ${position}`);
  }

  #complain(problem: string): never {
    this.#complaint ??= new Complaint(problem);
    throw this.#complaint;
  }
}

function isSourceCode(code: string): boolean {
  return code in ERROR_CODES && ERROR_CODES[code as keyof typeof ERROR_CODES] === 'source';
}

function complain(problem: string): never {
  throw new Complaint(problem);
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return `threw ${String(error)}`;
  const place =
    error.stack
      ?.split('\n')
      .find((line) => line.includes('/src/'))
      ?.trim() ?? '';
  return `${error.name}: ${error.message} ${place}`;
}
