/**
 * The region table of a VHDX ([MS-VHDX] 2.2.3), 64 KiB, in two copies at 192 and 256 KiB.
 *
 *   0  (4) `regi`                       entry k at 16 + 32 k:
 *   4  (4) CRC-32C over 65,536 bytes      0 (16) GUID
 *   8  (4) entry count, at most 2047     16  (8) file offset, whole MiB
 *  12  (4) reserved                      24  (4) length, whole MiB
 *                                        28  (4) bit 0: required
 *
 * Either valid copy will do. A region that is not known is refused if required, else left alone. BAT and metadata are
 * taken whether marked required or not: qemu writes 0 there.
 */
import { asBuffer, ByteReader } from '../bytes.ts';
import type { BlockferryError } from '../errors.ts';
import { formatGuid, GUID_BYTES, guidBytes } from '../guid.ts';
import { VHDX_BAT_BYTES_MAX, VHDX_METADATA_REGION_BYTES_MAX, VHDX_TABLE_ENTRIES_MAX } from '../limits.ts';
import { crc32cWithoutField } from './crc32c.ts';
import {
  ALLOCATION_BYTES,
  HEADER_SECTION_BYTES,
  REGION_BAT,
  REGION_METADATA,
  REGION_TABLE_BYTES,
  REGION_TABLE_OFFSETS,
  vhdxFault,
} from './vhdx-layout.ts';

const SIGNATURE = 'regi';
const CRC_OFFSET = 4;
const ENTRIES_OFFSET = 16;
const ENTRY_BYTES = 32;

export interface Region {
  readonly guid: string;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly isRequired: boolean;
}

/** All regions of a file, with the two that every VHDX has. */
export interface RegionTable {
  readonly bat: Region;
  readonly metadata: Region;
  readonly all: readonly Region[];
}

/** What the table that was used says, and what is wrong with the copy that was not (not fatal). */
export interface ChosenRegionTable {
  readonly table: RegionTable;
  readonly spareFault: BlockferryError | undefined;
}

/** The regions by the first copy that is valid. @throws VHDX_REGION if neither is, or its contents break a rule */
export function chooseRegionTable(
  copies: readonly [Uint8Array, Uint8Array],
  source: string,
  fileSizeBytes: number,
): ChosenRegionTable {
  const faults = copies.map((bytes, i) => integrityFault(bytes, source, REGION_TABLE_OFFSETS[i]!));
  const chosen = faults[0] === undefined ? 0 : 1;
  if (faults[chosen] !== undefined) throw faults[0] ?? faults[1];
  const table = parseRegionTable(copies[chosen], source, REGION_TABLE_OFFSETS[chosen], fileSizeBytes);
  return { table, spareFault: faults[1 - chosen] };
}

/** Table bytes, whose checksum is right → regions. @throws VHDX_REGION */
function parseRegionTable(bytes: Uint8Array, source: string, offset: number, fileSizeBytes: number): RegionTable {
  const reader = new ByteReader(bytes, { source, offset, code: 'VHDX_REGION' });
  const count = reader.seek(8).u32LE();
  if (count > VHDX_TABLE_ENTRIES_MAX) {
    const rule = `a region table has at most ${VHDX_TABLE_ENTRIES_MAX} entries`;
    throw vhdxFault('VHDX_REGION', source, offset + 8, rule, `region table claims ${count} entries`);
  }
  reader.seek(ENTRIES_OFFSET);
  const byGuid = new Map<string, Region>();
  for (let i = 0; i < count; i += 1) {
    const at = offset + reader.position;
    const region = parseEntry(reader, source, at, fileSizeBytes);
    if (byGuid.has(region.guid)) {
      throw vhdxFault('VHDX_REGION', source, at, 'a region occurs once', `second entry for region ${region.guid}`);
    }
    byGuid.set(region.guid, region);
  }
  return {
    bat: known(byGuid, REGION_BAT, 'BAT', VHDX_BAT_BYTES_MAX, source, offset),
    metadata: known(byGuid, REGION_METADATA, 'metadata', VHDX_METADATA_REGION_BYTES_MAX, source, offset),
    all: [...byGuid.values()],
  };
}

