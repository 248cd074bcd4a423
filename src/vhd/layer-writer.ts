/**
 * LayerWriter: what a format does to write its own file in place. LockedDisk makes a WritableDisk of it: it checks
 * ranges, keeps calls apart, and itself writes what has a place already, so a format sees only the rest.
 */
import type { Ports, RandomAccessFile } from '../ports.ts';
import type { Layer, LayerContext } from './layer.ts';

/** One image file that is being changed. Never two calls at once, nor a call while the layer is read. */
export interface LayerWriter {
  /** Reading of the same file; shows every change at once. */
  readonly layer: Layer;
  /** Layer.contentId as it is now. */
  readonly contentId: string;
  /** Every sector has its place in the file from the start, where it is on the disk, and no change changes anything else. */
  readonly isFlat?: true;
  /** Whether a flush has more to do than to sync the file. */
  readonly hasPending: boolean;
  /** Called once before the first `write` or `zero`. Where there is a contentId it becomes this one, by default a new one. */
  beforeFirstChange(contentId?: string): Promise<void>;
  /** Writes whole sectors inside the disk, at least one. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** Makes whole sectors inside the disk zeros. */
  zero(offset: number, lengthBytes: number, isUnmap: boolean): Promise<void>;
  /** Makes all changes durable, and what points to them. */
  flush(): Promise<void>;
  /** After the last flush: marks the file as cleanly closed. The file itself stays open. */
  finish(): Promise<void>;
}

/** Opens a sound image for writing; the file is open for writing already. */
export type OpenLayerWriter = (
  file: RandomAccessFile,
  context: LayerContext,
  ports: Pick<Ports, 'random'>,
) => Promise<LayerWriter>;
