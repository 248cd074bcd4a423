/**
 * A protected item for tests: real files for the disks (workers read them by descriptor), everything else in memory. A
 * failpoint can be armed, and any recovery point read back without the verbs under test.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, utimesSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Session } from '../../src/agent/index.ts';
import { chunkLengthBytes, entryAt } from '../../src/chunker/index.ts';
import { BlockferryError } from '../../src/errors.ts';
import { nodePorts } from '../../src/host/index.ts';
import type { FailpointName, FileSystem, Ports } from '../../src/ports.ts';
import {
  type DiskState,
  FrozenDisk,
  openReplica,
  type Replica,
  type Unlock,
  workerSetup,
} from '../../src/replica/index.ts';
import { Lanes, openStore, Retry, RetryingStore } from '../../src/transport/index.ts';
import { prepareDisks } from '../../src/workers/batch.ts';
import { BufferPool } from '../../src/workers/index.ts';
import { type MemoryFileSystem, memoryFileSystem } from './memory-files.ts';

/** Everything below this path is in memory. */
const MEMORY = '/memory';
export const STORE_URL = 'file:///memory/store';
export const CHUNK = 65_536;

/** Real files, but for what lies below `/memory`. */
function halfInMemory(real: FileSystem, memory: FileSystem): FileSystem {
  const side = (path: string): FileSystem => (path.startsWith(MEMORY) ? memory : real);
  return {
    open: (path, mode) => side(path).open(path, mode),
    readSmall: (path, maxBytes) => side(path).readSmall(path, maxBytes),
    replace: (path, bytes, options) => side(path).replace(path, bytes, options),
    createExclusive: (path, bytes, options) => side(path).createExclusive(path, bytes, options),
    rename: (from, to) => side(from).rename(from, to),
    remove: (path) => side(path).remove(path),
    removeTree: (path) => side(path).removeTree(path),
    removeEmpty: (path) => side(path).removeEmpty(path),
    makeDirectory: (path) => side(path).makeDirectory(path),
    list: (path) => side(path).list(path),
    exists: (path) => side(path).exists(path),
    realPath: (path) => side(path).realPath(path),
    syncDirectory: (path) => side(path).syncDirectory(path),
    freeBytes: (path) => side(path).freeBytes(path),
    volumeBytes: (path) => side(path).volumeBytes(path),
    volume: (path) => side(path).volume(path),
  };
}

/** Which hit of which failpoint fails. */
export interface Fault {
  readonly name: FailpointName;
  readonly hit: number;
}

export class Lab {
  /** A real directory, for disks and outputs. */
  readonly directory: string = mkdtempSync(join(tmpdir(), 'blockferry-lab-'));
  readonly ports: Ports;
  readonly session: Session;
  /** Hits of each failpoint since `arm`. */
  readonly hits: Map<FailpointName, number> = new Map();
  /** Runs at every failpoint, before it fails. */
  onFailpoint: ((name: FailpointName, hit: number) => void | Promise<void>) | undefined;
  readonly #memory: MemoryFileSystem = memoryFileSystem();
  #fault: Fault | undefined;
  #seconds = 1_700_000_000;

  constructor() {
    const real = nodePorts();
    const files = halfInMemory(real.files, this.#memory);
    const lock: Ports['lock'] = async (directory) => ({
      release: async () => {},
      remove: async () => void (await files.removeEmpty(directory)),
    });
    const failpoint = (name: FailpointName): Promise<void> => this.#hit(name);
    this.ports = { ...real, files, lock, failpoint };
    this.session = { ports: this.ports, home: `${MEMORY}/home`, environment: {}, workers: 2 };
  }

  /** Keeps store and home as they are now: what it returns brings them back. The disks are left alone. */
  keep(): () => void {
    return this.#memory.keep();
  }

  /** Lets one hit of a failpoint fail, once; none without a fault. */
  arm(fault?: Fault): void {
    this.hits.clear();
    this.#fault = fault;
  }

  async #hit(name: FailpointName): Promise<void> {
    const hit = (this.hits.get(name) ?? 0) + 1;
    this.hits.set(name, hit);
    await this.onFailpoint?.(name, hit);
    if (this.#fault?.name === name && this.#fault.hit === hit) {
      throw new BlockferryError('FAILPOINT', `failpoint ${name} hit ${hit}`, { facts: { name } });
    }
  }

