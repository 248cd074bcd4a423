/**
 * A FileSystem for crash tests. It keeps what is durable apart from what is merely written, notes every operation, and
 * makes the image that a power cut after any of them may leave: of the writes that were not synced each is there or not,
 * or in part (512-byte sectors); of the names that were not synced each change is there or not.
 */
import { basename, dirname, resolve } from 'node:path';
import type { FileStamp, FileSystem, Random, RandomAccessFile } from '../../src/ports.ts';
import { errno, type MemoryFileSystem, memoryFileSystem } from './memory-files.ts';

const SECTOR_BYTES = 512;

/** Content of one file: durable bytes and the changes that came after the last sync. */
class Content {
  durable = Buffer.alloc(0);
  current = Buffer.alloc(0);
  pending: ({ readonly position: number; readonly bytes: Buffer } | { readonly sizeBytes: number })[] = [];

  write(bytes: Buffer, position: number): void {
    this.pending.push({ position, bytes });
    this.current = written(this.current, bytes, position);
  }

  truncate(sizeBytes: number): void {
    this.pending.push({ sizeBytes });
    this.current = resized(this.current, sizeBytes);
  }

  sync(): void {
    for (const change of this.pending) {
      if ('sizeBytes' in change) this.durable = resized(this.durable, change.sizeBytes);
      else this.durable = written(this.durable, change.bytes, change.position);
    }
    this.pending = [];
  }

  /** What may be found after a power cut. */
  survivor(random: Random): Buffer {
    let bytes = Buffer.from(this.durable);
    for (const change of this.pending) {
      const fate = random.fraction();
      if (fate < 0.4) continue;
      if ('sizeBytes' in change) bytes = resized(bytes, change.sizeBytes);
      else if (fate < 0.7) bytes = written(bytes, change.bytes, change.position);
      else {
        for (let at = 0; at < change.bytes.byteLength; at += SECTOR_BYTES) {
          const sector = change.bytes.subarray(at, at + SECTOR_BYTES);
          if (random.fraction() < 0.5) bytes = written(bytes, sector, change.position + at);
        }
      }
    }
    return bytes;
  }
}

function resized(bytes: Buffer, sizeBytes: number): Buffer<ArrayBuffer> {
  const next = Buffer.alloc(sizeBytes);
  bytes.copy(next);
  return next;
}

/** `bytes` with the change in it, in place where it fits. */
function written(bytes: Buffer<ArrayBuffer>, change: Buffer, position: number): Buffer<ArrayBuffer> {
  const end = position + change.byteLength;
  const next = end <= bytes.byteLength ? bytes : resized(bytes, end);
  change.copy(next, position);
  return next;
}

export interface CrashFileSystem extends FileSystem {
  /** Operations so far. */
  readonly operations: number;
  /** The operation with this number, and all after it, fail as if the machine had stopped. */
  stopAt: number;
  /** The next sync of a path that matches does nothing: a negative control for one sync among many. */
  skipNextSyncOf: RegExp | undefined;
  /** What a new start finds after a power cut now. */
  powerCut(random: Random): MemoryFileSystem;
}

export interface CrashOptions {
  /** For the negative control: a sync of paths that match does nothing. */
  readonly ignoreSyncOf?: RegExp;
}

