/**
 * Writes VHDX: fixed, dynamic and differencing.
 *
 * The file becomes a VHDX only in `finish`, which writes headers and tables; until then it is `<path>.partial`.
 * - Fixed: every block has its place from the start, in order; the file has its full length and is sparse.
 * - Dynamic: a block gets a place when it is first placed, behind all others, in state 6.
 * - Differencing: the same, but a block of which only a part was placed is in state 7, and the sector bitmap of its
 *   chunk says which sectors are its own. It becomes state 6 when the last of its sectors is placed.
 */
import { divCeil, MIB } from '../bytes.ts';
import { BAT_CACHE_BYTES_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import type { CreateSpec } from './create-spec.ts';
import { EditPages } from './edit-pages.ts';
import { checkWriteRange, ImageFile } from './image-file.ts';
import {
  BAT_ENTRY_BYTES,
  entryOffsetBytes,
  STATE_FULLY_PRESENT,
  STATE_NOT_PRESENT,
  STATE_PARTIALLY_PRESENT,
  writeBatEntry,
} from './vhdx-bat.ts';
import { endOfRun, setSectorBits } from './vhdx-bitmap.ts';
import { type BatGeometry, bitmapEntryIndex, guestBytesOfBlock, payloadEntryIndex } from './vhdx-geometry.ts';
import { ALLOCATION_BYTES } from './vhdx-layout.ts';
import { planVhdx, type VhdxPlan, writeStructures } from './vhdx-plan.ts';
import type { DiskWriter, FileRange } from './virtual-disk.ts';

const STATE_MASK = 7;
/** Entries of a fixed disk's table are written in pieces of this many bytes. */
const TABLE_PIECE_BYTES: number = 1 * MIB;

/** Creates a VHDX. @throws OUTPUT_EXISTS, OUTPUT_FAILED, UNSUPPORTED for what a VHDX cannot be */
export async function createVhdx(spec: CreateSpec): Promise<DiskWriter> {
  const plan = planVhdx(spec);
  const image = await ImageFile.create(spec.path, spec.ports.files);
  const blocks = spec.subformat === 'fixed' ? new FixedBlocks(plan) : new GrowingBlocks(image.file, plan);
  return new VhdxWriter(image, plan, blocks);
}

/** Gives blocks their places in the file. */
interface BlockAllocator {
  /** Where [from, to) of a block lies in the file; both count from the block's start and are not equal. */
  place(block: number, from: number, to: number): Promise<number>;
  /** Writes the block table (and sector bitmaps); returns the length that the file must have. */
  finish(file: RandomAccessFile): Promise<number>;
}

class VhdxWriter implements DiskWriter {
  readonly path: string;
  readonly #image: ImageFile;
  readonly #plan: VhdxPlan;
  readonly #blocks: BlockAllocator;

  constructor(image: ImageFile, plan: VhdxPlan, blocks: BlockAllocator) {
    this.path = image.path;
    this.#image = image;
    this.#plan = plan;
    this.#blocks = blocks;
  }

  async place(offset: number, lengthBytes: number): Promise<readonly FileRange[]> {
    const { blockSizeBytes, virtualSizeBytes, logicalSectorBytes } = this.#plan.geometry;
    checkWriteRange(offset, lengthBytes, virtualSizeBytes, logicalSectorBytes);
    return this.#image.guard(async () => {
      const ranges: FileRange[] = [];
      const end = offset + lengthBytes;
      for (let at = offset; at < end; ) {
        const block = Math.floor(at / blockSizeBytes);
        const blockStart = block * blockSizeBytes;
        const next = Math.min(end, blockStart + blockSizeBytes);
        const fileOffset = await this.#blocks.place(block, at - blockStart, next - blockStart);
        append(ranges, { file: this.#image.file, fileOffset, lengthBytes: next - at });
        at = next;
      }
      return ranges;
    });
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    const ranges = await this.place(offset, bytes.byteLength);
    await this.#image.guard(async () => {
      let done = 0;
      for (const { file, fileOffset, lengthBytes } of ranges) {
        await file.write(bytes.subarray(done, done + lengthBytes), fileOffset);
        done += lengthBytes;
      }
    });
  }

  async finish(): Promise<void> {
    await this.#image.guard(async () => {
      const { file } = this.#image;
      await file.truncate(await this.#blocks.finish(file));
      await writeStructures(file, this.#plan);
    });
    await this.#image.finish();
  }

  abort(): Promise<void> {
    return this.#image.abort();
  }
}

/** All blocks in order behind the tables. */
class FixedBlocks implements BlockAllocator {
  readonly #plan: VhdxPlan;

  constructor(plan: VhdxPlan) {
    this.#plan = plan;
  }

  async place(block: number, from: number): Promise<number> {
    return this.#offsetOf(block) + from;
  }

