/**
 * Layer: one image file of a chain, whatever its format. chain.ts finds the parents and composes layers into a
 * VirtualDisk; a format only has to say what its own file knows.
 *
 * A layer is read-only and borrows its file: whoever opened the file closes it. Opening a layer has verified every
 * header, table and offset that reading relies on, or verifies an offset when it is met; a layer never hands out a
 * range that lies outside its file, over its metadata, or twice.
 */
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import type { TableCache } from './table-cache.ts';
import type { DiskFault, DiskFormat, DiskInfo, DiskSubformat } from './virtual-disk.ts';

/**
 * What the layer's own file says about a range of the guest's disk.
 * - `parent`: nothing. The parent decides; without a parent the range is absent.
 * - `zero`: zeros, whatever a parent holds.
 * - `data`: bytes of `Layer.file` from `fileOffset`; beyond the end of the file they are zeros.
 * - `memory`: bytes from a log replayed in memory; a view, not to be written to.
 */
export type LayerExtent =
  | { readonly kind: 'parent' | 'zero'; readonly offset: number; readonly lengthBytes: number }
  | { readonly kind: 'data'; readonly offset: number; readonly lengthBytes: number; readonly fileOffset: number }
  | { readonly kind: 'memory'; readonly offset: number; readonly lengthBytes: number; readonly bytes: Uint8Array };

/** One place where a differencing disk says its parent is. The text is untrusted and stands as the file has it. */
export interface ParentPath {
  /** `relative`: to the folder of the child. `volume`: `\\?\Volume{…}\…`. `absolute`: `C:\…`, `\\server\…`, `/…`. */
  readonly kind: 'relative' | 'volume' | 'absolute';
  readonly path: string;
}

/** How a differencing disk names its parent. */
export interface ParentLink {
  /** In the order in which the file has them; chain.ts tries relative, then volume, then absolute. */
  readonly paths: readonly ParentPath[];
  /** The parent is right if its `linkId` is one of these. Empty: a raw parent, which has no identity. */
  readonly linkIds: readonly string[];
  /** Whether the format demands that parent and child have the same size (VHD). */
  readonly sameSize: boolean;
}

/** One open image file. */
export interface Layer {
  readonly file: RandomAccessFile;
  readonly format: DiskFormat;
  readonly subformat: DiskSubformat;
  readonly virtualSizeBytes: number;
  /** 0 where the format has none. */
  readonly blockSizeBytes: number;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  /** See VirtualDisk.identity. */
  readonly identity: string;
  /** See VirtualDisk.contentId. */
  readonly contentId: string;
  /** What a child of this disk names: `vhd:` and the unique id in hex, `vhdx:` and the DataWriteGuid, '' for raw. */
  readonly linkId: string;
  /** Present exactly if `subformat` is differencing. */
  readonly parent: ParentLink | undefined;
  readonly log: DiskInfo['log'];
  readonly notes: readonly string[];
  /**
   * What the file says about [offset, offset + lengthBytes), which lies inside the disk: in order, without gaps. A run
   * of blocks that the file does not hold is one extent, however long; other neighbours are merged by the chain.
   */
  extents(offset: number, lengthBytes: number): AsyncIterable<LayerExtent>;
}

/** What opening a layer needs. One context serves all layers of a chain. */
export interface LayerContext {
  readonly files: FileSystem;
  /** Pages of block tables, shared by the chain and bounded by limits.BAT_CACHE_BYTES_MAX. */
  readonly tables: TableCache;
}

/** Opens one file as a layer: openVhd, openVhdx, openRaw. @throws the format's error at the first fault that matters. */
export type OpenLayer = (file: RandomAccessFile, context: LayerContext) => Promise<Layer>;

/** What a format's checker found in one file. `notes` are oddities that are no fault. */
export interface LayerCheck {
  readonly faults: readonly DiskFault[];
  readonly notes: readonly string[];
}

/** Checks the structure of one file and goes on after a fault where it can: checkVhd, checkVhdx. */
export type CheckLayer = (file: RandomAccessFile, context: LayerContext) => Promise<LayerCheck>;
