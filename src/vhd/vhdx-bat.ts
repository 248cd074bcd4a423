/**
 * The block allocation table of a VHDX ([MS-VHDX] 2.5): which block of the disk lies where. Entry, 8 bytes:
 *
 *   bits 0 … 2   state                  bits 20 … 63   file offset in MiB
 *   bits 3 … 19  reserved, zeros
 *
 * States of a payload block: 0 not present (the parent's; absent without one), 1 undefined, 2 zero, 3 unmapped (zeros,
 * in a child too), 6 fully present, 7 partially present (a child's; the sector bitmap tells). 4 and 5 are refused, so
 * is 7 without a parent. Offsets on absent states are legal leftovers. A sector bitmap block is 0 not present or 6
 * present; without a parent its entries mean nothing and are not looked at (old qemu leaves garbage there).
 *
 * The table of a 64 TiB disk is 513 MiB, so it is read in pages, and a page becomes a few runs of blocks at once.
 */
import { alignUp } from '../bytes.ts';
import type { BlockferryError } from '../errors.ts';
import { TABLE_PAGE_BYTES, type TableCache } from './table-cache.ts';
import type { VhdxBytes } from './vhdx-bytes.ts';
import {
  type BatGeometry,
  bitmapEntryIndex,
  guestBytesOfBlock,
  payloadEntriesBefore,
  payloadEntryIndex,
} from './vhdx-geometry.ts';
import { ALLOCATION_BYTES, vhdxFault } from './vhdx-layout.ts';
import type { ReservedSpace } from './vhdx-space.ts';

export const BAT_ENTRY_BYTES = 8;
const ENTRIES_PER_PAGE = TABLE_PAGE_BYTES / BAT_ENTRY_BYTES;
/** A walk over 513 MiB waits for the disk rather than for the loop: keep this many reads going. */
const READ_AHEAD_PAGES = 3;

export const STATE_NOT_PRESENT = 0;
const STATE_UNDEFINED = 1;
export const STATE_ZERO = 2;
export const STATE_UNMAPPED = 3;
export const STATE_FULLY_PRESENT = 6;
export const STATE_PARTIALLY_PRESENT = 7;
/** State and reserved bits, which are zeros. */
const STATE_FIELD = 0xfffff;

/** A run while it grows. */
type GrowingRun = { -readonly [Key in keyof BlockRun]: BlockRun[Key] };

/** Neighbouring blocks of one kind. The blocks of a `full` run follow each other in the file as well. */
export interface BlockRun {
  readonly kind: 'parent' | 'zero' | 'full' | 'partial';
  readonly firstBlock: number;
  readonly blocks: number;
  /** Of the first block; 0 where the kind has none. */
  readonly fileOffset: number;
}

/** Called for a block whose entry is refused: throws (reading), or notes the fault and goes on (check). */
export type OnBadEntry = (fault: BlockferryError) => void;

/** The table of one file. */
export class BlockTable {
  readonly geometry: BatGeometry;
  readonly #bytes: VhdxBytes;
  readonly #offset: number;
  readonly #space: ReservedSpace;
  readonly #cache: TableCache;
  /** Pages whose blocks were all seen to be of one kind without data: most of a large disk, not read a second time. */
  readonly #emptyPages = new Map<number, 'parent' | 'zero'>();

  /** `offset` is that of the BAT region, which has room for all entries. */
  constructor(bytes: VhdxBytes, offset: number, geometry: BatGeometry, space: ReservedSpace, cache: TableCache) {
    this.#bytes = bytes;
    this.#offset = offset;
    this.geometry = geometry;
    this.#space = space;
    this.#cache = cache;
  }

  /** Blocks [firstBlock, endBlock) as runs, in order, without gaps but for those that `onBad` let pass. */
  async *runs(firstBlock: number, endBlock: number, onBad: OnBadEntry): AsyncGenerator<BlockRun> {
    const runs: GrowingRun[] = [];
    for (let block = firstBlock; block < endBlock; ) {
      const index = payloadEntryIndex(this.geometry, block);
      const pageIndex = Math.floor(index / ENTRIES_PER_PAGE);
      const pageEndIndex = Math.min((pageIndex + 1) * ENTRIES_PER_PAGE, this.geometry.entries);
      const pageEndBlock = Math.min(endBlock, payloadEntriesBefore(this.geometry, pageEndIndex));
      const emptyKind = this.#emptyPages.get(pageIndex);
      if (emptyKind !== undefined) {
        append(runs, emptyKind, block, pageEndBlock - block);
      } else {
        const page = this.#page(pageIndex);
        this.#readAhead(pageIndex, endBlock);
        this.#scanPage(viewOf(await page), block, pageEndBlock, runs, onBad);
        const isWholePage = index % ENTRIES_PER_PAGE === 0 && pageEndBlock < endBlock;
        const last = runs.at(-1);
        const isOneRun =
          last !== undefined && last.firstBlock <= block && last.firstBlock + last.blocks === pageEndBlock;
        if (isWholePage && isOneRun && (last.kind === 'parent' || last.kind === 'zero')) {
          this.#emptyPages.set(pageIndex, last.kind);
        }
      }
      block = pageEndBlock;
      // The last run may go on in the next page.
      for (let i = 0; i < runs.length - 1; i += 1) yield runs[i]!;
      runs.splice(0, runs.length - 1);
    }
    yield* runs;
  }