  async finish(file: RandomAccessFile): Promise<number> {
    const { geometry, batOffset } = this.#plan;
    const tableBytes = geometry.entries * BAT_ENTRY_BYTES;
    let block = 0;
    for (let done = 0; done < tableBytes; done += TABLE_PIECE_BYTES) {
      const piece = Buffer.alloc(Math.min(TABLE_PIECE_BYTES, tableBytes - done));
      const endIndex = (done + piece.length) / BAT_ENTRY_BYTES;
      for (; block < geometry.dataBlocks && payloadEntryIndex(geometry, block) < endIndex; block += 1) {
        const at = payloadEntryIndex(geometry, block) * BAT_ENTRY_BYTES - done;
        writeBatEntry(piece.subarray(at), STATE_FULLY_PRESENT, this.#offsetOf(block));
      }
      await file.write(piece, batOffset + done);
    }
    return this.#offsetOf(geometry.dataBlocks);
  }

  #offsetOf(block: number): number {
    return this.#plan.blocksOffset + block * this.#plan.geometry.blockSizeBytes;
  }
}

/** Blocks in the order in which they are first placed. */
class GrowingBlocks implements BlockAllocator {
  readonly #geometry: BatGeometry;
  readonly #batOffset: number;
  readonly #pages: EditPages;
  #nextOffset: number;

  constructor(file: RandomAccessFile, plan: VhdxPlan) {
    this.#geometry = plan.geometry;
    this.#batOffset = plan.batOffset;
    this.#nextOffset = plan.blocksOffset;
    this.#pages = new EditPages(file, BAT_CACHE_BYTES_MAX);
  }

  async place(block: number, from: number, to: number): Promise<number> {
    const index = payloadEntryIndex(this.#geometry, block);
    const known = await this.#entry(index);
    const fileOffset = known.state === STATE_NOT_PRESENT ? this.#allocate(this.#geometry.blockSizeBytes) : known.offset;
    if (known.state !== STATE_FULLY_PRESENT) {
      const isWhole = !this.#geometry.hasParent || (await this.#isWhole(block, from, to));
      const state = isWhole ? STATE_FULLY_PRESENT : STATE_PARTIALLY_PRESENT;
      if (state !== known.state) await this.#setEntry(index, state, fileOffset);
    }
    return fileOffset + from;
  }

  async finish(): Promise<number> {
    await this.#pages.flush();
    return this.#nextOffset;
  }

  /** Marks the sectors of [from, to) as the child's own; true if now all of the block's are. */
  async #isWhole(block: number, from: number, to: number): Promise<boolean> {
    const guestBytes = guestBytesOfBlock(this.#geometry, block);
    if (from === 0 && to === guestBytes) return true;
    const { logicalSectorBytes } = this.#geometry;
    const bits = await this.#blockBitmap(block);
    const sectors = guestBytes / logicalSectorBytes;
    const first = from / logicalSectorBytes;
    const end = to / logicalSectorBytes;
    setSectorBits(bits, first, end);
    // What lies behind is looked at first: in a disk written from front to back that ends the search at once.
    return endOfRun(bits, end, sectors, true) === sectors && endOfRun(bits, 0, first, true) === first;
  }

  /** The bits of one block, to be written to; allocates the sector bitmap of its chunk. */
  async #blockBitmap(block: number): Promise<Uint8Array> {
    const { chunkRatio, blockSizeBytes, logicalSectorBytes } = this.#geometry;
    const chunk = Math.floor(block / chunkRatio);
    const index = bitmapEntryIndex(this.#geometry, chunk);
    const known = await this.#entry(index);
    let bitmapOffset = known.offset;
    if (known.state === STATE_NOT_PRESENT) {
      bitmapOffset = this.#allocate(ALLOCATION_BYTES);
      await this.#setEntry(index, STATE_FULLY_PRESENT, bitmapOffset);
    }
    const blockBytes = divCeil(blockSizeBytes / logicalSectorBytes, 8);
    return this.#pages.edit(bitmapOffset + (block % chunkRatio) * blockBytes, blockBytes);
  }

  #allocate(lengthBytes: number): number {
    const offset = this.#nextOffset;
    this.#nextOffset += lengthBytes;
    return offset;
  }

  async #entry(index: number): Promise<{ readonly state: number; readonly offset: number }> {
    const bytes = await this.#pages.view(this.#batOffset + index * BAT_ENTRY_BYTES, BAT_ENTRY_BYTES);
    const low = bytes.readUInt32LE(0);
    return { state: low & STATE_MASK, offset: entryOffsetBytes(low, bytes.readUInt32LE(4)) };
  }

  async #setEntry(index: number, state: number, fileOffset: number): Promise<void> {
    const bytes = await this.#pages.edit(this.#batOffset + index * BAT_ENTRY_BYTES, BAT_ENTRY_BYTES);
    writeBatEntry(bytes, state, fileOffset);
  }
}

function append(ranges: FileRange[], range: FileRange): void {
  const last = ranges.at(-1);
  if (last !== undefined && last.fileOffset + last.lengthBytes === range.fileOffset) {
    ranges[ranges.length - 1] = { ...last, lengthBytes: last.lengthBytes + range.lengthBytes };
  } else {
    ranges.push(range);
  }
}
