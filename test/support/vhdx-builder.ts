/**
 * Builds VHDX files byte by byte for tests, from the specification and not from src: what the reader misreads, this
 * does not miswrite in the same way. It checks nothing, so that it can make files that are wrong.
 */

const MIB = 1024 * 1024;

/** Sizes and places of the files that `buildVhdx` makes: log at 1 MiB, metadata, BAT, then blocks. */
export interface VhdxOptions {
  readonly virtualSize?: number;
  readonly blockSize?: number;
  readonly logicalSector?: number;
  readonly physicalSector?: number;
  readonly fileFlags?: number;
  readonly logMiB?: number;
  readonly batMiB?: number;
  readonly logGuid?: string;
  readonly logVersion?: number;
  readonly version?: number;
  readonly sequences?: readonly [bigint, bigint];
  /** Pairs of the parent locator; sets HasParent. */
  readonly parent?: Readonly<Record<string, string>>;
  readonly dataWriteGuid?: string;
  readonly extraRegions?: readonly { guid: string; offset: number; length: number; required: boolean }[];
  readonly extraItems?: readonly { guid: string; bytes: Uint8Array; flags: number }[];
  /** Items by GUID to leave out. */
  readonly withoutItems?: readonly string[];
  /** BAT entries by index: [state, file offset in MiB]. */
  readonly bat?: Readonly<Record<number, readonly [state: number, offsetMiB: number]>>;
  /** Raw 64-bit BAT entries by index. */
  readonly rawBat?: Readonly<Record<number, bigint>>;
  readonly fileMiB?: number;
}

export const LOG_MIB = 1;
export const DATA_WRITE_GUID = '11111111-2222-3333-4444-555555555555';
export const LOG_GUID = 'AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE';
export const NO_GUID = '00000000-0000-0000-0000-000000000000';

/** A file; where its parts lie is in the fields. */
export interface BuiltVhdx {
  readonly bytes: Buffer;
  readonly metadataOffset: number;
  readonly batOffset: number;
  /** First MiB behind the tables. */
  readonly firstFreeMiB: number;
}

/** Makes a file. Blocks are filled by the caller. */
export function buildVhdx(options: VhdxOptions = {}): BuiltVhdx {
  const logMiB = options.logMiB ?? 1;
  const batMiB = options.batMiB ?? 1;
  const metadataMiB = LOG_MIB + logMiB;
  const batAtMiB = metadataMiB + 1;
  const firstFreeMiB = batAtMiB + batMiB;
  const bytes = Buffer.alloc((options.fileMiB ?? firstFreeMiB + 8) * MIB);
  bytes.write('vhdxfile', 0, 'latin1');
  bytes.write('test builder', 8, 'utf16le');
  const sequences = options.sequences ?? [7n, 8n];
  writeHeader(bytes, 64 * 1024, sequences[0], options, logMiB);
  writeHeader(bytes, 128 * 1024, sequences[1], options, logMiB);
  const regions = [
    { guid: '2DC27766-F623-4200-9D64-115E9BFD4A08', offset: batAtMiB * MIB, length: batMiB * MIB, required: true },
    { guid: '8B7CA206-4790-4B9A-B8FE-575F050F886E', offset: metadataMiB * MIB, length: MIB, required: true },
    ...(options.extraRegions ?? []),
  ];
  for (const at of [192 * 1024, 256 * 1024]) writeRegions(bytes, at, regions);
  writeMetadata(bytes, metadataMiB * MIB, options);
  for (const [index, [state, offsetMiB]] of Object.entries(options.bat ?? {})) {
    bytes.writeBigUInt64LE((BigInt(offsetMiB) << 20n) | BigInt(state), batAtMiB * MIB + Number(index) * 8);
  }
  for (const [index, raw] of Object.entries(options.rawBat ?? {})) {
    bytes.writeBigUInt64LE(raw, batAtMiB * MIB + Number(index) * 8);
  }
  return { bytes, metadataOffset: metadataMiB * MIB, batOffset: batAtMiB * MIB, firstFreeMiB };
}

/** Puts the right CRC into a structure of `length` bytes at `at` (its field is at 4). */
export function sealCrc(bytes: Buffer, at: number, length: number): void {
  bytes.writeUInt32LE(0, at + 4);
  bytes.writeUInt32LE(castagnoli(bytes.subarray(at, at + length)), at + 4);
}