  /** Where the sector bitmap block of a chunk lies; undefined if it is not present. @throws VHDX_BITMAP */
  async bitmapOffset(chunk: number): Promise<number | undefined> {
    const index = bitmapEntryIndex(this.geometry, chunk);
    const view = viewOf(await this.#page(Math.floor(index / ENTRIES_PER_PAGE)));
    const at = (index % ENTRIES_PER_PAGE) * BAT_ENTRY_BYTES;
    const low = view.getUint32(at, true);
    const state = low & STATE_FIELD;
    if (state === STATE_NOT_PRESENT) return undefined;
    const refuse = (rule: string, found: string) =>
      vhdxFault('VHDX_BITMAP', this.#path, this.#entryOffset(index), rule, found, { chunk });
    if (state !== STATE_FULLY_PRESENT) {
      throw refuse('a sector bitmap has state 0 or 6', `sector bitmap of chunk ${chunk} with state bits ${hex(state)}`);
    }
    const fileOffset = entryOffsetBytes(low, view.getUint32(at + 4, true));
    const rule = this.#space.misplacement(fileOffset, ALLOCATION_BYTES);
    if (rule !== undefined) throw refuse(rule, `sector bitmap of chunk ${chunk} at file offset ${fileOffset}`);
    return fileOffset;
  }

  /** Changes the entry of a payload block in memory. Nobody else reads meanwhile. */
  async setPayload(block: number, state: number, fileOffset: number): Promise<void> {
    await this.#set(payloadEntryIndex(this.geometry, block), state, fileOffset);
  }

  /** Likewise: gives the sector bitmap of a chunk its place. */
  async setBitmap(chunk: number, fileOffset: number): Promise<void> {
    await this.#set(bitmapEntryIndex(this.geometry, chunk), STATE_FULLY_PRESENT, fileOffset);
  }

  /** Where in the file the entry of the bitmap of a chunk lies. */
  bitmapEntryOffset(chunk: number): number {
    return this.#entryOffset(bitmapEntryIndex(this.geometry, chunk));
  }

  /** Where in the file the entry of a payload block lies. */
  payloadEntryOffset(block: number): number {
    return this.#entryOffset(payloadEntryIndex(this.geometry, block));
  }

  /** Appends the runs of blocks [firstBlock, endBlock), whose entries all lie in one page. */
  #scanPage(view: DataView, firstBlock: number, endBlock: number, runs: GrowingRun[], onBad: OnBadEntry): void {
    const { chunkRatio } = this.geometry;
    for (let block = firstBlock; block < endBlock; ) {
      const inChunk = Math.min(chunkRatio - (block % chunkRatio), endBlock - block);
      this.#scan(view, payloadEntryIndex(this.geometry, block), block, inChunk, runs, onBad);
      block += inChunk;
    }
  }

  /** Appends the runs of `count` entries that are neighbours in the table, from entry `index`, block `block` on. */
  #scan(view: DataView, index: number, block: number, count: number, runs: GrowingRun[], onBad: OnBadEntry): void {
    const from = (index % ENTRIES_PER_PAGE) * BAT_ENTRY_BYTES;
    for (let i = 0; i < count; ) {
      const low = view.getUint32(from + i * BAT_ENTRY_BYTES, true);
      const state = low & STATE_FIELD;
      if (state === STATE_NOT_PRESENT) {
        const end = endOfStates(view, from, i, count, STATE_NOT_PRESENT, STATE_NOT_PRESENT);
        append(runs, 'parent', block + i, end - i);
        i = end;
      } else if (state <= STATE_UNMAPPED) {
        const end = endOfStates(view, from, i, count, STATE_UNDEFINED, STATE_UNMAPPED);
        append(runs, 'zero', block + i, end - i);
        i = end;
      } else {
        const high = view.getUint32(from + i * BAT_ENTRY_BYTES + 4, true);
        const fault = this.#presentFault(state, low, high, block + i, index + i);
        if (fault) onBad(fault);
        else this.#appendPresent(runs, state, block + i, entryOffsetBytes(low, high));
        i += 1;
      }
    }
  }

