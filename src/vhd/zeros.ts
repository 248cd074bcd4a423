/** Zeros for files, from one piece of memory. */
import { MIB } from '../bytes.ts';
import type { RandomAccessFile } from '../ports.ts';

const ZEROS: Uint8Array = new Uint8Array(MIB);

/** Writes zeros to [from, to) of a file. */
export async function writeZeros(file: RandomAccessFile, from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += ZEROS.byteLength) {
    await file.write(ZEROS.subarray(0, Math.min(ZEROS.byteLength, to - at)), at);
  }
}
