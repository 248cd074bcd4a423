/**
 * VhdxEditor: gives guest writes their place in a VHDX: blocks, their states, sector bitmaps. What it changes in tables
 * is staged, and committed by the session when the data is durable.
 *
 *   block is         a part is written               all of it is written   zeroed whole
 *   0, no parent     6, the rest zeros               6                      0
 *   0, a parent      7, with bits                    6                      2 or 3
 *   1, 2, 3          6, the rest zeros               6                      stays
 *   6                6                               6                      2 or 3; "fixed": 6, zeros
 *   7                7, 6 with the last sector       6                      2 or 3
 *
 * A new block lies behind the end of the file, or where one was given up: then it is filled with zeros first, and only
 * after the giving up is durable.
 */
import type { Ports, RandomAccessFile } from '../ports.ts';
import type { Layer, LayerContext } from './layer.ts';
import type { LayerWriter } from './layer-writer.ts';
import {
  type BlockRun,
  type BlockTable,
  type OnBadEntry,
  STATE_FULLY_PRESENT,
  STATE_PARTIALLY_PRESENT,
  STATE_UNMAPPED,
  STATE_ZERO,
} from './vhdx-bat.ts';
import { endOfRun } from './vhdx-bitmap.ts';
import { guestBytesOfBlock } from './vhdx-geometry.ts';
import { VhdxLayer } from './vhdx-layer.ts';
import { ALLOCATION_BYTES, BLOCK_BYTES_MAX } from './vhdx-layout.ts';
import { ENTRY_PAGES_MAX, LOG_SECTOR_BYTES } from './vhdx-log-entry.ts';
import { VhdxSession } from './vhdx-session.ts';
import { writeZeros } from './zeros.ts';

/** Pages that one block can change: the bits of the largest, its table entry, that of its bitmap. */
const PAGES_PER_BLOCK_MAX: number = BLOCK_BYTES_MAX / 512 / 8 / LOG_SECTOR_BYTES + 2;

/** Opens a VHDX for writing. @throws the codes of openVhdx, VHDX_LOG, OUTPUT_FAILED */
export async function openVhdxForWriting(
  file: RandomAccessFile,
  context: LayerContext,
  ports: Pick<Ports, 'random'>,
): Promise<LayerWriter> {
  const session = await VhdxSession.open(file, context, ports);
  return new VhdxEditor(session, new VhdxLayer(session.structure, session.notes));
}

/** Part [from, to) of a block, counted from its start. */
interface BlockPart {
  readonly block: number;
  readonly from: number;
  readonly to: number;
}

class VhdxEditor implements LayerWriter {
  readonly layer: Layer;
  readonly #session: VhdxSession;
  readonly #file: RandomAccessFile;
  readonly #table: BlockTable;
  /** Places of whole blocks: given up, and durably so. */
  #free: number[] = [];
  /** Given up, but still in the table after a power cut. */
  #givenUp: number[] = [];

  constructor(session: VhdxSession, layer: Layer) {
    this.layer = layer;
    this.#session = session;
    this.#file = layer.file;
    this.#table = session.structure.table;
  }

  get contentId(): string {
    return this.#session.dataWriteGuid;
  }

  get hasPending(): boolean {
    return this.#session.structure.bytes.staged.count > 0;
  }

  beforeFirstChange(contentId?: string): Promise<void> {
    return this.#session.changeDataWriteGuid(contentId);
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    const { blockSizeBytes } = this.#table.geometry;
    for await (const { run, part } of this.#parts(offset, bytes.byteLength)) {
      await this.#makeRoom();
      const fileOffset = await this.#place(run, part);
      const start = part.block * blockSizeBytes - offset;
      await this.#file.write(bytes.subarray(start + part.from, start + part.to), fileOffset + part.from);
      await this.#markStored(run, part, fileOffset);
    }
  }

