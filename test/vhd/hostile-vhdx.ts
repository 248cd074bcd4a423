/** Sparse sound VHDX files to damage, most of them made byte by byte from the specification, and their checksums. */
import { crc32cWithoutField } from '../../src/vhd/crc32c.ts';
import { createDisk } from '../../src/vhd/index.ts';
import { DIRECTORY, type Images } from '../support/hostile-run.ts';
import type { BaseImage, Spot } from '../support/mutator.ts';
import { PAGE_BYTES, PagedImage } from '../support/paged-image.ts';
import {
  type BuiltVhdx,
  buildVhdx,
  DATA_WRITE_GUID,
  LOG_GUID,
  LOG_MIB,
  type LogChange,
  logEntry,
  putEntry,
} from '../support/vhdx-builder.ts';
import { KIB, MIB, testPorts } from './vhd-image.ts';

const PARENT_GUID = '77777777-2222-3333-4444-555555555555';
const LOG_OFFSET = LOG_MIB * MIB;
const LOG_BYTES = MIB;
const HEADERS = [64 * KIB, 128 * KIB] as const;
const REGION_TABLES = [192 * KIB, 256 * KIB] as const;
const REGION_TABLE_BYTES = 64 * KIB;
/** Entries of the block table that count: those of the blocks, and in a child that of the sector bitmap. */
const FIRST_ENTRIES = [0, 1, 2, 3, 4, 5];
const BITMAP_ENTRY = 4096;
const CHILD_ENTRIES = [...FIRST_ENTRIES, BITMAP_ENTRY];

/** Files without a log to replay. */
export async function hostileVhdxs(): Promise<Images> {
  return {
    bases: [
      baseOf('dynamic', dynamic(), FIRST_ENTRIES, 'one region table'),
      baseOf('child', child(), CHILD_ENTRIES, 'one region table'),
      baseOf('sectors of 4096 bytes', largeSectors(), FIRST_ENTRIES, 'one region table'),
      baseOf('written by us', await written(), FIRST_ENTRIES, 'with spares'),
    ],
    others: parents(),
  };
}

/** Files with a log to replay. */
export async function hostileVhdxLogs(): Promise<Images> {
  return {
    bases: [
      baseOf('with a log', withLog(), FIRST_ENTRIES, 'one region table'),
      baseOf('child with a log', childWithLog(), CHILD_ENTRIES, 'one region table'),
    ],
    others: parents(),
  };
}

function dynamic(options: Parameters<typeof buildVhdx>[0] = {}): BuiltVhdx {
  const bat = { 0: [6, 4], 1: [0, 0], 2: [2, 0], 3: [6, 6], 4: [3, 5], 5: [6, 5] } as const;
  const built = buildVhdx({ virtualSize: 5 * MIB + 512, bat, fileMiB: 8, ...options });
  for (const [mib, value] of [
    [4, 0x41],
    [5, 0x42],
    [6, 0x43],
  ] as const) {
    built.bytes.fill(value, mib * MIB, mib * MIB + 1024);
  }
  return built;
}

function parents(): ReadonlyMap<string, PagedImage> {
  return new Map([[`${DIRECTORY}/parent`, PagedImage.of(dynamic({ dataWriteGuid: PARENT_GUID }).bytes)]]);
}

function child(options: Parameters<typeof buildVhdx>[0] = {}): BuiltVhdx {
  const names = {
    parent_linkage: `{${PARENT_GUID}}`,
    relative_path: '.\\parent',
    absolute_win32_path: 'C:\\x\\parent',
  };
  const bat = { 0: [7, 4], 1: [0, 0], 2: [1, 0], 3: [6, 6], 4: [7, 7], 4096: [6, 5] } as const;
  const built = buildVhdx({ virtualSize: 5 * MIB + 512, bat, fileMiB: 8, parent: names, ...options });
  // The bits of blocks 0 and 4, and some bytes of each block.
  built.bytes.set([0xcb, 0x00, 0xff, 0x01], 5 * MIB);
  built.bytes.set([0x80, 0xff], 5 * MIB + 4 * 256);
  for (const [mib, value] of [
    [4, 0x51],
    [6, 0x52],
    [7, 0x53],
  ] as const) {
    built.bytes.fill(value, mib * MIB, mib * MIB + 1024);
  }
  return built;
}