/** Regions → 65,536 table bytes. */
export function encodeRegionTable(regions: readonly Region[]): Uint8Array {
  const bytes = Buffer.alloc(REGION_TABLE_BYTES);
  bytes.write(SIGNATURE, 0, 'latin1');
  bytes.writeUInt32LE(regions.length, 8);
  for (const [i, region] of regions.entries()) {
    const at = ENTRIES_OFFSET + i * ENTRY_BYTES;
    bytes.set(guidBytes(region.guid), at);
    bytes.writeBigUInt64LE(BigInt(region.offset), at + 16);
    bytes.writeUInt32LE(region.lengthBytes, at + 24);
    bytes.writeUInt32LE(region.isRequired ? 1 : 0, at + 28);
  }
  bytes.writeUInt32LE(crc32cWithoutField(bytes, CRC_OFFSET), CRC_OFFSET);
  return bytes;
}

function integrityFault(bytes: Uint8Array, source: string, offset: number): BlockferryError | undefined {
  if (bytes.byteLength < REGION_TABLE_BYTES) {
    return vhdxFault('VHDX_REGION', source, offset, 'a region table has 65536 bytes', 'region table is cut short');
  }
  const buffer = asBuffer(bytes);
  if (buffer.toString('latin1', 0, 4) !== SIGNATURE) {
    const rule = 'a region table begins with "regi"';
    return vhdxFault('VHDX_REGION', source, offset, rule, 'region table without signature');
  }
  if (buffer.readUInt32LE(CRC_OFFSET) !== crc32cWithoutField(bytes.subarray(0, REGION_TABLE_BYTES), CRC_OFFSET)) {
    const rule = 'the checksum of a region table is its CRC-32C';
    return vhdxFault('VHDX_REGION', source, offset, rule, 'region table with a wrong checksum');
  }
  return undefined;
}

function parseEntry(reader: ByteReader, source: string, at: number, fileSizeBytes: number): Region {
  const guid = formatGuid(reader.bytes(GUID_BYTES));
  const fileOffset = reader.u64LE();
  const lengthBytes = reader.u32LE();
  const isRequired = (reader.u32LE() & 1) === 1;
  if (isRequired && guid !== REGION_BAT && guid !== REGION_METADATA) {
    const problem = `region ${guid} is required but not known`;
    throw vhdxFault('VHDX_REGION', source, at, 'every required region is known', problem);
  }
  const isPlaced =
    fileOffset >= BigInt(HEADER_SECTION_BYTES) &&
    fileOffset % BigInt(ALLOCATION_BYTES) === 0n &&
    lengthBytes > 0 &&
    lengthBytes % ALLOCATION_BYTES === 0 &&
    fileOffset + BigInt(lengthBytes) <= BigInt(fileSizeBytes);
  if (!isPlaced) {
    const rule = 'a region is whole MiB behind the header section and ends inside the file';
    const problem = `region ${guid} of ${lengthBytes} bytes at ${fileOffset} in a file of ${fileSizeBytes} bytes`;
    throw vhdxFault('VHDX_REGION', source, at, rule, problem);
  }
  return { guid, offset: Number(fileOffset), lengthBytes, isRequired };
}

function known(
  byGuid: ReadonlyMap<string, Region>,
  guid: string,
  name: string,
  maxBytes: number,
  source: string,
  offset: number,
): Region {
  const region = byGuid.get(guid);
  if (!region) {
    const problem = `region table without ${name} region`;
    throw vhdxFault('VHDX_REGION', source, offset, 'a VHDX has a BAT and a metadata region', problem);
  }
  if (region.lengthBytes > maxBytes) {
    const problem = `${name} region of ${region.lengthBytes} bytes`;
    throw vhdxFault('VHDX_REGION', source, offset, `the ${name} region has at most ${maxBytes} bytes`, problem);
  }
  return region;
}