  async zero(offset: number, lengthBytes: number, isUnmap: boolean): Promise<void> {
    const { geometry } = this.#table;
    const { leavesBlocksAllocated } = this.#session.structure.parameters;
    for await (const { run, part } of this.#parts(offset, lengthBytes, 'nonzero')) {
      await this.#makeRoom();
      const isWhole = part.from === 0 && part.to === guestBytesOfBlock(geometry, part.block);
      if (isWhole && (run.kind === 'parent' || !leavesBlocksAllocated)) {
        await this.#table.setPayload(part.block, isUnmap ? STATE_UNMAPPED : STATE_ZERO, 0);
        // A last block that the disk ends in may be cut short in the file: its place is good for no other.
        if (run.kind !== 'parent' && part.to === geometry.blockSizeBytes)
          this.#givenUp.push(placeOf(run, part, geometry));
      } else {
        const fileOffset = await this.#place(run, part);
        await writeZeros(this.#file, fileOffset + part.from, fileOffset + part.to);
        await this.#markStored(run, part, fileOffset);
      }
    }
  }

  async flush(): Promise<void> {
    await this.#session.commit();
    this.#free.push(...this.#givenUp);
    this.#givenUp = [];
  }

  finish(): Promise<void> {
    return this.#session.finish();
  }

  /**
   * The range block by block, each with the run that it was found in; `nonzero`: without blocks that are zeros. Blocks
   * that were handed out may be changed before the next: the walk does not look back.
   */
  async *#parts(
    offset: number,
    lengthBytes: number,
    which: 'all' | 'nonzero' = 'all',
  ): AsyncGenerator<{ readonly run: BlockRun; readonly part: BlockPart }> {
    const { blockSizeBytes, hasParent } = this.#table.geometry;
    const end = offset + lengthBytes;
    const endBlock = Math.ceil(end / blockSizeBytes);
    for await (const run of this.#table.runs(Math.floor(offset / blockSizeBytes), endBlock, refuse)) {
      if (which === 'nonzero' && (run.kind === 'zero' || (run.kind === 'parent' && !hasParent))) continue;
      for (let block = run.firstBlock; block < run.firstBlock + run.blocks; block += 1) {
        const start = block * blockSizeBytes;
        const from = Math.max(offset - start, 0);
        yield { run, part: { block, from, to: Math.min(end - start, blockSizeBytes) } };
      }
    }
  }

  /** Where the block begins in the file; gives it a place, all zeros but for the part to be written, if it has none. */
  async #place(run: BlockRun, part: BlockPart): Promise<number> {
    const { geometry } = this.#table;
    if (run.kind === 'full' || run.kind === 'partial') return placeOf(run, part, geometry);
    const reused = this.#free.pop();
    if (reused === undefined) return await this.#session.append(geometry.blockSizeBytes);
    await writeZeros(this.#file, reused, reused + part.from);
    await writeZeros(this.#file, reused + part.to, reused + geometry.blockSizeBytes);
    return reused;
  }

  /** Stages what makes the written part of a block the disk's own. */
  async #markStored(run: BlockRun, part: BlockPart, fileOffset: number): Promise<void> {
    if (run.kind === 'full') return;
    const { geometry } = this.#table;
    const { block, from, to } = part;
    const guestBytes = guestBytesOfBlock(geometry, block);
    const isWhole = from === 0 && to === guestBytes;
    if (isWhole || run.kind === 'zero' || !geometry.hasParent) {
      await this.#table.setPayload(block, STATE_FULLY_PRESENT, fileOffset);
      return;
    }
    const { bitmaps } = this.#session.structure;
    if (run.kind === 'parent') {
      await this.#needBitmap(Math.floor(block / geometry.chunkRatio));
      await bitmaps.clear(block);
    }
    const { logicalSectorBytes } = geometry;
    const bits = await bitmaps.mark(block, from / logicalSectorBytes, to / logicalSectorBytes);
    const sectors = guestBytes / logicalSectorBytes;
    if (endOfRun(bits, 0, sectors, true) === sectors) {
      await this.#table.setPayload(block, STATE_FULLY_PRESENT, fileOffset);
    } else if (run.kind === 'parent') {
      await this.#table.setPayload(block, STATE_PARTIALLY_PRESENT, fileOffset);
    }
  }

  /** Gives the sector bitmap of a chunk a place behind the end of the file if it has none: zeros. */
  async #needBitmap(chunk: number): Promise<void> {
    if ((await this.#table.bitmapOffset(chunk)) !== undefined) return;
    await this.#table.setBitmap(chunk, await this.#session.append(ALLOCATION_BYTES));
  }

  /** Flushes before the staged pages are more than one log entry can have. */
  async #makeRoom(): Promise<void> {
    const { staged } = this.#session.structure.bytes;
    if (staged.count + PAGES_PER_BLOCK_MAX > ENTRY_PAGES_MAX) await this.flush();
  }
}

/** Opening has verified the table; a bad entry now means that the file changed. */
const refuse: OnBadEntry = (fault) => {
  throw fault;
};

function placeOf(run: BlockRun, part: BlockPart, geometry: { readonly blockSizeBytes: number }): number {
  return run.fileOffset + (part.block - run.firstBlock) * geometry.blockSizeBytes;
}
