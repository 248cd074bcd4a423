/**
 * CHS geometry as the VHD specification's appendix computes it. It usually holds a little less than the disk: the
 * division by heads and sectors rounds down. Readers use the footer's current size; the geometry is for old BIOSes.
 */
import { divCeil, SECTOR_BYTES } from '../bytes.ts';

export interface Geometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectorsPerTrack: number;
}

const CYLINDERS_MAX = 65535;
const HEADS_MAX = 16;

/** The geometry of a disk of `virtualSizeBytes`. */
export function geometryOf(virtualSizeBytes: number): Geometry {
  const sectors = Math.min(Math.floor(virtualSizeBytes / SECTOR_BYTES), CYLINDERS_MAX * HEADS_MAX * 255);
  if (sectors >= CYLINDERS_MAX * HEADS_MAX * 63) return geometry(sectors, HEADS_MAX, 255);
  let tracks = Math.floor(sectors / 17);
  const heads = Math.max(4, divCeil(tracks, 1024));
  if (tracks < heads * 1024 && heads <= HEADS_MAX) return geometry(sectors, heads, 17);
  tracks = Math.floor(sectors / 31);
  return geometry(sectors, HEADS_MAX, tracks < HEADS_MAX * 1024 ? 31 : 63);
}

/** Bytes that a geometry addresses. */
export function geometryBytes({ cylinders, heads, sectorsPerTrack }: Geometry): number {
  return cylinders * heads * sectorsPerTrack * SECTOR_BYTES;
}

function geometry(sectors: number, heads: number, sectorsPerTrack: number): Geometry {
  const cylinders = Math.floor(Math.floor(sectors / sectorsPerTrack) / heads);
  return { cylinders, heads, sectorsPerTrack };
}
