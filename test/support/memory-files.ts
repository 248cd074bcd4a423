/**
 * A FileSystem in memory: sparse files in 64 KiB pages, so that a test can hold a 64 TiB disk. Everything is durable at
 * once; for crashes see crash-files.ts.
 */
import { dirname, join, resolve } from 'node:path';
import type { DirectoryEntry, FileStamp, FileSystem, RandomAccessFile } from '../../src/ports.ts';

const PAGE_BYTES = 65_536;
/** Files were changed since; how often, counts in nanoseconds. */
const LOADED_NS = BigInt(Date.now()) * 1_000_000n;

/** Content of one file; shared by all its open handles. */
export class MemoryContent {
  readonly pages: Map<number, Uint8Array> = new Map();
  sizeBytes = 0;
  version = 0n;
  readonly id: number;

  constructor(id: number) {
    this.id = id;
  }

  read(into: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(into.byteLength, this.sizeBytes - position));
    for (let done = 0; done < length; ) {
      const at = position + done;
      const inPage = at % PAGE_BYTES;
      const n = Math.min(PAGE_BYTES - inPage, length - done);
      const page = this.pages.get((at - inPage) / PAGE_BYTES);
      const held = page?.subarray(inPage, inPage + n);
      if (held) into.set(held, done);
      into.fill(0, done + (held?.byteLength ?? 0), done + n);
      done += n;
    }
    return length;
  }

  write(from: Uint8Array, position: number): void {
    for (let done = 0; done < from.byteLength; ) {
      const at = position + done;
      const inPage = at % PAGE_BYTES;
      const n = Math.min(PAGE_BYTES - inPage, from.byteLength - done);
      const index = (at - inPage) / PAGE_BYTES;
      this.#page(index, inPage + n).set(from.subarray(done, done + n), inPage);
      done += n;
    }
    this.sizeBytes = Math.max(this.sizeBytes, position + from.byteLength);
    this.version += 1n;
  }

  /** The same file as it is now. */
  copy(): MemoryContent {
    const copy = new MemoryContent(this.id);
    for (const [index, page] of this.pages) copy.pages.set(index, page.slice());
    copy.sizeBytes = this.sizeBytes;
    copy.version = this.version;
    return copy;
  }

  /** A page that holds so much of itself: most files are much smaller than one. */
  #page(index: number, lengthBytes: number): Uint8Array {
    const page = this.pages.get(index);
    if (page && page.byteLength >= lengthBytes) return page;
    const grown = new Uint8Array(Math.min(PAGE_BYTES, Math.max(lengthBytes, 2 * (page?.byteLength ?? 0))));
    if (page) grown.set(page);
    this.pages.set(index, grown);
    return grown;
  }

  truncate(sizeBytes: number): void {
    const last = Math.floor(sizeBytes / PAGE_BYTES);
    for (const index of [...this.pages.keys()]) {
      if (index > last) this.pages.delete(index);
    }
    this.pages.get(last)?.fill(0, sizeBytes % PAGE_BYTES);
    this.sizeBytes = sizeBytes;
    this.version += 1n;
  }
}

class MemoryFile implements RandomAccessFile {
  readonly descriptor = undefined;
  readonly path: string;
  readonly #content: MemoryContent;
  readonly #writable: boolean;

  constructor(path: string, content: MemoryContent, writable: boolean) {
    this.path = path;
    this.#content = content;
    this.#writable = writable;
  }

  async stamp(): Promise<FileStamp> {
    const { sizeBytes, version, id, pages } = this.#content;
    return {
      sizeBytes,
      modifiedNs: LOADED_NS + version,
      identity: `memory:${id}`,
      allocatedBytes: pages.size * PAGE_BYTES,
    };
  }

  async sizeBytes(): Promise<number> {
    return this.#content.sizeBytes;
  }

  async read(into: Uint8Array, position: number): Promise<number> {
    return this.#content.read(into, position);
  }

