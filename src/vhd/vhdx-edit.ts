/** Writes a VHDX in place. */
import { BlockferryError } from '../errors.ts';
import type { RandomAccessFile } from '../ports.ts';
import type { LayerWriter } from './layer-writer.ts';

/** A VHDX to be written. @throws UNSUPPORTED */
export async function openVhdxForWriting(file: RandomAccessFile): Promise<LayerWriter> {
  throw new BlockferryError('UNSUPPORTED', `${file.path}: a VHDX is not written in place`);
}
