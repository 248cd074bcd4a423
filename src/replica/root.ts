/**
 * The root: the commit record of a replica. Replacing it by compare-and-swap is the only commit.
 *
 *     0    8   magic `RROOT1\0\0`
 *     8    4   body length, u32 little-endian
 *     12   n   body, canonical JSON
 *     12+n 32  HMAC-SHA256 under the root key over everything before it
 *
 * Promises: a root that decodes was written by a holder of the key, for this replica description. Says nothing about
 * being the newest: see checkAnchor. Fields: docs/formats/replica.md.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { ByteReader, bytesEqual } from '../bytes.ts';
import type { PageReference } from '../chunker/index.ts';
import { BlockferryError } from '../errors.ts';
import { DISKS_PER_ITEM_MAX, RECOVERY_POINTS_MAX, ROOT_BYTES_MAX } from '../limits.ts';
import { canonicalJson, JsonReader } from './json.ts';

const MAGIC = Buffer.from('RROOT1\0\0', 'latin1');
const HEAD_BYTES = 12;
const MAC_BYTES = 32;
export const ROOT_HASH_BYTES = 32;
/** 64 TiB in 64 KiB chunks has 386 table pages. */
const TABLES_MAX = 512;
const SEGMENTS_MAX = 64;
/** Ranges of suspects in a root. */
export const SUSPECT_RANGES_MAX = 1024;

/** Reference to a table page that exists. */
export interface TableReference extends PageReference {
  readonly page: number;
}

/** A disk as a recovery point has it. Snapshot names are the store's. */
export interface PointDisk {
  readonly tables: readonly TableReference[];
  readonly manifestSnapshot: string;
  /** Snapshot per segment of the base; segments that were never created are missing. */
  readonly baseSnapshots: readonly { readonly segment: number; readonly snapshot: string }[];
}

export interface RecoveryPoint {
  readonly id: string;
  readonly timeMs: number;
  readonly consistency: 'crash' | 'app';
  /** Generation of the root that committed it. */
  readonly generation: number;
  readonly disks: readonly PointDisk[];
}

/** Chunks [from, to) of a disk whose bytes in the live base may not be what their manifest entry says. */
export interface SuspectRange {
  readonly disk: number;
  readonly from: number;
  readonly to: number;
}

/** An unfinished sync. */
export interface SyncState {
  readonly kind: 'initial' | 'resync';
  /** SHA-256 over the stamps of all source files; another one means that nothing compared so far counts. */
  readonly source: Uint8Array;
  /** Disks before this one, and its chunks below `cursor`, are settled. */
  readonly disk: number;
  readonly cursor: number;
  readonly suspect: readonly SuspectRange[];
}

export interface Root {
  readonly generation: number;
  /** SHA-256 of the previous root record; zeros for the first. */
  readonly previous: Uint8Array;
  /** SHA-256 of replica.json. */
  readonly description: Uint8Array;
  readonly keyringCounter: number;
  readonly timeMs: number;
  /** Who wrote it, for people. */
  readonly writer: string;
  /** The live manifest of each disk. */
  readonly disks: readonly { readonly tables: readonly TableReference[] }[];
  /** Oldest first. */
  readonly points: readonly RecoveryPoint[];
  readonly sync?: SyncState;
}

/** A root with its record's hash. */
export interface RootRecord {
  readonly root: Root;
  readonly hash: Uint8Array;
}

/** What a reader remembers of the last root it saw. */
export interface Anchor {
  readonly generation: number;
  readonly hash: Uint8Array;
}

/** SHA-256 of a whole record: how the next root and the anchor name it. */
export function rootHash(record: Uint8Array): Uint8Array {
  return createHash('sha256').update(record).digest();
}

export function encodeRoot(root: Root, rootKey: Uint8Array): Uint8Array {
  const body = Buffer.from(canonicalJson(rootJson(root)));
  const head = Buffer.alloc(HEAD_BYTES);
  MAGIC.copy(head);
  head.writeUInt32LE(body.byteLength, MAGIC.byteLength);
  const mac = createHmac('sha256', rootKey).update(head).update(body).digest();
  return Buffer.concat([head, body, mac]);
}

/** @throws REPLICA_ROOT if the record is not authentic or not of this format. */
export function decodeRoot(record: Uint8Array, rootKey: Uint8Array, source: string): RootRecord {
  const reader = new ByteReader(record, { source, offset: 0, code: 'REPLICA_ROOT' });
  if (!bytesEqual(reader.bytes(MAGIC.byteLength), MAGIC)) throw broken(source, 0, 'magic is RROOT1');
  const length = reader.u32LE();
  if (length !== record.byteLength - HEAD_BYTES - MAC_BYTES || length > ROOT_BYTES_MAX) {
    throw broken(source, MAGIC.byteLength, 'body length agrees with the record');
  }
  const body = reader.bytes(length);
  const mac = createHmac('sha256', rootKey)
    .update(record.subarray(0, HEAD_BYTES + length))
    .digest();
  if (!timingSafeEqual(mac, reader.bytes(MAC_BYTES))) throw broken(source, HEAD_BYTES + length, 'HMAC verifies');
  return { root: readRoot(JsonReader.parse(body, source, 'REPLICA_ROOT')), hash: rootHash(record) };
}

