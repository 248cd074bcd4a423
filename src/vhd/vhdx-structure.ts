/**
 * Reads everything a VHDX says of itself, in the order in which one thing makes the next trustworthy: file identifier,
 * current header, log (replayed in memory), region table, metadata, parent locator, block table. Opening and checking
 * share it; they differ in the Findings they bring.
 */
import type { RandomAccessFile } from '../ports.ts';
import type { Findings } from './findings.ts';
import type { LayerContext, ParentLink } from './layer.ts';
import { BAT_ENTRY_BYTES, BlockTable } from './vhdx-bat.ts';
import { SectorBitmaps } from './vhdx-bitmaps.ts';
import { VhdxBytes } from './vhdx-bytes.ts';
import {
  batGeometry,
  type DiskParameters,
  type ItemBytes,
  PARAMETER_ITEM_BYTES,
  parseParameters,
} from './vhdx-geometry.ts';
import { chooseHeader, type LogPlacement, logPlacement, type VhdxHeader } from './vhdx-header.ts';
import {
  FILE_SIGNATURE,
  HEADER_BYTES,
  HEADER_OFFSETS,
  HEADER_SECTION_BYTES,
  ITEM_PARENT_LOCATOR,
  isVhdx,
  METADATA_TABLE_BYTES,
  REGION_TABLE_BYTES,
  REGION_TABLE_OFFSETS,
  reportFault,
  vhdxFault,
} from './vhdx-layout.ts';
import { parseParentLocator } from './vhdx-locator.ts';
import { findActiveSequence } from './vhdx-log.ts';
import { type MetadataItem, parseMetadataTable } from './vhdx-metadata.ts';
import { checkPlacement } from './vhdx-placement.ts';
import { chooseRegionTable, type Region, type RegionTable } from './vhdx-region.ts';
import { replayInMemory } from './vhdx-replay.ts';
import { ReservedSpace } from './vhdx-space.ts';

/** A VHDX whose every structure has been verified. */
export interface VhdxStructure {
  readonly header: VhdxHeader;
  readonly log: LogPlacement;
  readonly bytes: VhdxBytes;
  readonly parameters: DiskParameters;
  /** Present exactly if the disk has a parent. */
  readonly parent: ParentLink | undefined;
  readonly table: BlockTable;
  readonly bitmaps: SectorBitmaps;
}

/** @throws the first fault, if `findings` throws; undefined after one that ends the reading, if it collects. */
export async function readStructure(
  file: RandomAccessFile,
  context: LayerContext,
  findings: Findings,
): Promise<VhdxStructure | undefined> {
  try {
    const raw = await VhdxBytes.of(file);
    const { header, log } = await readHeaders(raw, findings);
    const bytes = log.isActive ? await replay(raw, log) : raw;
    const regions = await readRegions(bytes, findings);
    const space = ReservedSpace.of(log, regions, bytes, file.path);
    const { parameters, parent } = await readMetadata(bytes, regions.metadata, findings);
    const geometry = batGeometry(parameters);
    if (geometry.entries * BAT_ENTRY_BYTES > regions.bat.lengthBytes) {
      const rule = 'the BAT region has room for every block of the disk';
      const found = `BAT region of ${regions.bat.lengthBytes} bytes for ${geometry.entries} entries`;
      throw vhdxFault('VHDX_BAT', file.path, regions.bat.offset, rule, found);
    }
    const table = new BlockTable(bytes, regions.bat.offset, geometry, space, context.tables);
    await checkPlacement(table, bytes.sizeBytes, findings);
    const bitmaps = new SectorBitmaps(bytes, table, context.tables);
    return { header, log, bytes, parameters, parent, table, bitmaps };
  } catch (error) {
    reportFault(error, findings.fault.bind(findings));
    return undefined;
  }
}

async function readHeaders(
  raw: VhdxBytes,
  findings: Findings,
): Promise<{ readonly header: VhdxHeader; readonly log: LogPlacement }> {
  const { path } = raw.file;
  if (!isVhdx(await raw.read(0, FILE_SIGNATURE.length))) {
    throw vhdxFault('VHDX_IDENTIFIER', path, 0, 'a VHDX begins with "vhdxfile"', 'other bytes');
  }
  if (raw.sizeBytes < HEADER_SECTION_BYTES) {
    const rule = `the header section has ${HEADER_SECTION_BYTES} bytes`;
    throw vhdxFault('DISK_TRUNCATED', path, raw.sizeBytes, rule, `file of ${raw.sizeBytes} bytes`);
  }
  const copies = [
    await raw.read(HEADER_OFFSETS[0], HEADER_BYTES),
    await raw.read(HEADER_OFFSETS[1], HEADER_BYTES),
  ] as const;
  const { header, spareFault } = chooseHeader(copies, path);
  if (spareFault) reportFault(spareFault, findings.blemish.bind(findings));
  return { header, log: logPlacement(header, raw.sizeBytes, path) };
}

async function replay(raw: VhdxBytes, log: LogPlacement): Promise<VhdxBytes> {
  const sequence = await findActiveSequence(raw, log, raw.file.path);
  return raw.replayed(await replayInMemory(sequence, raw.file.path));
}

async function readRegions(bytes: VhdxBytes, findings: Findings): Promise<RegionTable> {
  const copies = [
    await bytes.read(REGION_TABLE_OFFSETS[0], REGION_TABLE_BYTES),
    await bytes.read(REGION_TABLE_OFFSETS[1], REGION_TABLE_BYTES),
  ] as const;
  const { table, spareFault } = chooseRegionTable(copies, bytes.file.path, bytes.sizeBytes);
  if (spareFault) reportFault(spareFault, findings.blemish.bind(findings));
  return table;
}

async function readMetadata(
  bytes: VhdxBytes,
  region: Region,
  findings: Findings,
): Promise<{ readonly parameters: DiskParameters; readonly parent: ParentLink | undefined }> {
  const { path } = bytes.file;
  const table = await bytes.read(region.offset, METADATA_TABLE_BYTES);
  const items = parseMetadataTable(table, region, path);
  const parameterItems = new Map<string, ItemBytes>();
  for (const [guid, lengthBytes] of Object.entries(PARAMETER_ITEM_BYTES)) {
    const item = requiredItem(items, guid, region, path);
    if (item.lengthBytes !== lengthBytes) {
      const found = `metadata item ${guid} of ${item.lengthBytes} bytes`;
      throw vhdxFault('VHDX_METADATA', path, item.offset, `this item has ${lengthBytes} bytes`, found);
    }
    parameterItems.set(guid, { bytes: await bytes.read(item.offset, lengthBytes), offset: item.offset });
  }
  const parameters = parseParameters((guid) => parameterItems.get(guid)!, path);
  if (!parameters.hasParent) return { parameters, parent: undefined };
  try {
    const locator = requiredItem(items, ITEM_PARENT_LOCATOR, region, path);
    const parent = parseParentLocator(await bytes.read(locator.offset, locator.lengthBytes), path, locator.offset);
    return { parameters, parent };
  } catch (error) {
    // The blocks can be checked without knowing the parent.
    reportFault(error, findings.fault.bind(findings));
    return { parameters, parent: undefined };
  }
}

function requiredItem(
  items: ReadonlyMap<string, MetadataItem>,
  guid: string,
  region: Region,
  source: string,
): MetadataItem {
  const item = items.get(guid);
  if (item) return item;
  const rule = 'a VHDX has all metadata items that its kind of disk needs';
  throw vhdxFault('VHDX_METADATA', source, region.offset, rule, `no item ${guid}`);
}
