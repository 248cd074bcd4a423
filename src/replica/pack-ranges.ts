/** Packing places in files for a message to a worker. */
import type { Extent } from '../vhd/index.ts';
import { RANGE_FIELDS } from '../workers/index.ts';

interface Packed {
  readonly ranges: Float64Array;
  readonly inline: readonly Uint8Array[];
}

/** The extents of a batch of chunks as a worker takes them; bytes in memory are sent along. */
export function packRanges(
  chunks: readonly { readonly chunk: number; readonly extents: readonly Extent[] }[],
  chunkBytes: number,
): Packed {
  const count = chunks.reduce((n, { extents }) => n + extents.length, 0);
  const ranges = new Float64Array(count * RANGE_FIELDS);
  const inline: Uint8Array[] = [];
  let at = 0;
  for (const [index, { chunk, extents }] of chunks.entries()) {
    for (const extent of extents) {
      ranges[at] = index;
      ranges[at + 1] = extent.offset - chunk * chunkBytes;
      ranges[at + 4] = extent.lengthBytes;
      if (extent.kind === 'data') {
        const { descriptor } = extent.file;
        if (descriptor === undefined) throw new TypeError(`${extent.file.path} has no descriptor for a worker to read`);
        ranges[at + 2] = descriptor;
        ranges[at + 3] = extent.fileOffset;
      } else if (extent.kind === 'memory') {
        // A copy of just these bytes: the view may belong to a large buffer, and all of that would be cloned.
        inline.push(extent.bytes.slice());
        ranges[at + 2] = -inline.length;
      } else {
        throw new TypeError(`an extent of kind ${extent.kind} has nothing to read`);
      }
      at += RANGE_FIELDS;
    }
  }
  return { ranges, inline };
}
