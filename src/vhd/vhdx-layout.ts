/**
 * The fixed places, sizes and names of VHDX ([MS-VHDX] 2), and the one way in which its parsers report a broken rule.
 *
 *        0  file identifier: `vhdxfile`, 512 bytes of UTF-16LE creator     (64 KiB)
 *   64 KiB  header 1, 4096 bytes                                          (64 KiB)
 *  128 KiB  header 2                                                      (64 KiB)
 *  192 KiB  region table 1                                                (64 KiB)
 *  256 KiB  region table 2                                                (64 KiB)
 *  320 KiB  reserved, zeros
 *    1 MiB  in any order, in whole MiB: log, metadata region, BAT region, payload and sector bitmap blocks
 *
 * Everything is little-endian. docs/formats/vhdx.md has the byte maps of all structures.
 */
import { KIB, MIB } from '../bytes.ts';
import { BlockferryError, type ErrorCode, type Fact, isBlockferryError } from '../errors.ts';
import type { Findings } from './findings.ts';

export const FILE_SIGNATURE = 'vhdxfile';
export const CREATOR_OFFSET = 8;
export const CREATOR_BYTES = 512;

/** Nothing but headers and region tables may lie below this. */
export const HEADER_SECTION_BYTES: number = 1 * MIB;
/** Log, regions and blocks start and end at multiples of this. */
export const ALLOCATION_BYTES: number = 1 * MIB;
export const HEADER_OFFSETS: readonly [number, number] = [64 * KIB, 128 * KIB];
export const HEADER_BYTES: number = 4 * KIB;
export const REGION_TABLE_OFFSETS: readonly [number, number] = [192 * KIB, 256 * KIB];
export const REGION_TABLE_BYTES: number = 64 * KIB;
export const METADATA_TABLE_BYTES: number = 64 * KIB;

export const BLOCK_BYTES_MIN: number = 1 * MIB;
export const BLOCK_BYTES_MAX: number = 256 * MIB;
/** [MS-VHDX] 2.5: the sector bits of one sector bitmap block, which is 1 MiB. */
export const SECTORS_PER_BITMAP: number = 8 * MIB;

export const REGION_BAT = '2DC27766-F623-4200-9D64-115E9BFD4A08';
export const REGION_METADATA = '8B7CA206-4790-4B9A-B8FE-575F050F886E';

export const ITEM_FILE_PARAMETERS = 'CAA16737-FA36-4D43-B3B6-33F0AA44E76B';
export const ITEM_VIRTUAL_DISK_SIZE = '2FA54224-CD1B-4876-B211-5DBED83BF4B8';
export const ITEM_VIRTUAL_DISK_ID = 'BECA12AB-B2E6-4523-93EF-C309E000C746';
export const ITEM_LOGICAL_SECTOR_SIZE = '8141BF1D-A96F-4709-BA47-F233A8FAAB5F';
export const ITEM_PHYSICAL_SECTOR_SIZE = 'CDA348C7-445D-4471-9CC9-E9885251C556';
export const ITEM_PARENT_LOCATOR = 'A8D35F2D-B30B-454D-ABF7-D3D84834AB0C';
/** Not in the specification, but written by Hyper-V; known so that a required one does not make the disk unreadable. */
export const ITEM_GEOMETRY = 'DA02D7BC-3D3A-423C-AC88-2A36AB21479B';
/** Likewise. */
export const ITEM_PMEM_LABEL_AREA = '10E1AE8A-4B7E-4169-A40F-CD70DE928393';
/** Marks a file whose creation was never finished. */
export const ITEM_INCOMPLETE_FILE = '71CC85F0-1B69-4E28-9558-C3BF83AE75D3';

export const LOCATOR_TYPE_VHDX = 'B04AEFB7-D19E-4A81-B789-25B8E9445913';

/** Whether `firstBytes` (eight or more) begin a VHDX. */
export function isVhdx(firstBytes: Uint8Array): boolean {
  return Buffer.from(firstBytes.subarray(0, FILE_SIGNATURE.length)).toString('latin1') === FILE_SIGNATURE;
}

/**
 * The error for bytes of `source` at `offset` that break `rule`; `found` says what is there instead, with its numbers.
 */
export function vhdxFault(
  code: ErrorCode,
  source: string,
  offset: number,
  rule: string,
  found: string,
  facts: Readonly<Record<string, Fact>> = {},
): BlockferryError {
  const text = `${source}: offset ${offset}: broken rule: ${rule} (found: ${found})`;
  return new BlockferryError(code, text, { facts: { source, offset, rule, found, ...facts } });
}

/** Hands an error of `vhdxFault` to `report`: a Findings method, which throws it or collects it. Throws others on. */
export function reportFault(error: unknown, report: Findings['fault']): void {
  if (!isBlockferryError(error) || error.area !== 'source') throw error;
  const { offset, rule, found } = error.facts;
  const text = typeof rule === 'string' ? `${rule} (found: ${found})` : error.message;
  report(error.code, typeof offset === 'number' ? offset : 0, text);
}
