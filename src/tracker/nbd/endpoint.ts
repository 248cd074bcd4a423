/**
 * Where the server may listen: a Unix socket, or TCP on the loopback. The protocol has no passwords, so nothing else is
 * taken.
 *
 * A socket file that nobody listens on was left by a process that died, and is removed. One that answers is in use, and
 * a file that is no socket is somebody's data; both are refused. Two servers that find the same dead file at the same
 * moment are kept apart by whoever starts them, with a lock.
 */
import { connect, isIPv4, type ListenOptions, type Server } from 'node:net';
import { basename, dirname } from 'node:path';
import { BlockferryError } from '../../errors.ts';
import { SOCKET_PATH_BYTES_MAX } from '../../limits.ts';
import type { FileSystem } from '../../ports.ts';

export type NbdAddress = { readonly path: string } | { readonly host: string; readonly port: number };

/** Lets the server listen, and says where: port 0 has become a real one. @throws USAGE */
export async function listenAt(server: Server, address: NbdAddress, files: FileSystem): Promise<NbdAddress> {
  const options = listenOptions(address);
  try {
    await listen(server, options);
  } catch (error) {
    const { path } = options;
    if (path === undefined || codeOf(error) !== 'EADDRINUSE') throw refused(address, String(error), error);
    await removeDeadSocket(path, files);
    await listen(server, options).catch((again) => {
      throw refused(address, String(again), again);
    });
  }
  const actual = server.address();
  if (actual === null || typeof actual === 'string') return address;
  return { host: actual.address, port: actual.port };
}

/** The address as text, for messages: `unix:PATH` or `HOST:PORT`. */
export function formatAddress(address: NbdAddress): string {
  if ('path' in address) return `unix:${address.path}`;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

function listenOptions(address: NbdAddress): ListenOptions {
  if ('path' in address) {
    const { path } = address;
    const lengthBytes = Buffer.byteLength(path);
    if (path === '' || path.includes('\0')) throw refused(address, 'a socket has a path');
    if (lengthBytes > SOCKET_PATH_BYTES_MAX) {
      throw refused(address, `the path has ${lengthBytes} bytes, above the limit of ${SOCKET_PATH_BYTES_MAX}`);
    }
    return { path };
  }
  const { port } = address;
  // The name is not looked up: who answers for it is nobody's promise.
  const host = address.host === 'localhost' ? '127.0.0.1' : address.host;
  if (host !== '::1' && !(isIPv4(host) && host.startsWith('127.'))) {
    throw refused(address, 'NBD has no passwords: only the loopback is served, as 127.0.0.1 or ::1');
  }
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw refused(address, 'a port is from 0 to 65535');
  return { host, port };
}

function listen(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(options, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** @throws USAGE if the file is no socket, or somebody listens */
async function removeDeadSocket(path: string, files: FileSystem): Promise<void> {
  const name = basename(path);
  const entry = (await files.list(dirname(path))).find((other) => other.name === name);
  if (entry !== undefined && entry.kind !== 'socket')
    throw refused({ path }, 'a file of that name exists, and is no socket');
  if (await answers(path)) throw refused({ path }, 'another server listens there');
  await files.remove(path);
}

/** Whether somebody listens at a socket. Whatever is not a clear no counts as yes. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => resolve(codeOf(error) !== 'ECONNREFUSED' && codeOf(error) !== 'ENOENT'));
  });
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

function refused(address: NbdAddress, reason: string, cause?: unknown): BlockferryError {
  const where = formatAddress(address);
  return new BlockferryError('USAGE', `cannot listen on ${where}: ${reason}`, { facts: { source: where }, cause });
}
