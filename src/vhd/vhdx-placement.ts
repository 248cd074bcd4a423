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
import { ALLOCATION_BYTES, reportFault } from './vhdx-layout.ts';

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
  if (!geometry.hasParent) {
    await takeBlocks(table, 0, geometry.dataBlocks, taken, findings);
    return;
  }
  for (let chunk = 0; chunk < geometry.chunks; chunk += 1) {
    const first = chunk * geometry.chunkRatio;
    const end = Math.min(first + geometry.chunkRatio, geometry.dataBlocks);
    const partialBlock = await takeBlocks(table, first, end, taken, findings);
    await takeBitmap(table, chunk, partialBlock, taken, findings);
  }
}

/** Takes blocks [first, end); returns one of them that is partially present, if any is. */
async function takeBlocks(
  table: BlockTable,
  first: number,
  end: number,
  taken: TakenMap,
  findings: Findings,
): Promise<number | undefined> {
  let partialBlock: number | undefined;
  const runs = table.runs(first, end, (error) => reportFault(error, findings.fault.bind(findings)));
  for await (const run of runs) {
    if (run.kind === 'partial') partialBlock = run.firstBlock;
    if (run.kind === 'partial' || run.kind === 'full') takeRun(table, run, taken, findings);
  }
  return partialBlock;
}

/** Takes the sector bitmap block of a chunk, which must be there if a block needs it. */
async function takeBitmap(
  table: BlockTable,
  chunk: number,
  partialBlock: number | undefined,
  taken: TakenMap,
  findings: Findings,
): Promise<void> {
  const entryOffset = table.bitmapEntryOffset(chunk);
  try {
    const fileOffset = await table.bitmapOffset(chunk);
    if (fileOffset !== undefined && !taken.take(fileOffset, ALLOCATION_BYTES)) {
      findings.fault('VHDX_BITMAP', entryOffset, 'no two blocks share a byte', { chunk, fileOffset });
    }
    if (fileOffset === undefined && partialBlock !== undefined) {
      const rule = 'the sector bitmap of a partially present block is present';
      findings.fault('VHDX_BITMAP', entryOffset, rule, { block: partialBlock, chunk });
    }
  } catch (error) {
    reportFault(error, findings.fault.bind(findings));
  }
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