  async write(from: Uint8Array, position: number): Promise<void> {
    if (!this.#writable) throw errno('EBADF', this.path);
    this.#content.write(from, position);
  }

  async truncate(sizeBytes: number): Promise<void> {
    if (!this.#writable) throw errno('EINVAL', this.path);
    this.#content.truncate(sizeBytes);
  }

  async sync(): Promise<void> {}

  async close(): Promise<void> {}
}

/** An Error as node:fs throws it. */
export function errno(code: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

/** A FileSystem in memory; `put`, `get` and `keep` are for tests. */
export interface MemoryFileSystem extends FileSystem {
  /** Keeps all files as they are now: what it returns brings them back, as often as one likes. */
  keep(): () => void;
  put(path: string, bytes: Uint8Array): void;
  get(path: string): Uint8Array | undefined;
}

export function memoryFileSystem(): MemoryFileSystem {
  const contents = new Map<string, MemoryContent>();
  const directories = new Set<string>(['/']);
  let nextId = 1;

  function addParents(path: string): void {
    for (let d = dirname(path); !directories.has(d); d = dirname(d)) directories.add(d);
  }

  function store(path: string, bytes: Uint8Array): void {
    addParents(path);
    const content = new MemoryContent(nextId++);
    content.write(bytes, 0);
    content.sizeBytes = bytes.byteLength;
    contents.set(path, content);
  }

  function whole(content: MemoryContent): Uint8Array {
    const bytes = new Uint8Array(content.sizeBytes);
    content.read(bytes, 0);
    return bytes;
  }

  return {
    keep() {
      const kept = [...contents].map(([path, content]) => [path, content.copy()] as const);
      const keptDirectories = [...directories];
      return () => {
        contents.clear();
        for (const [path, content] of kept) contents.set(path, content.copy());
        directories.clear();
        for (const path of keptDirectories) directories.add(path);
      };
    },
    put: (path, bytes) => store(resolve(path), bytes),
    get(path) {
      const content = contents.get(resolve(path));
      return content && whole(content);
    },
    async open(name, mode) {
      const path = resolve(name);
      let content = contents.get(path);
      if (mode === 'create') {
        if (content) throw errno('EEXIST', path);
        if (!directories.has(dirname(path))) throw errno('ENOENT', path);
        content = new MemoryContent(nextId++);
        contents.set(path, content);
      }
      if (!content) throw errno('ENOENT', path);
      return new MemoryFile(path, content, mode !== 'read');
    },
    async readSmall(path, maxBytes) {
      const content = contents.get(resolve(path));
      if (!content) return undefined;
      if (content.sizeBytes > maxBytes) throw new RangeError(`${path} is longer than ${maxBytes}`);
      return whole(content);
    },
    async replace(path, bytes) {
      store(resolve(path), bytes);
    },
    async createExclusive(path, bytes) {
      if (contents.has(resolve(path))) return false;
      store(resolve(path), bytes);
      return true;
    },
    async rename(from, to) {
      const content = contents.get(resolve(from));
      if (!content) throw errno('ENOENT', from);
      contents.delete(resolve(from));
      contents.set(resolve(to), content);
    },
    async remove(path) {
      contents.delete(resolve(path));
    },
    async removeTree(path) {
      const root = resolve(path);
      const below = (p: string): boolean => p === root || p.startsWith(`${root}/`);
      for (const p of [...contents.keys()]) if (below(p)) contents.delete(p);
      for (const p of [...directories]) if (below(p)) directories.delete(p);
    },
    async removeEmpty(path) {
      return (await this.list(path)).length === 0 && directories.delete(resolve(path));
    },
    async makeDirectory(path) {
      addParents(join(resolve(path), 'x'));
    },
    async list(path) {
      const prefix = join(resolve(path), '/');
      const entries: DirectoryEntry[] = [];
      const look = (p: string, kind: DirectoryEntry['kind']): void => {
        const isIn = p.startsWith(prefix) && p.length > prefix.length && !p.includes('/', prefix.length);
        if (isIn) entries.push({ name: p.slice(prefix.length), kind });
      };
      for (const p of contents.keys()) look(p, 'file');
      for (const p of directories) look(p, 'directory');
      return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    },
    exists: async (path) => contents.has(resolve(path)) || directories.has(resolve(path)),
    async realPath(path) {
      if (!contents.has(resolve(path)) && !directories.has(resolve(path))) throw errno('ENOENT', path);
      return resolve(path);
    },
    async syncDirectory() {},
    freeBytes: async () => 2 ** 50,
    volumeBytes: async () => 2 ** 50,
    volume: async () => ({ identity: 'memory', kind: 'other' }),
  };
}
