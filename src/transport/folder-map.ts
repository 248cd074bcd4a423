/**
 * The `map` file of a page blob in a folder: which granules of 4 MiB were ever written.
 *
 * ```
 * offset 0      "BFMAP1\0\0" (8) | granule bytes u32 | granules u32 | zeros up to 4096
 * offset 4096   one bit a granule, lowest bit of the first byte first
 * ```
 * A bit is durable before the first byte of its granule changes, so an unset bit proves zeros: `clear` costs nothing
 * there and `ranges` leaves it out. Bits are only ever set, so a torn write of this file cannot hurt. Without the file
 * (somebody copied the blob alone) every granule counts as written.
 */
import { divCeil, MIB } from '../bytes.ts';
import type { FileSystem, RandomAccessFile } from '../ports.ts';
import { isErrno } from './folder-errors.ts';
import { GroupCommit } from './gate.ts';
import type { ByteRange } from './store.ts';

const HEADER_BYTES = 4096;
const PAGE_BYTES = 4096;
const MAGIC = 'BFMAP1\0\0';

/** Granule of the map: 8 TiB need 256 KiB of bits, and a first sync waits for one sync of this file per 4 MiB. */
export const MAP_GRANULE_BYTES: number = 4 * MIB;

function header(granules: number): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(MAGIC, 0, 'latin1');
  bytes.writeUInt32LE(MAP_GRANULE_BYTES, 8);
  bytes.writeUInt32LE(granules, 12);
  return bytes;
}

/** The bytes at the head of a new map file; the bits behind are a hole. */
export function newMapHeader(sizeBytes: number): Buffer {
  return header(divCeil(sizeBytes, MAP_GRANULE_BYTES));
}

export class WrittenMap {
  readonly #file: RandomAccessFile | undefined;
  readonly #granules: number;
  /** Durable bits. */
  readonly #bits: Buffer;
  readonly #marks: GroupCommit<{ readonly first: number; readonly last: number }>;

  private constructor(file: RandomAccessFile | undefined, granules: number, bits: Buffer) {
    this.#file = file;
    this.#granules = granules;
    this.#bits = bits;
    this.#marks = new GroupCommit((items) => this.#commit(items));
  }

  static async load(file: RandomAccessFile | undefined, sizeBytes: number): Promise<WrittenMap> {
    const granules = divCeil(sizeBytes, MAP_GRANULE_BYTES);
    const bits = Buffer.alloc(divCeil(granules, 8));
    if (file === undefined) return new WrittenMap(undefined, granules, bits.fill(0xff));
    const head = Buffer.alloc(HEADER_BYTES);
    await file.read(head, 0);
    if (!head.equals(header(granules))) return new WrittenMap(undefined, granules, bits.fill(0xff));
    await file.read(bits, HEADER_BYTES);
    return new WrittenMap(file, granules, bits);
  }

  /** Whether any byte of the range may ever have been written. */
  touches(offset: number, lengthBytes: number): boolean {
    const last = Math.floor((offset + lengthBytes - 1) / MAP_GRANULE_BYTES);
    for (let g = Math.floor(offset / MAP_GRANULE_BYTES); g <= last; g += 1) {
      if (this.#has(g)) return true;
    }
    return false;
  }

  /** Makes it durable that the range is being written. */
  async mark(offset: number, lengthBytes: number): Promise<void> {
    const first = Math.floor(offset / MAP_GRANULE_BYTES);
    const last = Math.floor((offset + lengthBytes - 1) / MAP_GRANULE_BYTES);
    let known = true;
    for (let g = first; g <= last; g += 1) known &&= this.#has(g);
    if (!known) await this.#marks.add({ first, last });
  }

  /** Ascending runs of written granules inside [fromOffset, endOffset), not clipped to it at their ends. */
  *runs(fromOffset: number, endOffset: number): Generator<ByteRange> {
    const end = Math.min(this.#granules, divCeil(endOffset, MAP_GRANULE_BYTES));
    let g = Math.floor(fromOffset / MAP_GRANULE_BYTES);
    while (g < end) {
      if (this.#bits[g >> 3] === 0) {
        g = (g | 7) + 1;
      } else if (this.#has(g)) {
        const start = g;
        while (g < end && this.#has(g)) g += 1;
        yield { offset: start * MAP_GRANULE_BYTES, lengthBytes: (g - start) * MAP_GRANULE_BYTES };
      } else {
        g += 1;
      }
    }
  }

  #has(granule: number): boolean {
    return ((this.#bits[granule >> 3] ?? 0) & (1 << (granule & 7))) !== 0;
  }

  async #commit(items: readonly { readonly first: number; readonly last: number }[]): Promise<void> {
    if (this.#file === undefined) return;
    const next = Buffer.from(this.#bits);
    const pages = new Set<number>();
    for (const { first, last } of items) {
      for (let g = first; g <= last; g += 1) {
        next[g >> 3] = (next[g >> 3] ?? 0) | (1 << (g & 7));
        pages.add(Math.floor((g >> 3) / PAGE_BYTES));
      }
    }
    for (const page of pages) {
      await this.#file.write(
        next.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES),
        HEADER_BYTES + page * PAGE_BYTES,
      );
    }
    await this.#file.sync();
    next.copy(this.#bits);
  }
}

/** The map as it is now, for one look. */
export async function readMap(files: FileSystem, path: string, sizeBytes: number): Promise<WrittenMap> {
  let file: RandomAccessFile;
  try {
    file = await files.open(path, 'read');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return await WrittenMap.load(undefined, sizeBytes);
    throw error;
  }
  try {
    return await WrittenMap.load(file, sizeBytes);
  } finally {
    await file.close();
  }
}
