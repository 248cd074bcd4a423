/** What the tests of dirty maps share: a small disk, maps over files that count what is done to them. */

import type { FileSystem, RandomAccessFile } from '../../src/ports.ts';
import type { DirtyMap, DirtyMapOptions, DirtySet } from '../../src/tracker/dirty-map.ts';

export const PATH = '/state/d0.map';
export const CHUNK = 65_536;
export const RECORD_CHUNKS = 1344;
export const PAGE_CHUNKS = 10_752;
export const GUID: Uint8Array = Uint8Array.from({ length: 16 }, (_, i) => i + 1);

/** A disk of two pages and a part of a third; its last chunk is cut short. */
export const CHUNKS: number = PAGE_CHUNKS * 2 + 100;
export const DISK_BYTES: number = CHUNKS * CHUNK - 512;

export function optionsFor(files: FileSystem, change: Partial<DirtyMapOptions> = {}): DirtyMapOptions {
  return { sizeBytes: DISK_BYTES, chunkBytes: CHUNK, diskGuid: GUID, ports: { files }, ...change };
}

/** The chunks of a set, one by one. */
export function chunksOf(map: DirtyMap, set: DirtySet, from?: number): number[] {
  const chunks: number[] = [];
  for (const run of map.runs(set, from)) for (let chunk = run.from; chunk < run.to; chunk += 1) chunks.push(chunk);
  return chunks;
}

/** A write of whole chunks, from its beginning to its end. */
export async function write(map: DirtyMap, chunk: number, count = 1): Promise<void> {
  const { epoch } = map;
  try {
    await map.begin(chunk * CHUNK, count * CHUNK);
  } finally {
    map.end(epoch);
  }
}

export async function sweep(map: DirtyMap, times = 1): Promise<void> {
  for (let i = 0; i < times; i += 1) await map.settle(async () => {});
}

/** What was done to the files that were opened for writing. */
export interface Traffic {
  writes: number;
  writtenBytes: number;
  syncs: number;
  reads: number;
  /** If it returns a promise, the sync waits for it. */
  beforeSync: () => Promise<void> | void;
  /** Fails the next write or sync. */
  failNext: 'write' | 'sync' | undefined;
}

/** Counts from now on what is done through `files`. */
export function observe(files: FileSystem): Traffic {
  const traffic: Traffic = {
    ...{ writes: 0, writtenBytes: 0, syncs: 0, reads: 0 },
    beforeSync: () => {},
    failNext: undefined,
  };
  const fail = (what: 'write' | 'sync'): void => {
    if (traffic.failNext !== what) return;
    traffic.failNext = undefined;
    throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
  };
  const open = files.open.bind(files);
  files.open = async (path, mode) => {
    const file = await open(path, mode);
    const watched: Partial<RandomAccessFile> = {
      async read(into, position) {
        traffic.reads += 1;
        return await file.read(into, position);
      },
      async write(from, position) {
        fail('write');
        traffic.writes += 1;
        traffic.writtenBytes += from.byteLength;
        await file.write(from, position);
      },
      async sync() {
        fail('sync');
        traffic.syncs += 1;
        await traffic.beforeSync();
        await file.sync();
      },
    };
    return Object.assign(Object.create(file), watched, {
      path,
      sizeBytes: () => file.sizeBytes(),
      truncate: (sizeBytes: number) => file.truncate(sizeBytes),
      close: () => file.close(),
    });
  };
  return traffic;
}
