/**
 * Checks the block table of a VHDX as a whole: every state, every place, and that no two blocks share a byte. Opening
 * does this once, so that what is read later can be neither metadata nor another block's data.
 *
 * Blocks lie at whole MiB, so one bit per MiB of the file tells what is taken: 16 MiB for the largest file, given back
 * afterwards, and one walk over the table without a sort.
 */
import { divCeil } from '../bytes.ts';
import type { Findings } from './findings.ts';
import { type BlockRun, type BlockTable, occupiedBytes } from './vhdx-bat.ts';
import { ALLOCATION_BYTES, reportFault, vhdxFault } from './vhdx-layout.ts';

/** Which MiB of a file belong to a block. */
class TakenMap {
  readonly #words: Uint32Array;

  constructor(fileSizeBytes: number) {
    this.#words = new Uint32Array(divCeil(divCeil(fileSizeBytes, ALLOCATION_BYTES), 32));
  }

  /** Takes [offset, offset + lengthBytes); false if any of it was taken. */
  take(offset: number, lengthBytes: number): boolean {
    const end = (offset + lengthBytes) / ALLOCATION_BYTES;
    let isFree = true;
    for (let unit = offset / ALLOCATION_BYTES; unit < end; unit += 1) {
      const bit = 1 << (unit & 31);
      if ((this.#words[unit >>> 5]! & bit) !== 0) isFree = false;
      this.#words[unit >>> 5]! |= bit;
    }
    return isFree;
  }
}

/** Walks the table once; what breaks a rule goes to `findings`. */
export async function checkPlacement(table: BlockTable, fileSizeBytes: number, findings: Findings): Promise<void> {
  const taken = new TakenMap(fileSizeBytes);
  const { geometry } = table;
  const fault: Findings['fault'] = (code, offset, rule) => findings.fault(code, offset, rule);
  const bitmaps = geometry.hasParent ? await takeBitmaps(table, taken, fault) : new Set<number>();
  for await (const run of table.runs(0, geometry.dataBlocks, (error) => reportFault(error, fault))) {
    if (run.kind !== 'full' && run.kind !== 'partial') continue;
    takeRun(table, run, taken, findings);
    const chunk = Math.floor(run.firstBlock / geometry.chunkRatio);
    if (run.kind === 'partial' && !bitmaps.has(chunk)) {
      const rule = 'the sector bitmap of a partially present block is present';
      const found = `block ${run.firstBlock} has state 7, its chunk ${chunk} has no sector bitmap`;
      const at = table.bitmapEntryOffset(chunk);
      reportFault(vhdxFault('VHDX_BITMAP', findings.source, at, rule, found, { block: run.firstBlock, chunk }), fault);
    }
  }
}

/** Takes the sector bitmap blocks; returns the chunks that have one. */
async function takeBitmaps(table: BlockTable, taken: TakenMap, fault: Findings['fault']): Promise<ReadonlySet<number>> {
  const chunks = new Set<number>();
  for (let chunk = 0; chunk < table.geometry.chunks; chunk += 1) {
    try {
      const offset = await table.bitmapOffset(chunk);
      if (offset === undefined) continue;
      chunks.add(chunk);
      if (!taken.take(offset, ALLOCATION_BYTES)) {
        fault('VHDX_BITMAP', table.bitmapEntryOffset(chunk), 'no two blocks share a byte', {
          chunk,
          fileOffset: offset,
        });
      }
    } catch (error) {
      reportFault(error, fault);
    }
  }
  return chunks;
}

function takeRun(table: BlockTable, run: BlockRun, taken: TakenMap, findings: Findings): void {
  for (let i = 0; i < run.blocks; i += 1) {
    const block = run.firstBlock + i;
    const fileOffset = run.fileOffset + i * table.geometry.blockSizeBytes;
    if (!taken.take(fileOffset, occupiedBytes(table.geometry, block))) {
      findings.fault('VHDX_BAT', table.payloadEntryOffset(block), 'no two blocks share a byte', { block, fileOffset });
    }
  }
}
