/**
 * The control channel of a tracker: one JSON object a line, each way (docs/tracking.md). A request is
 * `{"id":…,"do":…,…}`, its answer `{"id":…,"result":…}` or `{"id":…,"error":…}`. Whoever reaches the socket owns the disks
 * anyway: it lies in the item's directory, for its owner alone.
 */
import { createHash } from 'node:crypto';
import type { Server, Socket } from 'node:net';
import { join } from 'node:path';
import { BlockferryError } from '../errors.ts';
import { CONTROL_LINE_BYTES_MAX, SOCKET_PATH_BYTES_MAX } from '../limits.ts';
import type { FileSystem } from '../ports.ts';
import type { ChunkRun } from '../replica/index.ts';
import type { DiskInfo, Extent } from '../vhd/index.ts';
import type { ClosedLog } from './disk-logs.ts';
import type { TrackerStatus } from './forecast.ts';

/**
 * A range of a disk and where its bytes lie in the disk's files at this moment: an extent, of which `depth` names the file, and
 * bytes in memory are base64.
 */
export type WireExtent =
  | Exclude<Extent, { readonly kind: 'data' | 'memory' }>
  | Omit<Extract<Extent, { readonly kind: 'data' }>, 'file'>
  | (Omit<Extract<Extent, { readonly kind: 'memory' }>, 'bytes'> & { readonly bytes: string });

/** What can be asked for, with what and what comes back. */
export interface ControlCalls {
  readonly status: { readonly takes: object; readonly gives: TrackerStatus };
  readonly rotate: {
    readonly takes: { readonly heads: readonly string[] };
    readonly gives: { readonly timeMs: number; readonly logs: readonly (readonly ClosedLog[])[] };
  };
  /** Brings all writes to rest, for at most so long, until `rotate-held` says at which moment; see held-barrier.ts. */
  readonly hold: {
    readonly takes: { readonly heads: readonly string[]; readonly holdMs: number };
    readonly gives: object;
  };
  readonly 'rotate-held': {
    readonly takes: { readonly timeMs: number };
    readonly gives: { readonly timeMs: number; readonly logs: readonly (readonly ClosedLog[])[] };
  };
  readonly release: { readonly takes: object; readonly gives: object };
  readonly acknowledge: { readonly takes: { readonly heads: readonly string[] }; readonly gives: object };
  readonly 'give-up': { readonly takes: { readonly message: string }; readonly gives: object };
  /** Refuses guest writes, durably, or takes them again. */
  readonly 'stop-writes': { readonly takes: { readonly stopped: boolean }; readonly gives: object };
  readonly 'begin-resync': { readonly takes: { readonly heads: readonly string[] }; readonly gives: object };
  readonly 'end-resync': { readonly takes: { readonly heads: readonly string[] }; readonly gives: object };
  /** A page of a set of chunks, as runs from chunk `from` on: what a begun resync has to look at, or all that may differ. */
  readonly 'dirty-set': {
    readonly takes: { readonly disk: number; readonly from: number; readonly set: 'closed' | 'changed' };
    readonly gives: { readonly runs: readonly ChunkRun[]; readonly next?: number };
  };
  /** What a disk says of itself, without what a change of it may alter. */
  readonly describe: {
    readonly takes: { readonly disk: number };
    readonly gives: { readonly info: DiskInfo; readonly identity: string; readonly contentId: string };
  };
  /** A page of the extents of a range; without `nextOffset` it is the last. */
  readonly extents: {
    readonly takes: { readonly disk: number; readonly offset: number; readonly lengthBytes: number };
    readonly gives: { readonly extents: readonly WireExtent[]; readonly nextOffset?: number };
  };
}

export type ControlName = keyof ControlCalls;

/** Where the tracker of an item listens: a Unix socket in its directory, or on Windows a named pipe. */
export function controlPath(directory: string): string {
  return localSocketPath(directory, 'control.sock');
}

/** Where the disks of an item are served unless its operator says otherwise. */
export function defaultNbdPath(directory: string): string {
  return localSocketPath(directory, 'nbd.sock');
}

/** A Unix socket of that name in the directory; on Windows a named pipe. @throws USAGE where its path is too long */
export function localSocketPath(directory: string, name: string): string {
  if (process.platform === 'win32') {
    const hash = createHash('sha256').update(join(directory, name)).digest('hex').slice(0, 32);
    return `\\\\.\\pipe\\blockferry-${hash}`;
  }
  const path = join(directory, name);
  const lengthBytes = Buffer.byteLength(path);
  if (lengthBytes <= SOCKET_PATH_BYTES_MAX) return path;
  throw new BlockferryError(
    'USAGE',
    `${path}: a socket path has at most ${SOCKET_PATH_BYTES_MAX} bytes, this has ${lengthBytes}`,
    { facts: { path, lengthBytes }, hint: 'choose a shorter --home, or a shorter name for the item' },
  );
}

/** Whoever listens holds a lock, so a socket that lies there is a dead one's. */
export async function listenLocally(server: Server, path: string, files: FileSystem): Promise<void> {
  if (process.platform !== 'win32') await files.remove(path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Calls `onLine` for every line; one that is too long ends the connection. */
export function readLines(
  socket: Socket,
  onLine: (line: string) => void,
  lineBytesMax: number = CONTROL_LINE_BYTES_MAX,
): void {
  let pieces: Buffer[] = [];
  let lengthBytes = 0;
  socket.on('data', (data: Buffer) => {
    let rest = data;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      const line = Buffer.concat([...pieces, rest.subarray(0, end)]).toString('utf8');
      pieces = [];
      lengthBytes = 0;
      rest = rest.subarray(end + 1);
      onLine(line);
    }
    pieces.push(rest);
    lengthBytes += rest.byteLength;
    if (lengthBytes > lineBytesMax) socket.destroy();
  });
}
