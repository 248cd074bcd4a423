/**
 * Recovery: finds where the valid prefix of a log ends that was not closed.
 *
 * Header, blocks and data are multiples of 512 bytes, so every block begins on a sector. From the end of the last block
 * that was accepted, sector by sector, a block is accepted if
 *   1. its distance leads back to that block (0 while there is none),
 *   2. its header checksum holds and its reserved bytes are 0,
 *   3. the checksums of its entries hold and each is a write of whole sectors,
 *   4. their lengths add up to the data in between,
 *   5. every data checksum that was filled holds.
 * What is found is an unbroken prefix of the writes, no proof that nothing is missing: what was written behind it
 * is lost. Guest data can look like a block: see docs/formats/hrl.md for what bounds that.
 *
 * The scan is linear in the length of the file, whatever stands in it: sums of sectors are kept, so the data behind a
 * candidate is never read again, and it gives up where no block follows for HRL_SCAN_GAP_BYTES_MAX.
 */
import { SECTOR_BYTES } from '../bytes.ts';
import { throwIfAborted } from '../errors.ts';
import { HRL_SCAN_GAP_BYTES_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import { FileWindow } from './log-file.ts';
import { HEADER_BYTES, type LogHeader } from './log-header.ts';
import { isFault, type LogBlock, parseBlock } from './metadata-block.ts';

/** Where the last valid block ends; that of an empty log ends behind the file header. */
export async function findValidEnd(
  file: RandomAccessFile,
  { metadataBytes }: LogHeader,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<number> {
  const window = new FileWindow(file, sizeBytes, metadataBytes);
  const sums = new SectorSums();
  let last: number | undefined;
  let base = HEADER_BYTES;
  for (let offset = base; offset + metadataBytes <= sizeBytes; ) {
    if (!window.covers(offset, metadataBytes)) {
      throwIfAborted(signal);
      await window.moveTo(offset);
    }
    // Nearly everything is rejected by eight bytes.
    const leadsBack = window.sizeAt(offset) === (last === undefined ? 0 : offset - last);
    if (leadsBack && isValid(parseBlock(window.view(offset, metadataBytes), offset), sums)) {
      last = offset;
      base = offset + metadataBytes;
      offset = base;
      sums.clear();
    } else {
      if (offset - base === HRL_SCAN_GAP_BYTES_MAX) break;
      sums.push(window.sumOf(offset, SECTOR_BYTES));
      offset += SECTOR_BYTES;
    }
  }
  return base;
}

function isValid(block: ReturnType<typeof parseBlock>, sums: SectorSums): block is LogBlock {
  if (isFault(block)) return false;
  for (const { fileOffset, dataLength, dataChecksum } of block.entries) {
    const from = (fileOffset - block.dataOffset) / SECTOR_BYTES;
    const sum = sums.between(from, from + dataLength / SECTOR_BYTES);
    if (dataChecksum !== 0 && dataChecksum !== ~sum >>> 0) return false;
  }
  return true;
}

/** Byte sums from the first sector up to each, modulo 2^32. At most 4 MiB, for the longest gap. */
class SectorSums {
  #sums = new Uint32Array(1024);
  #count = 0;

  push(sum: number): void {
    if (this.#count + 1 === this.#sums.length) {
      const larger = new Uint32Array(this.#sums.length * 2);
      larger.set(this.#sums);
      this.#sums = larger;
    }
    this.#sums[this.#count + 1] = this.#sums[this.#count]! + sum;
    this.#count += 1;
  }

  /** The byte sum of sectors `from` … `to` - 1, modulo 2^32. */
  between(from: number, to: number): number {
    return (this.#sums[to]! - this.#sums[from]!) >>> 0;
  }

  clear(): void {
    this.#count = 0;
  }
}