/** GUID text → its bytes on disk. */
export function guidOnDisk(text: string): Buffer {
  const hex = text.replaceAll('-', '');
  const flip = (s: string): string => (s.match(/../g) ?? []).reverse().join('');
  const plain = flip(hex.slice(0, 8)) + flip(hex.slice(8, 12)) + flip(hex.slice(12, 16)) + hex.slice(16);
  return Buffer.from(plain, 'hex');
}

/** One change of a log entry. */
export type LogChange =
  | { readonly zero: number; readonly length: number }
  | { readonly page: number; readonly bytes: Uint8Array };

export interface LogEntryOptions {
  readonly sequence: bigint;
  readonly tail: number;
  readonly changes?: readonly LogChange[];
  readonly guid?: string;
  readonly flushed?: bigint;
  readonly last?: bigint;
}

/** The bytes of one log entry. */
export function logEntry(options: LogEntryOptions): Buffer {
  const changes = options.changes ?? [];
  const pages = changes.filter((change) => 'page' in change);
  const tableBytes = Math.ceil((64 + 32 * changes.length) / 4096) * 4096;
  const entry = Buffer.alloc(tableBytes + 4096 * pages.length);
  entry.write('loge', 0, 'latin1');
  entry.writeUInt32LE(entry.length, 8);
  entry.writeUInt32LE(options.tail, 12);
  entry.writeBigUInt64LE(options.sequence, 16);
  entry.writeUInt32LE(changes.length, 24);
  guidOnDisk(options.guid ?? LOG_GUID).copy(entry, 32);
  entry.writeBigUInt64LE(options.flushed ?? 0n, 48);
  entry.writeBigUInt64LE(options.last ?? 0n, 56);
  let sector = tableBytes;
  for (const [i, change] of changes.entries()) {
    const at = 64 + 32 * i;
    entry.writeBigUInt64LE(options.sequence, at + 24);
    if ('zero' in change) {
      entry.write('zero', at, 'latin1');
      entry.writeBigUInt64LE(BigInt(change.length), at + 8);
      entry.writeBigUInt64LE(BigInt(change.zero), at + 16);
      continue;
    }
    const page = Buffer.from(change.bytes);
    entry.write('desc', at, 'latin1');
    page.copy(entry, at + 4, 4092, 4096);
    page.copy(entry, at + 8, 0, 8);
    entry.writeBigUInt64LE(BigInt(change.page), at + 16);
    entry.write('data', sector, 'latin1');
    entry.writeUInt32LE(Number(options.sequence >> 32n), sector + 4);
    page.copy(entry, sector + 8, 8, 4092);
    entry.writeUInt32LE(Number(options.sequence & 0xffffffffn), sector + 4092);
    sector += 4096;
  }
  sealCrc(entry, 0, entry.length);
  return entry;
}

/** Puts an entry at `offset` of the log, around its end where it must. */
export function putEntry(file: BuiltVhdx, offset: number, entry: Uint8Array, logMiB = 1): void {
  for (let i = 0; i < entry.length; i += 4096) {
    const at = LOG_MIB * MIB + ((offset + i) % (logMiB * MIB));
    file.bytes.set(entry.subarray(i, i + 4096), at);
  }
}

function writeHeader(bytes: Buffer, at: number, sequence: bigint, options: VhdxOptions, logMiB: number): void {
  bytes.write('head', at, 'latin1');
  bytes.writeBigUInt64LE(sequence, at + 8);
  guidOnDisk('99999999-8888-7777-6666-555555555555').copy(bytes, at + 16);
  guidOnDisk(options.dataWriteGuid ?? DATA_WRITE_GUID).copy(bytes, at + 32);
  guidOnDisk(options.logGuid ?? NO_GUID).copy(bytes, at + 48);
  bytes.writeUInt16LE(options.logVersion ?? 0, at + 64);
  bytes.writeUInt16LE(options.version ?? 1, at + 66);
  bytes.writeUInt32LE(logMiB * MIB, at + 68);
  bytes.writeBigUInt64LE(BigInt(LOG_MIB * MIB), at + 72);
  sealCrc(bytes, at, 4096);
}

