/**
 * replica.json: what a replica is, readable without a key. Its SHA-256 stands in the root, so that what was changed
 * here is found out before any of it is used. Layout: docs/formats/replica.md.
 */
import { createHash } from 'node:crypto';
import { isPowerOfTwo, SECTOR_BYTES } from '../bytes.ts';
import type { Compression, FingerprintAlgorithm } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, DISK_BYTES_MAX, DISKS_PER_ITEM_MAX } from '../limits.ts';
import { canonicalJson, JsonReader } from './json.ts';

export const FORMAT_NAME = 'blockferry-replica';
export const FORMAT_VERSION = 1;

export type Layout = 'sealed' | 'raw';
export type SectorBytes = 512 | 4096;

/** One disk of a replica. */
export interface DiskDescription {
  /** `d0`, `d1` …: its directory in the store. */
  readonly id: string;
  /** 16 random bytes that stand in every AAD of this disk. */
  readonly guid: Uint8Array;
  readonly virtualSizeBytes: number;
  readonly logicalSectorBytes: SectorBytes;
  readonly physicalSectorBytes: SectorBytes;
  readonly chunkBytes: number;
  readonly layout: Layout;
  /** File name of the source without its directory, for the name of a restored disk. */
  readonly name: string;
}

export interface ReplicaDescription {
  /** 16 random bytes that stand in every AAD of this replica. */
  readonly replicaId: Uint8Array;
  readonly item: string;
  readonly createdMs: number;
  readonly fingerprint: FingerprintAlgorithm;
  readonly compression: Compression;
  readonly disks: readonly DiskDescription[];
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export function encodeDescription(description: ReplicaDescription): Uint8Array {
  const { replicaId, item, createdMs, fingerprint, compression } = description;
  const disks = description.disks.map((disk) => ({ ...disk, guid: hex(disk.guid) }));
  const body = { replicaId: hex(replicaId), item, createdMs, fingerprint, compression, disks };
  return Buffer.from(`${canonicalJson({ format: FORMAT_NAME, version: FORMAT_VERSION, ...body })}\n`);
}

/** SHA-256 of the encoded description, as it stands in the root. */
export function descriptionHash(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

/** @throws REPLICA_DESCRIPTION if it is not a description this version understands. */
export function decodeDescription(bytes: Uint8Array, source: string): ReplicaDescription {
  const json = JsonReader.parse(bytes, source, 'REPLICA_DESCRIPTION');
  if (json.field('format').string() !== FORMAT_NAME) json.fail(`format is "${FORMAT_NAME}"`);
  const version = json.field('version').integer(0, Number.MAX_SAFE_INTEGER);
  if (version !== FORMAT_VERSION) {
    throw new BlockferryError(
      'REPLICA_DESCRIPTION',
      `${source}: format version ${version}, this program reads ${FORMAT_VERSION}`,
      {
        facts: { source, version },
        hint: 'use the version of blockferry that wrote the replica, or a newer one',
      },
    );
  }
  return {
    replicaId: json.field('replicaId').hex(16),
    item: json.field('item').string(128),
    createdMs: json.field('createdMs').integer(0, Number.MAX_SAFE_INTEGER),
    fingerprint: json.field('fingerprint').oneOf(['xxh64', 'xxh128', 'sha256']),
    compression: json.field('compression').oneOf(['none', 'lz4', 'zstd']),
    disks: json.field('disks').list(DISKS_PER_ITEM_MAX).map(decodeDisk),
  };
}

function decodeDisk(json: JsonReader, index: number): DiskDescription {
  const chunkBytes = json.field('chunkBytes').integer(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
  if (!isPowerOfTwo(chunkBytes)) json.fail('chunkBytes is a power of two');
  const virtualSizeBytes = json.field('virtualSizeBytes').integer(SECTOR_BYTES, DISK_BYTES_MAX);
  if (virtualSizeBytes % SECTOR_BYTES !== 0) json.fail('virtualSizeBytes is a multiple of 512');
  const id = json.field('id').string(16);
  if (id !== `d${index}`) json.fail(`id is d${index}`);
  const sector = (key: string): SectorBytes => {
    const bytes = json.field(key).integer(512, 4096);
    return bytes === 512 || bytes === 4096 ? bytes : json.fail(`${key} is 512 or 4096`);
  };
  return {
    id,
    guid: json.field('guid').hex(16),
    virtualSizeBytes,
    logicalSectorBytes: sector('logicalSectorBytes'),
    physicalSectorBytes: sector('physicalSectorBytes'),
    chunkBytes,
    layout: json.field('layout').oneOf(['sealed', 'raw']),
    name: decodeName(json.field('name')),
  };
}

/** The name becomes a file name at restore: no separators, no control characters, nothing hidden or relative. */
function decodeName(json: JsonReader): string {
  const name = json.string(255);
  return isSafeFileName(name) ? name : json.fail('is a plain file name');
}

/** Whether `name` can be a file name on every host without meaning anything else. */
export function isSafeFileName(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it looks for
  return name.length > 0 && name.length <= 255 && !/[/\\:*?"<>|\u0000-\u001f]/.test(name) && !/^\.|[. ]$/.test(name);
}
