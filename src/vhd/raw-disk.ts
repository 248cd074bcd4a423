/**
 * Raw disks: the guest's bytes and nothing else.
 *
 *   0 … size   the disk; if the size is no multiple of 512, the rest of the last sector reads as zeros
 *
 * Reading: a file that occupies no space and begins with zeros is one absent range, so that an empty sparse disk costs
 * nothing. (Some network file systems report no space for every file, hence the look at its beginning.) Other holes
 * are read as data. Writing: a sparse file of the full size.
 */
import { alignUp, bytesEqual, MIB, SECTOR_BYTES } from '../bytes.ts';
import { DISK_BYTES_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import type { CreateSpec } from './create-spec.ts';
import { faultError, StrictFindings } from './findings.ts';
import { FlatEditor } from './flat-edit.ts';
import { FlatWriter } from './flat-writer.ts';
import { ImageFile } from './image-file.ts';
import type { Layer, LayerExtent } from './layer.ts';
import type { LayerWriter } from './layer-writer.ts';
import type { DiskWriter } from './virtual-disk.ts';

/** Partition tables and the super blocks of all common file systems lie in the first MiB. */
const PROBE_BYTES = MIB;

/** Opens a file as a raw disk. @throws DISK_TRUNCATED if it is empty, UNSUPPORTED if it is too large. */
export async function openRaw(file: RandomAccessFile): Promise<Layer> {
  const { sizeBytes, allocatedBytes } = await file.stamp();
  const findings = new StrictFindings(file.path);
  if (sizeBytes === 0) findings.fault('DISK_TRUNCATED', 0, 'a raw disk has at least one byte');
  if (sizeBytes > DISK_BYTES_MAX) {
    throw faultError(file.path, 'UNSUPPORTED', 0, `a disk has at most ${DISK_BYTES_MAX} bytes`, { sizeBytes });
  }
  const virtualSizeBytes = alignUp(sizeBytes, SECTOR_BYTES);
  if (virtualSizeBytes !== sizeBytes) {
    findings.note(`the file has ${sizeBytes} bytes; the rest of its last sector reads as zeros`);
  }
  const isEmpty = allocatedBytes === 0 && (await beginsWithZeros(file));
  return new RawLayer(file, virtualSizeBytes, isEmpty, findings.notes);
}

/** A raw disk to be written: all of it is data, since a hole may get some at any moment. */
export async function openRawForWriting(file: RandomAccessFile): Promise<LayerWriter> {
  const { virtualSizeBytes, notes } = await openRaw(file);
  return new FlatEditor(new RawLayer(file, virtualSizeBytes, false, notes));
}

/** Creates a raw disk: a sparse file. */
export async function createRaw(spec: CreateSpec): Promise<DiskWriter> {
  const image = await ImageFile.create(spec.path, spec.ports.files);
  return FlatWriter.start(image, spec.virtualSizeBytes, new Uint8Array(0));
}

async function beginsWithZeros(file: RandomAccessFile): Promise<boolean> {
  const bytes = new Uint8Array(PROBE_BYTES);
  await file.read(bytes, 0);
  return bytesEqual(bytes, new Uint8Array(PROBE_BYTES));
}

class RawLayer implements Layer {
  readonly file: RandomAccessFile;
  readonly format = 'raw';
  readonly subformat = 'fixed';
  readonly virtualSizeBytes: number;
  readonly blockSizeBytes = 0;
  readonly logicalSectorBytes: number = SECTOR_BYTES;
  readonly physicalSectorBytes: number = SECTOR_BYTES;
  readonly identity = '';
  readonly contentId = '';
  readonly linkId = '';
  readonly parent = undefined;
  readonly log = 'none';
  readonly notes: readonly string[];
  readonly #isEmpty: boolean;

  constructor(file: RandomAccessFile, virtualSizeBytes: number, isEmpty: boolean, notes: readonly string[]) {
    this.file = file;
    this.virtualSizeBytes = virtualSizeBytes;
    this.#isEmpty = isEmpty;
    this.notes = notes;
  }

  async *extents(offset: number, lengthBytes: number): AsyncGenerator<LayerExtent> {
    if (lengthBytes === 0) return;
    if (this.#isEmpty) yield { kind: 'parent', offset, lengthBytes };
    else yield { kind: 'data', offset, lengthBytes, fileOffset: offset };
  }
}
