/**
 * DirtyMap: which chunks of a disk may differ from its log, and from its replica, kept so that a crash finds it out.
 *
 *   active   it may hold bytes that log or disk do not durably have
 *   current  it was written since the running log began
 *   closed   it was written in a log that the replica has not acknowledged
 *
 * At every instant, whatever a crash leaves of the file: active ∪ current ∪ closed has every chunk in which disk and
 * replica may differ, and active has every chunk that log or disk may lack a part of.
 *
 * Why this holds. All that the file says of a chunk is in one sector, so a crash leaves one of its versions since the last
 * sync. A chunk becomes active in memory only when a version that has it is durable, and its write begins behind that.
 * Later versions drop it from *active* only when log and disk have it, and then have it as current or closed, so any mix of
 * versions is right; they need no sync. The same goes for rotating (current or closed: both count), and for forgetting
 * what the replica has. So the only sync that anyone waits for is that of the first write of a resting chunk.
 *
 * What callers promise:
 * - Every change of the disk stands between `begin` and `end`, also if `begin` fails; `end` comes when log and disk have taken
 *   it (not: durably), or it was given up, and gets the `epoch` that `begin` was called in.
 * - `makeDurable` of `settle` resolves only if every write that had ended when it was called is durable on the disk, and in
 *   a log (or the mark is durable that logs are given up).
 * - `rotate` is called while nothing stands between `begin` and `end`; `forgetClosed` when no closed log is left.
 * After the first error of the file nothing becomes active any more: `begin` fails for chunks that are not.
 */
import assert from 'node:assert';
import { MIB } from '../bytes.ts';
import type { Ports } from '../ports.ts';
import { DirtyMapFile, type OpenedMap } from './dirty-map-file.ts';
import { checkIdentity, chunkCountOf, type MapIdentity } from './dirty-map-format.ts';
import {
  ACTIVE,
  activateIn,
  CHUNKS_PER_PAGE,
  CLOSED,
  CURRENT,
  DirtyPage,
  isActiveIn,
  SET_WORDS_PER_PAGE,
} from './dirty-page.ts';

/** Where chunks are written one behind the other, so many bytes ahead become active with them at most. */
const AHEAD_BYTES_MAX: number = 16 * MIB;
/** Pages that are written between two turns of those who wait for a chunk. */
const STALE_PAGES_PER_TURN = 64;
const CHUNKS_PER_WORD = 32;
const ALL_OF_WORD = 0xffff_ffff;

/** `changed`: where disk and replica may differ. That is current and closed, and until it is adopted also active. */
export type DirtySet = 'active' | 'current' | 'closed' | 'changed';

/** Chunks `from` … `to` - 1. */
export interface DirtyRun {
  readonly from: number;
  readonly to: number;
}

export interface DirtyMapOptions extends MapIdentity {
  readonly ports: Pick<Ports, 'files'>;
}

/** Those who wait for one sync together. */
interface Group {
  /** Chunks that become active: first, behind the last, first … */
  readonly ranges: number[];
  done: Promise<void>;
}

/** The group whose pages are being written. */
interface Flight {
  readonly group: Group;
  readonly copies: ReadonlyMap<number, Buffer>;
}

export class DirtyMap {
  readonly chunkBytes: number;
  readonly #chunkCount: number;
  readonly #file: DirtyMapFile;
  readonly #pages: (DirtyPage | undefined)[];
  /** Every chunk is in the set, whatever the pages say. */
  #everyCurrent = false;
  #everyClosed: boolean;
  #isHeaderStale = false;
  /** False: *active* is what a crash left, and stays until it is adopted. */
  #isAdopted: boolean;
  #epoch = 0;
  /** Writes between `begin` and `end` that began in this epoch, and before. */
  #openHere = 0;
  #openEarlier = 0;
  #gathering: Group | undefined;
  #flight: Flight | undefined;
  #settling: Promise<void> | undefined;

  private constructor(identity: MapIdentity, { file, pages, isEverything }: OpenedMap) {
    this.chunkBytes = identity.chunkBytes;
    this.#chunkCount = chunkCountOf(identity);
    this.#file = file;
    this.#pages = pages;
    this.#everyClosed = isEverything;
    // The log that was running has ended.
    this.#forEachPage((page) => page.rotate());
    this.#isAdopted = this.count('active') === 0;
  }