/** @param before The disk as it is at the start; all of it is durable. */
export function crashFileSystem(before: ReadonlyMap<string, Uint8Array>, options: CrashOptions = {}): CrashFileSystem {
  const names = new Map<string, Content>();
  const directories = new Set<string>(['/']);
  /** Names as they are on the disk, and the changes per directory that were not synced. */
  const durableNames = new Map<string, Content>();
  let nameChanges: { readonly directory: string; readonly apply: (names: Map<string, Content>) => void }[] = [];
  let operations = 0;
  let stopAt = Number.POSITIVE_INFINITY;

  for (const [path, bytes] of before) {
    const content = new Content();
    content.durable = Buffer.from(bytes);
    content.current = Buffer.from(bytes);
    names.set(path, content);
    durableNames.set(path, content);
    for (let d = dirname(path); !directories.has(d); d = dirname(d)) directories.add(d);
  }

  function step(): void {
    if (operations >= stopAt) throw errno('EPOWER', 'power is off');
    operations += 1;
  }

  function rename(directory: string, apply: (names: Map<string, Content>) => void): void {
    apply(names);
    nameChanges.push({ directory, apply });
  }

  function open(path: string, content: Content): RandomAccessFile {
    return {
      path,
      descriptor: undefined,
      async stamp(): Promise<FileStamp> {
        const sizeBytes = content.current.byteLength;
        return { sizeBytes, modifiedNs: 0n, identity: path, allocatedBytes: sizeBytes };
      },
      sizeBytes: async () => content.current.byteLength,
      async read(into, position) {
        return content.current.copy(into, 0, Math.min(position, content.current.byteLength));
      },
      async write(from, position) {
        step();
        content.write(Buffer.from(from), position);
      },
      writeNow(pieces, position) {
        step();
        content.write(Buffer.concat(pieces), position);
      },
      async truncate(sizeBytes) {
        step();
        content.truncate(sizeBytes);
      },
      async sync() {
        step();
        if (files.skipNextSyncOf?.test(path)) files.skipNextSyncOf = undefined;
        else if (!options.ignoreSyncOf?.test(path)) content.sync();
      },
      async close() {},
    };
  }

  const files: CrashFileSystem = {
    skipNextSyncOf: undefined,
    get operations() {
      return operations;
    },
    get stopAt() {
      return stopAt;
    },
    set stopAt(value) {
      stopAt = value;
    },
    powerCut(random) {
      const image = new Map(durableNames);
      for (const { apply } of nameChanges) {
        if (random.fraction() < 0.5) apply(image);
      }
      const survivors = memoryFileSystem();
      for (const [path, content] of image) survivors.put(path, content.survivor(random));
      return survivors;
    },
    async open(name, mode) {
      const path = resolve(name);
      const known = names.get(path);
      if (mode !== 'create') {
        if (known === undefined) throw errno('ENOENT', path);
        return open(path, known);
      }
      if (known) throw errno('EEXIST', path);
      step();
      const content = new Content();
      rename(dirname(path), (map) => map.set(path, content));
      return open(path, content);
    },
    async readSmall(name, maxBytes) {
      const content = names.get(resolve(name));
      if (content && content.current.byteLength > maxBytes) throw new RangeError(`more than ${maxBytes}`);
      return content && Buffer.from(content.current);
    },
    async replace(name, bytes) {
      const path = resolve(name);
      const temporary = `${path}.temporary`;
      await files.remove(temporary);
      const file = await files.open(temporary, 'create');
      await file.write(bytes, 0);
      await file.sync();
      await files.rename(temporary, path);
      await files.syncDirectory(dirname(path));
    },
    createExclusive: () => Promise.reject(new Error('nothing that may crash uses it')),
    async rename(from, to) {
      step();
      const [a, b] = [resolve(from), resolve(to)];
      const content = names.get(a);
      if (content === undefined) throw errno('ENOENT', a);
      rename(dirname(b), (map) => {
        map.delete(a);
        map.set(b, content);
      });
    },
    async remove(name) {
      const path = resolve(name);
      if (!names.has(path)) return;
      step();
      rename(dirname(path), (map) => map.delete(path));
    },
    async removeTree(name) {
      const path = resolve(name);
      for (const other of [...names.keys()].filter((n) => n.startsWith(`${path}/`))) await files.remove(other);
      directories.delete(path);
    },
    async removeEmpty(name) {
      const path = resolve(name);
      return (await files.list(path)).length === 0 && directories.delete(path);
    },
    async makeDirectory(path) {
      for (let d = resolve(path); !directories.has(d); d = dirname(d)) directories.add(d);
    },
    async list(name) {
      const path = resolve(name);
      const found = new Map<string, 'file' | 'directory'>();
      for (const directory of directories) {
        if (directory !== path && dirname(directory) === path) found.set(basename(directory), 'directory');
      }
      for (const file of names.keys()) {
        if (dirname(file) === path) found.set(basename(file), 'file');
      }
      return [...found].map(([entry, kind]) => ({ name: entry, kind })).sort((a, b) => (a.name < b.name ? -1 : 1));
    },
    exists: async (name) => names.has(resolve(name)) || directories.has(resolve(name)),
    realPath: async (name) => resolve(name),
    async syncDirectory(name) {
      step();
      const path = resolve(name);
      for (const { directory, apply } of nameChanges) {
        if (directory === path) apply(durableNames);
      }
      nameChanges = nameChanges.filter(({ directory }) => directory !== path);
    },
    freeBytes: async () => Number.MAX_SAFE_INTEGER,
    volumeBytes: async () => Number.MAX_SAFE_INTEGER,
    volume: async () => ({ identity: 'memory', kind: 'other' }),
  };
  return files;
}
