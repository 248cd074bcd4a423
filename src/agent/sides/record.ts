/**
 * What a home remembers of disks that were brought back: `failover.json` while they wait for commit or cancel, and
 * `tests.json` for test failovers, both in the item's directory and replaced atomically (docs/life.md).
 */
import { join } from 'node:path';
import { DISKS_PER_ITEM_MAX } from '../../limits.ts';
import type { FileSystem } from '../../ports.ts';
import { canonicalJson, JsonReader, SIDE_BYTES } from '../../replica/index.ts';
import type { DiskFormat } from '../../vhd/index.ts';
import { type LocalItem, readKeySources } from '../local-state.ts';
import type { KeySource } from '../types.ts';

const RECORD_BYTES_MAX = 1 << 20;
const TESTS_MAX = 1000;
const COUNT_MAX = Number.MAX_SAFE_INTEGER;

/** A disk that was brought back. */
export interface BroughtDisk {
  readonly path: string;
  readonly format: DiskFormat;
  /** What its files said of themselves when it was complete: tells whether it was written since. '' before. */
  readonly stamp: string;
}

/** Disks that wait for `commit` or `cancel`. */
export interface FailoverRecord {
  readonly kind: 'failover' | 'failback';
  /** The owner has stopped, and this is all it had. */
  readonly planned: boolean;
  /** They are written; else a run that makes them was killed, or goes on. */
  readonly isComplete: boolean;
  /** A commit was begun: only that one, run again, knows what became of it. */
  readonly isCommitting: boolean;
  /** The disks were there before and stay, whatever becomes of this. */
  readonly inPlace: boolean;
  /** The disks of this home were the owner's. */
  readonly fromOurs: boolean;
  /** Where the replica is, and what opens it; no keys: as the item of this home says. */
  readonly url: string;
  readonly keys: readonly KeySource[];
  readonly point: { readonly id: string; readonly timeMs: number };
  /** The owner's epoch, and the generation of the newest point, when the disks were made. */
  readonly epoch: number;
  readonly newestGeneration: number;
  readonly disks: readonly BroughtDisk[];
  /** The side that they become at commit. */
  readonly side: Uint8Array;
  readonly sinceMs: number;
}

/** A file of a test failover. */
export interface TestDisk {
  readonly path: string;
  /** Which file it was when it was complete, as its stamp says; '' before. Another one under its name is not ours. */
  readonly identity: string;
}

/** Files of a test failover. */
export interface TestRecord {
  readonly pointId: string;
  readonly disks: readonly TestDisk[];
  readonly isComplete: boolean;
  readonly sinceMs: number;
}

export async function loadFailover(item: LocalItem, files: FileSystem): Promise<FailoverRecord | undefined> {
  const json = await readJson(join(item.directory, 'failover.json'), files);
  if (!json) return undefined;
  const point = json.field('point');
  return {
    kind: json.field('kind').oneOf(['failover', 'failback']),
    planned: json.field('planned').boolean(),
    isComplete: json.field('isComplete').boolean(),
    isCommitting: json.field('isCommitting').boolean(),
    inPlace: json.field('inPlace').boolean(),
    fromOurs: json.field('fromOurs').boolean(),
    url: json.field('url').string(4096),
    keys: readKeySources(json.field('keys')),
    point: { id: point.field('id').string(64), timeMs: point.field('timeMs').integer(0, COUNT_MAX) },
    epoch: json.field('epoch').integer(1, COUNT_MAX),
    newestGeneration: json.field('newestGeneration').integer(1, COUNT_MAX),
    disks: json
      .field('disks')
      .list(DISKS_PER_ITEM_MAX)
      .map((disk) => ({
        path: disk.field('path').string(4096),
        format: disk.field('format').oneOf(['raw', 'vhd', 'vhdx']),
        stamp: disk.field('stamp').string(256),
      })),
    side: json.field('side').hex(SIDE_BYTES),
    sinceMs: json.field('sinceMs').integer(0, COUNT_MAX),
  };
}

/** For its owner alone: the URL of a store may carry a SAS. */
export async function saveFailover(item: LocalItem, record: FailoverRecord, files: FileSystem): Promise<void> {
  const body = {
    ...record,
    point: { ...record.point },
    keys: record.keys.map((key) => ({ ...key })),
    disks: record.disks.map((disk) => ({ ...disk })),
    side: Buffer.from(record.side).toString('hex'),
  };
  await files.makeDirectory(item.directory);
  await files.replace(join(item.directory, 'failover.json'), encode(body), { ownerOnly: true });
}

export async function removeFailover(item: LocalItem, files: FileSystem): Promise<void> {
  await files.remove(join(item.directory, 'failover.json'));
}

/** Test failovers whose files are still there, oldest first. */
export async function loadTests(item: LocalItem, files: FileSystem): Promise<readonly TestRecord[]> {
  const json = await readJson(join(item.directory, 'tests.json'), files);
  if (!json) return [];
  return json
    .field('tests')
    .list(TESTS_MAX)
    .map((test) => ({
      pointId: test.field('pointId').string(64),
      disks: test
        .field('disks')
        .list(DISKS_PER_ITEM_MAX)
        .map((disk) => ({ path: disk.field('path').string(4096), identity: disk.field('identity').string(256) })),
      isComplete: test.field('isComplete').boolean(),
      sinceMs: test.field('sinceMs').integer(0, COUNT_MAX),
    }));
}

export async function saveTests(item: LocalItem, tests: readonly TestRecord[], files: FileSystem): Promise<void> {
  const path = join(item.directory, 'tests.json');
  if (tests.length === 0) return files.remove(path);
  await files.makeDirectory(item.directory);
  const body = {
    tests: tests.slice(-TESTS_MAX).map((test) => ({ ...test, disks: test.disks.map((disk) => ({ ...disk })) })),
  };
  await files.replace(path, encode(body));
}

async function readJson(path: string, files: FileSystem): Promise<JsonReader | undefined> {
  const bytes = await files.readSmall(path, RECORD_BYTES_MAX);
  return bytes && JsonReader.parse(bytes, path, 'LOCAL_STATE');
}

function encode(body: Parameters<typeof canonicalJson>[0]): Uint8Array {
  return Buffer.from(`${canonicalJson(body)}\n`);
}