function writeRegions(
  bytes: Buffer,
  at: number,
  regions: readonly { guid: string; offset: number; length: number; required: boolean }[],
): void {
  bytes.write('regi', at, 'latin1');
  bytes.writeUInt32LE(regions.length, at + 8);
  for (const [i, region] of regions.entries()) {
    const entry = at + 16 + 32 * i;
    guidOnDisk(region.guid).copy(bytes, entry);
    bytes.writeBigUInt64LE(BigInt(region.offset), entry + 16);
    bytes.writeUInt32LE(region.length, entry + 24);
    bytes.writeUInt32LE(region.required ? 1 : 0, entry + 28);
  }
  sealCrc(bytes, at, 65_536);
}

function writeMetadata(bytes: Buffer, at: number, options: VhdxOptions): void {
  const hasParent = options.parent !== undefined;
  const parameters = Buffer.alloc(8);
  parameters.writeUInt32LE(options.blockSize ?? MIB);
  parameters.writeUInt32LE(options.fileFlags ?? (hasParent ? 2 : 0), 4);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(options.virtualSize ?? 4 * MIB));
  const u32 = (value: number): Buffer => {
    const field = Buffer.alloc(4);
    field.writeUInt32LE(value);
    return field;
  };
  const items = [
    { guid: 'CAA16737-FA36-4D43-B3B6-33F0AA44E76B', bytes: parameters, flags: 4 },
    { guid: '2FA54224-CD1B-4876-B211-5DBED83BF4B8', bytes: size, flags: 6 },
    { guid: 'BECA12AB-B2E6-4523-93EF-C309E000C746', bytes: guidOnDisk(LOG_GUID), flags: 6 },
    { guid: '8141BF1D-A96F-4709-BA47-F233A8FAAB5F', bytes: u32(options.logicalSector ?? 512), flags: 6 },
    { guid: 'CDA348C7-445D-4471-9CC9-E9885251C556', bytes: u32(options.physicalSector ?? 4096), flags: 6 },
    ...(options.parent === undefined
      ? []
      : [{ guid: 'A8D35F2D-B30B-454D-ABF7-D3D84834AB0C', bytes: locator(options.parent), flags: 4 }]),
    ...(options.extraItems ?? []),
  ].filter(({ guid }) => !options.withoutItems?.includes(guid));
  bytes.write('metadata', at, 'latin1');
  bytes.writeUInt16LE(items.length, at + 10);
  // Odd distances on purpose: items need no alignment.
  let itemOffset = 65_536 + 3;
  for (const [i, item] of items.entries()) {
    const entry = at + 32 + 32 * i;
    guidOnDisk(item.guid).copy(bytes, entry);
    bytes.writeUInt32LE(item.bytes.length === 0 ? 0 : itemOffset, entry + 16);
    bytes.writeUInt32LE(item.bytes.length, entry + 20);
    bytes.writeUInt32LE(item.flags, entry + 24);
    bytes.set(item.bytes, at + itemOffset);
    itemOffset += item.bytes.length + 5;
  }
}

/** A parent locator item. */
export function locator(pairs: Readonly<Record<string, string>>): Buffer {
  const entries = Object.entries(pairs);
  const texts: Buffer[] = [];
  const head = Buffer.alloc(20 + 12 * entries.length);
  guidOnDisk('B04AEFB7-D19E-4A81-B789-25B8E9445913').copy(head);
  head.writeUInt16LE(entries.length, 18);
  let at = head.length;
  for (const [i, [key, value]] of entries.entries()) {
    const [k, v] = [Buffer.from(key, 'utf16le'), Buffer.from(value, 'utf16le')];
    head.writeUInt32LE(at, 20 + 12 * i);
    head.writeUInt32LE(at + k.length, 24 + 12 * i);
    head.writeUInt16LE(k.length, 28 + 12 * i);
    head.writeUInt16LE(v.length, 30 + 12 * i);
    texts.push(k, v);
    at += k.length + v.length;
  }
  return Buffer.concat([head, ...texts]);
}

const TABLE = Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

function castagnoli(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i += 1) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[i]!) & 0xff]!;
  return (crc ^ 0xffffffff) >>> 0;
}
