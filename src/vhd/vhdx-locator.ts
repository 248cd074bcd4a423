/**
 * The parent locator of a differencing VHDX ([MS-VHDX] 2.6.2.6): how the file names its parent.
 *
 *   0 (16) type, the VHDX one           entry k at 20 + 12 k:
 *  16  (2) reserved                       0 (4) key offset      8 (2) key length
 *  18  (2) entry count, 1 to 256          4 (4) value offset   10 (2) value length
 *
 * Offsets count from the start of the item; text is UTF-16LE without NUL. Keys: `parent_linkage` (the parent's
 * DataWriteGuid), `parent_linkage2` (a second one while a merge is under way; Windows writes a nil GUID, which means
 * none), and the paths. Paths are untrusted and stand as the file has them.
 */
import { asBuffer, ByteReader } from '../bytes.ts';
import { BlockferryError } from '../errors.ts';
import { formatGuid, GUID_BYTES, guidBytes, NIL_GUID, normalizeGuid } from '../guid.ts';
import { VHDX_LOCATOR_PAIRS_MAX } from '../limits.ts';
import type { ParentLink, ParentPath } from './layer.ts';
import { LOCATOR_TYPE_VHDX, vhdxFault } from './vhdx-layout.ts';

const PAIRS_OFFSET = 20;
const PAIR_BYTES = 12;
/** The length fields are u16, and UTF-16 text has even lengths. */
const TEXT_BYTES_MAX = 0xfffe;
export const LINK_ID_PREFIX = 'vhdx:';
const KEY_LINKAGE = 'parent_linkage';
const KEY_LINKAGE_2 = 'parent_linkage2';
const PATH_KEYS: ReadonlyMap<string, ParentPath['kind']> = new Map([
  ['relative_path', 'relative'],
  ['volume_path', 'volume'],
  ['absolute_win32_path', 'absolute'],
]);

/** What a layer answers as `linkId`, so that a VHDX is never taken for the VHD that a child names. */
export function linkIdOf(dataWriteGuid: string): string {
  return `${LINK_ID_PREFIX}${dataWriteGuid}`;
}

/** Item bytes → parent link. `offset` is that of the item in the file. @throws VHDX_LOCATOR */
export function parseParentLocator(bytes: Uint8Array, source: string, offset: number): ParentLink {
  const values = parsePairs(bytes, source, offset);
  const linkIds: string[] = [];
  for (const key of [KEY_LINKAGE, KEY_LINKAGE_2]) {
    const text = values.get(key);
    if (text === undefined) continue;
    const guid = normalizeGuid(text);
    if (guid === undefined) {
      throw vhdxFault('VHDX_LOCATOR', source, offset, `${key} is a GUID`, `parent locator with ${key} ${quote(text)}`);
    }
    if (guid !== NIL_GUID) linkIds.push(linkIdOf(guid));
  }
  if (linkIds.length === 0) {
    const problem = 'parent locator without parent_linkage';
    throw vhdxFault('VHDX_LOCATOR', source, offset, 'a parent locator has parent_linkage', problem);
  }
  const paths: ParentPath[] = [];
  for (const [key, path] of values) {
    const kind = PATH_KEYS.get(key);
    if (kind !== undefined && path !== '') paths.push({ kind, path });
  }
  if (paths.length === 0) {
    throw vhdxFault('VHDX_LOCATOR', source, offset, 'a parent locator has a path', 'parent locator without a path');
  }
  return { paths, linkIds, sameSize: false };
}

/** How a new child names its parent. */
export interface NewLocator {
  readonly parentDataWriteGuid: string;
  readonly relativePath: string;
  readonly absolutePath: string;
}

/** Names → item bytes. */
export function encodeParentLocator(locator: NewLocator): Uint8Array {
  const pairs = [
    [KEY_LINKAGE, `{${locator.parentDataWriteGuid.toLowerCase()}}`],
    ['relative_path', locator.relativePath],
    ['absolute_win32_path', locator.absolutePath],
  ] as const;
  const texts = pairs.map(([key, value]) => [Buffer.from(key, 'utf16le'), Buffer.from(value, 'utf16le')] as const);
  for (const [, value] of texts) {
    if (value.byteLength > TEXT_BYTES_MAX) {
      const problem = `a parent path of ${value.byteLength} bytes does not fit into a parent locator`;
      throw new BlockferryError('UNSUPPORTED', `${problem}, which holds ${TEXT_BYTES_MAX} at most`);
    }
  }
  const textBytes = texts.reduce((sum, [key, value]) => sum + key.byteLength + value.byteLength, 0);
  const bytes = Buffer.alloc(PAIRS_OFFSET + pairs.length * PAIR_BYTES + textBytes);
  bytes.set(guidBytes(LOCATOR_TYPE_VHDX), 0);
  bytes.writeUInt16LE(pairs.length, 18);
  let textOffset = PAIRS_OFFSET + pairs.length * PAIR_BYTES;
  for (const [i, [key, value]] of texts.entries()) {
    const at = PAIRS_OFFSET + i * PAIR_BYTES;
    bytes.writeUInt32LE(textOffset, at);
    bytes.writeUInt32LE(textOffset + key.byteLength, at + 4);
    bytes.writeUInt16LE(key.byteLength, at + 8);
    bytes.writeUInt16LE(value.byteLength, at + 10);
    bytes.set(key, textOffset);
    bytes.set(value, textOffset + key.byteLength);
    textOffset += key.byteLength + value.byteLength;
  }
  return bytes;
}

/** Untrusted text for a message: escaped, and cut to a length that people read. */
function quote(text: string): string {
  return JSON.stringify(text.slice(0, 80));
}

function parsePairs(bytes: Uint8Array, source: string, offset: number): ReadonlyMap<string, string> {
  const reader = new ByteReader(bytes, { source, offset, code: 'VHDX_LOCATOR' });
  const type = formatGuid(reader.bytes(GUID_BYTES));
  if (type !== LOCATOR_TYPE_VHDX) {
    throw vhdxFault('VHDX_LOCATOR', source, offset, 'the parent is a VHDX', `parent locator of type ${type}`);
  }
  const count = reader.skip(2).u16LE();
  if (count < 1 || count > VHDX_LOCATOR_PAIRS_MAX) {
    const rule = `a parent locator has 1 to ${VHDX_LOCATOR_PAIRS_MAX} entries`;
    throw vhdxFault('VHDX_LOCATOR', source, offset + 18, rule, `parent locator claims ${count} entries`);
  }
  const values = new Map<string, string>();
  for (let i = 0; i < count; i += 1) {
    const at = PAIRS_OFFSET + i * PAIR_BYTES;
    reader.seek(at);
    const keyOffset = reader.u32LE();
    const valueOffset = reader.u32LE();
    const keyBytes = reader.u16LE();
    const valueBytes = reader.u16LE();
    if ((keyOffset | valueOffset | keyBytes | valueBytes) & 1) {
      const problem = `parent locator entry ${i} with an odd offset or length`;
      throw vhdxFault('VHDX_LOCATOR', source, offset + at, 'UTF-16 text lies at even offsets', problem);
    }
    const key = asBuffer(reader.seek(keyOffset).bytes(keyBytes)).toString('utf16le');
    const value = asBuffer(reader.seek(valueOffset).bytes(valueBytes)).toString('utf16le');
    if (values.has(key)) {
      throw vhdxFault(
        'VHDX_LOCATOR',
        source,
        offset + at,
        'a key occurs once',
        `second parent locator key ${quote(key)}`,
      );
    }
    values.set(key, value);
  }
  return values;
}
