/** Writes a VHD in place. */
import { BlockferryError } from '../errors.ts';
import type { RandomAccessFile } from '../ports.ts';
import { FlatEditor } from './flat-edit.ts';
import type { LayerContext } from './layer.ts';
import type { LayerWriter } from './layer-writer.ts';
import { openVhd } from './vhd-layer.ts';

/** A VHD to be written. @throws UNSUPPORTED */
export async function openVhdForWriting(file: RandomAccessFile, context: LayerContext): Promise<LayerWriter> {
  const layer = await openVhd(file, context);
  if (layer.subformat === 'fixed') return new FlatEditor(layer);
  throw new BlockferryError('UNSUPPORTED', `${file.path}: a ${layer.subformat} VHD is not written in place`);
}