/** Two stale entries, then three that count, the last one around the end of the ring. */
function putLog(built: BuiltVhdx): BuiltVhdx {
  const page = (value: number): Uint8Array => new Uint8Array(PAGE_BYTES).fill(value);
  const table = Buffer.from(built.bytes.subarray(built.batOffset, built.batOffset + PAGE_BYTES));
  const manyZeros = Array.from({ length: 130 }, (_, i) => ({
    zero: 4 * MIB + (64 + i) * PAGE_BYTES,
    length: PAGE_BYTES,
  }));
  const pages: readonly (readonly LogChange[])[] = [
    [{ page: 4 * MIB, bytes: page(1) }],
    [
      { page: built.batOffset, bytes: table },
      { zero: 6 * MIB, length: 8 * KIB },
    ],
    [
      { page: 4 * MIB + 4096, bytes: page(2) },
      { page: 6 * MIB, bytes: page(3) },
      { zero: 4 * MIB, length: 4096 },
      ...manyZeros,
    ],
  ];
  const tail = LOG_BYTES - 5 * PAGE_BYTES;
  let offset = tail;
  const last = BigInt(built.bytes.length);
  for (const [i, changes] of pages.entries()) {
    const entry = logEntry({ sequence: 2n ** 53n + BigInt(i), tail, changes, flushed: last, last });
    putEntry(built, offset, entry);
    offset = (offset + entry.length) % LOG_BYTES;
  }
  putEntry(built, 64 * KIB, logEntry({ sequence: 3n, tail: 64 * KIB, changes: pages[0]! }));
  putEntry(built, 96 * KIB, logEntry({ sequence: 4n, tail: 96 * KIB, guid: PARENT_GUID }));
  return built;
}

function withLog(): BuiltVhdx {
  return putLog(dynamic({ logGuid: LOG_GUID }));
}

function childWithLog(): BuiltVhdx {
  return putLog(child({ logGuid: LOG_GUID, dataWriteGuid: DATA_WRITE_GUID }));
}

function largeSectors(): BuiltVhdx {
  return buildVhdx({
    ...{ virtualSize: 7 * MIB, blockSize: 2 * MIB, logicalSector: 4096, fileMiB: 10, sequences: [9n, 9n] },
    bat: { 0: [6, 6], 1: [2, 9], 2: [0, 0], 3: [6, 8] },
    extraRegions: [{ guid: 'EEEEEEEE-2222-3333-4444-555555555555', offset: 4 * MIB, length: MIB, required: false }],
    extraItems: [{ guid: 'DDDDDDDD-2222-3333-4444-555555555555', bytes: Buffer.alloc(24, 7), flags: 1 }],
  });
}

async function written(): Promise<BuiltVhdx> {
  const ports = testPorts();
  await ports.files.makeDirectory(DIRECTORY);
  const path = `${DIRECTORY}/written`;
  const sizes = { virtualSizeBytes: 6 * MIB, blockSizeBytes: 2 * MIB } as const;
  const writer = await createDisk(path, { format: 'vhdx', subformat: 'fixed', ...sizes, ports });
  await writer.write(Buffer.alloc(2048, 0x61), 3 * MIB);
  await writer.finish();
  const bytes = Buffer.from(ports.files.get(path)!);
  const [first, second] = [0, 1].map((i) => Number(bytes.readBigUInt64LE(REGION_TABLES[0] + 16 + 32 * i + 16)));
  const isMetadata = bytes.toString('latin1', first, first! + 8) === 'metadata';
  const [metadataOffset, batOffset] = isMetadata ? [first!, second!] : [second!, first!];
  return { bytes, metadataOffset, batOffset, firstFreeMiB: 4 };
}

