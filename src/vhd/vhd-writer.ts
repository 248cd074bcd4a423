/**
 * Writes VHD files as Windows lays them out, so that every reader takes them:
 *
 *   fixed          data · footer
 *   dynamic        footer copy 0 · dynamic header 512 · block table 1536 · blocks · footer
 *   differencing   footer copy 0 · dynamic header 512 · absolute path 4096 · relative path · block table · blocks · footer
 *
 * The block table is padded with ones to 4 KiB. Each block is placed so that its data, not its bitmap, begins on
 * 4 KiB: with 2 MiB blocks the first lies at sector 15, the next 4104 sectors on. Windows calls a disk misaligned and
 * slow otherwise. A block of a dynamic disk has all bits set; a block of a differencing disk has those of the sectors
 * that were placed. Blocks are whole in the file, the last one too.
 */
import { alignUp, isPowerOfTwo, KIB, MIB, SECTOR_BYTES } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { VHD_BAT_BYTES_MAX, VHD_BLOCK_BYTES_MAX, VHD_BYTES_MAX, VHD_LOCATOR_BYTES_MAX } from '../limits.ts';
import type { CreateSpec, ParentFacts } from './create-spec.ts';
import { FlatWriter } from './flat-writer.ts';
import { checkWriteRange, ImageFile } from './image-file.ts';
import { UNUSED_ENTRY } from './vhd-bat.ts';
import { fullBitmap, setSectorBits } from './vhd-bitmap.ts';
import { buildFooter, type FooterFields, fixedVhdFooter, VHD_FOOTER_BYTES, vhdTimestamp } from './vhd-footer.ts';
import { bitmapBytes, blockCount, buildHeader, type HeaderFields, VHD_HEADER_BYTES } from './vhd-header.ts';
import { buildLocators } from './vhd-locators.ts';
import { nextDataOffset } from './vhd-placement.ts';
import type { DiskWriter, FileRange } from './virtual-disk.ts';

const BLOCK_BYTES_DEFAULT: number = 2 * MIB;
/** Smaller blocks would spend more on bitmaps and table than they save. */
const BLOCK_BYTES_MIN: number = 64 * KIB;
const PAGE_BYTES = 4096;
const HEADER_OFFSET: number = VHD_FOOTER_BYTES;
const TABLES_OFFSET: number = HEADER_OFFSET + VHD_HEADER_BYTES;
const RAW_PARENT_ID: Uint8Array = new Uint8Array(16);

/** Creates a VHD. @throws UNSUPPORTED for what no VHD can be, OUTPUT_EXISTS, OUTPUT_FAILED */
export async function createVhd(spec: CreateSpec): Promise<DiskWriter> {
  const { subformat, virtualSizeBytes, ports } = spec;
  if ((spec.logicalSectorBytes ?? SECTOR_BYTES) !== SECTOR_BYTES) {
    throw unsupported(spec.path, `a VHD has 512-byte logical sectors, not ${spec.logicalSectorBytes}`);
  }
  if (virtualSizeBytes > VHD_BYTES_MAX) {
    throw unsupported(spec.path, `a VHD has at most ${VHD_BYTES_MAX} bytes, not ${virtualSizeBytes}`);
  }
  const identity = { uniqueId: ports.random.bytes(16), createdMs: ports.clock.nowMs() };
  const footer: FooterFields = { subformat, virtualSizeBytes, headerOffset: HEADER_OFFSET, ...identity };
  if (subformat === 'fixed') {
    const image = await ImageFile.create(spec.path, ports.files);
    return FlatWriter.start(image, virtualSizeBytes, fixedVhdFooter({ virtualSizeBytes, ...identity }));
  }
  const layout = planLayout(spec);
  return new VhdBlockWriter(await ImageFile.create(spec.path, ports.files), layout, buildFooter(footer));
}

/** Where everything goes in the file, decided before the first byte is written. */
interface Layout {
  readonly virtualSizeBytes: number;
  readonly blockSizeBytes: number;
  readonly batOffset: number;
  readonly header: Uint8Array;
  /** Parent paths and their places. */
  readonly paths: readonly { readonly bytes: Uint8Array; readonly offset: number }[];
  readonly obeysBitmap: boolean;
}

