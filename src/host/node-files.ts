/**
 * The FileSystem port on a real machine, over node:fs.
 *
 * Durable names: `replace` and `createExclusive` sync the file and then its directory. Windows cannot open a
 * directory for syncing; NTFS journals names by itself, so there it is left out.
 */
import * as fs from 'node:fs';
import {
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
  statfs,
  unlink,
} from 'node:fs/promises';
import { dirname } from 'node:path';
import type { DirectoryEntry, FileStamp, FileSystem, RandomAccessFile, WriteOptions } from '../ports.ts';

/** As Linux names them in statfs: vfat and exfat. */
const FAT_TYPES: readonly number[] = [0x4d44, 0x2011bab0];

const OPEN_FLAGS = { read: 'r', modify: 'r+', create: 'wx+' } as const;

const TEMPORARY_SUFFIX = '.tmp';
const TEMPORARY = /\.(\d+)-\d+\.tmp$/;

class NodeFile implements RandomAccessFile {
  readonly path: string;
  readonly #handle: FileHandle;

  constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  get descriptor(): number {
    return this.#handle.fd;
  }

  async stamp(): Promise<FileStamp> {
    const stat = await this.#handle.stat({ bigint: true });
    return {
      sizeBytes: Number(stat.size),
      modifiedNs: stat.mtimeNs,
      identity: `${stat.dev}:${stat.ino}`,
      allocatedBytes: Number(stat.blocks) * 512,
    };
  }

  async sizeBytes(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    let done = 0;
    while (done < into.byteLength) {
      const { bytesRead } = await this.#handle.read(into, done, into.byteLength - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  async write(from: Uint8Array, position: number): Promise<void> {
    let done = 0;
    while (done < from.byteLength) {
      const { bytesWritten } = await this.#handle.write(from, done, from.byteLength - done, position + done);
      done += bytesWritten;
    }
  }

  writeNow(pieces: readonly Uint8Array[], position: number): void {
    const { fd } = this.#handle;
    let written = pieces.length > 1 ? fs.writevSync(fd, pieces, position) : 0;
    // One piece, or the rest of a short write.
    let from = position;
    for (const piece of pieces) {
      let done = Math.min(written, piece.byteLength);
      written -= done;
      while (done < piece.byteLength) done += fs.writeSync(fd, piece, done, piece.byteLength - done, from + done);
      from += piece.byteLength;
    }
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.#handle.truncate(sizeBytes);
  }

  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

function isCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && codes.includes((error as NodeJS.ErrnoException).code ?? '');
}

let temporaryCounter = 0;

/** A name beside `path` that no other process and no other call uses. */
function temporaryName(path: string): string {
  temporaryCounter += 1;
  return `${path}.${process.pid}-${temporaryCounter}${TEMPORARY_SUFFIX}`;
}

/** The process that made the temporary file of this name; undefined if it is none. */
export function temporaryOwner(name: string): number | undefined {
  const match = TEMPORARY.exec(name);
  return match ? Number(match[1]) : undefined;
}

async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes and syncs a temporary file, then hands its name to `publish`; removes it whatever happens. */
async function writeThen(
  path: string,
  bytes: Uint8Array,
  options: WriteOptions,
  publish: (temporary: string) => Promise<void>,
): Promise<void> {
  const temporary = temporaryName(path);
  try {
    const handle = await open(temporary, 'wx', options.ownerOnly ? 0o600 : 0o666);
    try {
      await handle.writeFile(bytes);
      await handle.datasync();
    } finally {
      await handle.close();
    }
    await publish(temporary);
  } finally {
    await rm(temporary, { force: true });
  }
  await syncDirectory(dirname(path));
}

function entryKind(entry: fs.Dirent): DirectoryEntry['kind'] {
  if (entry.isFile()) return 'file';
  if (entry.isDirectory()) return 'directory';
  return entry.isSocket() ? 'socket' : 'other';
}

/** The file system of this machine. */
export function nodeFileSystem(): FileSystem {
  return {
    async open(path, mode) {
      return new NodeFile(path, await open(path, OPEN_FLAGS[mode]));
    },
    async readSmall(path, maxBytes) {
      let handle: FileHandle;
      try {
        handle = await open(path, 'r');
      } catch (error) {
        if (isCode(error, 'ENOENT', 'ENOTDIR')) return undefined;
        throw error;
      }
      try {
        const { size } = await handle.stat();
        if (size > maxBytes) throw new RangeError(`${path} has ${size} bytes, more than ${maxBytes}`);
        return await handle.readFile();
      } finally {
        await handle.close();
      }
    },
    replace: (path, bytes, options = {}) => writeThen(path, bytes, options, (temporary) => rename(temporary, path)),
    async createExclusive(path, bytes, options = {}) {
      try {
        await writeThen(path, bytes, options, (temporary) => link(temporary, path));
        return true;
      } catch (error) {
        if (isCode(error, 'EEXIST')) return false;
        throw error;
      }
    },
    rename: (from, to) => rename(from, to),
    async remove(path) {
      try {
        await unlink(path);
      } catch (error) {
        if (!isCode(error, 'ENOENT', 'ENOTDIR')) throw error;
      }
    },
    removeTree: (path) => rm(path, { recursive: true, force: true }),
    async removeEmpty(path) {
      try {
        await rmdir(path);
        return true;
      } catch (error) {
        if (isCode(error, 'ENOENT', 'ENOTDIR', 'ENOTEMPTY', 'EEXIST')) return false;
        throw error;
      }
    },
    async makeDirectory(path) {
      await mkdir(path, { recursive: true });
    },
    async list(path) {
      try {
        const entries = await readdir(path, { withFileTypes: true });
        return entries
          .map((entry) => ({ name: entry.name, kind: entryKind(entry) }))
          .sort((a, b) => (a.name < b.name ? -1 : 1));
      } catch (error) {
        if (isCode(error, 'ENOENT', 'ENOTDIR')) return [];
        throw error;
      }
    },
    exists: async (path) => fs.existsSync(path),
    realPath: (path) => realpath(path),
    syncDirectory,
    async freeBytes(path) {
      const { bavail, bsize } = await statfs(path);
      return bavail * bsize;
    },
    async volumeBytes(path) {
      const { blocks, bsize } = await statfs(path);
      return blocks * bsize;
    },
    async volume(path) {
      const [{ dev }, { type }] = await Promise.all([stat(path), statfs(path)]);
      return { identity: String(dev), kind: type === 0 ? 'unknown' : FAT_TYPES.includes(type) ? 'fat' : 'other' };
    },
  };
}
