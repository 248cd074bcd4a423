/**
 * Ports: everything the data plane needs from outside, passed in and never reached for. So the whole system can run
 * under a seeded simulation, and every crash point can be enumerated. src/host holds the implementations for a real
 * machine; test/support holds those for tests.
 */

/** Wall time, monotonic time and waiting. */
export interface Clock {
  /** Unix time in milliseconds; may jump. */
  nowMs(): number;
  /** Milliseconds that never go back; for durations. */
  monotonicMs(): number;
  /** Resolves after `ms`. @throws ABORTED at once when the signal fires. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Randomness. */
export interface Random {
  /** Cryptographically strong bytes. */
  bytes(lengthBytes: number): Uint8Array;
  /** A number in [0, 1) for jitter and sampling. */
  fraction(): number;
}

/** What tells whether a file is still the same one, unchanged. */
export interface FileStamp {
  readonly sizeBytes: number;
  /** Nanoseconds since 1970. */
  readonly modifiedNs: bigint;
  /** Device and inode (or volume and file index), as text. */
  readonly identity: string;
  /** Bytes the file occupies; less than its size where it has holes. */
  readonly allocatedBytes: number;
}

/** An open file. Calls may run concurrently; a write is in the file when its promise resolves, durable after sync. */
export interface RandomAccessFile {
  readonly path: string;
  /** The operating system's descriptor, valid in every thread of the process; undefined for a file in memory. */
  readonly descriptor: number | undefined;
  stamp(): Promise<FileStamp>;
  sizeBytes(): Promise<number>;
  /** Fills `into` from `position`; loops over short reads. Returns less than asked for at the end of the file only. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Writes all of `from`; loops over short writes. */
  write(from: Uint8Array, position: number): Promise<void>;
  /**
   * The same for pieces that stand behind each other, done when it returns: for what the system takes into its cache at once. A
   * thread's way there and back costs ten times such a write. Absent where a file cannot do it.
   */
  writeNow?(pieces: readonly Uint8Array[], position: number): void;
  truncate(sizeBytes: number): Promise<void>;
  /** Makes data and size durable (fdatasync). */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface WriteOptions {
  /** Readable by its owner only (mode 0600; Windows: as the directory says). */
  readonly ownerOnly?: boolean;
}

export interface DirectoryEntry {
  readonly name: string;
  readonly kind: 'file' | 'directory' | 'socket' | 'other';
}

/** What is told of a volume. */
export interface VolumeFacts {
  /** Equal for all paths of one volume, and for no others. */
  readonly identity: string;
  /** `unknown` where the system does not say. */
  readonly kind: 'fat' | 'other' | 'unknown';
}

/**
 * Files of one machine. Errors of the operating system come through unchanged (`error.code` is ENOENT, ENOSPC …):
 * the caller knows what the file means and wraps them.
 */
export interface FileSystem {
  /** `read`: existing, read only. `modify`: existing, read and write. `create`: must not exist yet, read and write. */
  open(path: string, mode: 'read' | 'modify' | 'create'): Promise<RandomAccessFile>;
  /** Whole content. Fails with a RangeError beyond `maxBytes`. undefined if there is no such file. */
  readSmall(path: string, maxBytes: number): Promise<Uint8Array | undefined>;
  /** Replaces the content in one durable step: temporary file, sync, rename, directory sync. */
  replace(path: string, bytes: Uint8Array, options?: WriteOptions): Promise<void>;
  /** Creates the file with this content in one step; false if it exists. */
  createExclusive(path: string, bytes: Uint8Array, options?: WriteOptions): Promise<boolean>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file; no error if it is not there. */
  remove(path: string): Promise<void>;
  /** Removes a directory with all in it; no error if it is not there. */
  removeTree(path: string): Promise<void>;
  /** Removes a directory if nothing is in it, in one step; false if it stays. */
  removeEmpty(path: string): Promise<boolean>;
  makeDirectory(path: string): Promise<void>;
  /** Entries in name order; empty if there is no such directory. */
  list(path: string): Promise<readonly DirectoryEntry[]>;
  exists(path: string): Promise<boolean>;
  /** The path with symbolic links resolved. */
  realPath(path: string): Promise<string>;
  /** Makes names in the directory durable. */
  syncDirectory(path: string): Promise<void>;
  /** Free bytes of the volume that holds `path`. */
  freeBytes(path: string): Promise<number>;
  /** Size of the volume that holds `path`. */
  volumeBytes(path: string): Promise<number>;
  /** The volume that holds `path`. */
  volume(path: string): Promise<VolumeFacts>;
}

/** A named place between two durable steps; does nothing unless armed. */
export type Failpoint = (name: FailpointName) => void | Promise<void>;

/** Every failpoint, in the order of the paths they stand on. Crash tests walk this list. */
export const FAILPOINT_NAMES = [
  'protect.after-claim',
  'protect.after-description',
  'protect.after-keyring',
  'protect.after-blobs',
  'sync.after-fence',
  'sync.after-intent',
  'sync.after-slots',
  'sync.after-pages',
  'sync.after-snapshots',
  'sync.after-root',
  'sync.after-anchor',
  'ship.after-part',
  'ship.after-upload',
  'apply.after-intent',
  'apply.after-slots',
  'apply.after-pages',
  'apply.after-snapshots',
  'mirror.after-intent',
  'mirror.after-slots',
  'mirror.after-pages',
  'mirror.after-snapshots',
  'mirror.after-log',
  'folder.after-undo',
  'folder.after-write',
  'object.after-temporary',
  'restore.after-data',
  'restore.after-logs',
  'restore.after-rename',
  'stage.after-chunks',
  'stage.after-index',
  'stage.after-complete',
  'lay.after-write',
  'lay.after-sync',
  'key.after-keyring',
  'hrl.after-create',
  'hrl.after-block',
  'hrl.after-sync',
  'hrl.after-data',
  'hrl.after-close',
  'planned.after-stop',
  'planned.after-proof',
  'commit.after-tracking',
  'track.before-barrier',
  'track.after-barrier',
  'ship.before-acknowledge',
  'gateway.after-staging',
  'gateway.after-queue',
  'gateway.after-upload',
] as const;

export type FailpointName = (typeof FAILPOINT_NAMES)[number];

/** A lock that a process holds; the end of the process releases it too. */
export interface ProcessLock {
  release(): Promise<void>;
  /** Releases it, and removes its directory unless something else is in it. */
  remove(): Promise<void>;
}

/** All ports together, as the verbs take them. */
export interface Ports {
  readonly clock: Clock;
  readonly random: Random;
  readonly files: FileSystem;
  readonly failpoint: Failpoint;
  /** One process of this machine at a time in `directory`, which must exist. @throws ITEM_LOCKED naming `what`. */
  readonly lock: (directory: string, what: string) => Promise<ProcessLock>;
}
