/**
 * What tests of shipped logs share: change logs written by a guest of dice, the disks they leave by the plainest way there
 * is, and shipped logs written and read without a replica around them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Compression, deriveEpochKeys } from '../../src/chunker/index.ts';
import { NIL_GUID } from '../../src/guid.ts';
import { nodePorts } from '../../src/host/index.ts';
import { ChangeLog, coalesceLogs, type LogWrite, LogWriter } from '../../src/hrl/index.ts';
import type { FileSystem, Ports } from '../../src/ports.ts';
import type { Replica, ShippedLog } from '../../src/replica/index.ts';
import { type LogAccess, readShippedLog } from '../../src/replica/shipped-log.ts';
import { planFrames } from '../../src/replica/shipped-log-plan.ts';
import { writeShippedLog } from '../../src/replica/shipped-log-writer.ts';
import { Lanes, openStore, Retry, RetryingStore } from '../../src/transport/index.ts';
import type { WorkerPool, WorkerSetup } from '../../src/workers/index.ts';
import { noise } from '../chunker/support.ts';
import { countRequests } from './counting-store.ts';
import { InProcessPool } from './in-process-pool.ts';
import { memoryFileSystem } from './memory-files.ts';

const CHUNK = 65_536;

export interface LogLabOptions {
  readonly diskBytes: readonly number[];
  readonly compression?: Compression;
  /** Logs without descriptors: their bytes are sent along. */
  readonly inMemory?: boolean;
  readonly replicaId?: Uint8Array;
  readonly threads?: number;
  /** Another store than the one in memory. */
  readonly url?: string;
}

/** Which log is written, and until when. */
export interface WriteOptions {
  readonly seq?: number;
  readonly id?: Uint8Array;
  readonly signal?: AbortSignal;
}

/** A store in memory, disks of some size, and a directory for change logs. */
export class LogLab {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'blockferry-logs-'));
  readonly ports: Ports;
  readonly storeFiles = memoryFileSystem();
  readonly pool: WorkerPool;
  readonly lanes: Lanes;
  readonly #options: LogLabOptions;
  readonly #opened: ChangeLog[] = [];
  /** Runs at every failpoint. */
  onFailpoint: (() => void) | undefined;
  #store: Promise<RetryingStore> | undefined;
  #logs = 0;

  constructor(options: LogLabOptions) {
    this.#options = options;
    const real = nodePorts();
    const files: FileSystem = options.inMemory ? memoryFileSystem() : real.files;
    this.ports = { ...real, files, failpoint: () => this.onFailpoint?.() };
    const setup: WorkerSetup = {
      replicaId: options.replicaId ?? noise(16, 5),
      disks: options.diskBytes.map((virtualSizeBytes, i) => ({
        ...{ guid: noise(16, 6 + i), layout: 'sealed', virtualSizeBytes, chunkBytes: CHUNK },
      })),
      fingerprint: 'xxh128',
      fingerprintKey: noise(32, 8),
      compression: options.compression ?? 'lz4',
      epochs: [deriveEpochKeys(noise(32, 9), 1)],
      currentEpoch: 1,
      checksums: false,
    };
    this.pool = new InProcessPool(setup, { threads: options.threads ?? 2 }) as unknown as WorkerPool;
    this.lanes = new Lanes({ clock: real.clock, limit: 8 });
  }

  /** The store of this lab; its requests are counted. */
  store(): Promise<RetryingStore> {
    const { url = 'file:///store' } = this.#options;
    this.#store ??= openStore(url, { ports: { ...this.ports, files: this.storeFiles } }).then(
      (store) => new RetryingStore(countRequests(store), new Retry(this.ports)),
    );
    return this.#store;
  }

  /** A closed log of these writes, open for reading. */
  async changeLog(writes: Iterable<LogWrite>, previousUniqueId: string = NIL_GUID): Promise<ChangeLog> {
    this.#logs += 1;
    const path = join(this.directory, `disk-${this.#logs}.hrl`);
    await this.ports.files.makeDirectory(this.directory);
    const writer = await LogWriter.create(path, { ports: this.ports, previousUniqueId });
    for (const write of writes) await writer.append([write]);
    await writer.close();
    const log = await ChangeLog.open(path, { ports: this.ports });
    this.#opened.push(log);
    return log;
  }

  /** Ships chains of logs, one per disk. */
  async write(
    chains: readonly (readonly ChangeLog[])[],
    { seq = 1, id = noise(16, 70), signal = new AbortController().signal }: WriteOptions = {},
  ): Promise<ShippedLog | undefined> {
    return writeShippedLog({
      store: await this.store(),
      log: { seq, id },
      frames: planFrames(chains.map((chain) => coalesceLogs(chain))),
      ...{ pool: this.pool, lanes: this.lanes, ports: this.ports, signal },
    });
  }

  /** How logs of this lab are read. */
  access(change: Partial<LogAccess> = {}): LogAccess {
    const { ports, lanes, pool } = this;
    return { ports, lanes, pool, signal: new AbortController().signal, ...change };
  }

  /** What a reader needs of a replica. */
  async replica(): Promise<Replica> {
    const disks = this.#options.diskBytes.map((virtualSizeBytes) => ({ virtualSizeBytes }));
    return { store: await this.store(), description: { disks } } as unknown as Replica;
  }

  /** Plays a shipped log onto disks; returns how many pieces it had. */
  async play(log: ShippedLog, disks: readonly Buffer[], change: Partial<LogAccess> = {}): Promise<number> {
    let pieces = 0;
    for await (const { disk, offset, lengthBytes, bytes } of readShippedLog(
      await this.replica(),
      log,
      this.access(change),
    )) {
      if (bytes) disks[disk]!.set(bytes, offset);
      else disks[disk]!.fill(0, offset, offset + lengthBytes);
      pieces += 1;
    }
    return pieces;
  }

  async close(): Promise<void> {
    for (const log of this.#opened) await log.close();
    await this.pool.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Does to a disk what a write does. */
export function apply(disk: Buffer, write: LogWrite): void {
  if ('bytes' in write) disk.set(write.bytes, write.byteOffset);
  else disk.fill(0, write.byteOffset, write.byteOffset + write.zeroBytes);
}