function baseOf(
  name: string,
  built: BuiltVhdx,
  batEntries: readonly number[],
  spares: 'with spares' | 'one region table',
): BaseImage {
  const { bytes, metadataOffset, batOffset } = built;
  // A spare doubles the time that checksums take; most files do without.
  if (spares === 'one region table') bytes.fill(0, REGION_TABLES[1], REGION_TABLES[1] + 4);
  const image = PagedImage.of(bytes);
  const regions = bytes.readUInt32LE(REGION_TABLES[0] + 8);
  const items = bytes.readUInt16LE(metadataOffset + 10);
  const spots: Spot[] = [
    ...HEADERS.map((offset) => ({ offset, lengthBytes: 80, weight: 4 })),
    { offset: REGION_TABLES[0], lengthBytes: 16 + regions * 32, weight: 8 },
    { offset: REGION_TABLES[1], lengthBytes: 16 + regions * 32, weight: 1 },
    { offset: metadataOffset, lengthBytes: 32 + items * 32, weight: 8 },
    ...batEntries.map((index) => ({ offset: batOffset + index * 8, lengthBytes: 8, weight: 4 })),
  ];
  for (let i = 0; i < items; i += 1) {
    const entry = metadataOffset + 32 + 32 * i;
    const lengthBytes = Math.min(bytes.readUInt32LE(entry + 20), 128);
    spots.push({ offset: metadataOffset + bytes.readUInt32LE(entry + 16), lengthBytes, weight: 2 });
  }
  for (const { offset } of logEntries(image)) {
    const descriptors = bytes.readUInt32LE(LOG_OFFSET + offset + 24);
    spots.push({ offset: LOG_OFFSET + offset, lengthBytes: 64 + Math.min(descriptors, 4) * 32, weight: 4 });
  }
  return { name, image, spots, seal };
}

/** Checksums of what was touched: headers, region tables, and the entries of a log where the sound file has its own. */
function seal(image: PagedImage): void {
  for (const offset of HEADERS) sealAt(image, offset, PAGE_BYTES);
  for (const offset of REGION_TABLES) sealAt(image, offset, REGION_TABLE_BYTES);
  if (!image.isTouched(LOG_OFFSET, LOG_BYTES)) return;
  for (const { offset, lengthBytes } of logEntries(image)) {
    const parts: Buffer[] = [];
    for (let i = 0; i < lengthBytes; i += PAGE_BYTES) {
      parts.push(image.slice(LOG_OFFSET + ((offset + i) % LOG_BYTES), PAGE_BYTES));
    }
    image.write(checksum(Buffer.concat(parts)), LOG_OFFSET + offset + 4);
  }
}

function sealAt(image: PagedImage, offset: number, lengthBytes: number): void {
  if (offset + lengthBytes > image.sizeBytes || !image.isTouched(offset, lengthBytes)) return;
  image.write(checksum(image.slice(offset, lengthBytes)), offset + 4);
}

function checksum(bytes: Buffer): Buffer {
  const field = Buffer.alloc(4);
  field.writeUInt32LE(crc32cWithoutField(bytes, 4));
  return field;
}

/** Pages of the log that begin like an entry, with the length they claim if it is a small one. */
function logEntries(image: PagedImage): readonly { readonly offset: number; readonly lengthBytes: number }[] {
  const entries: { offset: number; lengthBytes: number }[] = [];
  for (const run of image.filledRuns()) {
    const end = Math.min(run.offset + run.lengthBytes, LOG_OFFSET + LOG_BYTES, image.sizeBytes - PAGE_BYTES + 1);
    for (let offset = Math.max(run.offset, LOG_OFFSET); offset < end; offset += PAGE_BYTES) {
      const head = image.slice(offset, 12);
      const lengthBytes = head.readUInt32LE(8);
      const isEntry = head.toString('latin1', 0, 4) === 'loge' && lengthBytes % PAGE_BYTES === 0;
      if (isEntry && lengthBytes <= 64 * KIB) entries.push({ offset: offset - LOG_OFFSET, lengthBytes });
    }
  }
  return entries;
}
