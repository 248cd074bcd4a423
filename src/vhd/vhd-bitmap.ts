/** Runs of equal bits in a VHD sector bitmap: sector s is bit 0x80 >> (s & 7) of byte s >> 3. */
import { divCeil, SECTOR_BYTES } from '../bytes.ts';
import { bitmapBytes } from './vhd-header.ts';

/** Whether the bit of sector `index` is set. */
export function sectorBit(bitmap: Uint8Array, index: number): boolean {
  return (bitmap[index >>> 3]! & (0x80 >>> (index & 7))) !== 0;
}

/** The first sector from `from` below `end` whose bit is not `value`; `end` if there is none. */
export function endOfRun(bitmap: Uint8Array, from: number, end: number, value: boolean): number {
  const whole = value ? 0xff : 0x00;
  let index = from;
  while (index < end) {
    if ((index & 7) === 0 && bitmap[index >>> 3] === whole) index += 8;
    else if (sectorBit(bitmap, index) === value) index += 1;
    else return index;
  }
  return end;
}

/** Sets the bits of sectors [from, end). */
export function setSectorBits(bitmap: Uint8Array, from: number, end: number): void {
  let index = from;
  while (index < end) {
    if ((index & 7) === 0 && end - index >= 8) {
      bitmap[index >>> 3] = 0xff;
      index += 8;
    } else {
      bitmap[index >>> 3]! |= 0x80 >>> (index & 7);
      index += 1;
    }
  }
}

/** The bitmap of a block that is all the disk's own; the rest of its last sector is zeros. */
export function fullBitmap(blockSizeBytes: number): Uint8Array {
  return new Uint8Array(bitmapBytes(blockSizeBytes)).fill(0xff, 0, divCeil(blockSizeBytes, SECTOR_BYTES * 8));
}
