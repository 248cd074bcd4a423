/**
 * The structural check of a VHD: what opening demands, without stopping at the first fault, plus what opening lets
 * pass: spare footer, table padding, sector bitmaps.
 */
import { alignUp, SECTOR_BYTES } from '../bytes.ts';
import { FAULTS_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import { CollectedFindings, type Findings } from './findings.ts';
import type { LayerCheck, LayerContext } from './layer.ts';
import { type BlockTable, nextUsed, UNUSED_ENTRY } from './vhd-bat.ts';
import { endOfRun } from './vhd-bitmap.ts';
import type { VhdHeader } from './vhd-header.ts';
import { readStructure } from './vhd-layer.ts';

/** Checks one VHD file. */
export async function checkVhd(file: RandomAccessFile, context: LayerContext): Promise<LayerCheck> {
  const findings = new CollectedFindings(file.path, FAULTS_MAX);
  const structure = await readStructure(file, context, findings);
  if (structure?.tables !== undefined) {
    const { header, table } = structure.tables;
    await checkTail(file, header, table, findings);
    if (structure.footer.subformat === 'dynamic') await checkBitmaps(file, table, structure.endOffset, findings);
  }
  return { faults: findings.faults, notes: findings.notes };
}

/** Entries behind the disk's last block: XenServer allocates them ahead, but they must be unused. */
async function checkTail(
  file: RandomAccessFile,
  header: VhdHeader,
  table: BlockTable,
  findings: Findings,
): Promise<void> {
  const start = table.entryOffset(table.blocks);
  const endOffset = header.batOffset + header.maxTableEntries * 4;
  const bytes = Buffer.alloc(64 * 1024);
  for (let offset = start; offset < endOffset; offset += bytes.length) {
    const part = bytes.subarray(0, Math.min(bytes.length, endOffset - offset));
    part.fill(0xff, await file.read(part, offset));
    for (let i = 0; i < part.length; i += 4) {
      const sector = part.readUInt32BE(i);
      if (sector === UNUSED_ENTRY) continue;
      findings.fault('VHD_BAT', offset + i, 'table entries beyond the end of the disk are unused', { sector });
      return;
    }
  }
}

/** Clear bits in a dynamic disk mean nothing to this reader, and "no data" to others. */
async function checkBitmaps(
  file: RandomAccessFile,
  table: BlockTable,
  endOffset: number,
  findings: Findings,
): Promise<void> {
  const bitmap = new Uint8Array(table.bitmapBytes);
  let odd = 0;
  let firstOffset = 0;
  for await (const { firstBlock, entries } of table.pages()) {
    for (
      let i = nextUsed(entries, 0, entries.length);
      i < entries.length;
      i = nextUsed(entries, i + 1, entries.length)
    ) {
      const offset = entries[i]! * SECTOR_BYTES;
      if (offset + bitmap.byteLength > endOffset) continue;
      await file.read(bitmap, offset);
      const sectors = alignUp(table.dataBytes(firstBlock + i), SECTOR_BYTES) / SECTOR_BYTES;
      if (endOfRun(bitmap, 0, sectors, true) === sectors) continue;
      if (odd === 0) firstOffset = offset;
      odd += 1;
    }
  }
  if (odd === 0) return;
  findings.note(
    `${odd} blocks have clear bits in their sector bitmap, the first at offset ${firstOffset}; all their data counts`,
  );
}
