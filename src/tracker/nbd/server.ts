/**
 * NbdServer: serves disks to NBD clients on this machine. The export name is the name of the device; the empty name is the
 * first one.
 *
 * Promises:
 * - Several connections to one disk see one disk: a flush on one covers what was answered on all (CAN_MULTI_CONN).
 * - What clients send, or do not send, or do not read, costs a bounded amount of memory, and never the server.
 * - `close` lets end what is under way.
 *
 * Left out: TLS, passwords (see endpoint.ts), changing the size of a disk, extended headers.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { isPowerOfTwo } from '../../bytes.ts';
import { NBD_CONNECTIONS_MAX, NBD_REQUEST_BYTES_MAX, NBD_STRING_BYTES_MAX } from '../../limits.ts';
import type { Ports } from '../../ports.ts';
import type { BlockDevice } from './block-device.ts';
import { Connection } from './connection.ts';
import { listenAt, type NbdAddress } from './endpoint.ts';
import type { NbdEvent } from './events.ts';
import { ServerMemory } from './memory.ts';
import { violation } from './violation.ts';

export interface NbdServerSetup {
  /** At least one, with different names. They stay the caller's: `close` leaves them open. */
  readonly devices: readonly BlockDevice[];
  readonly ports: Pick<Ports, 'clock' | 'files'>;
  readonly onEvent?: (event: NbdEvent) => void;
}

export class NbdServer {
  readonly #setup: NbdServerSetup;
  readonly #server: Server;
  readonly #memory: ServerMemory;
  readonly #connections: Set<Connection> = new Set();
  #accepted = 0;

  constructor(setup: NbdServerSetup) {
    requireServable(setup.devices);
    this.#setup = setup;
    this.#memory = new ServerMemory(setup.ports.clock, () => this.#relieve());
    this.#server = createServer({ noDelay: true, allowHalfOpen: true, pauseOnConnect: true }, (socket) =>
      this.#accept(socket),
    );
    this.#server.maxConnections = NBD_CONNECTIONS_MAX;
    this.#server.on('drop', () => {
      this.#refuse(`${NBD_CONNECTIONS_MAX} connections are open`);
    });
  }

  /** Starts to serve, and says where. Once. @throws USAGE for an address that is taken, or open to other machines */
  async listen(address: NbdAddress): Promise<NbdAddress> {
    const actual = await listenAt(this.#server, address, this.#setup.ports.files);
    // For want of descriptors, say; the next client may have more luck.
    this.#server.on('error', (error) => this.#refuse(error.message, error));
    return actual;
  }

  /**
   * Takes no more clients and no more requests (they are answered with ESHUTDOWN), answers what is under way, and closes.
   * When it resolves no device is in use any more.
   */
  async close(): Promise<void> {
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const connection of this.#connections) connection.shutDown();
    await Promise.all([...this.#connections].map(({ closed }) => closed));
    await stopped;
    this.#memory.close();
  }

  #accept(socket: Socket): void {
    this.#accepted += 1;
    const connection = new Connection(socket, {
      id: this.#accepted,
      devices: this.#setup.devices,
      memory: this.#memory,
      clock: this.#setup.ports.clock,
      report: (event) => this.#setup.onEvent?.(event),
    });
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
  }

  /** Somebody waits in vain for memory: cuts off the one that holds most of it and leaves its server waiting. */
  #relieve(): void {
    let most: Connection | undefined;
    for (const connection of this.#connections) {
      if (connection.isAwaitingClient && connection.heldBytes > (most?.heldBytes ?? 0)) most = connection;
    }
    most?.drop(violation(`it lets ${most.heldBytes} bytes lie while others wait for memory`));
  }

  #refuse(reason: string, error?: Error): void {
    this.#setup.onEvent?.({ code: 'CLIENT_REFUSED', message: `an NBD client was not let in: ${reason}`, error });
  }
}

/** @throws RangeError for devices that the protocol has no words for */
function requireServable(devices: readonly BlockDevice[]): void {
  if (devices.length === 0) throw new RangeError('there is no device to serve');
  if (new Set(devices.map(({ name }) => name)).size < devices.length) throw new RangeError('two devices have one name');
  for (const { name, sizeBytes, minimumBlockBytes, preferredBlockBytes } of devices) {
    const nameBytes = Buffer.byteLength(name);
    if (nameBytes > NBD_STRING_BYTES_MAX || name.includes('\0')) throw new RangeError('a device has no name for NBD');
    if (!isPowerOfTwo(minimumBlockBytes) || minimumBlockBytes > 65_536) {
      throw new RangeError(`${name}: the smallest block has ${minimumBlockBytes} bytes`);
    }
    const preferredMin = Math.max(512, minimumBlockBytes);
    if (
      !isPowerOfTwo(preferredBlockBytes) ||
      preferredBlockBytes < preferredMin ||
      preferredBlockBytes > NBD_REQUEST_BYTES_MAX
    ) {
      throw new RangeError(`${name}: the preferred block has ${preferredBlockBytes} bytes`);
    }
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0 || sizeBytes % minimumBlockBytes !== 0) {
      throw new RangeError(`${name}: the size is ${sizeBytes} bytes`);
    }
  }
}