/**
 * Refuses a root that is older than the anchor, or another one of the same generation. A newer root is taken: only a
 * holder of the key can have made it.
 * @throws REPLICA_ROLLED_BACK
 */
export function checkAnchor({ root, hash }: RootRecord, anchor: Anchor, source: string): void {
  if (root.generation > anchor.generation || (root.generation === anchor.generation && bytesEqual(hash, anchor.hash)))
    return;
  throw new BlockferryError(
    'REPLICA_ROLLED_BACK',
    `${source}: generation ${root.generation} is there, generation ${anchor.generation} was seen before`,
    {
      facts: { source, generation: root.generation, anchorGeneration: anchor.generation },
      hint: 'somebody put an older state of the replica back; restore the newer objects, or protect the item anew',
    },
  );
}

function broken(source: string, offset: number, rule: string): BlockferryError {
  return new BlockferryError('REPLICA_ROOT', `${source}: offset ${offset} breaks the rule "${rule}"`, {
    facts: { source, offset, rule },
    hint: 'the root was damaged or changed by somebody without the key; restore it from a copy of the store',
  });
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const tablesJson = (tables: readonly TableReference[]) => tables.map((table) => ({ ...table, tag: hex(table.tag) }));

function rootJson(root: Root) {
  const { generation, keyringCounter, timeMs, writer, sync } = root;
  return {
    generation,
    previous: hex(root.previous),
    description: hex(root.description),
    keyringCounter,
    timeMs,
    writer,
    disks: root.disks.map(({ tables }) => ({ tables: tablesJson(tables) })),
    points: root.points.map((point) => ({
      ...point,
      disks: point.disks.map((disk) => ({
        ...disk,
        tables: tablesJson(disk.tables),
        baseSnapshots: disk.baseSnapshots.map((s) => ({ ...s })),
      })),
    })),
    sync: sync && { ...sync, source: hex(sync.source), suspect: sync.suspect.map((range) => ({ ...range })) },
  };
}

const COUNT_MAX = Number.MAX_SAFE_INTEGER;

function readRoot(json: JsonReader): Root {
  const sync = json.optional('sync');
  return {
    generation: json.field('generation').integer(1, COUNT_MAX),
    previous: json.field('previous').hex(ROOT_HASH_BYTES),
    description: json.field('description').hex(ROOT_HASH_BYTES),
    keyringCounter: json.field('keyringCounter').integer(1, COUNT_MAX),
    timeMs: json.field('timeMs').integer(0, COUNT_MAX),
    writer: json.field('writer').string(),
    disks: json
      .field('disks')
      .list(DISKS_PER_ITEM_MAX)
      .map((disk) => ({ tables: readTables(disk) })),
    points: json.field('points').list(RECOVERY_POINTS_MAX).map(readPoint),
    ...(sync ? { sync: readSync(sync) } : {}),
  };
}

function readTables(json: JsonReader): readonly TableReference[] {
  return json
    .field('tables')
    .list(TABLES_MAX)
    .map((table) => ({
      page: table.field('page').integer(0, TABLES_MAX),
      generation: table.field('generation').integer(1, COUNT_MAX),
      epoch: table.field('epoch').integer(1, 0xffff_ffff),
      copy: table.field('copy').integer(0, 1) as 0 | 1,
      tag: table.field('tag').hex(16),
    }));
}

function readPoint(json: JsonReader): RecoveryPoint {
  return {
    id: json.field('id').string(64),
    timeMs: json.field('timeMs').integer(0, COUNT_MAX),
    consistency: json.field('consistency').oneOf(['crash', 'app']),
    generation: json.field('generation').integer(1, COUNT_MAX),
    disks: json
      .field('disks')
      .list(DISKS_PER_ITEM_MAX)
      .map((disk) => ({
        tables: readTables(disk),
        manifestSnapshot: disk.field('manifestSnapshot').string(256),
        baseSnapshots: disk
          .field('baseSnapshots')
          .list(SEGMENTS_MAX)
          .map((s) => ({
            segment: s.field('segment').integer(0, SEGMENTS_MAX),
            snapshot: s.field('snapshot').string(256),
          })),
      })),
  };
}

function readSync(json: JsonReader): SyncState {
  return {
    kind: json.field('kind').oneOf(['initial', 'resync']),
    source: json.field('source').hex(32),
    disk: json.field('disk').integer(0, DISKS_PER_ITEM_MAX),
    cursor: json.field('cursor').integer(0, COUNT_MAX),
    suspect: json
      .field('suspect')
      .list(SUSPECT_RANGES_MAX)
      .map((range) => ({
        disk: range.field('disk').integer(0, DISKS_PER_ITEM_MAX),
        from: range.field('from').integer(0, COUNT_MAX),
        to: range.field('to').integer(0, COUNT_MAX),
      })),
  };
}
