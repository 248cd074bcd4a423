/**
 * VhdEditor: writes dynamic and differencing VHDs in place. (A fixed one needs no more than FlatEditor.)
 *
 *   … blocks · footer                            before
 *   … blocks · footer · (gap) · footer           1: the footer at its new end, sync
 *   … blocks · bitmap · data     · footer        2: the block, over the old footer
 *   table entry, bits of bitmaps                 3: on flush, when the block is durable
 *
 * So the file ends with a whole footer before the guest's own bytes can stand at its end, and the table points to
 * nothing that is not there. docs/formats/vhd.md says what a power cut leaves at each step.
 *
 * A block of a dynamic disk that becomes zeros gives up its place; another block gets it once that is durable, filled
 * with zeros. A differencing disk cannot say "zeros" and writes them.
 */
import { alignUp, SECTOR_BYTES } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { WRITE_PENDING_BYTES_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import { StrictFindings } from './findings.ts';
import { FlatEditor } from './flat-edit.ts';
import type { Layer, LayerContext } from './layer.ts';
import type { LayerWriter } from './layer-writer.ts';
import { UNUSED_ENTRY } from './vhd-bat.ts';
import { fullBitmap } from './vhd-bitmap.ts';
import { VHD_FOOTER_BYTES } from './vhd-footer.ts';
import { readStart, readStructure, VhdLayer, type VhdStructure, type VhdTables } from './vhd-layer.ts';
import { nextDataOffset } from './vhd-placement.ts';
import { writeZeros } from './zeros.ts';

/** What a changed table entry takes up in memory. */
const BYTES_PER_ENTRY = 64;

/** Opens a VHD for writing. @throws the codes of openVhd */
export async function openVhdForWriting(file: RandomAccessFile, context: LayerContext): Promise<LayerWriter> {
  const findings = new StrictFindings(file.path);
  // StrictFindings throws at every fault, so the structure is there.
  const structure = (await readStructure(file, context, findings))!;
  const layer = new VhdLayer(file, structure, findings.notes);
  if (structure.tables === undefined) return new FlatEditor(layer);
  return new VhdEditor(layer, structure.tables, structure.footerBytes, await repairFooters(file, structure));
}

/** Makes footer and copy equal to the one that counts; returns where the footer at the end begins. */
async function repairFooters(file: RandomAccessFile, structure: VhdStructure): Promise<number> {
  const { footerBytes, endOffset } = structure;
  const fileBytes = await file.sizeBytes();
  const footerOffset = endOffset === fileBytes ? alignUp(fileBytes, SECTOR_BYTES) : endOffset;
  const last = Buffer.alloc(VHD_FOOTER_BYTES);
  const lastBytes = await file.read(last, footerOffset);
  if (lastBytes < VHD_FOOTER_BYTES || Buffer.compare(last, footerBytes) !== 0) {
    await file.write(footerBytes, footerOffset);
    await file.sync();
  }
  if (Buffer.compare(await readStart(file), footerBytes) !== 0) {
    await file.write(footerBytes, 0);
    await file.sync();
  }
  return footerOffset;
}

class VhdEditor implements LayerWriter {
  readonly layer: Layer;
  readonly #file: RandomAccessFile;
  readonly #tables: VhdTables;
  readonly #footer: Uint8Array;
  readonly #isDifferencing: boolean;
  #footerOffset: number;
  /** Sectors where a whole block may lie: given up, and durably so. */
  #free: number[] = [];
  /** Given up, but still in the table after a power cut. */
  #givenUp: number[] = [];

  constructor(layer: Layer, tables: VhdTables, footer: Uint8Array, footerOffset: number) {
    this.layer = layer;
    this.#file = layer.file;
    this.#tables = tables;
    this.#footer = footer;
    this.#isDifferencing = layer.parent !== undefined;
    this.#footerOffset = footerOffset;
  }

  get contentId(): string {
    return this.layer.contentId;
  }

  get hasPending(): boolean {
    return this.#tables.table.changes > 0 || this.#tables.bitmaps.changedBytes > 0;
  }

  async beforeFirstChange(): Promise<void> {}

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    const { blockSizeBytes } = this.#tables.table;
    const end = offset + bytes.byteLength;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / blockSizeBytes);
      const start = block * blockSizeBytes;
      const next = Math.min(end, start + blockSizeBytes);
      await this.#makeRoom();
      const sector = await this.#place(block, at - start, next - start);
      await this.#file.write(bytes.subarray(at - offset, next - offset), this.#dataOffset(sector) + at - start);
      await this.#mark(block, sector, at - start, next - start);
      at = next;
    }
  }

  async zero(offset: number, lengthBytes: number): Promise<void> {
    const { table } = this.#tables;
    const { blockSizeBytes } = table;
    const end = offset + lengthBytes;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / blockSizeBytes);
      const { sector, endBlock } = await table.run(block, Math.ceil(end / blockSizeBytes));
      if (sector === undefined && !this.#isDifferencing) {
        at = Math.min(end, endBlock * blockSizeBytes);
        continue;
      }
      const start = block * blockSizeBytes;
      const next = Math.min(end, start + blockSizeBytes);
      await this.#zeroInBlock(block, sector, at - start, next - start);
      at = next;
    }
  }

  async flush(): Promise<void> {
    const { table, bitmaps } = this.#tables;
    await this.#file.sync();
    if (!this.hasPending) return;
    await bitmaps.writeChanges();
    await table.writeChanges();
    await this.#file.sync();
    this.#free.push(...this.#givenUp);
    this.#givenUp = [];
  }

  async finish(): Promise<void> {}

  async #zeroInBlock(block: number, sector: number | undefined, from: number, to: number): Promise<void> {
    const { table } = this.#tables;
    await this.#makeRoom();
    if (sector !== undefined && !this.#isDifferencing && from === 0 && to === table.dataBytes(block)) {
      await table.set(block, UNUSED_ENTRY);
      // A last block that the disk ends in may be cut short in the file: its place is good for no other.
      if (to === table.blockSizeBytes) this.#givenUp.push(sector);
      return;
    }
    const placed = await this.#place(block, from, to);
    const dataOffset = this.#dataOffset(placed);
    await writeZeros(this.#file, dataOffset + from, dataOffset + to);
    await this.#mark(block, placed, from, to);
  }

  /** The sector where `block` begins; gives it a place if it has none. [from, to) of its data is going to be written. */
  async #place(block: number, from: number, to: number): Promise<number> {
    const { table } = this.#tables;
    const { sector: known } = await table.run(block, block + 1);
    if (known !== undefined) return known;
    const reused = this.#free.pop();
    const sector = reused ?? (await this.#append());
    const bitmap = this.#isDifferencing ? new Uint8Array(table.bitmapBytes) : fullBitmap(table.blockSizeBytes);
    await this.#file.write(bitmap, sector * SECTOR_BYTES);
    if (reused !== undefined) {
      const dataOffset = this.#dataOffset(sector);
      await writeZeros(this.#file, dataOffset, dataOffset + from);
      await writeZeros(this.#file, dataOffset + to, dataOffset + table.blockSizeBytes);
    }
    await table.set(block, sector);
    return sector;
  }

  /** Makes the file longer by a block. */
  async #append(): Promise<number> {
    const { bitmapBytes, blockSizeBytes } = this.#tables.table;
    const dataOffset = nextDataOffset(this.#footerOffset, bitmapBytes);
    const sector = (dataOffset - bitmapBytes) / SECTOR_BYTES;
    if (sector >= UNUSED_ENTRY) {
      const { path } = this.#file;
      const rule = 'the block table of a VHD ends at 2 TiB of file';
      throw new BlockferryError('OUTPUT_FAILED', `${path}: no room for another block: ${rule}`, {
        facts: { source: path, offset: dataOffset, rule },
      });
    }
    await this.#file.write(this.#footer, dataOffset + blockSizeBytes);
    await this.#file.sync();
    this.#footerOffset = dataOffset + blockSizeBytes;
    return sector;
  }

  async #mark(block: number, sector: number, from: number, to: number): Promise<void> {
    if (!this.#isDifferencing) return;
    await this.#tables.bitmaps.mark(block, sector, from / SECTOR_BYTES, to / SECTOR_BYTES);
  }

  /** Flushes before the changes in memory become too many. */
  async #makeRoom(): Promise<void> {
    const { table, bitmaps } = this.#tables;
    const pendingBytes = table.changes * BYTES_PER_ENTRY + bitmaps.changedBytes;
    if (pendingBytes >= WRITE_PENDING_BYTES_MAX) await this.flush();
  }

  #dataOffset(sector: number): number {
    return sector * SECTOR_BYTES + this.#tables.table.bitmapBytes;
  }
}