function planLayout({ path, virtualSizeBytes, blockSizeBytes = BLOCK_BYTES_DEFAULT, parent }: CreateSpec): Layout {
  if (!isPowerOfTwo(blockSizeBytes) || blockSizeBytes < BLOCK_BYTES_MIN || blockSizeBytes > VHD_BLOCK_BYTES_MAX) {
    const range = `from ${BLOCK_BYTES_MIN} to ${VHD_BLOCK_BYTES_MAX}`;
    throw unsupported(path, `the block size of a VHD is a power of two ${range}, not ${blockSizeBytes}`);
  }
  const blocks = blockCount(virtualSizeBytes, blockSizeBytes);
  if (blocks * 4 > VHD_BAT_BYTES_MAX) {
    throw unsupported(
      path,
      `${blocks} blocks need a table of more than ${VHD_BAT_BYTES_MAX} bytes; take larger blocks`,
    );
  }
  const table = { maxTableEntries: blocks, blockSizeBytes };
  const common = { virtualSizeBytes, blockSizeBytes, obeysBitmap: parent !== undefined };
  if (parent === undefined) {
    const header = buildHeader({ ...table, batOffset: TABLES_OFFSET });
    return { ...common, batOffset: TABLES_OFFSET, header, paths: [] };
  }
  const { fields, paths, endOffset } = planParent(path, parent);
  return {
    ...common,
    batOffset: endOffset,
    header: buildHeader({ ...table, batOffset: endOffset, parent: fields }),
    paths,
  };
}

function planParent(
  path: string,
  parent: ParentFacts,
): {
  readonly fields: NonNullable<HeaderFields['parent']>;
  readonly paths: Layout['paths'];
  readonly endOffset: number;
} {
  const texts = [
    { platform: 'W2ku' as const, path: parent.absolutePath },
    { platform: 'W2ru' as const, path: windowsRelative(parent.relativePath) },
  ];
  let offset = PAGE_BYTES;
  const places = texts.map((text) => {
    const bytes = Buffer.from(text.path, 'utf16le');
    if (bytes.byteLength > VHD_LOCATOR_BYTES_MAX) {
      throw unsupported(
        path,
        `the path of the parent has ${bytes.byteLength} bytes, more than ${VHD_LOCATOR_BYTES_MAX}`,
      );
    }
    const spaceBytes = alignUp(bytes.byteLength, PAGE_BYTES);
    const place = { ...text, bytes, offset, dataOffset: offset, spaceBytes };
    offset += spaceBytes;
    return place;
  });
  const uniqueId = parent.linkId === '' ? RAW_PARENT_ID : Buffer.from(parent.linkId.replace('vhd:', ''), 'hex');
  const timestamp = vhdTimestamp(parent.modifiedMs);
  const fields = { uniqueId, timestamp, name: parent.absolutePath, locators: buildLocators(places) };
  return { fields, paths: places, endOffset: offset };
}

/** `../base/parent.vhd` → `.\..\base\parent.vhd`; blktap demands the beginning. */
function windowsRelative(path: string): string {
  return `.\\${path.replaceAll('/', '\\')}`;
}

class VhdBlockWriter implements DiskWriter {
  readonly path: string;
  readonly #image: ImageFile;
  readonly #layout: Layout;
  readonly #footer: Uint8Array;
  readonly #sectors: Uint32Array;
  readonly #bitmapBytes: number;
  /** End of what is in use in the file. */
  #endOffset: number;
  /** The bitmap that is being filled; written when another block's turn comes. Only of a differencing disk. */
  #open: { readonly block: number; readonly bitmap: Uint8Array } | undefined;

  constructor(image: ImageFile, layout: Layout, footer: Uint8Array) {
    this.path = image.path;
    this.#image = image;
    this.#layout = layout;
    this.#footer = footer;
    this.#sectors = new Uint32Array(blockCount(layout.virtualSizeBytes, layout.blockSizeBytes)).fill(UNUSED_ENTRY);
    this.#bitmapBytes = bitmapBytes(layout.blockSizeBytes);
    this.#endOffset = alignUp(layout.batOffset + this.#sectors.byteLength, PAGE_BYTES);
  }