  /**
   * Makes an empty map, or with `everything` one that has every chunk, durably. It takes the place of one that is there.
   * @throws OUTPUT_FAILED
   */
  static async create(path: string, options: DirtyMapOptions & { readonly everything?: boolean }): Promise<DirtyMap> {
    checkIdentity(options);
    const { everything = false, ports } = options;
    return new DirtyMap(options, await DirtyMapFile.create(path, options, everything, ports.files));
  }

  /**
   * Opens the map that `close` or a crash left. The log that was running then has ended: what was current is closed.
   * What is active must be read from the disk and written to the next log, then `adoptActive` is called.
   * @throws LOCAL_STATE if it is missing, damaged, or of another disk
   */
  static async open(path: string, options: DirtyMapOptions): Promise<DirtyMap> {
    checkIdentity(options);
    return new DirtyMap(options, await DirtyMapFile.open(path, options, options.ports.files));
  }

  /** Read it before `begin`; `end` wants it. */
  get epoch(): number {
    return this.#epoch;
  }

  /**
   * A write of [offset, offset + lengthBytes), inside the disk, is about to begin. undefined: at once. Otherwise it may when
   * this resolves. Who comes together shares one sync.
   * @throws OUTPUT_FAILED
   */
  begin(offset: number, lengthBytes: number): Promise<void> | undefined {
    this.#openHere += 1;
    const from = Math.floor(offset / this.chunkBytes);
    const to = Math.ceil((offset + lengthBytes) / this.chunkBytes);
    for (let chunk = from; chunk < to; chunk += 1) {
      const page = this.#pages[pageOf(chunk)];
      if (page === undefined || !page.touchIfReady(chunk % CHUNKS_PER_PAGE)) return this.#cover(from, to);
    }
    return undefined;
  }

