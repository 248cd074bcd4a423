/**
 * Parent locators of a differencing VHD: 8 entries of 24 bytes in the dynamic header, big-endian, each pointing to a
 * path elsewhere in the file.
 *
 *   0 (4) platform: `W2ru` relative and `W2ku` absolute Windows path (UTF-16LE, no NUL), `MacX` URL (UTF-8)
 *   4 (4) data space   8 (4) data length in bytes   12 (4) zeros   16 (8) data offset
 *
 * The specification counts data space in sectors, Windows writes bytes; it is used by nobody here: the path has
 * `data length` bytes. Other platforms (`Wi2r`, `Wi2k`, `Mac `) are deprecated and left out. The parent's name in the
 * header is the last resort.
 */
import { ByteReader } from '../bytes.ts';
import { VHD_LOCATOR_BYTES_MAX } from '../limits.ts';
import type { RandomAccessFile } from '../ports.ts';
import type { Findings } from './findings.ts';
import type { ParentPath } from './layer.ts';
import { LOCATORS_OFFSET, type VhdHeader } from './vhd-header.ts';

const LOCATOR_COUNT = 8;
const LOCATOR_BYTES = 24;

/** Where a locator's path stands in the file. */
export interface LocatorPlace {
  readonly platform: string;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Of the locator entry itself. */
  readonly entryOffset: number;
}

/** A path for a new header. */
export interface LocatorFields {
  readonly platform: 'W2ru' | 'W2ku';
  readonly path: string;
  readonly dataOffset: number;
  /** Bytes reserved for the path, as Windows counts. */
  readonly spaceBytes: number;
}

/** The locators in use whose place in the file is sound. */
export function locatorPlaces(header: VhdHeader, fileBytes: number, findings: Findings): readonly LocatorPlace[] {
  const code = 'VHD_LOCATOR';
  const start = header.offset + LOCATORS_OFFSET;
  const reader = new ByteReader(header.locators, { source: findings.source, offset: start, code });
  const places: LocatorPlace[] = [];
  for (let i = 0; i < LOCATOR_COUNT; i += 1) {
    const entryOffset = start + i * LOCATOR_BYTES;
    const platform = Buffer.from(reader.seek(i * LOCATOR_BYTES).bytes(4)).toString('latin1');
    if (platform === '\0\0\0\0') continue;
    const lengthBytes = reader.skip(4).u32BE();
    const offset = reader.skip(4).u64BE();
    if (lengthBytes > VHD_LOCATOR_BYTES_MAX) {
      findings.fault(code, entryOffset + 8, `a parent path has at most ${VHD_LOCATOR_BYTES_MAX} bytes`, {
        lengthBytes,
      });
    } else if (offset + BigInt(lengthBytes) > BigInt(fileBytes)) {
      findings.fault(code, entryOffset + 16, 'a parent path lies inside the file', { offset, lengthBytes, fileBytes });
    } else {
      places.push({ platform, offset: Number(offset), lengthBytes, entryOffset });
    }
  }
  return places;
}

/** The paths that the locators and the header's name give, the name last. */
export async function readParentPaths(
  file: RandomAccessFile,
  header: VhdHeader,
  places: readonly LocatorPlace[],
  findings: Findings,
): Promise<readonly ParentPath[]> {
  const paths: ParentPath[] = [];
  for (const place of places) {
    const bytes = Buffer.alloc(place.lengthBytes);
    await file.read(bytes, place.offset);
    const path = decodePath(place, bytes, findings);
    if (path !== undefined) paths.push(path);
  }
  if (header.parentName !== '') paths.push({ kind: kindOf(header.parentName), path: header.parentName });
  if (paths.length === 0) {
    findings.fault('VHD_LOCATOR', header.offset + LOCATORS_OFFSET, 'a differencing disk names its parent');
  }
  return paths;
}

/** The 192 bytes of up to 8 locators. */
export function buildLocators(locators: readonly LocatorFields[]): Uint8Array {
  const bytes = Buffer.alloc(LOCATOR_COUNT * LOCATOR_BYTES);
  for (const [i, { platform, path, dataOffset, spaceBytes }] of locators.entries()) {
    const at = i * LOCATOR_BYTES;
    bytes.write(platform, at, 'latin1');
    bytes.writeUInt32BE(spaceBytes, at + 4);
    bytes.writeUInt32BE(path.length * 2, at + 8);
    bytes.writeBigUInt64BE(BigInt(dataOffset), at + 16);
  }
  return bytes;
}

function decodePath(place: LocatorPlace, bytes: Buffer, findings: Findings): ParentPath | undefined {
  switch (place.platform) {
    case 'W2ru':
    case 'W2ku': {
      if (bytes.length % 2 !== 0) {
        const facts = { lengthBytes: bytes.length };
        findings.fault('VHD_LOCATOR', place.entryOffset + 8, 'a Windows path has two bytes per unit', facts);
        return undefined;
      }
      const path = withoutNul(bytes.toString('utf16le'));
      return path === '' ? undefined : { kind: place.platform === 'W2ru' ? 'relative' : 'absolute', path };
    }
    case 'MacX': {
      const path = pathOfUrl(withoutNul(bytes.toString('utf8')));
      return path === undefined ? undefined : { kind: kindOf(path), path };
    }
    default:
      return undefined;
  }
}

function kindOf(path: string): 'relative' | 'absolute' {
  return /^([a-z]:)?[\\/]/i.test(path) ? 'absolute' : 'relative';
}

/** `file:///a/b` → `/a/b`, `file://./b` → `./b`; undefined for anything else. */
function pathOfUrl(url: string): string | undefined {
  const match = /^file:\/\/(?:localhost(?=\/))?(.+)$/i.exec(url);
  try {
    return match === null ? undefined : decodeURIComponent(match[1]!);
  } catch {
    return undefined;
  }
}

function withoutNul(text: string): string {
  const end = text.indexOf('\0');
  return end < 0 ? text : text.slice(0, end);
}