  /** Writes a disk image; returns its path. */
  disk(name: string, content: Uint8Array): string {
    const path = join(this.directory, name);
    writeFileSync(path, content);
    return this.#touched(path);
  }

  /** Writes a sparse disk image of `chunks` chunks, of which `data` are not holes. */
  sparseDisk(name: string, chunks: number, data: Iterable<readonly [number, Uint8Array]>): string {
    const path = join(this.directory, name);
    const file = openSync(path, 'w');
    ftruncateSync(file, chunks * CHUNK);
    for (const [chunk, bytes] of data) writeSync(file, bytes, 0, bytes.byteLength, chunk * CHUNK);
    closeSync(file);
    return this.#touched(path);
  }

  /** Each write has a time of its own, however fast the test is. */
  #touched(path: string): string {
    this.#seconds += 1;
    utimesSync(path, this.#seconds, this.#seconds);
    return path;
  }

  /** A store of this lab. */
  async store(url: string = STORE_URL): Promise<RetryingStore> {
    const store = await openStore(url, { ports: this.ports });
    return new RetryingStore(store, new Retry(this.ports));
  }

  /** The replica as it is committed, opened by the master key that the home keeps. */
  async replica(): Promise<Replica> {
    return openReplica(await this.store(), await this.unlock('web'), undefined);
  }

  async unlock(item: string): Promise<Unlock> {
    const path = `${this.session.home}/items/${item}/master.key`;
    return { master: (await this.ports.files.readSmall(path, 64))! };
  }

  close(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

const prepared: WeakMap<Replica, ReturnType<typeof prepareDisks>> = new WeakMap();

/** Made once per replica: attacks read one thousands of times. */
function kernels(replica: Replica, { random }: Pick<Ports, 'random'>): ReturnType<typeof prepareDisks> {
  const made = prepared.get(replica) ?? prepareDisks(workerSetup(replica), (n) => random.bytes(n));
  prepared.set(replica, made);
  return made;
}

/** The chunks of a disk that are not zeros: through the manifest and the slots, without restore and its workers. */
export async function* readReplicaChunks(
  replica: Replica,
  disk: number,
  state: DiskState,
  ports: Pick<Ports, 'clock' | 'random'>,
): AsyncGenerator<{ readonly chunk: number; readonly bytes: Uint8Array }> {
  const { signal } = new AbortController();
  const lanes = new Lanes({ clock: ports.clock, limit: 8 });
  const frozen = new FrozenDisk(replica, disk, state, { lanes, ports, signal });
  const { kernel } = (await kernels(replica, ports))[disk]!;
  const geometry = frozen.description;
  const buffers = new BufferPool(4 * geometry.chunkBytes, 1);
  for await (const { fetched } of frozen.batches(frozen.usedChunks(), buffers)) {
    const { chunks, entries, places, buffer } = await fetched;
    for (const [i, chunk] of chunks.entries()) {
      const stored = new Uint8Array(buffer, places[i * 2]!, places[i * 2 + 1]!);
      const bytes = kernel.open(stored, chunk, entryAt(entries, i), chunkLengthBytes(geometry, chunk));
      // What is opened is good until something else is, and others open too before this is taken.
      yield { chunk, bytes: Uint8Array.from(bytes) };
    }
    buffers.release(buffer);
  }
}

/** All bytes of a disk as the replica holds it. */
export async function readReplicaDisk(...arguments_: Parameters<typeof readReplicaChunks>): Promise<Buffer> {
  const [replica, disk] = arguments_;
  const { virtualSizeBytes, chunkBytes } = replica.description.disks[disk]!;
  const content = Buffer.alloc(virtualSizeBytes);
  for await (const { chunk, bytes } of readReplicaChunks(...arguments_)) content.set(bytes, chunk * chunkBytes);
  return content;
}
