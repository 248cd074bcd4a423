/**
 * Map: the extents of a disk in the shape of `qemu-img map --output=json`.
 *
 * | here | depth | present | zero | data | offset |
 * |---|---|---|---|---|---|
 * | data | layer | true | false | true | in the layer's file |
 * | data in a replayed log | layer | true | false | true | none: no place in a file |
 * | zeros by a layer's word | layer | true | true | false | none |
 * | no layer says anything | deepest layer | false | true | false | none |
 *
 * `depth` counts from the disk itself (0) to its oldest parent.
 */
import type { Extent, VirtualDisk } from '../vhd/index.ts';

/** One entry; the names are qemu's. */
export interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  /** Where the bytes stand in the file of layer `depth`. */
  readonly offset?: number;
}

/** The map of the whole disk, in order and without gaps. @throws what the disk's extents throw */
export async function* mapDisk(disk: VirtualDisk): AsyncGenerator<MapEntry, void, void> {
  for await (const extent of disk.extents(0, disk.info.virtualSizeBytes)) yield toEntry(extent);
}

function toEntry(extent: Extent): MapEntry {
  const { offset: start, lengthBytes: length, depth, kind } = extent;
  const data = kind === 'data' || kind === 'memory';
  const entry = { start, length, depth, present: kind !== 'absent', zero: !data, data };
  return extent.kind === 'data' ? { ...entry, offset: extent.fileOffset } : entry;
}