  #appendPresent(runs: GrowingRun[], state: number, block: number, fileOffset: number): void {
    const { blockSizeBytes } = this.geometry;
    const last = runs.at(-1);
    const continues =
      state === STATE_FULLY_PRESENT &&
      last?.kind === 'full' &&
      last.firstBlock + last.blocks === block &&
      last.fileOffset + last.blocks * blockSizeBytes === fileOffset;
    if (continues) {
      last.blocks += 1;
    } else {
      const kind = state === STATE_FULLY_PRESENT ? 'full' : 'partial';
      runs.push({ kind, firstBlock: block, blocks: 1, fileOffset });
    }
  }

  #presentFault(state: number, low: number, high: number, block: number, index: number): BlockferryError | undefined {
    const refuse = (rule: string, problem: string) =>
      vhdxFault('VHDX_BAT', this.#path, this.#entryOffset(index), rule, `block ${block} ${problem}`, { block });
    const { hasParent } = this.geometry;
    if (state > STATE_PARTIALLY_PRESENT) {
      return refuse('reserved bits of an entry are zero', `has state bits ${hex(state)}`);
    }
    if (state < STATE_FULLY_PRESENT) return refuse('states 4 and 5 are reserved', `has state ${state}`);
    if (state === STATE_PARTIALLY_PRESENT && !hasParent) {
      return refuse('only a differencing disk has partially present blocks', 'has state 7, the disk has no parent');
    }
    const fileOffset = entryOffsetBytes(low, high);
    const rule = this.#space.misplacement(fileOffset, guestBytesOfBlock(this.geometry, block));
    return rule === undefined ? undefined : refuse(rule, `lies at file offset ${fileOffset}`);
  }

  async #set(index: number, state: number, fileOffset: number): Promise<void> {
    const entry = Buffer.alloc(BAT_ENTRY_BYTES);
    writeBatEntry(entry, state, fileOffset);
    await this.#bytes.stage(this.#entryOffset(index), entry);
    const pageIndex = Math.floor(index / ENTRIES_PER_PAGE);
    (await this.#page(pageIndex)).set(entry, (index % ENTRIES_PER_PAGE) * BAT_ENTRY_BYTES);
    this.#emptyPages.delete(pageIndex);
  }

  #page(pageIndex: number): Promise<Uint8Array> {
    const from = pageIndex * TABLE_PAGE_BYTES;
    const lengthBytes = Math.min(TABLE_PAGE_BYTES, this.geometry.entries * BAT_ENTRY_BYTES - from);
    return this.#cache.page(this, pageIndex, lengthBytes, () => this.#bytes.read(this.#offset + from, lengthBytes));
  }

  /** Begins to read the pages behind `pageIndex` that a walk up to `endBlock` needs next. A failure is met there. */
  #readAhead(pageIndex: number, endBlock: number): void {
    const lastPage = Math.floor(payloadEntryIndex(this.geometry, endBlock - 1) / ENTRIES_PER_PAGE);
    for (let next = pageIndex + 1; next <= Math.min(lastPage, pageIndex + READ_AHEAD_PAGES); next += 1) {
      if (!this.#emptyPages.has(next)) void this.#page(next);
    }
  }

  #entryOffset(index: number): number {
    return this.#offset + index * BAT_ENTRY_BYTES;
  }

  get #path(): string {
    return this.#bytes.file.path;
  }
}

/** Bytes that a block takes up in the file: whole MiB, and not more than the disk needs of it. */
export function occupiedBytes(geometry: BatGeometry, block: number): number {
  return alignUp(guestBytesOfBlock(geometry, block), ALLOCATION_BYTES);
}

/** The two words of an entry → offset in bytes. Not exact beyond 2^53, but then above every file's size. */
export function entryOffsetBytes(low: number, high: number): number {
  return (high * 4096 + (low >>> 20)) * ALLOCATION_BYTES;
}

/** An entry: the state in bits 0 … 2, the offset in MiB from bit 20, which is the offset in bytes itself. */
export function writeBatEntry(into: Buffer, state: number, fileOffset: number): void {
  into.writeUInt32LE((fileOffset % 2 ** 32) + state, 0);
  into.writeUInt32LE(Math.floor(fileOffset / 2 ** 32), 4);
}

/** The first of entries first … count whose state is not in [lowest, highest]. The loop over an empty disk: keep it small. */
function endOfStates(
  view: DataView,
  from: number,
  first: number,
  count: number,
  lowest: number,
  highest: number,
): number {
  for (let i = first + 1; i < count; i += 1) {
    const state = view.getUint32(from + i * BAT_ENTRY_BYTES, true) & STATE_FIELD;
    if (state < lowest || state > highest) return i;
  }
  return count;
}

function append(runs: GrowingRun[], kind: 'parent' | 'zero', firstBlock: number, blocks: number): void {
  const last = runs.at(-1);
  if (last?.kind === kind && last.firstBlock + last.blocks === firstBlock) last.blocks += blocks;
  else runs.push({ kind, firstBlock, blocks, fileOffset: 0 });
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

function viewOf(page: Uint8Array): DataView {
  return new DataView(page.buffer, page.byteOffset, page.byteLength);
}
