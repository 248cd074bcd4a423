/**
 * A VHDX file as a layer: fixed, dynamic or differencing; with the log replayed in memory if it has one to replay.
 *
 * Extents come from the block table in runs; a partially present block is divided by its sector bitmap; what the log
 * changes lies over the bytes of the file and comes as `memory` or `zero`. "Fixed" is only the flag that blocks stay
 * allocated: such a disk is read by its table like any other, since qemu leaves absent blocks in it.
 */

import { FAULTS_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import { CollectedFindings, StrictFindings } from './findings.ts';
import type { Layer, LayerCheck, LayerContext, LayerExtent, ParentLink } from './layer.ts';
import type { BlockRun, BlockTable } from './vhdx-bat.ts';
import { endOfRun, sectorBit } from './vhdx-bitmap.ts';
import type { SectorBitmaps } from './vhdx-bitmaps.ts';
import type { VhdxBytes } from './vhdx-bytes.ts';
import { linkIdOf } from './vhdx-locator.ts';
import { readStructure, type VhdxStructure } from './vhdx-structure.ts';

/** Opens a VHDX. @throws a VHDX_ code, DISK_TRUNCATED or DISK_UNREADABLE at the first fault */
export async function openVhdx(file: RandomAccessFile, context: LayerContext): Promise<Layer> {
  const findings = new StrictFindings(file.path);
  // StrictFindings throws at every fault, so the structure is there.
  const structure = await readStructure(file, context, findings);
  return new VhdxLayer(structure!, findings.notes);
}

/** Checks every structure of a VHDX; goes on after a fault unless nothing behind it can be trusted. */
export async function checkVhdx(file: RandomAccessFile, context: LayerContext): Promise<LayerCheck> {
  const findings = new CollectedFindings(file.path, FAULTS_MAX);
  await readStructure(file, context, findings);
  return { faults: findings.faults, notes: findings.notes };
}

/** Reading of one VHDX. */
export class VhdxLayer implements Layer {
  readonly file: RandomAccessFile;
  readonly format = 'vhdx';
  readonly subformat: Layer['subformat'];
  readonly virtualSizeBytes: number;
  readonly blockSizeBytes: number;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  readonly identity: string;
  readonly contentId: string;
  readonly linkId: string;
  readonly parent: ParentLink | undefined;
  readonly log: Layer['log'];
  readonly notes: readonly string[];
  readonly #bytes: VhdxBytes;
  readonly #table: BlockTable;
  readonly #bitmaps: SectorBitmaps;

  constructor(structure: VhdxStructure, notes: readonly string[]) {
    const { header, bytes, parameters, parent, table, bitmaps } = structure;
    this.file = bytes.file;
    const withoutParent = parameters.leavesBlocksAllocated ? 'fixed' : 'dynamic';
    this.subformat = parameters.hasParent ? 'differencing' : withoutParent;
    this.virtualSizeBytes = parameters.virtualSizeBytes;
    this.blockSizeBytes = parameters.blockSizeBytes;
    this.logicalSectorBytes = parameters.logicalSectorBytes;
    this.physicalSectorBytes = parameters.physicalSectorBytes;
    this.identity = parameters.virtualDiskId;
    this.contentId = header.dataWriteGuid;
    this.linkId = linkIdOf(header.dataWriteGuid);
    this.parent = parent;
    this.log = bytes.overlay === undefined ? 'clean' : 'replayed';
    this.notes = notes;
    this.#bytes = bytes;
    this.#table = table;
    this.#bitmaps = bitmaps;
  }

  async *extents(offset: number, lengthBytes: number): AsyncGenerator<LayerExtent> {
    let pending: LayerExtent | undefined;
    for await (const extent of this.#pieces(offset, offset + lengthBytes)) {
      const joined = pending === undefined ? extent : join(pending, extent);
      if (joined === undefined && pending !== undefined) yield pending;
      pending = joined ?? extent;
    }
    if (pending !== undefined) yield pending;
  }

  /** Extents of [start, end), not merged across runs. */
  async *#pieces(start: number, end: number): AsyncGenerator<LayerExtent> {
    if (start >= end) return;
    const { blockSizeBytes } = this;
    const firstBlock = Math.floor(start / blockSizeBytes);
    const endBlock = Math.ceil(end / blockSizeBytes);
    // Opening has verified the table; a bad entry now means that the file changed.
    const runs = this.#table.runs(firstBlock, endBlock, (fault) => {
      throw fault;
    });
    for await (const run of runs) {
      const runStart = run.firstBlock * blockSizeBytes;
      const from = Math.max(start, runStart);
      const to = Math.min(end, runStart + run.blocks * blockSizeBytes);
      if (run.kind === 'full') yield* this.#stored(from, to, run.fileOffset + from - runStart);
      else if (run.kind === 'partial') yield* this.#partial(run, from, to);
      else yield { kind: run.kind, offset: from, lengthBytes: to - from };
    }
  }

  /** Part [from, to) of the disk, stored from `fileOffset`, under what the log changed. */
  *#stored(from: number, to: number, fileOffset: number): Generator<LayerExtent> {
    const { overlay } = this.#bytes;
    if (overlay === undefined) {
      yield { kind: 'data', offset: from, lengthBytes: to - from, fileOffset };
      return;
    }
    for (const piece of overlay.pieces(fileOffset, to - from)) {
      const { lengthBytes } = piece;
      const offset = from + piece.offset - fileOffset;
      if (piece.kind === 'memory') yield { kind: 'memory', offset, lengthBytes, bytes: piece.bytes };
      else if (piece.kind === 'zero') yield { kind: 'zero', offset, lengthBytes };
      else yield { kind: 'data', offset, lengthBytes, fileOffset: piece.offset };
    }
  }

  /** Part [from, to) of one partially present block: stored where the bit of the sector is set, else the parent's. */
  async *#partial(run: BlockRun, from: number, to: number): AsyncGenerator<LayerExtent> {
    const { blockSizeBytes, logicalSectorBytes } = this;
    const blockStart = run.firstBlock * blockSizeBytes;
    const bitmap = await this.#bitmaps.of(run.firstBlock);
    const endSector = Math.ceil((to - blockStart) / logicalSectorBytes);
    for (let offset = from; offset < to; ) {
      const sector = Math.floor((offset - blockStart) / logicalSectorBytes);
      const isStored = sectorBit(bitmap, sector);
      const runEnd = blockStart + endOfRun(bitmap, sector, endSector, isStored) * logicalSectorBytes;
      const next = Math.min(to, runEnd);
      if (isStored) yield* this.#stored(offset, next, run.fileOffset + offset - blockStart);
      else yield { kind: 'parent', offset, lengthBytes: next - offset };
      offset = next;
    }
  }
}

/** Both as one extent; undefined if the second does not continue the first. */
function join(first: LayerExtent, second: LayerExtent): LayerExtent | undefined {
  const lengthBytes = first.lengthBytes + second.lengthBytes;
  if (first.kind === 'data' && second.kind === 'data') {
    const continues = first.fileOffset + first.lengthBytes === second.fileOffset;
    return continues ? { ...first, lengthBytes } : undefined;
  }
  if (first.kind === 'memory' || second.kind === 'memory' || first.kind === 'data') return undefined;
  return first.kind === second.kind ? { ...first, lengthBytes } : undefined;
}
