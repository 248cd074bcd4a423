/**
 * CreateSpec: what createDisk hands to the writer of a format, already resolved: the parent is open-checked and known
 * by its facts, defaults that differ per format are still open.
 */
import type { Ports } from '../ports.ts';
import type { DiskSubformat } from './virtual-disk.ts';

/** The parent of a differencing disk that is being made. */
export interface ParentFacts {
  /** Absolute path on this machine. */
  readonly absolutePath: string;
  /** From the folder of the child, in the host's spelling (`parent.vhd`, `../base/parent.vhd`). */
  readonly relativePath: string;
  /** Layer.linkId of the parent. */
  readonly linkId: string;
  readonly virtualSizeBytes: number;
  readonly logicalSectorBytes: number;
  readonly physicalSectorBytes: number;
  /** Unix time of the parent's last change in milliseconds. */
  readonly modifiedMs: number;
}

/** Everything a format's writer (createVhd, createVhdx) needs. */
export interface CreateSpec {
  /** Final path; the file grows beside it under a temporary name (ImageFile). */
  readonly path: string;
  readonly subformat: DiskSubformat;
  /** A positive multiple of the logical sector. */
  readonly virtualSizeBytes: number;
  /** undefined: the format's default. */
  readonly blockSizeBytes: number | undefined;
  readonly logicalSectorBytes: 512 | 4096 | undefined;
  readonly physicalSectorBytes: 512 | 4096 | undefined;
  /** Present exactly if `subformat` is differencing. */
  readonly parent: ParentFacts | undefined;
  readonly ports: Pick<Ports, 'files' | 'clock' | 'random'>;
}