  /** The write that began in `epoch` has ended, or was given up. */
  end(epoch: number): void {
    if (epoch === this.#epoch) this.#openHere -= 1;
    else this.#openEarlier -= 1;
  }

  /**
   * A sweep: chunks that nobody touched since the sweep before come to rest, behind `makeDurable`, which is called only if
   * there are any. None does while a write is under way that began before the sweep before. Calls at once share one sweep.
   * @throws OUTPUT_FAILED; what `makeDurable` throws, and then nothing comes to rest
   */
  settle(makeDurable: () => Promise<void>): Promise<void> {
    this.#settling ??= this.#sweep(makeDurable).finally(() => {
      this.#settling = undefined;
    });
    return this.#settling;
  }

  /** At the barrier: closed ∪= current, current = ∅. In memory; a crash finds both alike. */
  rotate(): void {
    assert(this.#openHere + this.#openEarlier === 0, 'a dirty map is rotated while no write is under way');
    this.#forEachPage((page) => page.rotate());
    this.#everyClosed ||= this.#everyCurrent;
    this.#everyCurrent = false;
  }

  /** The replica has every closed log: closed = ∅. @throws OUTPUT_FAILED */
  async forgetClosed(): Promise<void> {
    this.#forEachPage((page) => page.forgetClosed());
    if (this.#everyClosed) this.#isHeaderStale = true;
    this.#everyClosed = false;
    await this.sync();
  }

  /** Makes every chunk current, durably: the disk was changed while nobody looked. @throws OUTPUT_FAILED */
  async markAll(): Promise<void> {
    this.#everyCurrent = true;
    this.#isHeaderStale = true;
    await this.sync();
  }

  /**
   * What was active when the map was opened is in the running log, durably, or logs are given up: it is current, and may
   * come to rest.
   */
  adoptActive(): void {
    this.#forEachPage((page) => page.adoptActive());
    this.#isAdopted = true;
  }

  isChanged(chunk: number): boolean {
    if (this.#everyCurrent || this.#everyClosed) return true;
    return this.#pages[pageOf(chunk)]?.has(this.#setsOf('changed'), chunk % CHUNKS_PER_PAGE) ?? false;
  }

  /** Chunks in a set. Goes through the map: for a status, not for each write. */
  count(set: DirtySet): number {
    let count = 0;
    for (const { from, to } of this.runs(set)) count += to - from;
    return count;
  }

  /** Runs of chunks of a set from chunk `from` on, ascending and apart; as they are when they are asked for. */
  *runs(set: DirtySet, from = 0): Generator<DirtyRun, void, void> {
    const sets = this.#setsOf(set);
    if (((sets & CURRENT) !== 0 && this.#everyCurrent) || ((sets & CLOSED) !== 0 && this.#everyClosed)) {
      if (from < this.#chunkCount) yield { from, to: this.#chunkCount };
      return;
    }
    let start: number | undefined;
    for (let n = pageOf(from); n < this.#pages.length; n += 1) {
      const page = this.#pages[n];
      if (page === undefined && start === undefined) continue;
      for (let word = 0; word < SET_WORDS_PER_PAGE; word += 1) {
        // Nearly all of a map goes on as it began.
        const bits = page?.unionWord(sets, word) ?? 0;
        if (bits === (start === undefined ? 0 : ALL_OF_WORD)) continue;
        for (let i = 0; i < CHUNKS_PER_WORD; i += 1) {
          const inPage = word * CHUNKS_PER_WORD + i;
          const chunk = n * CHUNKS_PER_PAGE + inPage;
          const isIn = chunk >= from && page?.has(sets, inPage) === true;
          if (isIn && start === undefined) start = chunk;
          else if (!isIn && start !== undefined) {
            yield { from: start, to: chunk };
            start = undefined;
          }
        }
      }
    }
    if (start !== undefined) yield { from: start, to: this.#chunkCount };
  }

  /** Writes what changed in memory, and makes it durable. Nothing depends on it: a crash finds less that is outdated. */
  async sync(): Promise<void> {
    await this.#writeStale();
    await this.#file.inTurn(() => this.#file.sync());
  }

  /**
   * The end: every write has ended, log and disk are durable. Nothing is active any more.
   * @throws OUTPUT_FAILED; the file is closed, and as after a crash
   */
  async close(): Promise<void> {
    try {
      await this.#settling?.catch(() => {});
      if (this.#isAdopted && this.#openHere + this.#openEarlier === 0) this.#forEachPage((page) => page.deactivate());
      await this.sync();
    } finally {
      await this.#file.close();
    }
  }

  /** Gives the file back and leaves it as a crash would. */
  async abandon(): Promise<void> {
    await this.#file.close();
  }

  /** The slow part of `begin`: chunks that are not active, or not current. */
  #cover(from: number, to: number): Promise<void> | undefined {
    let resting: number | undefined;
    for (let chunk = from; chunk < to; chunk += 1) {
      if (!this.#page(chunk).begin(chunk % CHUNKS_PER_PAGE)) resting ??= chunk;
    }
    if (resting === undefined) return undefined;
    if (this.#file.failure) return Promise.reject(this.#file.failure);
    if (this.#flight && this.#brings(this.#flight, resting, to)) {
      this.#flight.group.ranges.push(resting, to);
      return this.#flight.group.done;
    }
    const group = this.#gathering ?? this.#gather();
    group.ranges.push(resting, Math.min(this.#chunkCount, to + this.#aheadOf(resting)));
    return group.done;
  }

  #gather(): Group {
    const group: Group = { ranges: [], done: Promise.resolve() };
    group.done = this.#file.inTurn(() => this.#fly(group));
    this.#gathering = group;
    return group;
  }

  /** As many chunks as are active without a gap before `chunk`: what is written in a row doubles its lead each time. */
  #aheadOf(chunk: number): number {
    const aheadMax = AHEAD_BYTES_MAX / this.chunkBytes;
    let ahead = 0;
    while (ahead < aheadMax && ahead < chunk && this.#isActive(chunk - ahead - 1)) ahead += 1;
    return ahead;
  }

  /** Whether the chunks are active once the pages under way are durable. */
  #brings({ copies }: Flight, from: number, to: number): boolean {
    for (let chunk = from; chunk < to; chunk += 1) {
      const copy = copies.get(pageOf(chunk));
      const isIn = copy !== undefined && isActiveIn(copy, chunk % CHUNKS_PER_PAGE);
      if (!isIn && !this.#isActive(chunk)) return false;
    }
    return true;
  }

  /** Writes the pages of a group and makes them durable; only then are its chunks active in memory. */
  async #fly(group: Group): Promise<void> {
    this.#gathering = undefined;
    const copies = new Map<number, Buffer>();
    forEachChunk(group.ranges, (chunk) => {
      const n = pageOf(chunk);
      const copy = copies.get(n) ?? copyToWrite(this.#page(chunk));
      copies.set(n, copy);
      activateIn(copy, chunk % CHUNKS_PER_PAGE);
    });
    this.#flight = { group, copies };
    try {
      await this.#file.writePages(copies);
      await this.#file.sync();
    } finally {
      this.#flight = undefined;
    }
    forEachChunk(group.ranges, (chunk) => this.#page(chunk).activate(chunk % CHUNKS_PER_PAGE));
  }

  async #sweep(makeDurable: () => Promise<void>): Promise<void> {
    const mayRest = this.#isAdopted && this.#openEarlier === 0;
    this.#openEarlier += this.#openHere;
    this.#openHere = 0;
    this.#epoch += 1;
    let isAnyResting = false;
    this.#forEachPage((page) => {
      if (page.beginSweep()) isAnyResting = true;
    });
    if (mayRest && isAnyResting) {
      await makeDurable();
      this.#forEachPage((page) => page.rest());
    }
    await this.#writeStale();
  }

  /** Writes pages whose version in the file is outdated, in turns, and drops those with nothing in them from memory. */
  async #writeStale(): Promise<void> {
    const stale: number[] = [];
    for (let n = 0; n < this.#pages.length; n += 1) if (this.#pages[n]?.isStale) stale.push(n);
    for (let i = 0; i < stale.length; i += STALE_PAGES_PER_TURN) {
      await this.#file.inTurn(() => this.#writePages(stale.slice(i, i + STALE_PAGES_PER_TURN)));
    }
    if (!this.#isHeaderStale) return;
    await this.#file.inTurn(async () => {
      this.#isHeaderStale = false;
      await this.#file.writeHeader(this.#everyCurrent || this.#everyClosed);
    });
  }

  async #writePages(numbers: readonly number[]): Promise<void> {
    const copies = new Map<number, Buffer>();
    for (const n of numbers) {
      const page = this.#pages[n];
      if (page?.isStale) copies.set(n, copyToWrite(page));
    }
    await this.#file.writePages(copies);
    for (const n of copies.keys()) {
      const page = this.#pages[n];
      if (page?.isEmpty && !page.isStale) this.#pages[n] = undefined;
    }
  }

  #page(chunk: number): DirtyPage {
    const n = pageOf(chunk);
    this.#pages[n] ??= new DirtyPage();
    return this.#pages[n];
  }

  #isActive(chunk: number): boolean {
    return this.#pages[pageOf(chunk)]?.has(ACTIVE, chunk % CHUNKS_PER_PAGE) ?? false;
  }

  #setsOf(set: DirtySet): number {
    if (set === 'active') return ACTIVE;
    if (set === 'current') return CURRENT;
    if (set === 'closed') return CLOSED;
    return this.#isAdopted ? CURRENT | CLOSED : ACTIVE | CURRENT | CLOSED;
  }

  #forEachPage(visit: (page: DirtyPage) => void): void {
    for (const page of this.#pages) if (page) visit(page);
  }
}

function pageOf(chunk: number): number {
  return Math.floor(chunk / CHUNKS_PER_PAGE);
}

function forEachChunk(ranges: readonly number[], visit: (chunk: number) => void): void {
  for (let i = 0; i < ranges.length; i += 2) {
    for (let chunk = ranges[i]!; chunk < ranges[i + 1]!; chunk += 1) visit(chunk);
  }
}

/** A copy for the file, which from then on has this version. */
function copyToWrite(page: DirtyPage): Buffer {
  page.isStale = false;
  return page.copy();
}