  async place(offset: number, lengthBytes: number): Promise<readonly FileRange[]> {
    const { blockSizeBytes, virtualSizeBytes } = this.#layout;
    checkWriteRange(offset, lengthBytes, virtualSizeBytes);
    return this.#image.guard(async () => {
      const ranges: FileRange[] = [];
      for (let at = offset; at < offset + lengthBytes; ) {
        const block = Math.floor(at / blockSizeBytes);
        const inBlock = at - block * blockSizeBytes;
        const length = Math.min(offset + lengthBytes - at, blockSizeBytes - inBlock);
        const dataOffset = await this.#allocate(block);
        await this.#mark(block, inBlock / SECTOR_BYTES, (inBlock + length) / SECTOR_BYTES);
        ranges.push({ file: this.#image.file, fileOffset: dataOffset + inBlock, lengthBytes: length });
        at += length;
      }
      return ranges;
    });
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    const ranges = await this.place(offset, bytes.byteLength);
    await this.#image.guard(async () => {
      let done = 0;
      for (const { file, fileOffset, lengthBytes } of ranges) {
        await file.write(bytes.subarray(done, done + lengthBytes), fileOffset);
        done += lengthBytes;
      }
    });
  }

  async finish(): Promise<void> {
    const { batOffset, header, paths } = this.#layout;
    const { file } = this.#image;
    await this.#image.guard(async () => {
      await this.#closeBitmap();
      await file.write(this.#footer, 0);
      await file.write(header, HEADER_OFFSET);
      for (const { bytes, offset } of paths) await file.write(bytes, offset);
      await file.write(this.#tableBytes(), batOffset);
      await file.write(this.#footer, this.#endOffset);
    });
    await this.#image.finish();
  }

  abort(): Promise<void> {
    return this.#image.abort();
  }

  /** Offset of the data of `block`; gives it a place at the end of the file if it has none. */
  async #allocate(block: number): Promise<number> {
    const known = this.#sectors[block]!;
    if (known !== UNUSED_ENTRY) return known * SECTOR_BYTES + this.#bitmapBytes;
    const dataOffset = nextDataOffset(this.#endOffset, this.#bitmapBytes);
    const offset = dataOffset - this.#bitmapBytes;
    if (!this.#layout.obeysBitmap) await this.#image.file.write(fullBitmap(this.#layout.blockSizeBytes), offset);
    this.#sectors[block] = offset / SECTOR_BYTES;
    this.#endOffset = dataOffset + this.#layout.blockSizeBytes;
    return dataOffset;
  }

  async #mark(block: number, fromSector: number, endSector: number): Promise<void> {
    if (!this.#layout.obeysBitmap) return;
    if (this.#open?.block !== block) {
      await this.#closeBitmap();
      const bitmap = new Uint8Array(this.#bitmapBytes);
      await this.#image.file.read(bitmap, this.#sectors[block]! * SECTOR_BYTES);
      this.#open = { block, bitmap };
    }
    setSectorBits(this.#open.bitmap, fromSector, endSector);
  }

  async #closeBitmap(): Promise<void> {
    if (this.#open === undefined) return;
    await this.#image.file.write(this.#open.bitmap, this.#sectors[this.#open.block]! * SECTOR_BYTES);
    this.#open = undefined;
  }

  #tableBytes(): Uint8Array {
    const { batOffset } = this.#layout;
    const bytes = Buffer.alloc(alignUp(batOffset + this.#sectors.byteLength, PAGE_BYTES) - batOffset, 0xff);
    for (let i = 0; i < this.#sectors.length; i += 1) bytes.writeUInt32BE(this.#sectors[i]!, i * 4);
    return bytes;
  }
}

function unsupported(path: string, rule: string): BlockferryError {
  return new BlockferryError('UNSUPPORTED', `${path}: ${rule}`, { facts: { source: path, rule } });
}
